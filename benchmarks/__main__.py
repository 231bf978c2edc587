"""Run benchmarks, write their results and render docs/explanation/performance.md.

python -m benchmarks                      # all that run on this machine, each in its own process
python -m benchmarks startup exchange     # some
python -m benchmarks epoch --quick        # a smoke run: tiny sizes, nothing is written
python -m benchmarks --render             # only render the document from the results at hand
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys

from benchmarks import render
from benchmarks.common import RESULTS, Skip

ALONE = ("gpu", "long_recordings")  # commands of their own: see the modules
NAMES = (*(name for name in render.ORDER if name not in ALONE), "scaling", "nodes")
"""In the document's order."""


def main() -> int:
    """Run what is asked for; return the number of benchmarks that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes; no file is written")
    parser.add_argument("--render", action="store_true", help="only render the document")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    failed = 0
    if not asked.render:
        names = asked.names or NAMES
        failed = _one(names[0], asked.quick) if len(names) == 1 else _each(names, asked.quick)
    if not asked.quick:
        render.write()
    return failed


def _each(names: tuple[str, ...] | list[str], quick: bool) -> int:
    """Run each in a process of its own: no threads, caches or actors of the one before."""
    flags = ["--quick"] if quick else []
    commands = [[sys.executable, "-m", "benchmarks", name, *flags] for name in names]
    return sum(subprocess.run(command).returncode != 0 for command in commands)


def _one(name: str, quick: bool) -> int:
    print(f"{name} ...", flush=True)
    try:
        result = importlib.import_module(f"benchmarks.{name}").run(quick)
    except Skip as reason:
        print(f"{name}: skipped: {reason}")
        return 0
    print(result.summary(), flush=True)
    if not quick:
        result.write(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
