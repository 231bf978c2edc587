"""The package's copy of the paper's figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mrkd_ray.report.paper_tables import reported as paper


def test_the_copy_has_every_figure_of_the_paper(shared: Path) -> None:
    original = pd.read_csv(shared / "paper" / "reported_results.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(paper.reported(), original)


def test_every_table_has_figures_and_its_data_set() -> None:
    reported = paper.reported()
    assert set(reported["table"]) == {table.number for table in paper.TABLES.values()}
    for number, rows in reported.groupby("table"):
        assert set(rows["dataset"]) == {paper.dataset_of(str(number))}


def test_the_bars_of_figure_3_are_in_the_tables() -> None:
    reported = paper.reported()
    for _, number, pairing in paper.FIGURE3_MODES:
        rows = reported[(reported["table"] == number) & (reported["branches"] == pairing)]
        branches = rows["representation"] + ":" + rows["network"]
        assert rows.loc[branches == paper.FIGURE3_BRANCH, "distilled"].tolist() == [False, True]
