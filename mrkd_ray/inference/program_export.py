"""A trained branch or ensemble as one program, from samples to probabilities, without this package.

The program holds the front-end, deltas, normalisation, evenly spaced windows and the networks. It
takes float32 waveforms [B, samples], mono at 22,050 Hz, all of one length, and returns float32
probabilities [B, M]; B is free. Its file says what it is (`description`), in the metadata of ONNX
and the extra files of `.pt2`. It is meant for CPUs: on a GPU, switch off TF32 in cuDNN
(`torch.backends.cudnn.allow_tf32 = False`), in whose rounding quiet bins of the CQT would drown.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.common.environment import versions
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.features.deltas import MARGIN, with_deltas
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.inference.model_folder import TENSORS
from mrkd_ray.representations.catalogue import REPRESENTATIONS, WINDOW_FRAMES, compute
from mrkd_ray.representations.filters import HOP
from mrkd_ray.representations.spectra import Recordings


class _Branch(nn.Module):
    """Static frames [B, bins, frames] in dB to probabilities [B, M], as `BranchModel`."""

    def __init__(self, branch: BranchModel, frames: int) -> None:
        super().__init__()
        model = branch.model
        self.representation = model.representation
        self.label_kind = branch.label_kind
        # A copy in PyTorch's own layout: torch.export.save warns of any other.
        self.network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
        self.mean = nn.Buffer(torch.tensor(model.statistics.mean)[:, :, None])
        self.std = nn.Buffer(torch.tensor(model.statistics.std)[:, :, None])
        bins = REPRESENTATIONS[model.representation].bins
        bank = Bank(np.zeros((frames, bins), np.float32), np.zeros(1, int), np.array([frames]))
        windows = Windows(bank, model.statistics, torch.device("cpu"))
        self.starts: list[int] = windows.even_starts(np.zeros(1, int))[1].tolist()
        self.missing = max(0, WINDOW_FRAMES - frames)  # frames that a short clip lacks

    def forward(self, static: Tensor) -> Tensor:
        channels = with_deltas(F.pad(static, (MARGIN, MARGIN), mode="replicate"))
        channels = (channels - self.mean) / self.std
        if self.missing:
            before = -self.starts[0]
            windows = [F.pad(channels, (before, self.missing - before))]
        else:
            windows = [channels[..., start : start + WINDOW_FRAMES] for start in self.starts]
        logits: Tensor = self.network(torch.stack(windows, dim=1).flatten(0, 1))
        logits = logits.view(-1, len(windows), logits.shape[1]).mean(dim=1)
        return self.label_kind.probabilities(logits)


class Program(nn.Module):
    """A classifier for recordings of one length: waveforms [B, samples] to probabilities [B, M]."""

    def __init__(self, classifier: Classifier, samples: int) -> None:
        super().__init__()
        frames = 1 + samples // HOP
        self.branches = nn.ModuleList(_Branch(model, frames) for model in classifier.branches)

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
        UserError: another suffix, a length that is not finite or less than one sample, or `.onnx`
            without the `onnx` extra.
    """
    if not math.isfinite(seconds) or (samples := round(seconds * SAMPLE_RATE)) < 1:
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
                with temporary.open("wb") as output:
                    torch.export.save(exported, output, extra_files=facts)
            else:
                _save_onnx(exported, temporary, facts)


def description(classifier: Classifier, samples: int) -> dict[str, str]:
    """Return what a program's file says of itself, each value as JSON.

    `classes` (in the order of the probabilities), `multi_label`, `sample_rate` in Hz, `samples`,
    `seconds`, and of each branch, in order, `representations`, `representation_versions`,
    `networks` and `sha256` of its weights; `mrkd_ray` is the version that wrote the file.
    """
    branches = classifier.branches
    facts = {
        "classes": list(classifier.classes),
        "multi_label": classifier.multi_label,
        "sample_rate": SAMPLE_RATE,
        "samples": samples,
        "seconds": samples / SAMPLE_RATE,
        "representations": [b.model.representation for b in branches],
        "representation_versions": [b.model.config["representation_version"] for b in branches],
        "networks": [b.model.config["network"] for b in branches],
        "sha256": [sha256_of(b.folder / TENSORS) for b in branches],
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
