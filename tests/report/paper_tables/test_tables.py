"""Measured figures stand where the paper's are, every temperature, with what is uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import pytest

from mrkd_ray.report.grid_results import GridResults, read_results
from mrkd_ray.report.paper_tables import boxes, tables
from mrkd_ray.report.paper_tables import reported as paper
from mrkd_ray.report.paper_tables.boxes import Box, Table
from mrkd_ray.results import printed_table
from tests.report.fakes import fake_grid

PAIRINGS = {key: [] for key in paper.TABLES}  # of every table, with the paper's networks
for _, row in paper.reported().drop_duplicates(["table", "branches"]).iterrows():
    key = next(k for k, table in paper.TABLES.items() if table.number == row["table"])
    PAIRINGS[key].append(row["branches"])


@pytest.fixture(scope="module")
def table6(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    return read_results(fake_grid(tmp_path_factory.mktemp("grids") / "t6", reported="table6"))


def laid_out(rows: Sequence[Sequence[Box]]) -> list[list[Box]]:
    """Return the box at every place, as a browser lays them out; fail where one is empty."""
    grid: list[dict[int, Box]] = [{} for _ in rows]
    for y, row in enumerate(rows):
        x = 0
        for box in row:
            while x in grid[y]:
                x += 1
            for down in range(box.rows):
                for right in range(box.columns):
                    assert x + right not in grid[y + down]
                    grid[y + down][x + right] = box
    width = max(grid[0]) + 1
    assert all(sorted(line) == list(range(width)) for line in grid)
    return [[line[x] for x in range(width)] for line in grid]


def texts(rows: Sequence[Sequence[Box]]) -> list[list[str]]:
    return [[box.text for box in line] for line in laid_out(rows)]


def whole(table: Table) -> None:
    """Head and groups are rectangles of one width."""
    assert len({len(laid_out(rows)[0]) for rows in (table.head, *table.groups)}) == 1


@pytest.mark.parametrize("key", paper.TABLES)
def test_every_table_of_the_paper_is_whole_and_shows_its_figures(key: str, tmp_path: Path) -> None:
    table = paper.TABLES[key]
    results = read_results(
        fake_grid(
            tmp_path,
            pairings=tuple(PAIRINGS[key]),
            dataset=paper.dataset_of(table.number),
            reported=key,
            cycles=75,
        )
    )
    shown = tables.tables(results)[0]
    whole(shown)
    reported = paper.reported()
    reported = reported[reported["table"] == table.number]
    cells = [box for group in shown.groups for row in group for box in row]
    found = sorted(box.text for box in cells if box.kind == "reported" and box.text[0].isdigit())
    assert found == sorted(f"{x:.2f}" for x in (*reported["accuracy"], *reported["map3"]))
    assert not shown.warnings  # data set, networks and epochs are the paper's
    assert not any(box.text == boxes.NONE and box.kind == "higher" for box in cells)


def test_measured_figures_stand_at_their_pairing_and_temperature(table6: GridResults) -> None:
    shown = tables.tables(table6)[0]
    rows = table6.table.set_index(["cohort", "temperature", "model"])
    for pairing, group in zip(
        table6.table["cohort"].unique(), shown.groups, strict=True
    ):  # the grid has them in the paper's order
        lines = texts(group)
        first, second = (branch.replace(":", "-") for branch in pairing.split("+"))
        assert [line[1] for line in lines] == ["reported", "T = 1", "T = 2", "T = 4"]
        for temperature, line in zip((1, 2, 4), lines[1:], strict=True):
            for model, columns in ((first, (4, 5)), (second, (9, 10)), ("ensemble", (11, 12))):
                row = rows.loc[pairing, temperature, model]
                for column, score in zip(columns, ("accuracy", "map3"), strict=True):
                    mean, sd = row[f"{score}_distilled"], row[f"{score}_distilled_sd"]
                    assert line[column] == f"{mean:.1f} ± {sd:.1f}"
            row = rows.loc[pairing, temperature, second]
            assert line[7].startswith(f"{row['accuracy_independent']:.1f} ")


def test_a_difference_is_marked_by_its_interval(table6: GridResults) -> None:
    row = dict(table6.table.iloc[0])
    for low, high, kind, text in (
        (0.1, 2.0, "higher", "+1.0"),
        (-0.5, 2.0, "ns", "+1.0 ns"),
        (0.0, 2.0, "ns", "+1.0 ns"),
        (0.04, 2.0, "ns", "+1.0 ns"),  # printed as 0.0
        (-3.0, -0.2, "lower", "+1.0"),
    ):
        row |= {"accuracy_difference": 1.0}
        row |= {"accuracy_difference_low": low, "accuracy_difference_high": high}
        box = tables.difference(row, "accuracy")
        assert (box.kind, box.text) == (kind, text)
        _, mark = printed_table.cells(printed_table.interval(row, "accuracy_difference"))
        assert (mark == "ns") is (kind == "ns")  # on the terminal as in the report
    assert box.small == "[−3.0, −0.2]"
    assert tables.difference(row | {"accuracy_difference_low": nan}, "accuracy").text == boxes.NONE


def test_what_is_not_the_papers_is_said(table6: GridResults) -> None:
    (warning,) = tables.tables(table6)[0].warnings
    for word in (
        *("fake, not FSDKaggle2018", "resnet_small for ResNet", "6 epochs, not 150"),
        *("weights none, not imagenet", "lr 0.05, not 0.001"),
    ):
        assert word in warning
    caption = tables.tables(table6)[0].caption
    assert "Equal budgets" in caption
    assert "2 runs: 2 folds x 1 seed" in caption


def test_a_pairing_in_another_order_and_one_of_no_table(tmp_path: Path) -> None:
    pairings = ("mfcc:vgg_small+logmel64:resnet_small", "mfcc:vgg_small+cqt:vgg_small")
    results = read_results(
        fake_grid(tmp_path, pairings=pairings, temperatures=(2,), reported="table6")
    )
    shown = tables.tables(results)[0]
    row = results.table.set_index(["cohort", "model"]).loc[pairings[0], "logmel64-resnet_small"]
    assert texts(shown.groups[0])[1][4].startswith(f"{row['accuracy_distilled']:.1f} ")
    assert texts(shown.groups[1])[1][1:5] == [boxes.NONE] * 4  # not in the grid
    assert any("cqt:vgg19 + mfcc:vgg19" in note for note in shown.notes)


def test_pairings_that_look_alike_do_not_take_each_others_place(tmp_path: Path) -> None:
    pairings = (
        "logmel64:resnet_small+mfcc:vgg_small",
        "mfcc:vgg_small+logmel64:resnet_small",
        "logmel64:resnet_small+mfcc:vgg_small+mfcc:vgg_small",
        "logmel64:resnet101+mfcc:vgg19",
    )
    results = read_results(
        fake_grid(tmp_path, pairings=pairings, temperatures=(2,), reported="table6")
    )
    shown = tables.tables(results)[0]
    rows = results.table.set_index(["cohort", "model"])
    line = texts(shown.groups[0])[1]
    for column, model in ((4, "logmel64-resnet_small"), (9, "mfcc-vgg_small"), (11, "ensemble")):
        mean = rows.loc[(pairings[0], model), "accuracy_distilled"]
        assert line[column].startswith(f"{mean:.1f} ")
    note = shown.notes[-1]
    for pairing in (pairings[1], pairings[3]):
        assert pairing.replace("+", " + ") in note
    assert "logmel64:resnet101 + mfcc:vgg19 + mfcc:vgg19" in note


def test_each_setting_that_is_not_the_papers_is_said(tmp_path: Path) -> None:
    asked = {"lr": 0.01, "batch_size": 32, "mixup": 0.4, "b": 2, "held_out": 0.1, "cycles": 50}
    asked |= {"label_noise": 0.2, "verified_only": True, "weights": "none"}
    pairing = ("logmel64:resnet101+mfcc:vgg19",)
    folder = fake_grid(
        tmp_path, pairings=pairing, dataset="fsdkaggle2018", reported="table6", **asked
    )
    (warning,) = tables.tables(read_results(folder))[0].warnings
    for words in (
        *("lr 0.01, not 0.001", "batch_size 32, not 64", "mixup 0.4, not 0.2", "b 2, not 1"),
        *("held_out 0.1, not 0.0", "label_noise 0.2, not 0.0", "verified_only True, not False"),
        "weights none, not imagenet",
    ):
        assert words in warning


def test_the_papers_table_has_the_first_variant_and_the_grids_own_has_all(tmp_path: Path) -> None:
    variants = {"one": {}, "two": {"kl_weight": 2}}
    pairing = "logmel64:resnet_small+mfcc:vgg_small"
    folder = fake_grid(
        tmp_path, pairings=(pairing,), temperatures=(2,), reported="table6", variants=variants
    )
    results = read_results(folder)
    theirs, own = tables.tables(results)
    whole(own)
    rows = results.table.set_index(["variant", "model"])
    first = rows.loc[("one", "logmel64-resnet_small"), "accuracy_distilled"]
    assert texts(theirs.groups[0])[1][4].startswith(f"{first:.1f} ")
    assert "variant two" in theirs.notes[-1]
    for variant, group in zip(variants, own.groups, strict=True):
        lines = texts(group)
        assert lines[0][0].startswith(f"{variant}: logmel64")
        models = ["logmel64-resnet_small", "mfcc-vgg_small", "ensemble", "best branch"]
        assert [line[0] for line in lines[1:]] == models
        for line in lines[1:]:
            assert line[3].startswith(f"{rows.loc[(variant, line[0]), 'accuracy_distilled']:.1f} ")


def test_figure_3_has_each_partner_of_the_papers_tables(tmp_path: Path) -> None:
    pairings = ("logmel64:vgg_small+logmel64:resnet_small", "logmel64:resnet_small+cqt:vgg_small")
    results = read_results(fake_grid(tmp_path, pairings=pairings, reported="figure3"))
    shown = tables.tables(results)[0]
    whole(shown)
    rows = results.table.set_index(["cohort", "temperature", "model"])
    row = results.table.set_index("model").loc["logmel64-resnet_small"].iloc[0]
    assert texts(shown.groups[0])[0][4].startswith(f"{row['accuracy_independent']:.1f} ")
    dn, drn = texts(shown.groups[1]), texts(shown.groups[5])
    assert [group[0][0].text for group in shown.groups[1:]] == ["DN", "DR", "DR", "D-RN", "D-RN"]
    for lines, pairing in ((dn, pairings[0]), (drn, pairings[1])):
        for temperature, line in zip((1, 2, 4), lines, strict=True):
            row = rows.loc[pairing, temperature, "logmel64-resnet_small"]
            assert line[4].startswith(f"{row['accuracy_distilled']:.1f} ")
    assert drn[0][7] == "+2.59"  # 90.60 less 88.01
    assert texts(shown.groups[2])[0][4] == boxes.NONE


def test_a_grid_of_no_table_gets_its_own_without_baselines(tmp_path: Path) -> None:
    results = read_results(fake_grid(tmp_path, independent=False))
    (shown,) = tables.tables(results)
    whole(shown)
    lines = texts(shown.groups[0])
    assert [line[1] for line in lines[1:4]] == ["1", "2", "4"]
    # Of each score the distilled model only: nothing was trained alone, and nothing is compared.
    assert len(lines[1]) == 2 + 2
    assert boxes.NONE not in lines[1]
    assert "Equal budgets" not in shown.caption
