"""Exported programs in ONNX Runtime beside the model that they were made from, on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.common import RUNS, Result, Row, Skip, alternate, one_thread

NAME = "programs"
BRANCHES = ("logmel64:vgg_small", "mfcc:vgg_small", "cqt:vgg_small")
CALLS = 10


def run(quick: bool = False) -> Result:
    """Measure both in turn, on a clip of 5 s from samples to probabilities."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise Skip("the onnx extra is not installed") from None
    one_thread()
    from mrkd_ray.audio.decoding import load
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.inference.program_export import Clips, _session, export
    from mrkd_ray.training.branch import Branch

    recording = load(data.clip(quick))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in data.tasks("esc10", BRANCHES, quick):
            made = Path(folder) / task.name
            Branch(task).export(made)
            classifier = Classifier.load(made, "cpu")
            program = made.with_suffix(".onnx")
            export(classifier, program, Clips("clips of ESC-10", [recording]))
            run_program, branches_of = _session(program), classifier.branches_of
            samples = recording.at(classifier.branches[0].sample_rate)[None]
            seconds = alternate(
                1 if quick else RUNS,
                {
                    "program": partial(_seconds, run_program, samples),
                    "model": partial(_seconds, branches_of, recording),
                },
            )
            rows.append(
                Row(
                    what=f"{task.name}, {program.stat().st_size / 1e6:.2f} MB",
                    unit="clips/s",
                    ours=[1 / each for each in seconds["program"]],
                    peer=[1 / each for each in seconds["model"]],
                    peer_is="the model in PyTorch",
                )
            )
    return Result(
        name=NAME,
        title="Exported programs",
        how=f"A clip of {len(recording) / recording.sample_rate:.0f} s, from samples to "
        "probabilities, one thread each, in turn. The programs are those of `mrkd export`, for any "
        "length, in ONNX Runtime. The networks are not trained.",
        rows=rows,
    )


def _seconds(call: Callable[[Any], Any], given: Any) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        call(given)
    return (time.perf_counter() - began) / CALLS
