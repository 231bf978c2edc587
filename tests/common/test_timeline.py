"""Timelines: what is recorded, the format that viewers read, and where the time went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import PROFILE, run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.timeline import Recorder, Span, read_trace, summary, write_trace
from mrkd_ray.distributed.ray_cohort import RayCohort
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import make_cell
from tests.distributed.test_ray_cohort import TWO, actors_of, with_held_out

PHASES = ("train", "soft_labels", "distil", "evaluate", "checkpoint")


def fast(begin: float) -> list[Span]:
    """A branch that waits 4 s for the slower one and 1 s for the exchange."""
    lengths = {"train": 5, "soft_labels": 1, "": 5, "distil": 6, "evaluate": 1, "checkpoint": 1}
    return spans(begin, lengths)


def slow(begin: float) -> list[Span]:
    """A branch that the other waits for; 1 s passes between its evaluation and checkpoint."""
    lengths = {"train": 8, "soft_labels": 2, "": 1, "distil": 6, "evaluate": 1, "gap": 1}
    return spans(begin, {**lengths, "checkpoint": 1})


def spans(begin: float, lengths: dict[str, int]) -> list[Span]:
    found = []
    for name, seconds in lengths.items():
        if name in PHASES:
            found.append(Span(name, begin, seconds))
        begin += seconds
    return found


def test_a_span_is_kept_also_when_its_block_fails_and_is_taken_once() -> None:
    recorder = Recorder()
    with recorder.span("a"):
        pass
    with pytest.raises(ZeroDivisionError), recorder.span("b"):
        1 / 0  # noqa: B018
    taken = recorder.take()
    assert [span.name for span in taken] == ["a", "b"]
    assert taken[1].begin >= taken[0].begin
    assert all(span.seconds >= 0 for span in taken)
    assert recorder.take() == []


def test_a_trace_is_chromes_format_with_a_named_row_each(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    rows = {"one": [Span("train", 100.5, 0.25)], "aggregator": [Span("average", 101, 0.001)]}
    write_trace(path, rows)
    meta, first, other, second = json.loads(path.read_text())["traceEvents"]
    assert (meta["ph"], meta["name"], meta["args"]) == ("M", "thread_name", {"name": "one"})
    assert (first["ph"], first["name"], first["ts"], first["dur"]) == (
        *("X", "train"),
        *(100_500_000, 250_000),  # microseconds
    )
    assert first["tid"] == meta["tid"] != second["tid"] == other["tid"]
    assert first["pid"] == second["pid"]
    assert read_trace(path) == rows


def test_time_is_told_apart_by_hand() -> None:
    """Two cycles of 20 s; a branch's rows go on from one to the next without a gap but 1 s."""
    branches = {"fast": [*fast(0), *fast(20)], "slow": [*slow(0), *slow(20)]}
    shares = summary(branches)
    assert sum(shares.values()) == pytest.approx(1)
    total = {name: share * (39 + 40) for name, share in shares.items()}  # the fast one ends at 39
    assert total == pytest.approx(
        {
            "start": 0,
            "compute": 2 * (5 + 1 + 6) + 2 * (8 + 2 + 6),
            "evaluate": 4,
            "checkpoint": 4,
            "barrier": 2 * 4,
            "exchange": 2 * 1 + 2 * 1,
            "other": 1 + 2 * 1,
        }
    )


def test_without_spans_or_soft_labels_there_is_nothing_to_wait_for() -> None:
    assert set(summary({"a": []}).values()) == {0}
    alone = summary({"a": [Span("train", 0, 3), Span("evaluate", 3, 1)]})
    assert alone["compute"] == 0.75
    assert alone["barrier"] == alone["exchange"] == 0


def test_the_held_out_clips_and_a_late_start_are_no_barrier() -> None:
    one = [Span("start", 0, 2), Span("train", 2, 1), Span("soft_labels", 3, 1)]
    other = [Span("start", 0, 4), Span("train", 4, 1), Span("soft_labels", 5, 1)]
    ready = [Span("held_out_accuracy", 4, 1)], [Span("held_out_accuracy", 6, 1)]
    distil = [Span("distil", 8, 2)]
    shares = summary({"a": [*one, *ready[0], *distil], "b": [*other, *ready[1], *distil]})
    seconds = {name: share * 20 for name, share in shares.items()}
    assert seconds.pop("start") == pytest.approx(2 + 4)
    assert seconds.pop("evaluate") == pytest.approx(2)
    assert seconds.pop("barrier") == pytest.approx(2)  # one waits for the other from 5 until 7
    assert seconds.pop("exchange") == pytest.approx(2)
    assert seconds == pytest.approx({"compute": 2 * (1 + 1 + 2), "checkpoint": 0, "other": 0})


def check(path: Path, names: tuple[str, ...], expected: list[str]) -> dict[str, list[Span]]:
    rows = read_trace(path)
    for name in names:
        assert [span.name for span in rows[name]] == expected
        ends = [span.end for span in rows[name]]
        begins = [span.begin for span in rows[name]]
        assert all(a <= b + 1e-3 for a, b in zip(ends, begins[1:], strict=False))
    return rows


def test_a_local_cell_writes_its_timeline_only_when_asked(
    prepared: Prepared, tmp_path: Path
) -> None:
    cell = make_cell(*TWO)
    tasks = branch_tasks(cell, prepared)
    for folder, asked in ((tmp_path / "plain", False), (tmp_path / "profiled", True)):
        list(run_cell(cell, tasks, LocalCohort(tasks, folder), folder, profile=asked))
    assert not (tmp_path / "plain" / PROFILE).exists()
    rows = check(tmp_path / "profiled" / PROFILE, cell.names, [*PHASES] * 2)
    assert set(rows) == set(cell.names)


@pytest.mark.cluster
def test_a_cell_on_ray_shows_the_aggregator_and_the_coordinator_on_one_clock(
    prepared: Prepared, ray_cluster: str, tmp_path: Path
) -> None:
    cell = make_cell(*TWO, average="weighted", held_out=0.3)
    tasks = branch_tasks(cell, with_held_out(prepared))
    with actors_of(*TWO) as processes:
        cohort = RayCohort(processes, tasks, tmp_path)
        list(run_cell(cell, tasks, cohort, tmp_path, profile=True))
    cycle = ["train", "soft_labels", "held_out_accuracy", "distil", "evaluate", "checkpoint"]
    rows = check(tmp_path / PROFILE, cell.names, ["start", *cycle, *cycle])
    assert [span.name for span in rows["aggregator"]] == ["average"] * 2
    assert [span.name for span in rows["coordinator"]] == ["wait", "commit"] * 2
    for i, average in enumerate(rows["aggregator"]):
        for name in cell.names:  # after every soft label and weight, before every distillation
            assert rows[name][6 * i + 3].end <= average.begin + 1e-3
            assert average.end <= rows[name][6 * i + 4].begin + 1e-3
