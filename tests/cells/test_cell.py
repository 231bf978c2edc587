"""A cell's key is a folder's name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrkd_ray.cells.cell import NAME_BYTES
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import check_name
from tests.conftest import make_cell

NETWORKS = ("vgg_small", "resnet_small")
MANY = [f"{r}:{n}" for r in ("logmel64", "mfcc", "cqt", "pcen64") for n in NETWORKS]


def test_a_key_is_cut_to_what_file_systems_take_and_keeps_its_hash(tmp_path: Path) -> None:
    longest, other = (make_cell(*MANY, *MANY, f"mfcc:timm.{network}") for network in "xy")
    assert len(longest.key) == NAME_BYTES
    assert longest.key.startswith("distilled_logmel64-vgg_small+logmel64-resnet_small+mfcc-vgg")
    assert longest.key[:-8] == other.key[:-8]
    assert longest.key[-8:] != other.key[-8:]
    (tmp_path / f".{longest.key}.tmp").mkdir()


def test_a_shorter_key_has_all_its_names() -> None:
    cell = make_cell("logmel64:resnet_small", "cqt:vgg_small", temperature=1.0)
    readable = "distilled_logmel64-resnet_small+cqt-vgg_small_T1_fold1_seed0_"
    assert cell.key.startswith(readable)
    assert len(cell.key) == len(readable) + 8


def test_a_name_that_the_file_system_does_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pathconf", lambda path, name: 143)  # eCryptfs
    check_name(tmp_path / "not/made/yet", 143 * "a")
    with pytest.raises(UserError, match=r"names of 144 bytes .* takes 143\. Give an output folder"):
        check_name(tmp_path / "not/made/yet", 144 * "a")
