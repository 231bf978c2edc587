"""Which models a run has trained, and which of them comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mrkd_ray.results.best import most_accurate
from mrkd_ray.results.models import TrainedKind, comparable, trained_kinds

A, C = "a:x", "c:y"
COHORT = f"{A}+{C}"


def row(
    condition: str, branch: str, accuracy: float = 0.5, map3: float = 0.6, **changed: Any
) -> dict[str, Any]:
    """A row of results.csv; `branch` "" is the ensemble's."""
    alone = condition == "independent"
    made: dict[str, Any] = {"condition": condition, "branch": branch, "variant": "", "fold": 1}
    made |= {"seed": 0, "model": "branch" if branch else "ensemble", "accuracy": accuracy}
    made |= {"cohort": branch.replace("-", ":") if alone and branch else COHORT, "map3": map3}
    made |= {"representation": branch[:1], "network": branch[-1:]}
    made |= {"temperature": float("nan") if alone else 1.0}
    made |= changed
    own = branch if alone else "cohort"
    cell = f"{condition}_{own}_{made['variant']}_fold{made['fold']}_seed{made['seed']}"
    return {"cell": "" if alone and not branch else cell, **made}


def rows(**changed: Any) -> list[dict[str, Any]]:
    """Both branches and their ensemble under both conditions, in one run."""
    names = ("a-x", "c-y", "")
    return [row(c, name, **changed) for c in ("independent", "distilled") for name in names]


def titles(kinds: list[TrainedKind]) -> list[str]:
    return [kind.title for kind in kinds]


def weights(results: Path, cell: str, name: str, parameters: int) -> None:
    """A branch's weights, so many of them."""
    folder = results / "cells" / cell / "branches" / name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"network.w": np.zeros(parameters, np.float32), "mean": np.zeros(9, np.float32)}
    tensors |= {"network.norm.running_mean": np.zeros(5, np.float32)}
    save_file(tensors, folder / "model.safetensors")


def test_branches_and_ensembles_of_either_condition_are_models() -> None:
    kinds = trained_kinds([*rows(), *rows(fold=2)])
    assert titles(kinds) == [
        "a:x, independent",
        "c:y, independent",
        "ensemble of a:x + c:y, independent",
        "a:x, distilled in a:x + c:y",
        "c:y, distilled in a:x + c:y",
        "ensemble of a:x + c:y, distilled",
    ]
    alone, together = kinds[2], kinds[5]
    first = (1, 0)
    assert alone.cells[first] == tuple(f"independent_{n}__fold1_seed0" for n in ("a-x", "c-y"))
    assert together.cells[first] == ("distilled_cohort__fold1_seed0",) * 2
    assert alone.folders(Path("r"))[1] == Path("r/cells", alone.cells[first][1], "branches", "c-y")
    assert set(alone.scores) == {(1, 0), (2, 0)}


def test_a_baseline_of_several_variants_is_one_model() -> None:
    shared = {"cell": "independent_c-y__fold1_seed0"}
    found = trained_kinds(
        [row("independent", "c-y", variant=v, **shared) for v in ("one", "two")]
        + [row("independent", "c-y", variant="three")]
        + [row("distilled", "c-y", variant=v, temperature=2.0) for v in ("one", "two")]
    )
    assert titles(found) == [
        "c:y, independent, variants one, two",
        "c:y, independent, variant three",
        "c:y, distilled at T = 2 in a:x + c:y, variant one",
        "c:y, distilled at T = 2 in a:x + c:y, variant two",
    ]


def test_the_weights_are_of_the_first_run_not_of_the_luckiest() -> None:
    runs = [(2, 0, 0.9), (1, 3, 0.2), (1, 10, 0.9)]
    (kind,) = trained_kinds(
        [row("independent", "c-y", accuracy=a, fold=f, seed=s) for f, s, a in runs]
    )
    assert kind.first_run == (1, 3)
    assert kind.mean_scores() == pytest.approx((2 / 3, 0.6))
    deviation = kind.deviations()[0]
    assert deviation == pytest.approx(np.std([0.9, 0.2, 0.9], ddof=1))


def test_a_model_of_fewer_runs_is_not_compared(tmp_path: Path) -> None:
    lucky = row("distilled", "a-x", accuracy=0.99)
    full = [row("independent", "c-y", fold=fold) for fold in (1, 2)]
    kinds = trained_kinds([lucky, *full])
    assert titles(comparable(kinds)) == ["c:y, independent"]
    best = most_accurate(tmp_path, kinds)
    assert best is not None
    assert best.title == "c:y, independent"
    assert most_accurate(tmp_path, []) is None


@pytest.mark.parametrize(
    ("scores", "first"),
    [
        ({"a-x": (0.6, 0.6), "c-y": (0.5, 0.9)}, "a:x"),  # accuracy
        ({"a-x": (0.5, 0.6), "c-y": (0.5, 0.9)}, "c:y"),  # of equal ones mAP@3
        ({"a-x": (0.5, 0.9), "c-y": (0.5, 0.6)}, "a:x"),
        ({"a-x": (0.1 + 0.2, 0.9), "c-y": (0.3, 0.9)}, "c:y"),  # then fewer parameters
    ],
)
def test_ties_go_to_the_second_metric_then_to_the_smaller(
    tmp_path: Path, scores: dict[str, tuple[float, float]], first: str
) -> None:
    made = [row("independent", name, *both) for name, both in scores.items()]
    for each, parameters in zip(made, (200, 100), strict=True):
        weights(tmp_path, each["cell"], each["branch"], parameters)
    best = most_accurate(tmp_path, trained_kinds(made))
    assert best is not None
    assert best.title == f"{first}, independent"
