#!/usr/bin/env python3
"""Parses meta-headwater with BitBake's own parser, on stand-ins for the layers below it.

usage: parse.py                         every combination of COMBINATIONS; prints what does not hold
       parse.py SERIES MACHINE LAYERS   one of them; prints what the recipes came out as, as JSON

LAYERS is a list such as core,rauc,tegra. HEADWATER_LAYER names another meta-headwater, for tests.
"""
import concurrent.futures
import contextlib
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import types

HERE = pathlib.Path(__file__).resolve().parent
LAYER = pathlib.Path(os.environ.get("HEADWATER_LAYER") or HERE.parent / "meta-headwater").resolve()
COMBINATIONS = [
    ("wrynose", "qemuarm64", "core"),
    ("wrynose", "qemuarm64", "core,rauc"),
    ("wrynose", "jetson-orin-nano-devkit", "core,tegra"),
    ("wrynose", "jetson-orin-nano-devkit", "core,rauc,tegra"),
    ("scarthgap", "qemuarm64", "core,rauc"),
    ("scarthgap", "jetson-orin-nano-devkit", "core,rauc,tegra"),
]
SHOWN = [
    "PN", "PV", "S", "SRC_URI", "DEPENDS", "IMAGE_INSTALL", "IMAGE_FSTYPES", "WKS_FILE", "SYSTEMD_SERVICE:{pn}", "RDEPENDS:{pn}",
    "USERADD_PARAM:{pn}", "CARGO_BUILD_FLAGS", "RAUC_BUNDLE_COMPATIBLE", "HEADWATER_COMPATIBLE", "HEADWATER_MEMBERS",
    "HEADWATER_DATA_PARTITION", "USE_REDUNDANT_FLASH_LAYOUT", "do_configure", "do_install", "FILESPATH",
]


def configuration(folder, machine, layers):
    """conf/bblayers.conf and conf/local.conf as a user gets them: from the layer's templates."""
    template = LAYER / "conf/templates/headwater"
    (folder / "conf").mkdir()
    # Their layers are where the stand-ins are; Jetson's is added as the template says.
    text = (template / "bblayers.conf.sample").read_text()
    text = text.replace('#BBLAYERS += "##OEROOT##/../meta-tegra"', 'BBLAYERS += "##OEROOT##/../meta-tegra"' if "tegra" in layers else "")
    for theirs, ours in [("##OEROOT##/meta ", f"{HERE}/layers/core "), ("##OEROOT##/../headwater/yocto/meta-headwater", str(LAYER)),
                         ("##OEROOT##/../meta-tegra", f"{HERE}/layers/tegra"),
                         ("##OEROOT##/../meta-rauc", f"{HERE}/layers/rauc" if "rauc" in layers else "")]:
        if theirs not in text and "tegra" not in theirs:
            raise SystemExit(f"parse: the template of bblayers.conf does not have {theirs}")
        text = text.replace(theirs, ours)
    (folder / "conf/bblayers.conf").write_text(text)
    local = (template / "local.conf.sample").read_text()
    # What scripts/keys.sh makes; the default of HEADWATER_KEYS.
    (folder / "headwater-keys").mkdir()
    (folder / "headwater-keys/ca.cert.pem").touch()
    (folder / "conf/local.conf").write_text(f'MACHINE = "{machine}"\n' + local)


class Heard(logging.Handler):
    """Whatever BitBake warns of is something to mend."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        cause = f": {record.exc_info[1]}" if record.exc_info and record.exc_info[1] else ""
        self.said.append(record.getMessage().strip() + cause)


def bitbake():
    """BitBake's package, without its servers for hashes and for versions, which are not in it."""
    for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
        module = types.ModuleType(name)
        module.__getattr__ = lambda attribute: type(attribute, (), {})
        sys.modules[name] = module
    import bb.cookerdata
    import bb.cooker
    return bb


def shell_faults(name, body):
    checked = subprocess.run(["sh", "-n"], input=body, text=True, capture_output=True)
    return [f"{name} is not shell: {checked.stderr.strip()}"] if checked.returncode else []


def fetch_faults(bb, d):
    """Every source is one that BitBake's fetchers understand, is pinned, and is there where it is a local file."""
    faults = []
    fetch = bb.fetch2.Fetch((d.getVar("SRC_URI") or "").split(), d)
    for url in fetch.urls:
        source = fetch.ud[url]
        if source.type == "file":
            source.setup_localpath(d)
            if not source.localpath or not os.path.exists(source.localpath):
                faults.append(f"{url} is not in {d.getVar('FILESPATH')}")
        elif source.type == "git":
            if not re.fullmatch("[0-9a-f]{40}", source.revision):
                faults.append(f"{url} has no revision")
        elif not getattr(source, "sha256_expected", None):
            faults.append(f"{url} has no sha256sum")
        elif ".invalid/" in source.url or not re.match(r"https://[^/]+/", source.url):
            faults.append(f"{url} has no host: {source.url}")
    return faults


def recipe_faults(bb, d):
    """What is wrong with one parsed recipe."""
    faults = []
    for name in d.keys():
        if name.startswith("__") or name in ("BB_ORIGENV",):
            continue
        flags = d.getVarFlags(name, internalflags=False) or {}
        value = d.getVar(name, True)
        if flags.get("func") and not flags.get("python") and isinstance(value, str) and "${@" not in value:
            faults += shell_faults(name, value)
    return faults + fetch_faults(bb, d) + wipe_faults(d)


def wipe_faults(d):
    """A task that empties the folder its sources are in, as B is where a recipe does not say otherwise."""
    sources = pathlib.Path(d.getVar("S"))
    faults = []
    for task in d.getVar("__BBTASKS", False) or []:
        for wiped in (d.getVarFlag(task, "cleandirs") or "").split():
            if task not in ("do_fetch", "do_unpack") and (sources == pathlib.Path(wiped) or pathlib.Path(wiped) in sources.parents):
                faults.append(f"{task} empties {wiped}, where the sources are")
    return faults


def names(text):
    """The names of a list of dependencies, without versions."""
    return re.sub(r"\([^)]*\)", " ", text or "").split()


@contextlib.contextmanager
def build(series, machine, layers):
    """BitBake with one combination's configuration read, in a folder of its own."""
    bb = bitbake()
    with tempfile.TemporaryDirectory(prefix="headwater-yocto-") as folder:
        folder = pathlib.Path(folder).resolve()
        configuration(folder, machine, layers)
        os.chdir(folder)
        options = bb.cookerdata.CookerConfiguration()
        options.env = {"CHECK_SERIES": series, "PATH": os.environ["PATH"], "BB_ENV_PASSTHROUGH": "CHECK_SERIES PATH"}
        os.environ.update(options.env)
        try:
            builder = bb.cookerdata.CookerDataBuilder(options)
            builder.parseBaseConfiguration()
            yield bb, builder
        finally:
            os.chdir("/")


def one(series, machine, layers):
    """Parses one combination. Returns what came out by recipe, and what is wrong."""
    heard = Heard()
    logging.getLogger("BitBake").addHandler(heard)
    shown, faults = {}, []
    try:
        with build(series, machine, layers) as (bb, builder):
            shown, faults = recipes(bb, builder)
    # BitBake leaves by SystemExit too, and by whatever a recipe's own Python raises.
    except (Exception, SystemExit) as error:
        faults.append(f"{type(error).__name__}: {error}")
    return shown, faults + heard.said


def recipes(bb, builder):
    data = builder.data
    bb.cooker.collectlog.setLevel(logging.WARNING)
    patterns = [(c, data.getVar(f"BBFILE_PATTERN_{c}"), re.compile(data.getVar(f"BBFILE_PATTERN_{c}")), 0)
                for c in data.getVar("BBFILE_COLLECTIONS").split()]
    collector = bb.cooker.CookerCollectFiles(patterns)
    files = collector.collect_bbfiles(data, data)[0]
    shown, faults, provided, wanted = {}, [], set(), {}
    known = {os.path.basename(file) for file in files}
    for base, append in collector.bbappends:
        if not any(collector.get_file_appends(file) and append in collector.get_file_appends(file) for file in files):
            faults.append(f"{append} has no recipe {base}")
    for file in files:
        d = builder.parseRecipeVariants(file, collector.get_file_appends(file))[""]
        name = d.getVar("PN")
        skipped = d.getVar("__SKIPPED", False)
        if skipped:
            faults.append(f"{name} is skipped: {skipped}")
            continue
        provided |= {name, *names(d.getVar("PROVIDES")), *names(d.getVar("PACKAGES")), *names(d.getVar(f"RPROVIDES:{name}"))}
        if str(LAYER) in file or collector.get_file_appends(file):
            faults += [f"{name}: {fault}" for fault in recipe_faults(bb, d)]
            wanted[name] = {want for variable in ("DEPENDS", f"RDEPENDS:{name}", f"RRECOMMENDS:{name}", "IMAGE_INSTALL", "RAUC_SLOT_rootfs")
                            for want in names(d.getVar(variable))}
            shown[name] = {key.format(pn=name): d.getVar(key.format(pn=name)) for key in SHOWN if d.getVar(key.format(pn=name))}
    for name, wants in wanted.items():
        for want in sorted(wants - provided):
            if want.startswith("headwater"):
                faults.append(f"{name} wants {want}, which nothing provides")
    if not known:
        faults.append("there are no recipes at all")
    return shown, faults


def main(arguments):
    if len(arguments) == 3:
        shown, faults = one(*arguments[:2], arguments[2].split(","))
        print(json.dumps({"recipes": shown, "faults": faults}))
        return 1 if faults else 0
    if arguments:
        raise SystemExit(__doc__)

    def run(combination):
        done = subprocess.run([sys.executable, __file__, *combination], capture_output=True, text=True, timeout=120)
        if not done.stdout:
            return combination, {}, [done.stderr.strip()[-2000:]]
        answer = json.loads(done.stdout.splitlines()[-1])
        return combination, answer["recipes"], answer["faults"]

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for combination, shown, faults in pool.map(run, COMBINATIONS):
            for fault in faults:
                print(f"parse: {' '.join(combination)}: {fault}", file=sys.stderr)
            print(f"parse: {' '.join(combination)}: {len(shown)} recipes of ours, {len(faults)} faults")
            bad += bool(faults)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
