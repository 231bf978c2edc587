"""A search from samples to what is confirmed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.search import Range, SearchConfig
from mrkd_ray.distributed.search import draw, scheduler_of
from mrkd_ray.grid import search
from tests.conftest import FAST
from tests.distributed.test_tune_trials import PAIRING

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def test_the_same_seed_draws_the_same_samples() -> None:
    domains = {"lr": Range(low=0.001, high=0.1, log=True), "specaugment_time": Range(low=2, high=5)}
    first, again = draw(domains, 3), draw(domains, 3)
    points = [first() for _ in range(40)]
    assert points == [again() for _ in range(40)]
    assert {point["specaugment_time"] for point in points} == {2, 3, 4, 5}
    rates = [float(point["lr"]) for point in points]
    assert min(rates) < 0.003  # evenly on a logarithmic scale
    assert all(0.001 <= rate <= 0.1 and rate == float(f"{rate:.3g}") for rate in rates)


@pytest.mark.parametrize(("warm_up", "rungs"), [(0.0, (11.2, 33.4)), (0.5, (55.6,))])
def test_samples_are_compared_at_equal_parts_of_their_schedules(
    warm_up: float, rungs: tuple[float, ...]
) -> None:
    scheduler: Any = scheduler_of("asha", warm_up)
    scheduler.set_search_properties("score", "max")
    good, bad = (SimpleNamespace(trial_id=name) for name in ("good", "bad"))
    for trial in (good, bad):
        scheduler.on_trial_add(None, trial)

    def at(trial: Any, part: float, score: float) -> str:
        decision: str = scheduler.on_trial_result(None, trial, {"part": part, "score": score})
        return decision

    for part in (1, rungs[0] - 0.2, *rungs, 100):
        assert at(good, part, 0.9) == CONTINUE
    assert at(bad, rungs[0] - 0.2, 0.1) == CONTINUE  # nothing is compared before its teacher came
    last = SimpleNamespace(trial_id="last")
    scheduler.on_trial_add(None, last)
    assert at(bad, rungs[0], 0.1) == STOP
    assert at(last, rungs[-1] + 5, 0.95) == CONTINUE
    assert at(last, 100, 0.0) == CONTINUE  # it has run all its cycles: it is finished, not stopped


def samples_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "search.csv").open() as file:
        return list(csv.DictReader(file))


def config(folder: Path, clips: Path, cache: Path, **more: Any) -> SearchConfig:
    fields = {**FAST, "data": str(clips), "cache": cache, "output": folder, "name": "s"}
    space = {"lr": {"low": 0.0001, "high": 0.1, "log": True}}
    fields |= {"cohorts": [PAIRING], "cycles": 4, "temperatures": (1, 2), "space": space}
    return parse(SearchConfig, {**fields, "samples": 4, **more}, "test")


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_best_sample_is_confirmed_on_the_fold_that_the_search_has_not_seen(
    searcher: str,
    clips: Path,
    cache: Path,
    ray_cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if searcher == "optuna":
        pytest.importorskip("optuna")
    for name in ("AUTO_CALLBACK_LOGGERS", "SIGINT_HANDLER", "STRICT_METRIC_CHECKING"):
        monkeypatch.setenv(f"TUNE_DISABLE_{name}", "1")  # what a run sets ends with the test
    asked = {"searcher": searcher, "independent": False}
    quiet = Console(quiet=True)
    found = search.run(config(tmp_path, clips, cache, **asked), console=quiet)
    rows = samples_of(tmp_path / "s")
    assert len({row["cell"] for row in rows}) == 4
    cells = tmp_path / "s" / "cells"
    for row in rows:
        assert (cells / row["cell"] / "history.csv").exists()  # of one that was stopped as well
        done = (cells / row["cell"] / "result.json").exists()
        assert row["state"] == ("finished" if done else "stopped")
        assert (float(row["part"]) == 100) == done
    finished = [row for row in rows if row["state"] == "finished"]
    best = max(finished, key=lambda row: float(row["score"]))
    assert found.best.cell.key == best["cell"]
    assert found.results.tidy["fold"].unique().tolist() == [2]
    (temperature,) = found.results.table["temperature"].unique()
    assert temperature == float(best["temperature"])

    shown = Console(file=io.StringIO(), width=80)
    found.show(shown)
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert f"{len(finished)} finished" in text
    assert "tested on folds that the search has not seen (2)" in text
    assert best["lr"] in text
    for row in found.results.tidy.to_dict("records"):  # of the one fold and seed
        interval = found.confirmed[row["branch"] or "ensemble"]
        assert interval.mean == pytest.approx(100 * row["accuracy"])
        assert interval.low <= interval.mean <= interval.high
        assert f"accuracy {interval.mean:.1f} % {interval.ends_text}" in text

    times = {path: path.stat().st_mtime_ns for path in cells.glob("*/result.json")}
    again = search.run(config(tmp_path, clips, cache, **asked, samples=5), resume=True)
    more = samples_of(tmp_path / "s")
    assert [row["cell"] for row in more[:4]] == [row["cell"] for row in rows]
    assert len(more) == 5
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert [row["score"] for row in more[:4]] == [row["score"] for row in rows]
    assert again.epochs > found.epochs
    with pytest.raises(UserError, match="another search: it differs in temperatures"):
        search.run(config(tmp_path, clips, cache, **asked, temperatures=(1, 3)), resume=True)


def test_a_search_needs_a_fold_to_confirm_on(clips: Path, cache: Path, tmp_path: Path) -> None:
    opened: Any = SimpleNamespace(prepared=SimpleNamespace(splits=[SimpleNamespace(fold=2)]))
    with pytest.raises(UserError, match=r"search_fold: 2: the folds are 2 .*at least one other"):
        search._folds(config(tmp_path, clips, cache), opened)
