"""`.ci/supply_chain.py`: what is installed, and what is known of it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / ".ci" / "supply_chain.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("supply_chain", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_package_is_listed_with_its_licence(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--to", tmp_path, "--seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "licences.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["torch"]["version"] == version("torch")
    assert "Apache" in rows["ray"]["licence"]
    assert all(row["licence"] for row in rows.values())
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "mrkd-ray"
    urls = {each["purl"] for each in bill["components"]}
    assert f"pkg:pypi/ray@{version('ray')}" in urls
    assert len(urls) == len(rows) - 1


SAFE = {"name": "a", "version": "1", "vulns": []}
UNSAFE = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
FAULT = "b 2: CVE-1, mended in 3"
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("printed", "told", "unsafe"),
    [
        ([SAFE, UNKNOWN], "1 of 2 packages audited, 0 faults known", False),
        (
            [SAFE, UNSAFE],
            "2 of 2 packages audited, 1 faults known\n  b 2: CVE-1, mended in 3",
            True,
        ),
        ("", "nothing is audited: no connection", False),
    ],
)
def test_a_known_fault_is_an_error_and_missing_data_is_said(
    printed: object, told: str, unsafe: bool, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"dependencies": printed}) if printed else ""
    done = subprocess.CompletedProcess([], 1, text, "lines\nno connection\n")
    monkeypatch.setattr(script.subprocess, "run", lambda *rest, **more: done)
    assert script.audit(1) == (f"pip-audit: {told}", unsafe)
