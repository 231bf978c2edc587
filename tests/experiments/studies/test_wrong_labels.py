"""The data sets that `experiments/studies/wrong_labels.py` makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments.studies import wrong_labels
from mrkd_ray.datasets.opening import open_dataset


@pytest.mark.parametrize("side", ["fold", "split"])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_so_many_labels_are_another_class_and_all_else_is_as_it_was(
    clips: Path, tmp_path: Path, share: float, side: str
) -> None:
    found = open_dataset(clips, tmp_path)
    sides = [1, 2] if side == "fold" else ["train", "test"]
    changed = [
        {"fold": None, "split": None, side: sides[i % 2], "group": f"g{i}", "verified": i % 3 > 0}
        for i in range(len(found.clips))
    ]
    clips_of = zip(found.clips, changed, strict=True)
    dataset = replace(found, clips=tuple(replace(clip, **fields) for clip, fields in clips_of))
    file = tmp_path / "made" / "some.csv"
    wrong_labels.write(dataset, share, file)
    made = open_dataset(file, tmp_path)
    assert [clip.path for clip in made.clips] == [clip.path for clip in dataset.clips]
    for field in ("fold", "split", "group", "verified"):
        given = [[getattr(clip, field) for clip in each.clips] for each in (made, dataset)]
        assert given[0] == given[1], field
    assert made.classes == dataset.classes
    wrong = [new.label != old.label for new, old in zip(made.clips, dataset.clips, strict=True)]
    assert sum(wrong) == round(share * len(wrong))
