"""Training that goes on from a trained model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.grid.run import train
from mrkd_ray.inference.classifier import Classifier
from mrkd_ray.inference.model_folder import read_digests
from mrkd_ray.inference.starting_point import starting_points
from mrkd_ray.training.branch import Branch
from tests.conftest import TaskMaker

LOGMEL = BranchSpec(representation="logmel64", network="vgg_small")


def test_a_branch_begins_with_what_the_model_says(
    taught_cell: Path, make_tasks: TaskMaker, tmp_path: Path
) -> None:
    (task,) = make_tasks(str(LOGMEL), init=str(taught_cell))
    model = Classifier.load(taught_cell / "branches" / "logmel64-vgg_small")
    branch = Branch(task)
    evidence = model.branches[0].model.evidence
    assert evidence is not None
    np.testing.assert_allclose(branch.probabilities("test"), evidence.probabilities, atol=1e-6)
    branch.train(1)
    branch.export(tmp_path)
    assert set(read_digests(tmp_path)) >= model.trained_on


def test_rows_of_the_last_layer_follow_the_names_of_classes(
    taught_cell: Path, make_tasks: TaskMaker
) -> None:
    (task,) = make_tasks(str(LOGMEL), init=str(taught_cell))
    old = Branch(task).network.state_dict()
    others = ("bird", "tone", "clicks", "wind")  # of clicks, noise, tone
    new = Branch(replace(task, classes=others)).network.state_dict()
    (head,) = {name.rpartition(".")[0] for name in new if new[name].shape[:1] == (4,)}
    assert torch.equal(new[f"{head}.weight"][[2, 1]], old[f"{head}.weight"][[0, 2]])
    assert not torch.isin(new[f"{head}.weight"][[0, 3]], old[f"{head}.weight"]).any()
    assert all(torch.equal(new[name], old[name]) for name in new if not name.startswith(head))
    (point,) = starting_points(str(taught_cell), [LOGMEL], multi_label=False).values()
    assert point.line(others).endswith(
        "all layers and 2 classes taken, 2 new and random (bird, wind), 1 left out (noise)"
    )


@pytest.mark.parametrize(
    ("branch", "multi_label", "message"),
    [
        ("logmel64:resnet_small", False, "no logmel64:resnet_small to go on from, but cqt"),
        ("mfcc:vgg_small", False, "no mfcc:vgg_small to go on from"),
        ("cqt:vgg_small", True, "had one label each, and those of the data have several"),
    ],
)
def test_another_branch_or_kind_of_label_is_refused(
    taught_cell: Path, branch: str, multi_label: bool, message: str
) -> None:
    representation, _, network = branch.partition(":")
    spec = BranchSpec(representation=representation, network=network)
    with pytest.raises(UserError, match=message):
        starting_points(str(taught_cell), [spec], multi_label=multi_label)
    with pytest.raises(UserError, match="no model there"):
        starting_points(str(taught_cell.parent), [spec], multi_label=multi_label)


def test_a_run_goes_on_says_what_it_takes_and_is_another_cell(
    taught_cell: Path, clips: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, **more: Any) -> Path:
        found = train(
            data=str(clips),
            branches=[str(LOGMEL)],
            folds=[1],
            alone=True,
            cycles=1,
            runner="local",
            cache=cache,
            output=tmp_path,
            name=name,
            **more,
        )
        (cell,) = (found.folder / "cells").iterdir()
        return cell

    fresh, on = run("fresh"), run("on", init=str(taught_cell))
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "logmel64:vgg_small goes on from" in said
    assert "all layers and 3 classes taken" in said
    assert fresh.name != on.name
    again = run("again", init=str(taught_cell / "branches" / "logmel64-vgg_small"))
    assert again.name == on.name  # where the model lies is not in the key
    weights = "branches/logmel64-vgg_small/model.safetensors"
    assert (again / weights).read_bytes() == (on / weights).read_bytes()
