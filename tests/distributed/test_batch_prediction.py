"""`mrkd predict` over a folder on a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mrkd_ray.inference.classifier import Classifier
from tests.cli.test_main import mrkd, refused

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_folder_is_classified_once_and_what_is_left_the_next_time(
    ray_cluster: str, taught_cell: Path, clips: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", sorted(clips.glob("*.wav"))[:20]
    bad = tmp_path / "bad.wav"
    bad.write_text("text")
    command = ("predict", taught_cell, "--ray", "--jobs", "1", "--output", out)
    first = mrkd(*command, *given[:17], bad)
    assert first.returncode == 1
    assert "bad.wav: cannot be classified" in first.stderr
    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(written) == 2  # of 9 recordings each
    again = mrkd(*command, *given)
    assert again.returncode == 0, again.stderr
    assert "17 of 20 are there already" in again.stderr
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
    table = pd.read_parquet(out).sort_values("file")
    assert list(table["file"]) == [str(file) for file in given]
    classifier = Classifier.load(taught_cell)
    expected = [each.probabilities for each in classifier.predict(list(map(str, given)))]
    names = list(classifier.classes)
    np.testing.assert_allclose(table[names].to_numpy(), expected, atol=1e-5)
    windows = tmp_path / "windows"
    options = ("--window", "0.5", "--hop", "0.25", "--smooth", "3")
    done = mrkd("predict", taught_cell, given[0], *options, "--ray", "--output", windows)
    assert done.returncode == 0, done.stderr
    one = mrkd(
        "predict", taught_cell, given[0], *options, "--format", "parquet", "--output",
        tmp_path / "one.parquet",
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    pd.testing.assert_frame_equal(
        pd.read_parquet(windows), pd.read_parquet(tmp_path / "one.parquet"), atol=1e-5
    )
    (windows / "notes.txt").write_text("mine")
    refused(mrkd("predict", taught_cell, given[0], "--ray", "--output", windows), "notes.txt")
    refused(mrkd("predict", taught_cell, given[0], "--ray"), "give --output FOLDER")
