"""What is written beside results is enough to repeat them, and tells nothing private."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from importlib import metadata

import pytest

from mrkd_ray import environment


def test_versions_and_command_without_the_machines_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/mrkd", "grid", "a b.yaml"])
    found = environment.describe()
    assert found["command"] == "mrkd grid 'a b.yaml'"
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["cpus"] >= 1
    text = json.dumps(found)
    assert "/somewhere" not in text
    assert (
        socket.gethostname() not in text.replace(found["system"], "")
        or len(socket.gethostname()) < 4
    )
    assert getpass.getuser() not in text or len(getpass.getuser()) < 5
