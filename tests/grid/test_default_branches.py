"""What `mrkd train` trains where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrkd_ray.config.schema import TrainConfig
from mrkd_ray.grid.default_branches import HEADS, SMALL, with_branches
from mrkd_ray.representations import pretrained


@pytest.mark.parametrize("here", [True, False])
def test_branches_depend_on_whether_the_weights_are_here(
    here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    if here:
        (tmp_path / pretrained.FILES["mn04"].file).touch()
    told: list[str] = []
    asked = with_branches(TrainConfig(data="x"), told.append)
    assert tuple(map(str, asked.branches)) == (HEADS if here else SMALL)
    assert asked.window == ("whole" if here else 1.5)
    given = with_branches(TrainConfig(data="x", window=1.5), lambda line: None)
    assert given.window == 1.5
    (line,) = told
    assert line.endswith("mrkd recommend" if here else "mrkd download mn04")
    assert with_branches(asked, told.append) == asked
    assert told == [line]
