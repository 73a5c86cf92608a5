#!/usr/bin/env python3
"""Fetches, unpacks and configures the agent and the worker with BitBake's own code, and asks cargo whether the crates are
all there: every crate of the list with its checksum, none from the network.

usage: crates.py CACHE        the folder with .crate files that `cargo fetch` has filled
"""
import logging
import os
import pathlib
import subprocess
import sys
import tomllib

import parse

RECIPES = ("headwater-agent", "headwater-worker")


def packages(lock):
    return {(package["name"], package["version"], package.get("checksum")) for package in tomllib.loads(lock)["package"]}


def run(d, bb, task):
    """Runs a task of shell as BitBake would, and returns what it said if it failed."""
    script = pathlib.Path(d.getVar("WORKDIR")) / f"run.{task}"
    with open(script, "w") as file:
        bb.data.emit_func(task, file, d)
        file.write(f"cd '{d.getVar('B')}'\n{task}\n")
    done = subprocess.run(["sh", "-e", script], capture_output=True, text=True)
    return [f"{task} failed: {done.stderr.strip()[-1500:]}"] if done.returncode else []


def faults(bb, builder, file, cache):
    d = builder.parseRecipeVariants(file, [])[""]
    d.setVar("BB_NO_NETWORK", "1")
    downloads = pathlib.Path(d.getVar("DL_DIR"))
    for folder in (downloads, pathlib.Path(d.getVar("B")), pathlib.Path(d.getVar("UNPACKDIR"))):
        folder.mkdir(parents=True, exist_ok=True)
    for crate in cache.glob("*.crate"):
        if not (downloads / crate.name).exists():
            (downloads / crate.name).symlink_to(crate)
    fetch = bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d)
    fetch.download()
    fetch.unpack(d.getVar("UNPACKDIR"))
    failed = run(d, bb, "do_configure")
    if failed:
        return failed
    manifest = d.getVar("CARGO_MANIFEST_PATH")
    asked = subprocess.run(["cargo", "metadata", "--frozen", "--format-version", "1", "--manifest-path", manifest],
                           env={**os.environ, "CARGO_HOME": d.getVar("CARGO_HOME")}, capture_output=True, text=True)
    if asked.returncode:
        return [f"cargo does not find all it wants: {asked.stderr.strip()[-1500:]}"]
    cut, whole = pathlib.Path(manifest).with_name("Cargo.lock").read_text(), (parse.LAYER.parents[1] / "Cargo.lock").read_text()
    return [f"{name} {version} is not the one of Cargo.lock" for name, version, _ in packages(cut) - packages(whole)]


def main(arguments):
    if len(arguments) != 1:
        raise SystemExit(__doc__)
    cache, bad = pathlib.Path(arguments[0]).resolve(), 0
    heard = parse.Heard()
    logging.getLogger("BitBake").addHandler(heard)
    for name in RECIPES:
        found = []
        try:
            with parse.build("wrynose", "qemuarm64", ["core"]) as (bb, builder):
                file = next(parse.LAYER.glob(f"recipes-*/*/{name}_*.bb"))
                found = faults(bb, builder, str(file), cache)
        except (Exception, SystemExit) as error:
            found = [f"{type(error).__name__}: {error}"]
        for fault in found + heard.said:
            print(f"crates: {name}: {fault}", file=sys.stderr)
        print(f"crates: {name}: {'as cargo wants them' if not found else 'not as cargo wants them'}")
        bad += bool(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
