"""What a search varies."""

from __future__ import annotations

from typing import Any

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.search import SPACE, Range, SearchConfig

GRID: dict[str, Any] = {"data": "x", "cohorts": ["cqt:vgg_small+mfcc:vgg_small"]}


def search(**fields: Any) -> SearchConfig:
    return parse(SearchConfig, GRID | fields, "test")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"space": {"leaning_rate": [1]}}, "'leaning_rate' is not varied"),
        ({"space": {"weights": ["none"]}}, "'weights' is not varied"),
        ({"space": {"lr": {"low": 0.2, "high": 0.1}}}, "low: 0.2 is not below high: 0.1"),
        ({"space": {"lr": {"low": 0, "high": 0.1, "log": True}}}, "not above 0"),
        ({"space": {"lr": [-1]}}, "lr: -1: .*greater than 0"),
        ({"space": {"kl_weight": {"low": -1, "high": 1}}}, "kl_weight: -1.0: .*greater"),
        ({"space": {"divergence": {"low": 0, "high": 1}}}, "divergence is no number"),
        ({"space": {"divergence": ["sideways"]}}, "divergence: sideways"),
        ({"space": {"mixup": []}}, "mixup has no values"),
        ({"variants": {"a": {"lr": 0.1}}}, "variants: a search has none"),
        ({"runner": "local"}, "runner: local"),
    ],
)
def test_bad_spaces_are_one_sentence(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        search(**fields)


def test_cohorts_and_temperatures_of_the_grid_are_varied_too() -> None:
    two = search(cohorts=["cqt:vgg_small", "mfcc:vgg_small"], temperatures=[1, 2]).domains
    assert two["cohort"] == ("cqt:vgg_small", "mfcc:vgg_small")
    assert two["temperature"] == (1.0, 2.0)
    assert {name: two[name] for name in SPACE} == SPACE
    own = search(space={"temperature": {"low": 2, "high": 9}, "lr": [0.1]}).domains
    assert own["temperature"] == Range(low=2, high=9)
    assert set(own) == {"cohort", "temperature", "lr"}


def test_a_sample_is_a_grid_of_one_cohort() -> None:
    asked = search(mixup=0.5)
    point = {"cohort": "cqt:vgg_small", "temperature": 3.0, "lr": 0.01, "cycles": 7}
    grid = asked.at(point)
    assert [str(branch) for branch in grid.cohorts[0]] == ["cqt:vgg_small"]
    assert (grid.temperatures, grid.lr, grid.cycles, grid.mixup) == ((3.0,), 0.01, 7, 0.5)
