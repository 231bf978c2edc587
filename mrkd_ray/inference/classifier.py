"""Classify recordings with a trained branch, or with all branches of a cell as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mrkd_ray.audio import decoding
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import clip_logits
from mrkd_ray.inference.model_folder import is_model, read_model
from mrkd_ray.method.label_kinds import label_kind
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.representations.timing import ticks_of
from mrkd_ray.scores.ensemble import mean_probabilities


class BranchModel:
    """One trained branch; `model` is what its folder holds. Raises as `read_model`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = read_model(folder, device)
        self.label_kind = label_kind(self.model.multi_label)
        self._device = device

    def probabilities(self, frames: Float32, ticks: int) -> Float32:
        """Return the probabilities [M] of one clip from its static frames [frames, bins].

        Args:
            ticks: the clip's length (`representations.timing`).
        """
        length, ticks_ = np.array([[len(frames)], [ticks]], np.int64)
        bank = Bank(frames, np.zeros(1, np.int64), length, ticks_)
        timing = REPRESENTATIONS[self.model.representation].timing
        windows = Windows(bank, self.model.statistics, self._device, timing)
        logits = clip_logits(self.model.network, windows, np.zeros(1, np.int64))
        probabilities: Float32 = self.label_kind.probabilities(logits)[0].cpu().numpy()
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
        first = branches[0].model
        self.classes, self.multi_label, self.config = first.classes, first.multi_label, first.config
        self.trained_on = frozenset().union(*(branch.model.trained_on for branch in branches))

    @property
    def names(self) -> list[str]:
        """Names of the branches."""
        return [branch.model.branch for branch in self.branches]

    def predict(self, file: str | Path) -> Float32:
        """Return the probabilities [M] of a recording.

        Raises:
            UserError: the file cannot be decoded; names it.
        """
        return mean_probabilities(self.predict_branches(file)).astype(np.float32)

    def by_class(self, probabilities: Float32) -> dict[str, float]:
        """Return probabilities [M] by class, the highest first."""
        return {self.classes[i]: float(probabilities[i]) for i in probabilities.argsort()[::-1]}

    def predict_branches(self, file: str | Path) -> Float32:
        """Return the probabilities [Γ, M] of each branch; raises as `predict`."""
        try:
            recording = decoding.load(Path(file))
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"{file}: cannot be classified: {error}") from None
        frames = compute_clip({b.model.representation for b in self.branches}, recording)
        ticks = ticks_of(len(recording), recording.sample_rate)
        return np.stack(
            [b.probabilities(frames[b.model.representation], ticks) for b in self.branches]
        )


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Load a branch's folder, or a cell's folder as an ensemble of its branches.

    Raises:
        UserError: neither of the two lies at `path`, or its branches do not agree.
    """
    root = Path(path)
    folders = [root] if is_model(root) else sorted(root.glob("branches/*"))
    if not folders:
        raise UserError(
            f"{path}: no model there. Give a branch's folder (with model.safetensors and "
            "config.json) or a cell's folder (with branches/), for example "
            "results/demo/cells/distilled_..."
        )
    branches = [BranchModel(folder, torch.device(device)) for folder in folders]
    if len({(branch.model.classes, branch.model.multi_label) for branch in branches}) > 1:
        raise UserError(f"{path}: its branches were trained on different classes.")
    return Classifier(branches)
