"""The table as it is printed: independent against distilled branches, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import BEST, Condition
from mrkd_ray.scores.intervals import Interval, IntervalKind, bootstrap_kind

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

BALANCED = (
    " Balanced: accuracy, each class counting the same (the mean of their recalls). Macro F1: the "
    "mean of the classes' F1."
)


def show(table: pd.DataFrame, console: Console) -> None:
    """Print a small table for each variant, cohort and temperature of `Results.table`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if table.empty:
        console.print("No cohort is finished yet.")
        return
    compared, headings = bool(table["paired_runs"].any()), conditions(table)
    shown_metrics = metrics.shown(table)
    keys = ["cohort", "variant", "temperature"]
    for (cohort, variant, temperature), rows in table.groupby(keys, sort=False, dropna=False):
        at = "" if rows["temperature"].isna().all() else f", T = {temperature:g}"
        title = f"{str(cohort).replace('+', ' + ')}{variant and f', {variant}'}{at}"
        console.print(title, style="bold", markup=False, highlight=False)
        shown = Table(box=SIMPLE_HEAD)
        shown.show_edge, shown.padding = False, (0, 0, 0, 0)  # a space between columns is left
        shown.add_column("model", min_width=21, overflow="fold")
        shown.add_column("%", no_wrap=True)
        for heading in headings:
            shown.add_column(heading, justify="right", min_width=11, no_wrap=True)
        if compared:
            shown.add_column("difference [95%]", justify="right", min_width=20, no_wrap=True)
            shown.add_column("", min_width=2)  # the mark
        for row in rows.to_dict("records"):
            for i, metric in enumerate(shown_metrics):
                name = metric.name
                line = [row["model"] if i == 0 else "", metric.title]
                line += [_with_sd(row, f"{name}_{condition}") for condition in headings]
                line += cells(interval(row, f"{name}_difference")) if compared else []
                shown.add_row(*line)
        console.print(shown)
    console.print(caption(table), style="dim")


def conditions(table: pd.DataFrame) -> list[Condition]:
    """Return the conditions that a table shows: both where something is compared.

    Otherwise the distilled one, and the independent one where a row has no other.
    """
    name = metrics.named(table.columns)[0].name
    distilled = table[f"{name}_distilled"].notna()
    shown: list[Condition] = []
    if table["paired_runs"].any() or not distilled.all():
        shown.append("independent")
    if distilled.any():
        shown.append("distilled")
    return shown


def caption(table: pd.DataFrame) -> str:
    """Say of how many runs the table is, under which budgets, and what its intervals hold."""
    compared = bool(table["paired_runs"].any())
    runs, folds, seeds = (int(table[name].max()) for name in ("runs", "folds", "seeds"))
    epochs = range_of(table["epochs"])
    of = (
        f"{folds} {'fold' if folds == 1 else 'folds'} x {seeds} {'seed' if seeds == 1 else 'seeds'}"
    )
    fewest = int(table["runs"].min())
    if runs == 1:
        text = "One run."
    elif fewest == runs == folds * seeds:
        text = f"Mean ± standard deviation of {runs} runs: {of}."
    else:
        finished = f"{runs}" if fewest == runs else f"{fewest} to {runs}"
        text = f"Mean ± standard deviation of {finished} finished runs out of {of}."
    balanced = BALANCED if len(metrics.shown(table)) > 2 else ""
    if not compared:
        alone = " Each branch is trained alone." if conditions(table) == ["independent"] else ""
        return f"{text} {epochs} epochs.{alone}{balanced}{_best(table)}"
    text += balanced
    text += (
        f" Equal budgets: {_budgets(table)}. "
        "Difference: distilled less independent over all clips, paired by fold, seed and clip; "
        f"its interval is a {kinds_of(table)}; ns: not significant, it holds 0."
    )
    text += _best(table)
    if seeds == 1:
        text += " One seed: the variation between seeds is not in it."
    return text


def _budgets(table: pd.DataFrame) -> str:
    """Say how many epochs both conditions had."""
    epochs = range_of(table["epochs"])
    if "epochs_at_most" not in table or (table["epochs_at_most"] <= table["epochs"]).all():
        return f"{epochs} epochs on the same schedule, independent or distilled"
    alone = range_of(table["epochs_independent"].dropna())
    return (
        f"at most {range_of(table['epochs_at_most'])} epochs on the same schedule, stopped by the "
        f"same held-out clips: after {alone} epochs independent and {epochs} distilled, on average"
    )


def _best(table: pd.DataFrame) -> str:
    if BEST not in set(table["model"]):
        return ""
    main, other, *_ = (metric.title for metric in metrics.named(table.columns))
    rule = f"of the highest mean {main} (of equal ones the higher {other})"
    each = ", in each condition for itself" if len(conditions(table)) > 1 else ""
    return f" {BEST.capitalize()}: {rule}{each}."


def kinds_of(table: pd.DataFrame) -> str:
    """Say of what kinds the intervals of these rows are."""
    compared = table[table["paired_runs"] > 0].to_dict("records")
    return " or ".join(dict.fromkeys(kind_of(row) for row in compared))


def range_of(values: pd.Series[int]) -> str:
    """Return `30`, or `30 to 60`."""
    return " to ".join(str(int(value)) for value in sorted({values.min(), values.max()}))


def _with_sd(row: dict[Any, Any], name: str) -> str:
    if np.isnan(row[name]):
        return "-"
    deviation = row[f"{name}_sd"]
    return f"{row[name]:.1f}" + ("" if np.isnan(deviation) else f" ± {deviation:.1f}")


def interval(row: Mapping[Any, Any], column: str) -> Interval:
    """Return a difference of a row of `table.csv`; `column` is that of its mean.

    Its column of marks, which older tables lack, is not read: the mark follows from the ends.
    """
    mean, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    return Interval(mean, low, high, kind_of(row))


def cells(found: Interval) -> list[str]:
    """Write a difference with its interval, and the mark of what is not significant: both cells."""
    if not found.mark:
        return ["-", ""]
    mark = "ns" if found.mark == "ns" else ""
    return [f"{found.mean_text} {found.ends_text}", mark]


def kind_of(row: Mapping[Any, Any]) -> IntervalKind:
    """Return what the intervals of a row of `Results.table` are of.

    Seeds are drawn where a fold has several of them.
    """
    return bootstrap_kind(several_seeds=row["paired_runs"] > row["folds"])


def kinds(found: Iterable[Interval]) -> str:
    """Say of what kind the intervals of a table are, and what its mark means."""
    named = " or ".join(dict.fromkeys(interval.kind for interval in found))
    return f"95 % intervals: {named}, paired; ns: not significant, it holds 0."
