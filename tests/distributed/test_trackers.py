"""What MLflow and Weights & Biases are sent is what `history.csv` has."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from tests.conftest import FAST

BLOCK = 32768  # bytes
NUMBERS = ("accuracy", "map3", "loss_ce", "loss_distil_kl", "seconds_train")


@pytest.fixture(scope="module")
def asked(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A grid of one cell, in the small data set."""
    fields = {"data": str(clips), "cache": cache, "folds": [1], "name": "sounds"}
    fields |= {"output": tmp_path_factory.mktemp("tracked"), "independent": False}
    return {**FAST, **fields, "cohorts": ["logmel64:vgg_small+cqt:vgg_small"]}


@pytest.fixture(scope="module")
def tracked(ray_cluster: str, asked: dict[str, Any]) -> Path:
    """The results folder of a run that both were told of; Weights & Biases without a network."""
    pytest.importorskip("mlflow", reason="MLflow is not installed (extra mlflow)")
    pytest.importorskip("wandb", reason="Weights & Biases is not installed (extra wandb)")
    uri = f"sqlite:///{asked['output']}/runs.db"
    told = {**asked, "mlflow": uri, "wandb": "project"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WANDB_MODE", "offline")
        patched.chdir(asked["output"])  # MLflow's copies of files are there
        return grid.run(parse(GridConfig, told, "test")).folder


def history_of(folder: Path) -> dict[str, list[float]]:
    """By branch and figure, in order of cycles."""
    (cell,) = (folder / "cells").iterdir()
    history = pd.read_csv(cell / "history.csv")
    return {
        f"{branch}/{name}": list(rows[name])
        for branch, rows in history.groupby("branch")
        for name in NUMBERS
    }


@pytest.mark.cluster
@pytest.mark.slow
def test_mlflow_has_parameters_figures_and_tables(tracked: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked.parent}/runs.db")
    experiment = client.get_experiment_by_name("sounds")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    (cell,) = (tracked / "cells").iterdir()
    assert set(runs) == {cell.name, "sounds"}
    run = runs[cell.name]
    assert run.info.status == runs["sounds"].info.status == "FINISHED"
    cohort = "logmel64:vgg_small+cqt:vgg_small"
    said = {"cohort": cohort, "fold": "1", "lr": "0.02", "temperature": "1.0"}
    assert said.items() <= run.data.params.items()
    for name, values in history_of(tracked).items():
        found = client.get_metric_history(run.info.run_id, name)
        assert [(each.step, each.value) for each in found] == [
            (i, pytest.approx(value)) for i, value in enumerate(values, 1)
        ], name
    for name in ("table.csv", "results.csv"):
        sent = Path(client.download_artifacts(runs["sounds"].info.run_id, name, str(tmp_path)))
        assert sent.read_bytes() == (tracked / name).read_bytes()


def records_of(file: Path) -> list[Any]:
    """The records of a file of Weights & Biases, which is a log as LevelDB has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, found, whole = file.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no header fits the rest of a block
            at += BLOCK - at % BLOCK
            continue
        _, length, part = struct.unpack_from("<IHB", content, at)  # part: all, first, middle, last
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):
            found.append(Record.FromString(whole))
            whole = b""
    return found


@pytest.mark.cluster
@pytest.mark.slow
def test_weights_and_biases_have_them_in_files_to_sync(tracked: Path) -> None:
    records: dict[str, list[Any]] = {}
    for file in (tracked / "wandb").glob("offline-run-*/*.wandb"):
        found = records_of(file)
        (run,) = (record.run for record in found if record.HasField("run"))
        assert (run.project, run.run_group) == ("project", "sounds")
        records[run.display_name] = found
    (cell,) = (tracked / "cells").iterdir()
    assert set(records) == {cell.name, "sounds"}
    figures: dict[str, list[float]] = {}
    options: dict[str, str] = {}
    for record in records[cell.name]:
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            figures.setdefault(name, []).append(float(item.value_json))
        options |= {item.key: item.value_json for item in record.run.config.update}
    assert {"lr": "0.02", "fold": "1", "condition": '"distilled"'}.items() <= options.items()
    for name, values in history_of(tracked).items():
        assert figures[name] == pytest.approx(values), name
    sent = [record.artifact for record in records["sounds"]]
    listed = {entry.path for artifact in sent for entry in artifact.manifest.contents}
    assert {"table.csv", "results.csv"} <= listed


def test_a_tracker_that_fails_is_told_of_once_and_harms_nothing(tmp_path: Path) -> None:
    trackers = pytest.importorskip("mrkd_ray.distributed.trackers")

    class Broken:
        def log_trial_start(self, trial: Any) -> None:
            raise ConnectionError("the server is gone")

    told: list[str] = []
    tracker = trackers.Tracker("--mlflow x", Broken(), tmp_path, told.append)
    cell = SimpleNamespace(
        **dict.fromkeys(("key", "condition", "cohort", "variant", "temperature", "device"), ""),
        fold=1,
        seed=0,
        training=SimpleNamespace(model_dump=lambda mode: {}),
    )
    trial = SimpleNamespace(trial_id="1", config={"job": SimpleNamespace(cell=cell)})
    tracker.on_trial_start(0, [], trial)
    tracker.on_trial_result(1, [], trial, {"rows": [{"branch": "a", "cycle": 0, "accuracy": 1.0}]})
    tracker.close()
    assert told == [
        "warning: --mlflow x: ConnectionError: the server is gone. Nothing more is sent there; "
        "history.csv has all figures"
    ]


@pytest.mark.parametrize("option", ["mlflow", "wandb"])
def test_a_missing_extra_is_one_sentence_before_any_work(
    option: str, asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def lacks(name: str, *args: Any) -> Any:
        return None if name == option else real(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", lacks)
    with pytest.raises(UserError, match=rf'^--{option}: .* not installed.*"mrkd-ray\[{option}\]"$'):
        grid.run(parse(GridConfig, {**asked, "output": tmp_path, option: "x"}, "test"))
    assert not any(tmp_path.iterdir())


def test_they_are_fed_by_tune_which_a_local_run_goes_without(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^runner: local: --mlflow and --wandb"):
        grid.run(parse(GridConfig, {**asked, "wandb": "x", "runner": "local"}, "test"))
