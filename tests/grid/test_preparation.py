"""Groups by name on the way from a command's options to splits and keys."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.run import Preparation
from mrkd_ray.grid.preparation import prepare_only

NAMES = [f"{word}/{who}_{i}" for word in ("yes", "no") for who in ("anna", "bob") for i in (1, 2)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 recordings of 2 words by 2 speakers."""
    root = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        soundfile.write(root / f"{name}.wav", rng.normal(size=3000) / 9, 22050)
    return root


def prepared_and_told(data: Path, cache: Path, **fields: object) -> tuple[Prepared, str]:
    asked = {"data": str(data), "cache": cache, "runner": "local", **fields}
    console = Console(file=(told := io.StringIO()))
    return prepare_only(parse(Preparation, asked, "test"), [], console), told.getvalue()


def test_names_are_warned_of_or_grouped_by(words: Path, tmp_path: Path) -> None:
    plain, told = prepared_and_told(words, tmp_path)
    assert "warning: file names begin with one of 2 words ('anna', 'bob')" in told
    none, told = prepared_and_told(words, tmp_path, group_by="none")
    assert "warning: file names" not in told
    by_name, told = prepared_and_told(words, tmp_path, group_by="^([^_]+)_")
    assert "warning: file names" not in told
    assert "note: 8 clips of 2 groups" in told
    assert plain.content == none.content  # of which cells' keys are made
    assert by_name.content != plain.content
    for split in by_name.splits:
        tested, trained = ({Path(i).name[0] for i in side} for side in (split.test, split.train))
        assert len(tested) == len(trained) == 1
        assert tested != trained


def test_a_group_of_a_column_gives_the_same_splits_and_keys(words: Path, tmp_path: Path) -> None:
    rows = [f"{name}.wav,{name.split('/')[0]},{name.split('/')[1][:-2]}" for name in NAMES]
    for i, head in enumerate(("filename,label,group", "filename,label")):
        (words / f"{i}.csv").write_text("\n".join([head, *(r.rsplit(",", i)[0] for r in rows)]))
    column, _ = prepared_and_told(words / "0.csv", tmp_path)
    by_name, _ = prepared_and_told(words / "1.csv", tmp_path, group_by="^([^_]+)_")
    assert column.content == by_name.content
    assert column.splits == by_name.splits
    with pytest.raises(UserError, match="says itself which clips are of one group"):
        prepared_and_told(words / "0.csv", tmp_path, group_by="^([^_]+)_")


def test_groups_that_given_sides_divide_are_refused(words: Path, tmp_path: Path) -> None:
    rows = [f"{name}.wav,{name.split('/')[0]},{name[-1]}" for name in NAMES]
    (words / "folds.csv").write_text("\n".join(["filename,label,fold", *rows]))
    with pytest.raises(UserError, match="2 groups stand in more than one fold"):
        prepared_and_told(words / "folds.csv", tmp_path, group_by="^([^_]+)_")
    _, told = prepared_and_told(words / "folds.csv", tmp_path)
    assert "2 of them are both trained on and tested" in told
