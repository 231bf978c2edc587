"""What `--tensorboard` writes is what `history.csv` has."""

from __future__ import annotations

import struct
from pathlib import Path

import pandas as pd
import pytest

from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from tests.conftest import FAST


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """By tag and step."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    (file,) = folder.iterdir()
    content, at, found = file.read_bytes(), 0, {}
    while at < len(content):  # records: length, its sum, the event, its sum
        (length,) = struct.unpack_from("<Q", content, at)
        event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
    return found


def test_each_cycle_of_each_branch_is_there(clips: Path, cache: Path, tmp_path: Path) -> None:
    fields = {"data": str(clips), "cache": cache, "output": tmp_path, "name": "t", "folds": [1]}
    fields |= {"cohorts": ["logmel64:vgg_small+cqt:vgg_small"], "independent": False}
    asked = {**FAST, **fields, "runner": "local", "tensorboard": True}
    folder = grid.run(parse(GridConfig, asked, "test")).folder
    (cell,) = (folder / "cells").iterdir()
    found = scalars(folder / "tensorboard" / cell.name)
    history = pd.read_csv(cell / "history.csv")
    for row in history.to_dict("records"):
        for name in ("accuracy", "map3", "loss_ce", "loss_distil_kl", "seconds_train"):
            tag = f"{row['branch']}/{name}"
            assert found[tag, row["cycle"] + 1] == pytest.approx(row[name]), tag
