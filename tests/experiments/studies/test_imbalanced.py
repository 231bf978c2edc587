"""The draw of classes of unlike size: fold 1 whole, of the others 8, 4, 2 or 1 clips a class."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.studies import imbalanced


def test_fold_1_is_whole_and_of_the_others_classes_keep_fewer_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "esc" / "audio").mkdir(parents=True)
    rows = [
        f"{fold}-{i}-{label}.ogg,{fold},{label}"
        for fold in (1, 2)
        for label in "abcde"
        for i in range(8)
    ]
    (tmp_path / "esc" / "meta.csv").write_text("\n".join(["filename,fold,label", *rows]) + "\n")
    words = ["imbalanced.py", "--data", str(tmp_path / "esc"), "--to", str(tmp_path / "unlike")]
    monkeypatch.setattr(sys, "argv", words)
    imbalanced.main()
    with (tmp_path / "unlike" / "meta.csv").open(newline="") as file:
        found = Counter((row["fold"], row["label"]) for row in csv.DictReader(file))
    assert found == {
        **{("1", label): 8 for label in "abcde"},
        **{("2", label): count for label, count in zip("abcde", (8, 4, 2, 1, 8), strict=True)},
    }
    assert (tmp_path / "unlike" / "audio").resolve() == tmp_path / "esc" / "audio"
