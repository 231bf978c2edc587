"""What a cell's files hold comes back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mrkd_ray.cells.files import read_predictions, write_predictions
from mrkd_ray.training.branch_task import Part


@pytest.mark.parametrize(
    ("classes", "written"),
    [(("a", "b", "c"), ["a,c", "b"]), (("a, x", "b", "c"), ['["a, x", "c"]', '["b"]'])],
)
def test_several_labels_a_clip_whatever_is_in_their_names(
    tmp_path: Path, classes: tuple[str, ...], written: list[str]
) -> None:
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    p = np.array([[0.5, 0.25, 1.0], [0.0, 0.75, 0.125]], np.float32)
    part = Part(clip_ids=("1.wav", "2.wav"), labels=labels, unverified=())
    write_predictions(tmp_path, part, classes, {"m": p})
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["labels"] for row in csv.DictReader(file)] == written
    clip_ids, found, scores = read_predictions(tmp_path)
    assert clip_ids == ["1.wav", "2.wav"]
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(scores["m"], p)
