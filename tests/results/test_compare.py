"""The models of a run beside each other, and the rule by which one is chosen."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_text
from mrkd_ray.inference.model_folder import BACKBONE, Size
from mrkd_ray.results import compare as compare_module
from mrkd_ray.results.best import By, Latency
from mrkd_ray.results.compare import Row, as_json, choose, compare, show
from mrkd_ray.results.gather import gather
from mrkd_ray.results.models import trained_kinds
from mrkd_ray.scores.intervals import NO_INTERVAL, Interval
from tests.conftest import make_cell
from tests.results.test_best import CLIPS, finished, hits
from tests.results.test_gather import NAMES, TWO, fake
from tests.results.test_models import row, weights

SPEED = {"logmel64:resnet_small": 2.0, "cqt:vgg_small": 5.0}


def of(
    name: str, low: float, high: float, ms: float, size: int | None, complete: bool = True
) -> Row:
    (kind,) = trained_kinds([row("independent", name)])
    behind = Interval((low + high) / 2, low, high, "bootstrap over clips") if low else NO_INTERVAL
    return Row(
        kind=kind,
        behind=behind,
        complete=complete,
        size=None if size is None else Size(size, size, size),
        latency=Latency(milliseconds=ms, seconds=1, processor="") if ms else None,
    )


@pytest.mark.parametrize(
    ("by", "chosen"), [("accuracy", "b-x"), ("latency", "f-x"), ("size", "s-x")]
)
def test_only_what_is_not_significantly_less_accurate_is_chosen(by: By, chosen: str) -> None:
    rows = [
        of("b-x", 0, 0, ms=9, size=900),
        of("f-x", -3, 0.5, ms=3, size=800),
        of("s-x", -2, 0.04, ms=8, size=300),  # as printed it holds 0
        of("w-x", -9, -0.3, ms=1, size=100),  # small and fast, and worse
        of("u-x", -2, 2, ms=0, size=None),  # its weights are missing
        of("l-x", 0, 0, ms=1, size=1, complete=False),  # of fewer runs
    ]
    assert list(choose(rows, by).kind.branches) == [chosen]


def test_of_equal_ones_the_more_accurate_is_chosen() -> None:
    rows = [of("b-x", 0, 0, ms=9, size=9), of("c-x", -1, 1, 5, 5), of("d-x", -2, 1, 5, 5)]
    for by in ("latency", "size"):
        assert list(choose(rows, by).kind.branches) == ["c-x"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose ensemble alone is best; a branch of fewer weights is hardly worse."""
    made = finished(tmp_path, alone=(6, 7), taught=(5, 2))
    weights(tmp_path, made[0].key, NAMES[0], 40)
    gather(tmp_path, "g", made)
    write_text(tmp_path / "grid.yaml", "data: nowhere\ncache: cache\n")

    def measured(folders: Sequence[Path], seconds: float) -> Latency:
        assert seconds == 5  # the data set is not here
        names = [folder.name.replace("-", ":", 1) for folder in folders]
        took = sum(SPEED[name] for name in names)
        return Latency(milliseconds=took, seconds=seconds, processor="a CPU")

    monkeypatch.setattr(compare_module, "measure", measured)
    return tmp_path


def test_models_are_listed_and_best_points_at_the_chosen_one(results: Path) -> None:
    found = compare(results)
    titles = [row.kind.title for row in found.rows]
    assert titles[0] == "cqt:vgg_small, independent"
    assert len(titles) == 6
    assert [row.latency and row.latency.milliseconds for row in found.rows[:2]] == [5, 7]
    assert found.best.model == titles[0]
    assert found.best.latency == found.rows[0].latency
    small = compare(results, "size").best
    assert (small.model, small.parameters) == ("logmel64:resnet_small, independent", 40)
    assert [path.name for path in (results / "best" / "branches").iterdir()] == [NAMES[0]]
    kept = compare(results).best  # without a rule it stays
    assert (kept.model, kept.chosen_by) == (small.model, "size")
    assert compare(results, "accuracy").best.model == titles[0]


def test_differences_are_paired_and_worse_ones_are_marked(results: Path) -> None:
    rows = {row.kind.title: row for row in compare(results).rows}
    worst = rows["cqt:vgg_small, distilled at T = 2 in logmel64:resnet_small + cqt:vgg_small"]
    assert worst.behind.mean == pytest.approx(100 * (2 - 7) / 8)
    assert worst.behind.mark == "lower"
    assert rows["logmel64:resnet_small, independent"].behind.mark == "ns"


def test_what_is_printed_says_the_rule_and_fits_80_columns(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(compare(results, "size"), Console(width=80, no_color=True))
    text = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    words = " ".join(text.split())
    assert "best/ (by size: the smallest of those that are not significantly less" in words
    assert words.endswith("logmel64:resnet_small, independent")
    assert "for a clip of 5 s, from the waveform to probabilities, on one thread of a CPU" in words


def test_of_a_head_on_a_frozen_network_it_is_said_what_was_trained(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(compare(results), Console(width=80, no_color=True))
    assert "trained" not in capsys.readouterr().out
    for branch in results.glob(f"cells/independent_{NAMES[1]}*/branches/{NAMES[1]}"):
        save_file({"features.w": np.zeros(5000, np.float32)}, branch / BACKBONE)
    found = compare(results, "accuracy")
    first = next(row for row in found.rows if row.kind.title == "cqt:vgg_small, independent")
    assert first.size is not None
    assert first.size[:2] == (5100, 100)
    assert found.best.size_text.startswith("5 k parameters (0 k trained), ")
    told = as_json(found)["models"][0]
    assert (told["parameters"], told["trained_parameters"]) == (5100, 100)
    show(found, Console(width=80, no_color=True))
    shown = capsys.readouterr().out
    assert "param. trained" in shown
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())


def test_json_has_the_models_in_the_same_order(results: Path) -> None:
    found = compare(results)
    told = json.loads(json.dumps(as_json(found)))
    assert [model["model"] for model in told["models"]] == [r.kind.title for r in found.rows]
    assert [model["is_best"] for model in told["models"]] == [True, *[False] * 5]
    assert told["models"][0]["difference"] is None
    assert told["models"][-1]["difference"]["mark"] == "lower"
    assert told["path"] == str(results / "best")


def test_what_cannot_be_done_is_said(results: Path) -> None:
    with pytest.raises(UserError, match="--choose speed: one of accuracy, latency, size"):
        compare(results, "speed")
    with pytest.raises(UserError, match="no such folder"):
        compare(results / "nowhere")
    (results / "empty").mkdir()
    with pytest.raises(UserError, match="no finished cell"):
        compare(results / "empty")
    for path in results.glob("cells/independent*/branches/*/*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match=r"cannot hold cqt:vgg_small, independent.*--resume"):
        compare(results, "accuracy")


def test_a_model_of_fewer_runs_is_last(results: Path) -> None:
    made = finished(results, alone=(6, 7), taught=(5, 2))
    lucky = make_cell(*TWO, fold=2)
    right = {name: hits(8) for name in (*NAMES, "ensemble")}
    fake(results, lucky, [f"2{clip}" for clip in CLIPS], right)
    gather(results, "g", [*made, lucky])
    last = compare(results).rows[-3:]
    assert {row.complete for row in last} == {False}
    assert {row.kind.condition for row in last} == {"independent"}


def test_a_folder_that_cannot_be_written_to_can_be_looked_at(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compare(results)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(results))

    monkeypatch.setattr("mrkd_ray.results.best.point", refuse)
    assert compare(results).best == before.best
    with pytest.raises(OSError, match="Read-only"):
        compare(results, "size")
