#!/usr/bin/env python3
"""What the recipes say of the tree that they build is what the tree says: versions, the agent's user, its units.

usage: tree.py
"""
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import parse


def sysusers(texts):
    """Home and groups by user, from the lines of sysusers.d files."""
    users = {}
    for words in (shlex.split(line, comments=True) for text in texts for line in text.splitlines()):
        if words and words[0] == "u":
            users[words[1]] = {"home": words[4] if len(words) > 4 else "-", "groups": set()}
        elif words and words[0] == "m":
            users[words[1]]["groups"].add(words[2])
    return users


def useradd(parameters):
    """The same, from USERADD_PARAM."""
    users = {}
    for one in filter(str.strip, parameters.split(";")):
        words = shlex.split(one)
        option = {words[at]: words[at + 1] for at in range(len(words) - 1)}
        users[words[-1]] = {"home": option.get("--home-dir", "-"), "groups": set(filter(None, option.get("--groups", "").split(",")))}
    return users


def enabled(dist):
    """The units of a folder that can be enabled."""
    return {path.name for path in dist.iterdir() if path.suffix in (".service", ".socket", ".path", ".timer", ".target", ".mount")
            and re.search(r"^\[Install\]$", path.read_text(), re.MULTILINE)}


def faults(tree, recipes):
    version = tomllib.loads((tree / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for name in ("headwater-agent", "headwater-worker"):
        if recipes[name]["PV"] != version:
            yield f"{name} is {recipes[name]['PV']}, the workspace {version}: rename the recipe"
    agent, dist = recipes["headwater-agent"], tree / "agent/dist"
    theirs, ours = sysusers(path.read_text() for path in sorted(dist.glob("*.sysusers"))), useradd(agent["USERADD_PARAM:headwater-agent"])
    if theirs != ours:
        yield f"USERADD_PARAM makes {ours}, agent/dist has {theirs}"
    units = set(agent["SYSTEMD_SERVICE:headwater-agent"].split())
    if units != enabled(dist):
        yield f"SYSTEMD_SERVICE enables {sorted(units)}, in agent/dist can be enabled {sorted(enabled(dist))}"


def main():
    if len(sys.argv) != 1:
        raise SystemExit(__doc__)
    asked = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("parse.py"), "wrynose", "qemuarm64", "core"],
                           capture_output=True, text=True)
    if asked.returncode:
        raise SystemExit("tree: the recipes do not parse")
    found = list(faults(parse.LAYER.parents[1], json.loads(asked.stdout.splitlines()[-1])["recipes"]))
    for fault in found:
        print(f"tree: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
