"""Clips a second of a trained branch on one core: eager, compiled, ONNX Runtime; and its parts."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, Skip, alternate, one_thread, peak_memory

NAME = "inference"
BRANCHES = ("logmel64:resnet_small", "cqt:vgg_small")
BATCHES = (1, 32)
WINDOWS = 4  # of a clip of 5 s
ENGINES = ("eager", "compiled", "onnxruntime")


def run(quick: bool = False) -> Result:
    """Measure every engine and batch, in turn, each in a process of its own, on one thread."""
    one_thread()
    rows: list[Row] = []
    details: dict[str, Any] = {}
    notes: list[str] = []
    runs = 1 if quick else RUNS
    with tempfile.TemporaryDirectory() as folder:
        tasks = data.tasks("esc10", BRANCHES, quick)
        with _Apart(_export, tasks, folder):
            pass
        for task in tasks[:1] if quick else tasks:
            for batch in (2,) if quick else BATCHES:
                found = _measure(Path(folder), task.name, batch, data.clip(quick), runs, notes)
                details[f"{task.name}, batch {batch}"] = found
                rows += _rows(task.name, batch, found)
        ensemble = _measure_ensemble(folder, tasks[0].name, data.clip(quick), runs)
        details["ensemble"] = ensemble
    rows.append(
        Row(
            what="`Classifier.predict` of both branches, from file to answer (peak "
            f"{ensemble['peak MB']['both']:.0f} MB, alone {ensemble['peak MB']['one']:.0f} MB)",
            unit="clips/s",
            ours=[1 / s for s in ensemble["seconds"]["both"]],
            peer=[1 / s for s in ensemble["seconds"]["one"]],
            peer_is=f"{tasks[0].name} alone",
        )
    )
    return Result(
        name=NAME,
        title="Inference on one core",
        how="A clip of 5 s, from samples at 22,050 Hz to probabilities: the front-end, and the "
        f"network on the clip's {WINDOWS} windows. One thread. Every engine has a process of "
        "its own, and they take turns. The peak is that process's (VmHWM), libraries "
        "included. Compiled: torch.compile. ONNX Runtime: the network as torch.onnx exports "
        "it, in the same process.",
        rows=rows,
        notes=list(dict.fromkeys(notes)),
        details=details,
    )


def _measure(
    folder: Path, name: str, batch: int, clip: Path, runs: int, notes: list[str]
) -> dict[str, Any]:
    """Return the seconds a clip of the front-end and of each engine, and the peaks of memory."""
    with ExitStack() as stack:
        sides = {"front-end": stack.enter_context(_Apart(_front_end, name, clip))}
        for engine in ENGINES[:1] if runs == 1 else ENGINES:
            try:
                side = stack.enter_context(_Apart(_network, folder, name, engine, batch))
            except Skip as reason:
                notes.append(f"{engine} is left out: {reason}.")
            else:
                sides[engine] = side
        return _seconds(sides, runs, 1 if runs == 1 else max(2, 60 // batch))


def _measure_ensemble(folder: str, one: str, clip: Path, runs: int) -> dict[str, Any]:
    with (
        _Apart(_whole, Path(folder), clip) as both,
        _Apart(_whole, Path(folder) / "branches" / one, clip) as alone,
    ):
        return _seconds({"both": both, "one": alone}, runs, 1 if runs == 1 else 20)


def _seconds(sides: dict[str, _Apart], runs: int, calls: int) -> dict[str, Any]:
    timed = {name: lambda side=side: side.seconds(calls) for name, side in sides.items()}
    seconds = alternate(runs, timed)
    return {"seconds": seconds, "peak MB": {name: side.peak for name, side in sides.items()}}


def _rows(name: str, batch: int, found: dict[str, Any]) -> list[Row]:
    """A row an engine: front-end and network together, beside eager."""
    front = found["seconds"]["front-end"]
    rates = {
        engine: [1 / (a + b) for a, b in zip(front, seconds, strict=True)]
        for engine, seconds in found["seconds"].items()
        if engine != "front-end"
    }
    rows = []
    for engine, rate in rates.items():
        network = median(found["seconds"][engine])
        share = 100 * median(front) / (median(front) + network)
        rows.append(
            Row(
                what=f"{name}, batch {batch}, {engine}: front-end {share:.0f} % of the time, peak "
                f"{found['peak MB'][engine]:.0f} MB",
                unit="clips/s",
                ours=rate,
                peer=[] if engine == "eager" else rates["eager"],
                peer_is="" if engine == "eager" else "eager",
            )
        )
    return rows


class _Apart:
    """A fresh process with one thread that makes a function and then times calls of it.

    Args:
        make: returns the function to time and how many clips one call does; or None.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context)
        try:
            self._pool.submit(_make, make, arguments).result()
        except BaseException:
            self._pool.shutdown()
            raise
        self.peak = 0.0

    def __enter__(self) -> _Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def seconds(self, calls: int) -> float:
        """Return the seconds a clip over so many calls."""
        seconds, self.peak = self._pool.submit(_time, calls).result()
        return seconds


_CALL: list[Any] = []


def _make(make: Callable[..., Any], arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    made = make(*arguments)
    if made:
        _CALL[:] = made
        _time(2)


def _time(calls: int) -> tuple[float, float]:
    call, clips = _CALL
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls / clips, peak_memory()


def _export(tasks: Any, folder: str) -> None:
    from mrkd_ray.training.branch import Branch

    for task in tasks:
        Branch(task).export(Path(folder) / "branches" / task.name)


def _front_end(name: str, clip: Path) -> tuple[Any, int]:
    from mrkd_ray.audio import decoding
    from mrkd_ray.representations.catalogue import compute_clip

    recording = decoding.load(clip)
    representation = name.partition("-")[0]
    return lambda: compute_clip([representation], recording), 1


def _network(folder: Path, name: str, engine: str, batch: int) -> tuple[Any, int]:
    import torch

    from mrkd_ray.inference.classifier import Classifier

    model = Classifier.load(folder / "branches" / name, "cpu").branches[0].model
    network = model.network
    windows = torch.randn(batch * WINDOWS, 3, len(model.statistics.mean[0]), 150)
    if engine == "onnxruntime":
        return _onnx(network, windows), batch
    if engine == "compiled":
        network = torch.compile(network)  # type: ignore[assignment]
    inputs = windows.contiguous(memory_format=torch.channels_last)

    def call() -> Any:
        with torch.inference_mode():
            return network(inputs)

    return call, batch


def _whole(folder: Path, clip: Path) -> tuple[Any, int]:
    from mrkd_ray.inference.classifier import Classifier

    model = Classifier.load(folder, "cpu")
    return lambda: model.predict(clip), 1


def _onnx(network: Any, windows: Any) -> Callable[[], Any]:
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise Skip(f"{error.name} is not installed") from None
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/network.onnx"
        torch.onnx.export(network, (windows,), file, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: windows.numpy()}
    with torch.inference_mode():
        assert np.allclose(session.run(None, inputs)[0], network(windows).numpy(), atol=1e-3)
    return lambda: session.run(None, inputs)
