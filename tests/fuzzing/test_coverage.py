"""The readers that strangers' files reach first, fuzzed by coverage."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SECONDS = int(os.environ.get("MRKD_FUZZ_SECONDS", 5))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is not installed")
@pytest.mark.parametrize("name", ["csv", "yaml", "config", "index", "history"])
def test_a_reader_raises_what_it_says_and_nothing_else(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzzing.coverage", name, str(SECONDS)]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120 + 3 * SECONDS,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr
