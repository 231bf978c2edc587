"""What a GPU does: from a plain checkout, without Ray, librosa, pandas and scikit-learn.

python -m benchmarks.gpu                                 # all parts, some 20 minutes on one card
python -m benchmarks.gpu --parts epoch,precision         # some; the others' results are kept
python -m benchmarks.gpu --out FOLDER                    # for gpu.json; or benchmarks/results
python -m benchmarks.gpu --device cpu --quick            # a smoke run with small networks

It needs torch, torchvision, numpy, soundfile, safetensors and pydantic, and for the real cohort
ESC-50 under ../shared/data (or MRKD_BENCH_DATA). Every part stops measuring at its time limit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, RUNS, Result, Row
from benchmarks.gpu_data import CLASSES, CLIP, esc50, part, random_task
from benchmarks.steps import constant_step
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import published
from mrkd_ray.method import algorithm
from mrkd_ray.training.branch import Branch
from mrkd_ray.training.branch_task import BranchTask
from mrkd_ray.training.local_cohort import LocalCohort

NAME = "gpu"

EXPECTED = {
    # Written on 2026-11-24, before any of it was measured, for one H100. A branch's batch is made
    # on the card in some small kernels (a gather, the deltas, mixup): 0.3 ms beside steps of 10
    # to 40 ms, and the constant batch saves only that.
    "epoch, resnet101, batch 64": 0.97,
    "epoch, resnet101, batch 256": 0.99,
    "epoch, vgg19, batch 64": 0.98,
    "epoch, vgg19, batch 256": 0.99,
    # fp32 convolutions run in TF32 by PyTorch's default, so bf16 doubles the matrix rate and
    # halves the bytes; ResNet's 1 x 1 convolutions and BatchNorm are bound by bytes, and at 64
    # windows by launches, which compile takes away; VGG is bound by its 3 x 3 products.
    "precision, resnet101, batch 64": 2.5,
    "precision, resnet101, batch 256": 2.5,
    "precision, vgg19, batch 64": 2.0,
    "precision, vgg19, batch 256": 2.2,
    "peak share, resnet101, batch 64": 0.10,
    "peak share, resnet101, batch 256": 0.15,
    "peak share, vgg19, batch 64": 0.30,
    "peak share, vgg19, batch 256": 0.40,
    # 500 frames of 883 bins a clip are 2 MB to write and read a few times: 10 us a clip; CQT's
    # filters work on the samples, 10 GFLOP a clip in fp32 without TF32.
    "front-end, logmel64": 30_000,
    "front-end, logmel128": 30_000,
    "front-end, mfcc": 30_000,
    "front-end, cqt": 4_000,
    "front-end, all four": 3_500,
    # A step of either network fills the card: side by side gains the gaps, time slices lose some.
    "sharing, two processes": 0.95,
    "sharing, two streams": 1.05,
    # From random weights on 1,600 clips; VGG-19 without BatchNorm hardly trains from scratch.
    "cohort, logmel128-resnet101": 0.60,
    "cohort, cqt-vgg19": 0.15,
}


@dataclass(frozen=True)
class Setting:
    """What all parts are given: the device, whether it is a smoke run, and the sizes."""

    device: str
    quick: bool
    networks: tuple[str, ...]
    batches: tuple[int, ...]

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


# The parts ------------------------------------------------------------------------------------


def epoch(setting: Setting, deadline: float) -> list[Row]:
    """The full epoch of a branch beside the same network on one constant batch."""
    rows: list[Row] = []
    for network in setting.networks:
        for batch in setting.batches:
            if time.monotonic() > deadline:
                return rows
            clips = batch * (2 if setting.quick else max(8, 2048 // batch))
            options = _options(setting)
            branch = Branch(
                random_task(network, clips, setting.device, batch_size=batch, **options)
            )
            step = constant_step(
                network,
                CLASSES,
                (batch, 3, 64, 150),
                device=setting.device,
                bf16=options.get("precision") == "bf16",
                compiled=bool(options.get("compile")),
            )

            def ours(branch: Branch = branch) -> None:
                branch.train(1)

            def peer(step: Callable[[], None] = step, steps: int = clips // batch) -> None:
                for _ in range(steps):
                    step()

            values = _rates({"ours": (ours, clips), "peer": (peer, clips)}, setting, deadline)
            rows.append(
                Row(
                    what=f"epoch, {network}, batch {batch}",
                    unit="windows/s",
                    ours=values["ours"],
                    peer=values["peer"],
                    peer_is="one constant batch",
                    target=0.97,
                )
            )
            del branch, step, ours, peer
            _free()
    return rows


def precision(setting: Setting, deadline: float) -> list[Row]:
    """bf16, channels_last and compile over fp32 eager, and the share of the matrix peak."""
    peak = _matrix_peak(setting)
    rows = [Row(what="matrix peak, bf16, 8192 x 8192", unit="TFLOP/s", ours=peak)]
    for network in setting.networks:
        for batch in setting.batches:
            if time.monotonic() > deadline:
                return rows
            shape = (batch, 3, 64, 150)
            flops = _step_flops(network, shape)
            variants: dict[str, dict[str, Any]] = {
                "fp32": {"channels_last": False},
                "bf16": {"channels_last": False, "bf16": True},
                "bf16, channels_last": {"bf16": True},
                "bf16, channels_last, compile": {"bf16": True, "compiled": not setting.quick},
            }
            sides = {
                name: (
                    constant_step(network, CLASSES, shape, device=setting.device, **options),
                    batch,
                )
                for name, options in variants.items()
            }
            values = _rates(sides, setting, deadline, calls=1 if setting.quick else 20)
            for name in list(variants)[1:]:
                last = name == list(variants)[-1]
                rows.append(
                    Row(
                        what=f"precision, {network}, batch {batch}" + ("" if last else f": {name}"),
                        unit="windows/s",
                        ours=values[name],
                        peer=values["fp32"],
                        peer_is="fp32, eager",
                    )
                )
            rows.append(
                Row(
                    what=f"peak share, {network}, batch {batch}",
                    unit="TFLOP/s",
                    ours=[rate * flops / batch / 1e12 for rate in values[name]],
                    peer=[statistics.median(peak)] * len(values[name]),
                    peer_is="bf16 matrix product",
                )
            )
            del sides
            _free()
    return rows


def front_end(setting: Setting, deadline: float) -> list[Row]:
    """Clips of 5 s a second through the torch front-end, in batches."""
    from mrkd_ray.representations.catalogue import compute
    from mrkd_ray.representations.spectra import Recordings

    batch = 2 if setting.quick else 64
    waveforms = torch.randn(batch, CLIP, device=setting.device) / 8
    names = ("logmel64", "logmel128", "mfcc", "cqt")
    rows = []
    for title, wanted in {**{name: (name,) for name in names}, "all four": names}.items():

        def call(wanted: tuple[str, ...] = wanted) -> None:
            with torch.inference_mode():
                recordings = Recordings(waveforms)
                for name in wanted:
                    compute(name, recordings)

        calls = 1 if setting.quick else 20
        values = _rates({"ours": (call, batch)}, setting, deadline, calls=calls)
        rows.append(Row(what=f"front-end, {title}", unit="clips/s", ours=values["ours"]))
    return rows


def sharing(setting: Setting, deadline: float) -> list[Row]:
    """Two branches on one card: two processes, two streams of one, or one after the other."""
    batch = setting.batches[0]
    clips = batch * (2 if setting.quick else 16)
    tasks = [
        random_task(network, clips, setting.device, batch_size=batch, **_options(setting))
        for network in setting.networks
    ]
    branches = [Branch(task) for task in tasks]
    cuda = setting.device.startswith("cuda")
    streams: list[Any] = [torch.cuda.Stream() if cuda else None for _ in branches]  # type: ignore[no-untyped-call]

    def in_turn() -> None:
        for branch in branches:
            branch.train(1)

    def side_by_side() -> None:
        def train(branch: Branch, stream: Any) -> None:
            with torch.cuda.stream(stream) if stream else nullcontext():
                branch.train(1)

        threads = [
            threading.Thread(target=train, args=pair)
            for pair in zip(branches, streams, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for task in tasks:
        mine, its = context.Pipe()
        process = context.Process(target=_train_when_told, args=(task, its), daemon=True)
        process.start()
        its.close()  # a child that dies is then an error here, not silence
        pipes.append(mine)
        processes.append(process)

    def two_processes() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    both = len(tasks) * clips
    sides = {
        "in turn": (in_turn, both),
        "two processes": (two_processes, both),
        "two streams": (side_by_side, both),
    }
    try:
        values = _rates(sides, setting, deadline)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [
        Row(
            what=f"sharing, {side}",
            unit="windows/s",
            ours=values[side],
            peer=values["in turn"],
            peer_is="one process, one branch after the other",
        )
        for side in ("two processes", "two streams")
    ]


def cohort(setting: Setting, deadline: float) -> list[Row]:
    """A real cohort on ESC-50's fold 1, for as many cycles as fit: its accuracies."""
    names = ("logmel64", "logmel64") if setting.quick else ("logmel128", "cqt")
    specs = [
        BranchSpec(representation=representation, network=network)
        for representation, network in zip(names, setting.networks, strict=True)
    ]
    stores, labels, folds = esc50(setting.device, names, setting.quick)
    weights = os.environ.get("MRKD_BENCH_WEIGHTS", "none")

    def tasks(cycles: int) -> list[BranchTask]:
        options: dict[str, Any] = {
            "cycles": cycles,
            "batch_size": 8 if setting.quick else 64,
            "weights": weights,
            "lr": 0.01 if weights == "none" else None,
            "precision": "auto",  # not compiled, which would take minutes of the eight
        }
        training = published(**options)
        return [
            BranchTask(
                name=f"{spec.representation}-{spec.network}",
                spec=spec,
                training=training,
                store=stores[spec.representation],  # type: ignore[arg-type]
                classes=tuple(f"{i:02d}" for i in range(CLASSES)),
                train=part(np.flatnonzero(folds != 1), labels),
                held_out=part(np.zeros(0, np.int64), labels),
                test=part(np.flatnonzero(folds == 1), labels),
                fold=1,
                seed=0,
                device=setting.device,
            )
            for spec in specs
        ]

    def run(cycles: int) -> tuple[list[dict[str, Any]], list[float]]:
        rows: list[dict[str, Any]] = []
        seconds: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            members = LocalCohort(tasks(cycles), Path(folder))
            found = algorithm.distilled(members, members.branches[0].task.training, 2.0)
            for rows in found:  # noqa: B007  the last rows are returned
                seconds.append(time.perf_counter() - began)
                began = time.perf_counter()
                if time.monotonic() > deadline:
                    break
        return rows, seconds

    _, trial = run(2)  # tells how many cycles fit
    left = deadline - time.monotonic()
    cycles = 1 if setting.quick else max(2, int(0.85 * left / trial[-1]))
    rows, seconds = run(cycles)
    return [
        Row(
            what=f"cohort, {row['branch']}",
            unit=f"accuracy on ESC-50's fold 1 after {len(seconds)} cycles, from "
            f"{'random' if weights == 'none' else 'given'} weights",
            ours=[row["accuracy"]],
        )
        for row in rows
    ] + [Row(what="cohort, a cycle", unit="s", ours=seconds[1:] or seconds)]


PARTS: dict[str, tuple[Callable[[Setting, float], list[Row]], float]] = {
    "epoch": (epoch, 240),
    "precision": (precision, 300),
    "front_end": (front_end, 60),
    "sharing": (sharing, 120),
    "cohort": (cohort, 480),
}
"""Each part, and the seconds after which it starts no further run: a command of 10 minutes each."""


def main(arguments: Sequence[str] | None = None) -> Result:
    """Run parts, print and write what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a smoke run; writes nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.json")
    asked = parser.parse_args(arguments)
    wanted = asked.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu --quick is a smoke run")
    setting = Setting(
        asked.device,
        asked.quick,
        ("resnet_small", "vgg_small") if asked.quick else ("resnet101", "vgg19"),
        (4,) if asked.quick else (64, 256),
    )
    result = _read(asked.out)
    for name in wanted:
        part, limit = PARTS[name]
        rows = [
            row.model_copy(update={"expected": None if asked.quick else EXPECTED.get(row.what)})
            for row in part(setting, time.monotonic() + limit)
        ]
        result.details["parts"][name] = [row.model_dump() for row in rows]
        result.rows = [
            Row.model_validate(row) for key in PARTS for row in result.details["parts"].get(key, [])
        ]
        print(Result(name=NAME, title=name, how="", rows=rows).summary(), flush=True)
        if not asked.quick:
            result.write(asked.out)  # after each part: a limit on the command takes one at most
    return result


def _read(folder: Path) -> Result:
    """Return what is there already, to which parts are added."""
    path = folder / f"{NAME}.json"
    if path.is_file():
        return Result.model_validate_json(path.read_text())
    return Result(
        name=NAME,
        title="GPU",
        how="`python -m benchmarks.gpu`: ResNet101 and VGG19 on windows of 3 x 64 x 150. "
        "`expected` was written into the script, with its reasons, before anything was measured.",
        rows=[],
        details={"parts": {}},
    )


# Around them ----------------------------------------------------------------------------------


def _options(setting: Setting) -> dict[str, Any]:
    """A branch's options on a GPU: bf16 and compile."""
    return {} if setting.quick else {"precision": "bf16", "compile": True}


def _rates(
    sides: Mapping[str, tuple[Callable[[], None], int]],
    setting: Setting,
    deadline: float,
    calls: int = 1,
) -> dict[str, list[float]]:
    """Run all sides in turn, until there are enough runs or the time is up; return items/s."""
    for call, _ in sides.values():  # kernels are chosen and code is compiled
        for _ in range(1 if setting.quick or time.monotonic() > deadline else 3):
            call()
    values: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 if setting.quick else RUNS):
        if time.monotonic() > deadline and all(values.values()):
            break
        for name, (call, items) in sides.items():
            setting.wait()
            began = time.perf_counter()
            for _ in range(calls):
                call()
            setting.wait()
            values[name].append(calls * items / (time.perf_counter() - began))
    return values


def _matrix_peak(setting: Setting) -> list[float]:
    """TFLOP/s of a large product in bf16."""
    size = 256 if setting.quick else 8192
    a, b = (torch.randn(size, size, device=setting.device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        torch.matmul(a, b)

    values = _rates({"peak": (multiply, 1)}, setting, time.monotonic() + 30, calls=20)
    return [rate * 2 * size**3 / 1e12 for rate in values["peak"]]


def _step_flops(network: str, shape: tuple[int, int, int, int]) -> int:
    """Floating-point operations of a forward and a backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    one = constant_step(network, CLASSES, (2, *shape[1:]))  # BatchNorm needs two
    with FlopCounterMode(display=False) as counter:
        one()
    return int(counter.get_total_flops()) * shape[0] // 2


def _train_when_told(task: BranchTask, pipe: Any) -> None:
    branch = Branch(task)
    while pipe.recv():
        branch.train(1)
        pipe.send(True)


def _free() -> None:
    import gc

    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
