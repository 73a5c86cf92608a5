#!/usr/bin/env python3
"""Prints where BitBake gets crates on a machine whose cargo uses a mirror: a line for conf/local.conf.

usage: registry.py >> conf/local.conf

Reads `[source.crates-io] replace-with` of cargo's configuration and asks that index where its crates are, as cargo
does. Prints nothing where there is no mirror: the recipes then use the registry that Cargo.lock names.
"""
import json
import os
import pathlib
import sys
import tomllib
import urllib.request

TIMEOUT_SECONDS = 30


def sources(home):
    for name in ("config.toml", "config"):
        path = home / name
        if path.exists():
            return tomllib.loads(path.read_text()).get("source", {})
    return {}


def index(sources):
    """The URL of the index that replaces the usual one, or None."""
    name, passed = "crates-io", []
    while "replace-with" in sources.get(name, {}):
        if name in passed:
            raise SystemExit(f"registry: cargo's configuration replaces '{name}' with itself")
        passed.append(name)
        name = sources[name]["replace-with"]
    if name == "crates-io":
        return None
    found = sources.get(name, {}).get("registry", "")
    if not found.startswith("sparse+"):
        raise SystemExit(f"registry: source '{name}' of cargo's configuration is not a sparse registry; set HEADWATER_CRATES by hand")
    return found.removeprefix("sparse+").rstrip("/") + "/"


def place(download):
    """What the crate fetcher calls the place, from the index's template for downloads."""
    scheme, _, rest = download.partition("://")
    if scheme != "https":
        raise SystemExit(f"registry: crates come by {scheme}, and BitBake fetches them by https")
    rest = rest.removesuffix("/").removesuffix("/{crate}/{version}/download")
    if "{" in rest:
        raise SystemExit("registry: this mirror names its files in a way that BitBake cannot; use PREMIRRORS instead")
    return rest


def main():
    if len(sys.argv) != 1:
        raise SystemExit(__doc__)
    home = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    url = index(sources(home))
    if url:
        with urllib.request.urlopen(url + "config.json", timeout=TIMEOUT_SECONDS) as answer:
            print(f'HEADWATER_CRATES = "{place(json.load(answer)["dl"])}"')


if __name__ == "__main__":
    main()
