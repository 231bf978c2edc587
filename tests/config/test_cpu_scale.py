"""The paper's grids are the paper's rows, and `--scale cpu` keeps the rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.config.schema import GridConfig
from tests.conftest import ROOT

GRIDS = ROOT / "experiments" / "grids"
TABLES = dict(zip(["I", "II", "III", "IV", "V", "VI", "VII"], range(1, 8), strict=True))


def pairings(config: GridConfig) -> list[str]:
    return ["+".join(map(str, pairing)) for pairing in config.cohorts]


@pytest.fixture(scope="module")
def reported(shared: Path) -> pd.DataFrame:
    return pd.read_csv(shared / "paper" / "reported_results.csv")


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_the_papers_rows_and_settings(table: str, reported: pd.DataFrame) -> None:
    name = f"table{TABLES[table]}"
    grid = read_grid(GRIDS / f"{name}.yaml", {})
    rows = reported[reported["table"] == table]
    assert pairings(grid) == list(rows["branches"].unique())
    assert [f"data/{data}" for data in rows["dataset"].unique()] == [grid.data]
    assert grid.name == grid.reported == name
    published(grid)


def test_figure_3_is_made_of_rows_of_the_tables_with_one_branch_in_common(
    reported: pd.DataFrame,
) -> None:
    grid = read_grid(GRIDS / "figure3.yaml", {})
    rows = reported[reported["dataset"] == "fsdkaggle2018"]
    assert set(pairings(grid)) <= set(rows["branches"])
    partners = []
    for pairing in grid.cohorts:
        (partner,) = [branch for branch in pairing if str(branch) != "logmel64:resnet101"]
        same = (partner.representation == "logmel64", partner.network == "resnet101")
        partners.append(same)
    assert partners == [(True, False), (False, True), (False, False)]  # DN, DR, D-RN
    published(grid)


def published(grid: GridConfig) -> None:
    assert grid.cycles * (grid.b + grid.d) == 150
    assert (grid.batch_size, grid.lr, grid.weights, grid.mixup) == (64, 0.001, "imagenet", 0.2)
    assert grid.temperatures == (1, 2, 4)
    assert grid.folds == "all"
    assert grid.independent


@pytest.mark.parametrize("name", [*(f"table{n}" for n in TABLES.values()), "figure3"])
def test_at_the_scale_of_cpus_the_rows_stay(name: str) -> None:
    full, small = (read_grid(GRIDS / f"{name}.yaml", {}, scale) for scale in (None, "cpu"))
    replaced = [p.replace("resnet101", "resnet_small") for p in pairings(full)]
    assert pairings(small) == [p.replace("vgg19", "vgg_small") for p in replaced]
    assert (small.name, small.reported) == (f"{name}-cpu", name)
    assert small.temperatures == full.temperatures
    # The very settings of docs/results: cells are found again by them.
    assert (
        small.training
        == GridConfig(data="x", cohorts=small.cohorts, paper=True, cycles=15).training
    )


def test_the_command_line_overrides_the_scale() -> None:
    values = {"cycles": "30", "data": "clips", "lr": "0.1"}
    grid = read_grid(GRIDS / "table4.yaml", values, "cpu")
    assert (grid.cycles, grid.data, grid.lr) == (30, "clips", 0.1)
    assert pairings(grid) == ["logmel64:vgg_small+logmel64:resnet_small"]


def test_variants_are_scaled_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: x\ncohorts: ['logmel64:resnet101']\ncycles: 150\nlr: 0.01\nvariants:\n  plain: {}\n"
        "  paper: {paper: true}\n  more: {b: 1, trust: true}\n  longer: {cycles: 300}\n"
    )

    def epochs(**values: str) -> dict[str, tuple[int, int, int]]:
        grids = read_grid(path, values, "cpu").by_variant()
        assert {grid.lr for grid in grids.values()} == {None}
        assert grids["more"].trust
        return {name: (grid.b, grid.d, grid.cycles) for name, grid in grids.items()}

    own = {"paper": (1, 1, 15), "longer": (0, 1, 60)}  # cycles of their own, in proportion
    assert epochs() == own | {"plain": (0, 1, 30), "more": (1, 1, 30)}
    assert epochs(cycles="4") == own | {"plain": (0, 1, 4), "more": (1, 1, 4)}
    path.write_text(
        "data: x\ncohorts: ['logmel64:resnet101']\nvariants: {slow: {lr: 0.1}, not: {}}\n"
    )
    with pytest.raises(UserError, match=r"mine\.yaml: variants\.slow\.lr.*Delete it"):
        read_grid(path, {}, "cpu")


def test_small_networks_stay_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: x\ncohorts: ['cqt:vgg_small + mfcc:resnet101']\nname: other\n")
    grid = read_grid(path, {}, "cpu")
    assert pairings(grid) == ["cqt:vgg_small+mfcc:resnet_small"]
    assert grid.name == "other-cpu"
    path.write_text("data: x\ncohorts: ['cqt:vgg_small + mfcc:resnet50']\n")
    with pytest.raises(UserError, match=r"mine\.yaml.*mfcc:resnet50.*resnet101"):
        read_grid(path, {}, "cpu")
    with pytest.raises(UserError, match="--scale gpu"):
        read_grid(path, {}, "gpu")
    path.write_text("data: x\ncohorts: [cqt]\n")
    with pytest.raises(UserError, match=r"mine\.yaml.*\n.*REPRESENTATION:NETWORK"):
        read_grid(path, {}, "cpu")
