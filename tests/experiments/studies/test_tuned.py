"""What `experiments/studies/tuned.py` prints of two ways of training alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import tuned
from tests.experiments.studies.printed import figures, rows

ALONE = {"one": (50, 60), "two": (58, 56)}  # a, b; the second way is better for a, worse for b
DISTILLED = (64, 61)


def write(folder: Path, runs: int = 3) -> list[str]:
    """Results files of two ways; each run is 1 point above the one before, distilled ones 2."""
    given = []
    for way, alone in ALONE.items():
        rows = []
        for seed in range(runs):
            ensemble = {"one": 65, "two": 67}[way]
            models = [("independent", *zip("ab", alone, strict=True), ("", ensemble))]
            if way == "one":
                models.append(("distilled", *zip("ab", DISTILLED, strict=True), ("", 66)))
            for condition, *scores in models:
                step = 2 if condition == "distilled" else 1
                rows += [
                    {
                        "variant": way,
                        "condition": condition,
                        "fold": 1,
                        "seed": seed,
                        "model": "branch" if name else "ensemble",
                        "branch": name,
                        "dataset": "d",
                        "label_noise": 0.3,
                        "epochs": 4,
                        "clips": 80,
                        "accuracy": (score + step * seed) / 100,
                    }
                    for name, score in scores
                ]
        file = folder / f"{way}.csv"
        rows = rows if way == "one" else rows[::-1]  # paired by fold and seed, not by place
        pd.DataFrame(rows).to_csv(file, index=False)
        given += [str(file), way]
    return given


def run(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tuned.py", *given])
    tuned.main()


def test_the_best_way_of_each_model_is_what_the_distilled_one_has_to_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(write(tmp_path), monkeypatch)
    text = capsys.readouterr().out
    assert "3 runs: 1 folds, 3 seeds. 95 % intervals: t over runs, paired; ns" in text
    shown = rows(text)
    found = {name: figures(values) for name, values in shown.items()}
    # Differences of the runs: one apart, so that 4.303 * 1 / sqrt(3) is half of the interval.
    half = 2.48
    expected = {
        "a": [51, 59, 66, 66 - 59],
        "b": [61, 57, 63, 63 - 61],
        "ensemble": [66, 68, 68, 0],
        "best branch": [61, 59, 66, 66 - 61],  # the distilled a; alone b, and a in the second way
        tuned.BESIDE: [66, 68, 66, 66 - 68],
    }
    for name, (first, second, distilled, difference) in expected.items():
        interval = [difference - half, difference + half]
        assert found[name] == pytest.approx(
            [first, second, distilled, difference, *interval], abs=0.06
        )
    assert (
        sum("ns" in values[-1] for values in shown.values()) == 3
    )  # 2, 0 and -2 points are within 2.48


def test_ways_on_other_runs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write(tmp_path)
    table = pd.read_csv(given[2])
    for other in (table[table["seed"] > 0], table.assign(label_noise=0), table.assign(epochs=3)):
        other.to_csv(given[2], index=False)
        with pytest.raises(SystemExit, match=r"two.csv: two has not the fold, seed, dataset, lab"):
            run(given, monkeypatch)
    pd.concat([table, table]).to_csv(given[2], index=False)
    with pytest.raises(SystemExit, match=r"two.csv: two has several cohorts or temperatures"):
        run(given, monkeypatch)
    with pytest.raises(SystemExit, match=r"none.csv: no such file"):
        run([*given[:2], "none.csv", "two"], monkeypatch)
    with pytest.raises(SystemExit, match=r"no independent models of variant 'three'"):
        run([given[0], "three", *given[2:]], monkeypatch)
