"""What is written beside results is enough to repeat them, and names no path."""

from __future__ import annotations

import json
import sys
from importlib import metadata

import pytest

from mrkd_ray import environment


def test_versions_and_command_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mrkd", "grid", "a b.yaml"])
    found = environment.describe()
    assert found["command"] == "mrkd grid 'a b.yaml'"
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["cpus"] >= 1
    text = json.dumps(found)
    assert "/somewhere" not in text
