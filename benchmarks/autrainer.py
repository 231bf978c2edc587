"""A branch's training beside autrainer's: same network, data, batch and epochs, on two cores."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.cluster import Runner, cluster
from benchmarks.common import CACHE, ROOT, RUNS, Result, Row, Skip, alternate, cores
from mrkd_ray.training.branch_task import BranchTask

NAME = "autrainer"
TARGET = 2.0
BRANCH = "logmel64:resnet_small"
PACKAGES = ("autrainer", "torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
"""Not today's torch: its torchaudio refuses to load autrainer's calls."""

CONFIG = """\
defaults: [_autrainer_, _self_]
results_dir: results
experiment_id: bench
iterations: {epochs}
device: cpu
progress_bar: false
continue_training: false
save_train_outputs: false
save_test_outputs: false
save_frequency: {epochs}
train_loader_kwargs: {{num_workers: {workers}}}
callbacks: [bench.Timings]
hydra:
  sweeper:
    params: {{+seed: 1, +batch_size: {batch}, +learning_rate: 0.05, dataset: Esc10,
      model: Small, optimizer: Bench}}
"""
DATASET = """\
id: Esc10
_target_: autrainer.datasets.BaseClassificationDataset
path: data
features_subdir: default
index_column: filename
target_column: label
file_type: npy
file_handler: autrainer.datasets.utils.NumpyFileHandler
criterion: autrainer.criterions.CrossEntropyLoss
metrics: [autrainer.metrics.Accuracy]
tracking_metric: autrainer.metrics.Accuracy
transform:
  type: image
  base:
    - autrainer.transforms.RandomCrop: {size: 150, axis: -1}
"""
MODEL = "id: Small\n_target_: bench.Small\ntransform: {type: image}\n"
OPTIMISER = "id: Bench\n_target_: torch.optim.SGD\nmomentum: 0.9\nweight_decay: 0.0005\n"
MODULE = '''\
"""Our network in autrainer's terms, and its own timings of each epoch."""
import json

from autrainer.core.callbacks import CallbackMixin
from autrainer.models import AbstractModel
from mrkd_ray.networks import build


class Small(AbstractModel):
    def __init__(self, output_dim):
        super().__init__(output_dim, None)
        self.network = build("{network}", output_dim)[0]

    def embeddings(self, features):
        return self.network[:-1](features)

    def forward(self, features):
        return self.network(features)


class Timings(CallbackMixin):
    def cb_on_train_end(self, trainer):
        with open("timings.json", "w") as file:
            json.dump(trainer.train_timer.get_time_log(), file)
'''


def run(quick: bool = False) -> Result:
    """Measure autrainer with and without loader processes, the better of them beside ours."""
    python = _python(quick)
    epochs, batch = (2, 8) if quick else (8, 64)
    options: dict[str, Any] = {"batch_size": batch, "mixup": 0.0, "cycles": 1, "b": epochs - 1}
    (task,) = data.tasks("esc10", [BRANCH], quick, threads=cores(), **options)
    pair = data.tasks("esc10", [BRANCH, BRANCH], quick, **options)
    clips = len(task.train.clip_ids)
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder), task)

        def autrainer(workers: int) -> float:
            config = CONFIG.format(epochs=epochs, batch=batch, workers=workers)
            return clips / _autrainer_epoch(python, project, config)

        workers = max((0, 1, cores()), key=autrainer) if not quick else 0
        with cluster(cpus=3):  # the one that waits takes no time
            one, two = Runner([task]), Runner(pair)
            for runner in (one, two):
                runner.run(temperature=None)
            values = alternate(
                1 if quick else RUNS,
                {
                    "peer": lambda: autrainer(workers),
                    "one": lambda: _rate(one, epochs * clips),
                    "two": lambda: _rate(two, epochs * clips),
                },
            )
    shared: dict[str, Any] = {
        "unit": "windows/s",
        "peer": values["peer"],
        "peer_is": f"autrainer, {cores()} threads, {workers} loader processes",
        "target": TARGET,
    }
    return Result(
        name=NAME,
        title="Training beside autrainer",
        how="Training windows a second of resnet_small on ESC-10's log-Mel with deltas: fold 1, "
        f"batch {batch}, {epochs} epochs, SGD, no mixup, two cores. autrainer reads the same "
        "normalised features from one .npy file a clip and crops 150 frames. Its figure is "
        "its own timer's: the median epoch of training without the first. Start-up, "
        "evaluation and checkpoints are left out, and it is the best of 0, 1 and 2 loader "
        "processes. Ours is the branch's own timer, in Ray actors. autrainer has torch 2.11 "
        "in an environment of its own.",
        rows=[
            Row(
                what="one branch with two threads",
                ours=values["one"],
                limits="Two threads gain little on layers this small: two cores do more as two "
                "branches, see the next row.",
                **shared,
            ),
            Row(
                what="a cohort of two such branches, one thread each, together",
                ours=values["two"],
                **shared,
            ),
        ],
        details={"autrainer": _versions(python)},
    )


def _rate(runner: Runner, windows: int) -> float:
    """Train once; return the windows a second of all branches together, each by its own timer."""
    _, [rows] = runner.run(temperature=None)
    return sum(windows / float(row["seconds_train"]) for row in rows)


def _project(folder: Path, task: BranchTask) -> Path:
    """Write autrainer's project: features, splits, configurations and the model's module."""
    features = folder / "data" / "default"
    features.mkdir(parents=True)
    for name, part in (("train", task.train), ("dev", task.test), ("test", task.test)):
        lines = ["filename,label"]
        for i, clip in enumerate(data.clips(task, part)):
            np.save(features / f"{name}{i}.npy", clip)
            lines.append(f"{name}{i}.npy,{task.classes[part.labels[i]]}")
        (folder / "data" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    for path, text in {
        "dataset/Esc10.yaml": DATASET,
        "model/Small.yaml": MODEL,
        "optimizer/Bench.yaml": OPTIMISER,
    }.items():
        (folder / "conf" / path).parent.mkdir(parents=True)
        (folder / "conf" / path).write_text(text)
    (folder / "bench.py").write_text(MODULE.format(network=task.spec.network))
    return folder


def _autrainer_epoch(python: Path, project: Path, config: str) -> float:
    """Train with autrainer's command; return the seconds of an epoch's training by its timer."""
    (project / "conf" / "config.yaml").write_text(config)
    shutil.rmtree(project / "results", ignore_errors=True)
    (project / "timings.json").unlink(missing_ok=True)
    done = subprocess.run(
        [python.with_name("autrainer"), "train"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    if not (project / "timings.json").is_file():
        raise RuntimeError(f"autrainer did not train:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    seconds: list[float] = json.loads((project / "timings.json").read_text())
    return statistics.median(seconds[1:])


def _python(quick: bool) -> Path:
    """The Python of autrainer's environment: named by MRKD_AUTRAINER_PYTHON, or made here."""
    named = os.environ.get("MRKD_AUTRAINER_PYTHON")
    python = Path(named) if named else CACHE / "autrainer" / "bin" / "python"
    if python.is_file():
        return python.absolute()
    if named or quick:
        raise Skip("no environment with autrainer; MRKD_AUTRAINER_PYTHON names its Python")
    for command in (
        [sys.executable, "-m", "venv", str(python.parents[1])],
        [str(python), "-m", "pip", "install", "-q", *PACKAGES, "safetensors"],
    ):
        if subprocess.run(command).returncode:
            shutil.rmtree(python.parents[1], ignore_errors=True)
            raise Skip(f"autrainer cannot be installed: {command[-6:]} failed")
    return python.absolute()


def _versions(python: Path) -> dict[str, str]:
    code = (
        "import json; from importlib.metadata import version; "
        "print(json.dumps({n: version(n) for n in ('autrainer', 'torch', 'torchaudio')}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
