"""What is printed: 80 columns, what is not significant, and what the caption says of the runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from mrkd_ray.results import printed_table


def row(model: str, low: float = 1.0, high: float = 24.0, **changed: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"cohort": "a:b+c:d", "temperature": 2.0, "model": model, "epochs": 30}
    made |= {"variant": "", "runs": 15, "folds": 5, "seeds": 3, "paired_runs": 15}
    for name in ("accuracy", "map3"):
        made |= {f"{name}_independent": 50.0, f"{name}_independent_sd": 10.04}
        made |= {f"{name}_distilled": 62.5, f"{name}_distilled_sd": 0.01}
        made |= {f"{name}_difference": 12.5}
        made |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
    return made | changed


def printed(capsys: pytest.CaptureFixture[str], *rows: dict[str, Any]) -> str:
    printed_table.show(pd.DataFrame(rows), Console(width=80, no_color=True))
    return capsys.readouterr().out


def test_epochs_of_runs_that_stopped_early_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    spent = {"epochs": 31, "epochs_independent": 25, "epochs_at_most": 40}
    text = " ".join(printed(capsys, row("m", **spent)).split())
    assert (
        "Equal budgets: at most 40 epochs on the same schedule, stopped by the same held-out "
        "clips: after 25 epochs independent and 31 distilled, on average." in text
    )
    whole = {"epochs": 40, "epochs_independent": 40, "epochs_at_most": 40}
    assert "Equal budgets: 40 epochs on" in " ".join(printed(capsys, row("m", **whole)).split())


def test_what_is_not_significant_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (row("up"), row("no", low=-9.0), row("down", low=-9.0, high=-0.3), row("at", low=0.04))
    lines = [line.rstrip() for line in printed(capsys, *rows).splitlines()]
    shown = {line.split()[0]: line for line in lines if "accuracy" in line}
    assert shown["up"].endswith("+12.5 [1.0, 24.0]")
    assert shown["no"].endswith("+12.5 [-9.0, 24.0] ns")
    assert shown["down"].endswith("+12.5 [-9.0, -0.3]")
    assert shown["at"].endswith("+12.5 [0.0, 24.0] ns")  # as printed, it holds 0
    assert "50.0 ± 10.0" in shown["up"]


def test_the_widest_row_of_a_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    wide = {"accuracy_difference": -10.5, "accuracy_distilled_sd": 10.0}
    text = printed(capsys, row("logmel128-resnet_small", low=-20.1, high=10.1, **wide))
    (line,) = [line for line in text.splitlines() if "accuracy" in line]
    assert line.split()[0] == "logmel128-resnet_small"
    assert len(line.rstrip()) <= 80
    assert line.rstrip().endswith("50.0 ± 10.0 62.5 ± 10.0  -10.5 [-20.1, 10.1] ns")


def test_the_balanced_accuracy_stands_below_where_it_is_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = {
        name.replace("accuracy", "balanced_accuracy"): value
        for name, value in row("m").items()
        if name.startswith("accuracy")
    }
    assert "alanced" not in printed(capsys, row("m", **more))
    text = printed(capsys, row("m", **more | {"balanced_accuracy_distilled": 31.2}))
    (line,) = [line for line in text.splitlines() if "balanced" in line]
    assert " ".join(line.split()) == "balanced 50.0 ± 10.0 31.2 ± 0.0 +12.5 [1.0, 24.0]"
    assert "Balanced: accuracy, each class counting the same" in " ".join(text.split())


def test_each_variant_has_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, row("m", variant="one"), row("m", variant="two", epochs=60))
    assert text.index("a:b + c:d, one, T = 2") < text.index("a:b + c:d, two, T = 2")
    assert "Equal budgets: 30 to 60 epochs" in " ".join(text.split())


def test_what_was_only_trained_alone_has_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {
        f"{name}_distilled{sd}": float("nan") for name in ("accuracy", "map3") for sd in ("", "_sd")
    }
    alone = {**nothing, "temperature": float("nan"), "paired_runs": 0}
    text = printed(capsys, row("m", **alone), row("best branch", **alone))
    words = " ".join(text.split())
    assert words.startswith("a:b + c:d model % independent ")
    assert "T =" not in text
    assert "distilled" not in text
    assert " - " not in words
    assert "Each branch is trained alone. Best branch: of the highest mean accuracy" in words
    both = printed(capsys, row("m", **alone), row("other", paired_runs=0))
    assert "independent" in both
    assert "distilled" in both
    assert "difference" not in both


def caption(capsys: pytest.CaptureFixture[str], **changed: Any) -> str:
    return " ".join(printed(capsys, row("m", **changed)).split())


def test_the_caption_says_budgets_runs_and_what_the_interval_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = caption(capsys)
    assert "15 runs: 5 folds x 3 seeds." in text
    assert "Equal budgets: 30 epochs" in text
    assert "bootstrap over clips and seeds" in text
    text = caption(capsys, runs=5, seeds=1, paired_runs=5)
    assert "5 runs: 5 folds x 1 seed." in text
    assert "bootstrap over clips; " in text
    assert "variation between seeds is not in it" in text
    assert "13 finished runs out of 5 folds x 3 seeds" in caption(capsys, runs=13)
    assert "One run." in caption(capsys, runs=1, folds=1, seeds=1, paired_runs=1)
    assert "Best branch" not in text
    best = " ".join(printed(capsys, row("best branch")).split())
    chosen = "of the highest mean accuracy (of equal ones the higher mAP@3), in each condition"
    assert f"Best branch: {chosen} for itself." in best
    alone = caption(capsys, paired_runs=0)
    assert "30 epochs" in alone
    assert "independent" not in alone
