#!/usr/bin/env python3
"""Writes the lists of crates that BitBake fetches for the agent and the worker, from Cargo.lock.

usage: crates.py [--check]

--check writes nothing and fails if a list is not what it would write.

A list holds every crate that Cargo.lock reaches from that program, with tests and other systems: cargo resolves them
all before it builds one, and stops where one is missing. What only other members of the workspace want is left out.
"""
import pathlib
import sys
import tomllib

TREE = pathlib.Path(__file__).resolve().parents[2]
RECIPES = pathlib.Path("yocto/meta-headwater/recipes-headwater/headwater")
LISTS = {"headwater-agent-crates.inc": "headwater-agent", "headwater-worker-crates.inc": "headwater-pipelines"}


def reached(lock, root):
    """The packages of `lock` that `root` reaches, itself too, by name and version."""
    by_name = {}
    for package in lock["package"]:
        by_name.setdefault(package["name"], []).append(package)

    def find(dependency):
        # `name`, or `name version` where there are several, or `name version (source)`.
        name, *version = dependency.split()
        found = [package for package in by_name[name] if not version or package["version"] == version[0]]
        if len(found) != 1:
            raise SystemExit(f"crates: Cargo.lock has {len(found)} packages for '{dependency}'")
        return found[0]

    seen, open_ = {}, [find(root)]
    while open_:
        package = open_.pop()
        key = (package["name"], package["version"])
        if key not in seen:
            seen[key] = package
            open_ += [find(dependency) for dependency in package.get("dependencies", [])]
    return [seen[key] for key in sorted(seen)]


def listing(lock, root):
    """The text of one list. The registry's host is the build's own: see HEADWATER_CRATES."""
    crates = [package for package in reached(lock, root) if "source" in package]
    for crate in crates:
        if not crate["source"].startswith("registry+") or "checksum" not in crate:
            raise SystemExit(f"crates: {crate['name']} does not come from a registry; BitBake has to be told how to fetch it")
    lines = ["# Written by yocto/scripts/crates.py from Cargo.lock. Do not change by hand: `make yocto-crates`.", 'SRC_URI += "\\']
    lines += [f"    crate://${{HEADWATER_CRATES}}/{crate['name']}/{crate['version']} \\" for crate in crates]
    lines += ['"', ""]
    lines += [f'SRC_URI[{crate["name"]}-{crate["version"]}.sha256sum] = "{crate["checksum"]}"' for crate in crates]
    return "\n".join(lines) + "\n"


def main(arguments, tree=TREE):
    if arguments not in ([], ["--check"]):
        raise SystemExit(__doc__)
    lock = tomllib.loads((tree / "Cargo.lock").read_text())
    stale = []
    for name, root in LISTS.items():
        path, text = tree / RECIPES / name, listing(lock, root)
        if arguments:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        raise SystemExit(f"crates: {', '.join(stale)} does not match Cargo.lock: run `make yocto-crates` and commit the result")


if __name__ == "__main__":
    main(sys.argv[1:])
