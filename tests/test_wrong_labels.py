"""The data sets that `experiments/wrong_labels.py` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import wrong_labels
from mrkd_ray.datasets import open_dataset


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0), (0.25, 0.25)])
def test_so_many_labels_are_another_class_and_all_else_is_as_it_was(
    clips: Path, tmp_path: Path, share: float, wrong: float
) -> None:
    dataset = open_dataset(clips, tmp_path)
    file = tmp_path / "made" / "some.csv"
    wrong_labels.write(dataset, share, file)
    made = open_dataset(file, tmp_path)
    assert [clip.path for clip in made.clips] == [clip.path for clip in dataset.clips]
    assert [clip.fold for clip in made.clips] == [clip.fold for clip in dataset.clips]
    assert made.classes == dataset.classes
    changed = [new.label != old.label for new, old in zip(made.clips, dataset.clips, strict=True)]
    assert sum(changed) == round(wrong * len(changed))
