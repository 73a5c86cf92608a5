"""What the agent's recipe installs beside the program: all that agent/dist has, each where it belongs."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

YOCTO = pathlib.Path(__file__).resolve().parents[1]
DIST = YOCTO.parent / "agent/dist"
UNITS = dict.fromkeys((".service", ".socket", ".path", ".timer"), "/usr/lib/systemd/system/{name}")
PLACES = {**UNITS, ".sysusers": "/usr/lib/sysusers.d/{stem}.conf",
          ".tmpfiles": "/usr/lib/tmpfiles.d/{stem}.conf", ".toml": "/etc/headwater/{name}"}

# In a process of its own: BitBake's package changes the whole of it. Crates are left out, nothing is built.
INSTALL = """
import pathlib, shutil, sys
import parse, crates
with parse.build("wrynose", "qemuarm64", ["core"]) as (bb, builder):
    d = builder.parseRecipeVariants(str(next(parse.LAYER.glob("recipes-*/*/headwater-agent_*.bb"))), [])[""]
    for name in ("B", "UNPACKDIR", "D"):
        pathlib.Path(d.getVar(name)).mkdir(parents=True, exist_ok=True)
    fetch = bb.fetch2.Fetch([url for url in d.getVar("SRC_URI").split() if url.startswith("file://")], d)
    fetch.unpack(d.getVar("UNPACKDIR"))
    program = pathlib.Path(d.getVar("B"), "target", d.getVar("CARGO_TARGET_SUBDIR"), "headwater-agent")
    program.parent.mkdir(parents=True)
    program.write_bytes(b"built")
    program.chmod(0o755)
    failed = crates.run(d, bb, "do_install")
    if failed:
        raise SystemExit(failed)
    shutil.copytree(d.getVar("D"), sys.argv[1])
"""


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name, "root")
        made = subprocess.run([sys.executable, "-c", INSTALL, cls.root], env={**os.environ, "PYTHONPATH": str(YOCTO / "check")},
                              capture_output=True, text=True, timeout=120)
        if made.returncode:
            raise AssertionError(made.stdout + made.stderr)

    def at(self, path):
        return self.root / path.lstrip("/")

    def test_the_program_is_where_its_unit_starts_it(self):
        self.assertEqual(self.at("/usr/bin/headwater-agent").read_bytes(), b"built")
        self.assertIn("ExecStart=/usr/bin/headwater-agent run", self.at("/usr/lib/systemd/system/headwater-agent.service").read_text())

    def test_every_file_of_dist_has_a_place_and_is_the_same_there(self):
        for path in DIST.iterdir():
            if path.is_file():
                place = PLACES[path.suffix].format(name=path.name, stem=path.stem)
                self.assertEqual(self.at(place).read_bytes(), path.read_bytes(), place)

    def test_what_images_with_two_slots_do_otherwise_comes_along(self):
        for path in DIST.glob("image/*.d/*.conf"):
            self.assertEqual(self.at(f"/usr/lib/systemd/system/{path.parent.name}/{path.name}").read_bytes(), path.read_bytes())


if __name__ == "__main__":
    unittest.main()
