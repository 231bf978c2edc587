"""A run's figures in MLflow and in Weights & Biases, by the callbacks that Ray Tune has for them.

A cell is a run there, with its options as parameters and the figures of each cycle as metrics. A
last run, of the name of the results folder, has the tables. What a tracker does not take is told
once, and the training goes on: `history.csv` has all of it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray.air.constants import TRAINING_ITERATION
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune import Callback

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.run import figures
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.schema import GridConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("table.csv", "results.csv", "search.csv")
"""Files of a results folder that its last run has; of a grid the first two."""

PATIENCE = 60
"""Seconds that Weights & Biases may take at the end to send what is left."""


@dataclass(frozen=True)
class _Cell:
    """A cell, in the place of a Tune trial, of which the callbacks read these."""

    trial_id: str
    key: str = field(compare=False)
    config: dict[str, Any] = field(compare=False)
    local_path: str = field(compare=False)
    experiment_dir_name: str = field(compare=False)

    def __str__(self) -> str:
        return self.key


def parameters(cell: Cell) -> dict[str, Any]:
    """Return what tells a cell from others: its branches, its place in the grid, its options."""
    said = {name: getattr(cell, name) for name in ("condition", "cohort", "variant", "temperature")}
    said |= {"fold": cell.fold, "seed": cell.seed, "device": cell.device}
    said |= cell.training.model_dump(mode="json")
    return {name: value for name, value in said.items() if value not in (None, "")}


def metrics_of(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return a cycle's figures by `branch/name`, in the letters that MLflow takes."""
    found = {re.sub(r"[^\w\-./: ]", "_", name): x for name, x in figures(rows).items()}
    return {**found, TRAINING_ITERATION: rows[0]["cycle"] + 1}


class Tracker(Callback):
    """One of Tune's callbacks, told of cells in place of trials.

    Args:
        option: of the command line that asked for it.
        inner: the callback.
        folder: of the grid.
        tell: shows people a line.
    """

    def __init__(self, option: str, inner: Any, folder: Path, tell: Callable[[str], None]) -> None:
        self._option, self._inner, self._folder, self._tell = option, inner, folder, tell
        self._open: dict[str, _Cell] = {}
        self._works = True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restore that is never asked for

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what went wrong, and leave it at that."""
        try:
            yield
        except Exception as error:
            self._works = False
            self._tell(
                f"warning: {self._option}: {type(error).__name__}: {str(error)[:300]}. Nothing "
                "more is sent there; history.csv has all figures"
            )

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin a cell's run; one that is taken up again goes on with its own."""
        if trial.trial_id in self._open or not self._works:
            return
        cell: Cell = trial.config["job"].cell
        shown = _Cell(
            uuid4().hex[:12], cell.key, parameters(cell), str(self._folder), self._folder.name
        )
        self._open[trial.trial_id] = shown
        with self._told():
            self._inner.log_trial_start(shown)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Hand on a cycle's figures."""
        if "rows" in result and self._works:
            with self._told():
                shown = self._open[trial.trial_id]
                self._inner.log_trial_result(iteration, shown, metrics_of(result["rows"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a cell that is finished, or was stopped by a search."""
        self._end(trial, "failed" in trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a cell that failed."""
        self._end(trial, True)

    def _end(self, trial: Any, failed: bool) -> None:
        shown = self._open.pop(trial.trial_id, None)
        if shown and self._works:
            with self._told():
                self._inner.log_trial_end(shown, failed=failed)

    def close(self) -> None:
        """End the runs of cells that were interrupted; wait until all is sent."""
        if self._works:
            with self._told():
                for shown in self._open.values():
                    self._inner.log_trial_end(shown, failed=True)
                self._inner.on_experiment_end(trials=[])


class _Wandb(WandbLoggerCallback):
    """Tune's, which looks at what became of the processes that send."""

    def _cleanup_logging_actor(self, trial: Any) -> None:
        sent = self._trial_logging_futures[trial]
        super()._cleanup_logging_actor(trial)
        ray.get(sent, timeout=PATIENCE)  # its error, which would be lost


class Trackers:
    """What `--mlflow` and `--wandb` ask for.

    Raises:
        UserError: a package is missing, or what is asked for cannot be reached.
    """

    def __init__(self, config: GridConfig, tell: Callable[[str], None]) -> None:
        self._name, self._tell = config.name, tell
        self._inner: dict[str, Any] = {}
        for option in ("mlflow", "wandb"):
            if value := getattr(config, option):
                _installed(option)
                try:
                    self._inner[f"--{option} {value}"] = getattr(self, f"_{option}")(value)
                except Exception as error:
                    raise UserError(f"--{option} {value}: {error}") from None

    def _mlflow(self, uri: str) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # 7: minutes of silence
        callback: Any = MLflowLoggerCallback(tracking_uri=uri, experiment_name=self._name)
        callback.setup()
        return callback

    def _wandb(self, project: str) -> Any:
        callback: Any = _Wandb(
            project,
            group=self._name,
            upload_timeout=PATIENCE,
            mode=os.environ.get("WANDB_MODE"),  # processes of a cluster do not see it
        )
        callback.setup()
        return callback

    def callbacks(self, folder: Path) -> list[Tracker]:
        """Return the callbacks for the cells of a grid's folder."""
        here = folder.absolute()
        for inner in self._inner.values():
            if isinstance(inner, _Wandb):
                inner.kwargs["dir"] = str(here)
        return [Tracker(option, inner, here, self._tell) for option, inner in self._inner.items()]

    def send_tables(self, folder: Path) -> None:
        """Send the tables of a grid's folder, as a run of its own."""
        files = [folder / name for name in TABLES if (folder / name).exists()]
        for option, inner in self._inner.items():
            try:
                send = _tables_to_wandb if isinstance(inner, _Wandb) else _tables_to_mlflow
                send(inner, folder, files)
            except Exception as error:
                self._tell(f"warning: {option}: the tables were not sent: {error}")


def _installed(option: str) -> None:
    """Raise UserError where the package of an option is not installed."""
    if importlib.util.find_spec(option) is None:
        raise UserError(
            f"--{option}: the package {option} is not installed. "
            f'Install it: pip install "mrkd-ray[{option}]"'
        )


def _tables_to_mlflow(inner: MLflowLoggerCallback, folder: Path, files: Sequence[Path]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(inner.tracking_uri)
    run = client.create_run(inner.mlflow_util.experiment_id, run_name=folder.name)
    for file in files:
        client.log_artifact(run.info.run_id, str(file))
    client.set_terminated(run.info.run_id)


def _tables_to_wandb(inner: _Wandb, folder: Path, files: Sequence[Path]) -> None:
    import wandb

    tables = wandb.Artifact(re.sub(r"[^\w\-.]", "_", folder.name), type="tables")
    for file in files:
        tables.add_file(str(file))
    place: dict[str, Any] = {"project": inner.project, "group": inner.group, "name": folder.name}
    with wandb.init(**place, job_type="tables", **inner.kwargs) as run:
        run.log_artifact(tables)
    wandb.teardown()
