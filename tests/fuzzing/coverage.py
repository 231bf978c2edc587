"""Fuzz one reader by coverage, with atheris: `python -m tests.fuzzing.coverage NAME SECONDS`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mrkd_ray"]):
    from tests.fuzzing.readers import READERS, read


def main() -> None:
    """Ends with exit code 0 where nothing but UserError was raised."""
    name, seconds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "good").write_bytes(READERS[name][1])
        options = [f"-max_total_time={seconds}", "-seed=1", "-max_len=4096", "-verbosity=0"]
        options += [f"-artifact_prefix={corpus}/", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: read(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
