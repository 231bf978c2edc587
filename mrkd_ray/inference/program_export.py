"""A trained branch or ensemble as one program, from samples to probabilities, without this package.

The program holds the front-end, deltas, normalisation, evenly spaced windows and the networks. It
takes float32 waveforms [B, samples], mono, all of one length and at the sample rate of its
representations (22,050 Hz but for learned ones), and returns float32 probabilities [B, M]; B is
free. Its file says what it is (`description`), in the metadata of ONNX and the extra files of
`.pt2`. It is meant for CPUs: on a GPU, switch off TF32 in cuDNN
(`torch.backends.cudnn.allow_tf32 = False`), in whose rounding quiet bins of the CQT would drown.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrkd_ray.common.environment import versions
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.features.deltas import MARGIN, with_deltas
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute
from mrkd_ray.representations.spectra import Recordings
from mrkd_ray.representations.timing import ticks_of


class _Branch(nn.Module):
    """Static frames [B, bins, frames] to probabilities [B, M], as `BranchModel`."""

    def __init__(self, branch: BranchModel, samples: int) -> None:
        super().__init__()
        model = branch.model
        self.representation = model.representation
        self.label_kind = branch.label_kind
        # A copy in PyTorch's own layout: torch.export.save warns of any other.
        self.network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
        self.mean = nn.Buffer(torch.tensor(model.statistics.mean)[:, :, None])
        self.std = nn.Buffer(torch.tensor(model.statistics.std)[:, :, None])
        entry = REPRESENTATIONS[model.representation]
        frames = entry.timing.frames(samples)
        length, ticks = np.array([[frames], [ticks_of(samples, entry.timing.sample_rate)]])
        static = np.zeros((frames, entry.bins), np.float32)
        bank = Bank(static, np.zeros(1, int), length, ticks)
        windows = Windows(
            bank, model.statistics, torch.device("cpu"), entry.timing, ticks=model.window_ticks
        )
        self.window = windows.frames
        clips, starts = windows.even_starts(np.zeros(1, int))
        self.starts: list[int] = windows.first_frames(clips, starts).tolist()
        self.missing = max(0, self.window - frames)  # frames that a short clip lacks

    def forward(self, static: Tensor) -> Tensor:
        channels = with_deltas(F.pad(static, (MARGIN, MARGIN), mode="replicate"))
        channels = (channels - self.mean) / self.std
        if self.missing:
            before = -self.starts[0]
            windows = [F.pad(channels, (before, self.missing - before))]
        else:
            windows = [channels[..., start : start + self.window] for start in self.starts]
        logits: Tensor = self.network(torch.stack(windows, dim=1).flatten(0, 1))
        logits = logits.view(-1, len(windows), logits.shape[1]).mean(dim=1)
        return self.label_kind.probabilities(logits)


class Program(nn.Module):
    """A classifier for recordings of one length: waveforms [B, samples] to probabilities [B, M]."""

    def __init__(self, classifier: Classifier, samples: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Branch(model, samples) for model in classifier.branches)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the mean of the branches' probabilities."""
        recordings = Recordings(waveforms)
        names = {str(branch.representation) for branch in self.branches}
        static = {name: compute(name, recordings) for name in sorted(names)}
        scores = [branch(static[str(branch.representation)]) for branch in self.branches]
        # `scores.ensemble.mean_probabilities` in PyTorch, and in float32, so that it is exported.
        return torch.stack(scores).mean(dim=0)


def export(classifier: Classifier, file: Path, seconds: float) -> None:
    """Write a classifier as a program: `.pt2` (torch.export) or `.onnx`.

    Args:
        classifier: one branch or an ensemble, on the CPU.
        file: its suffix tells the format.
        seconds: length of the recordings that the program takes.

    Raises:
        UserError: another suffix, a length that is not finite or less than one sample, branches
            at several sample rates, or `.onnx` without the `onnx` extra.
    """
    rates = {branch.sample_rate for branch in classifier.branches}
    if len(rates) > 1:
        listed = " and ".join(f"{rate} Hz" for rate in sorted(rates))
        raise UserError(
            f"{file}: its branches take recordings at {listed}, and a program takes one rate: "
            "export each branch by itself"
        )
    if not math.isfinite(seconds) or (samples := round(seconds * rates.pop())) < 1:
        raise UserError(f"--seconds {seconds}: a recording has at least one sample and an end")
    if file.suffix not in (".pt2", ".onnx"):
        raise UserError(f"{file}: a program's file ends in .pt2 (torch.export) or .onnx")
    needed = ("onnx", "onnxscript") if file.suffix == ".onnx" else ()
    if None in map(importlib.util.find_spec, needed):
        raise UserError(f"{file}: ONNX needs more packages: pip install -e '.[onnx]'")
    program = Program(classifier, samples).eval()
    facts = description(classifier, samples)
    example = torch.zeros(2, samples)
    batch = {"waveforms": {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        program(example)  # has the constants built before they are traced
        with replacing(file) as temporary:
            exported = torch.export.export(program, (example,), dynamic_shapes=batch)
            if file.suffix == ".pt2":
                program_file = io.BytesIO()  # torch aborts the process where a disk is full
                torch.export.save(exported, program_file, extra_files=facts)
                temporary.write_bytes(program_file.getbuffer())
            else:
                _save_onnx(exported, temporary, facts)


def description(classifier: Classifier, samples: int) -> dict[str, str]:
    """Return what a program's file says of itself, each value as JSON.

    `classes` (in the order of the probabilities), `multi_label`, `sample_rate` in Hz, `samples`,
    `seconds`, and of each branch, in order, `representations`, `representation_versions`,
    `networks` and `sha256` of its weights; `mrkd_ray` is the version that wrote the file.
    """
    branches = classifier.branches
    rate = branches[0].sample_rate
    facts = {
        "classes": list(classifier.classes),
        "multi_label": classifier.multi_label,
        "sample_rate": rate,
        "samples": samples,
        "seconds": samples / rate,
        "representations": [b.model.representation for b in branches],
        "representation_versions": [b.model.config["representation_version"] for b in branches],
        "networks": [b.model.config["network"] for b in branches],
        "sha256": [b.model.sha256 for b in branches],
        "mrkd_ray": versions(["mrkd-ray"])["mrkd-ray"],
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def _save_onnx(exported: torch.export.ExportedProgram, file: Path, facts: dict[str, str]) -> None:
    onnx = torch.onnx.export(
        exported,
        input_names=["waveforms"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    assert onnx is not None  # as it is without a file's name
    onnx.model.metadata_props.update(facts)
    onnx.save(file)
