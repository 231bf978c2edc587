"""Benchmarks: the figures that follow from runs, the document, and smoke runs. No timing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import render
from benchmarks.common import RESULTS, ROOT, Result, Row, alternate
from benchmarks.grpc_peer import GrpcAggregation, check_sum, soft_labels

ABSENT = ("ray", "librosa", "pandas", "sklearn", "soxr", "filelock", "typer", "yaml", "rich")


def row(**changes: object) -> Row:
    values = {"what": "x", "unit": "s", "ours": [4.0, 6.0, 5.0], "peer": [2.0, 2.0, 4.0]}
    return Row.model_validate(values | changes)


def test_a_rows_value_is_the_ratio_of_medians_and_its_spread_of_pairs() -> None:
    assert row().value == 5 / 2
    assert row().values == [2.0, 3.0, 1.25]
    assert row(peer=[]).value == 5


@pytest.mark.parametrize(
    ("target", "at_most", "reached"),
    [(2.5, False, True), (2.6, False, False), (2.5, True, True), (2.4, True, False)],
)
def test_targets_are_limits_from_below_or_above(
    target: float, at_most: bool, reached: bool
) -> None:
    assert row(target=target, at_most=at_most).reached is reached


def test_sides_take_turns_and_the_order_is_reversed_every_other_time() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    values = alternate(3, {"a": lambda: side("a"), "b": lambda: side("b")})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert values == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_the_document_says_what_was_found_and_what_limits_it(tmp_path: Path) -> None:
    rows = [
        row(what="slow", target=3, limits="the bus", peer_is="peer"),
        row(what="fast", target=2, limits="never shown", expected=2.25),
    ]
    Result(name="epoch", title="Epochs", how="So.", rows=rows).write(tmp_path)
    (tmp_path / "scaling.json").write_text("{}")  # of a document of its own
    document = tmp_path / "docs" / "performance.md"
    render.write(tmp_path, document)
    text = document.read_text()
    assert "1 of 2 targets are reached" in text
    assert "| slow | 5 s | 2 s (peer) | **2.5** [1.25, 3] |  | ≥ 3 | not reached |" in text
    assert "**2.5** [1.25, 3] | 2.25 | ≥ 2 | reached |" in text
    assert "Not reached, slow: the bus" in text
    assert "never shown" not in text
    assert str(tmp_path) not in text


def test_the_committed_document_is_that_of_the_committed_results() -> None:
    assert render.DOCUMENT.read_text() == render.render(render.read(RESULTS))


def test_the_grpc_peer_averages() -> None:
    peer = GrpcAggregation(clients=2, rows=100_003, classes=5)
    try:
        mean = (soft_labels(0, 100_003, 5) + soft_labels(1, 100_003, 5)) / 2
        for _ in range(2):
            assert peer.round()[1] == pytest.approx(check_sum(mean), abs=0.1)
    finally:
        peer.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "epoch",
        "startup",
        "representations",
        "frontend_error",
        "bf16_accuracy",
        "many_files",
        "many_clips",
    ],
)
def test_smoke_runs(name: str, tmp_path: Path) -> None:
    before = render.DOCUMENT.read_text()
    done = smoke(["-m", "benchmarks", name, "--quick"], tmp_path)
    assert done.count("\n") > 2
    assert render.DOCUMENT.read_text() == before, "a smoke run writes no results"


@pytest.mark.slow
def test_the_gpus_script_runs_without_ray_and_librosa(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"for name in {ABSENT}: sys.modules[name] = None\n"
        "from benchmarks.gpu import main\n"
        "main(['--device', 'cpu', '--quick'])\n"
    )
    printed = smoke(["-c", code], tmp_path)
    assert "cohort, logmel64-vgg_small" in printed


def smoke(command: list[str], cache: Path) -> str:
    """Run a benchmark in a process of its own, with its own cache; return what it prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "MRKD_BENCH_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
