"""Folders that killed runs leave."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from mrkd_ray.distributed import sessions


def test_tunes_folders_of_killed_runs_are_removed_and_those_of_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("mrkd-tune-killed", "mrkd-tune-runs", "another"):
        (tmp_path / name / "trial").mkdir(parents=True)
    with FileLock(tmp_path / "mrkd-tune-runs" / sessions.LOCK):
        sessions.remove_tunes()
        assert {path.name for path in tmp_path.iterdir()} == {"mrkd-tune-runs", "another"}
