"""Classify recordings with a trained branch, or with all branches of a cell as an ensemble."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from mrkd_ray.audio import decoding
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.normalisation import Statistics
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import clip_logits
from mrkd_ray.inference.model_folder import TRAINED_ON
from mrkd_ray.method.label_kinds import outputs_of
from mrkd_ray.networks.catalogue import build
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.scores.ensemble import mean_probabilities

Floats = NDArray[np.float32]


class BranchModel:
    """One trained branch: model.safetensors and config.json in a folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        try:
            self._load(folder, device)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"{folder}: not a whole model ({type(error).__name__}: {error}). It needs "
                "model.safetensors and config.json as training wrote them."
            ) from None

    def _load(self, folder: Path, device: torch.device) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.name = str(self.config["branch"])
        self.classes: tuple[str, ...] = tuple(self.config["classes"])
        self.multi_label = bool(self.config.get("multi_label", False))
        self.outputs = outputs_of(self.multi_label)
        self.representation = str(self.config["representation"])
        self.trained_on = set((folder / TRAINED_ON).read_text().split())
        version = REPRESENTATIONS[self.representation].version
        if version != self.config["representation_version"]:
            raise UserError(
                f"{folder}: trained on {self.representation} version "
                f"{self.config['representation_version']}, but this installation computes version "
                f"{version} (its parameters, constants or front-end differ). Install the mrkd_ray "
                "that it was trained with, or train again."
            )
        tensors = load_file(folder / "model.safetensors", device=str(device))
        network, _ = build(str(self.config["network"]), len(self.classes), "none")
        network.load_state_dict(
            {
                name.removeprefix("network."): tensor
                for name, tensor in tensors.items()
                if name.startswith("network.")
            }
        )
        self.network = network.to(device).to(memory_format=torch.channels_last).eval()
        self.statistics = Statistics(tensors["mean"].cpu().numpy(), tensors["std"].cpu().numpy())
        self._device = device

    def probabilities(self, frames: Floats) -> Floats:
        """Return the probabilities [M] of one clip from its static frames [frames, bins] in dB."""
        bank = Bank(frames, np.zeros(1, np.int64), np.array([len(frames)], np.int64))
        windows = Windows(bank, self.statistics, self._device)
        logits = clip_logits(self.network, windows, np.zeros(1, np.int64))
        probabilities: Floats = self.outputs.probabilities(logits)[0].cpu().numpy()
        return probabilities


class Classifier:
    """One branch, or the mean of several branches' probabilities.

    Attributes:
        classes: names of the M classes.
        multi_label: whether each class has a probability of its own; else they sum to 1.
        config: what the (first) branch was trained with.
        trained_on: digests of the clips that the branches were trained on.
    """

    def __init__(self, branches: Sequence[BranchModel]) -> None:
        self.branches = branches
        self.classes = branches[0].classes
        self.multi_label = branches[0].multi_label
        self.config = branches[0].config
        self.trained_on = set.union(*(branch.trained_on for branch in branches))

    @property
    def names(self) -> list[str]:
        """Names of the branches."""
        return [branch.name for branch in self.branches]

    def predict(self, file: Path) -> Floats:
        """Return the probabilities [M] of a recording.

        Raises:
            UserError: the file cannot be decoded; names it.
        """
        return mean_probabilities(self.predict_branches(file)).astype(np.float32)

    def by_class(self, probabilities: Floats) -> dict[str, float]:
        """Return probabilities [M] by class, the highest first."""
        return {self.classes[i]: float(probabilities[i]) for i in probabilities.argsort()[::-1]}

    def predict_branches(self, file: Path) -> Floats:
        """Return the probabilities [Γ, M] of each branch; raises as `predict`."""
        try:
            waveform = decoding.load(file)
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"{file}: cannot be classified: {error}") from None
        frames = compute_clip({branch.representation for branch in self.branches}, waveform)
        return np.stack([b.probabilities(frames[b.representation]) for b in self.branches])


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Load a branch's folder, or a cell's folder as an ensemble of its branches.

    Raises:
        UserError: neither of the two lies at `path`, or its branches do not agree.
    """
    root = Path(path)
    folders = [root] if (root / "config.json").is_file() else sorted(root.glob("branches/*"))
    if not folders:
        raise UserError(
            f"{path}: no model there. Give a branch's folder (with model.safetensors and "
            "config.json) or a cell's folder (with branches/), for example "
            "results/demo/cells/distilled_..."
        )
    branches = [BranchModel(folder, torch.device(device)) for folder in folders]
    if len({(branch.classes, branch.multi_label) for branch in branches}) > 1:
        raise UserError(f"{path}: its branches were trained on different classes.")
    return Classifier(branches)
