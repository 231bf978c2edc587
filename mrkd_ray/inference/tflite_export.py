"""A program for TensorFlow Lite, which LiteRT runs on phones and small devices.

It takes one recording of one length. What is told of it lies in `description.json` in a zip archive
behind the program, as TensorFlow Lite's own metadata do: `zipfile` opens the file, and LiteRT does
not look there.
"""

from __future__ import annotations

import functools
import json
import sys
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.inference.programs import Program, ProgramBranch
from mrkd_ray.representations.fourier import real_numbers
from mrkd_ray.representations.timing import ticks_of

DESCRIPTION = "description.json"


class _Branch(ProgramBranch):
    """Of one recording of so many samples: where its windows lie is known beforehand."""

    def __init__(self, branch: BranchModel, samples: int) -> None:
        super().__init__(branch)
        ticks = ticks_of(samples, self.timing.sample_rate)
        count = -(-ticks // self.ticks)
        frames = self.timing.frames(samples)
        found = self.first_frames(torch.arange(count), count - 1, ticks, frames)
        self.first = [int(each) for each in found]

    def logits(self, channels: Tensor, samples: int) -> Tensor:
        around = max(0, self.window - channels.shape[3])
        padded = F.pad(channels, (around, around))
        windows = [padded[..., around + one : around + one + self.window] for one in self.first]
        found: Tensor = self.network(torch.cat(windows)).mean(dim=0, keepdim=True)
        return found


def program_of(classifier: Classifier, samples: int) -> Program:
    """Return the module that is converted: [1, samples] to probabilities [1, M]."""
    return Program(classifier, functools.partial(_Branch, samples=samples)).eval()


def convert(classifier: Classifier, samples: int, file: Path) -> Any:
    """Return the program of a classifier for recordings of so many samples; it has an `export`.

    The converter takes about a minute, and tells its steps on the standard error.

    Args:
        file: that errors name.

    Raises:
        UserError: LiteRT's converter refuses what a representation or a network does.
    """
    program = program_of(classifier, samples)
    example = torch.zeros(1, samples)
    with redirect_stdout(sys.stderr), real_numbers(), torch.no_grad():
        import litert_torch

        program(example)  # has the constants built before they are traced
        try:
            return litert_torch.convert(program, (example,))
        except Exception as error:
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{file}: LiteRT's converter does not take this model: {what[-1][:300]}. "
                "Write .onnx instead"
            ) from error


def session(file: Path) -> Callable[[Float32], Float32]:
    """Return a function that runs a program: waveforms [1, samples] to probabilities [1, M]."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=torch.get_num_threads())
    interpreter.allocate_tensors()
    (given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(waveforms: Float32) -> Float32:
        interpreter.set_tensor(given["index"], waveforms)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(returned["index"]))

    return run


def describe(file: Path, facts: dict[str, Any]) -> None:
    """Write behind a program what is told of it."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(DESCRIPTION, json.dumps(facts, indent=2))
