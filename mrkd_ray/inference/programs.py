"""A trained branch or ensemble as one module, from samples to probabilities, that can be exported.

It holds the front-end, deltas, normalisation, evenly spaced windows, the networks and the
calibration. What branches share is computed once: one STFT for all Mel bands.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrkd_ray.audio.decoding import SAMPLE_RATE, samples_at
from mrkd_ray.features.deltas import MARGIN, with_deltas
from mrkd_ray.inference.classifier import BranchModel, Classifier
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute
from mrkd_ray.representations.filters import HOP
from mrkd_ray.representations.spectra import Recordings
from mrkd_ray.representations.timing import PAPER
from mrkd_ray.scores.tempering import LARGEST, SMALLEST


class ProgramBranch(nn.Module):
    """Static frames [B, bins, frames] to probabilities [B, M], as `BranchModel`."""

    def __init__(self, branch: BranchModel) -> None:
        super().__init__()
        model = branch.model
        self.representation = model.representation
        self.label_kind = branch.label_kind
        # A copy in PyTorch's own layout: torch.export.save warns of any other.
        self.network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
        self.mean = nn.Buffer(torch.tensor(model.statistics.mean)[:, :, None])
        self.std = nn.Buffer(torch.tensor(model.statistics.std)[:, :, None])
        self.timing = REPRESENTATIONS[model.representation].timing
        self.ticks = model.window_ticks
        self.window = self.timing.window(model.window_ticks)

    def forward(self, static: Tensor, samples: int) -> Tensor:
        """Return the probabilities of recordings of so many samples."""
        channels = with_deltas(F.pad(static, (MARGIN, MARGIN), mode="replicate"))
        logits = self.logits((channels - self.mean) / self.std, samples)
        return self.label_kind.probabilities(logits)

    def logits(self, channels: Tensor, samples: int) -> Tensor:
        """[B, 3, bins, frames] of recordings of so many samples to their windows' mean [B, M]."""
        batch, frames = channels.shape[0], channels.shape[3]
        ticks = PAPER.frames(samples_at(samples, self.timing.sample_rate, SAMPLE_RATE))
        count = (ticks + self.ticks - 1) // self.ticks
        # Windows of all recordings in one row: what is traced may not know that there is one alone.
        rows = torch.arange(batch * count)
        owner = torch.div(rows, count, rounding_mode="floor")
        first = self.first_frames(rows - owner * count, count - 1, ticks, frames)
        places = first[:, None] + torch.arange(self.window)
        own = (places >= 0) & (places < frames)  # what a short clip lacks is the mean, which is 0
        inside = places.clamp(0, frames - 1)
        windows = channels.permute(0, 3, 1, 2)[owner[:, None], inside] * own[:, :, None, None]
        logits: Tensor = self.network(windows.permute(0, 2, 3, 1))
        sums = torch.zeros(batch, logits.shape[1])
        return sums.scatter_add(0, owner[:, None].expand(-1, logits.shape[1]), logits) / count

    def first_frames(self, within: Tensor, steps: int, ticks: int, frames: int) -> Tensor:
        """As `Windows.even_starts` and `first_frames`, of windows by their number in a clip.

        No quotient is negative: ONNX rounds such ones up, and PyTorch down.
        """
        spare = torch.scalar_tensor(ticks - self.ticks, dtype=torch.int64)
        parts = torch.scalar_tensor(steps, dtype=torch.int64).clamp(min=1).double()
        starts = (within.double() * spare.clamp(min=0).double() / parts).round().long()
        above, below = HOP * self.timing.sample_rate, SAMPLE_RATE * self.timing.hop
        before = ((-spare).clamp(min=0) + 1) // 2  # ticks of padding of a clip below a window
        first = (2 * starts * above + below) // (2 * below)
        first = first - (2 * before * above + below - 1) // (2 * below)
        room = torch.scalar_tensor(frames - self.window, dtype=torch.int64)
        return torch.minimum(torch.maximum(first, room.clamp(max=0)), room.clamp(min=0))


class Program(nn.Module):
    """A classifier: waveforms [B, samples] to probabilities [B, M].

    Args:
        classifier: on the CPU.
        branch: makes a branch of the program.
    """

    def __init__(
        self, classifier: Classifier, branch: Callable[[BranchModel], nn.Module] = ProgramBranch
    ) -> None:
        super().__init__()
        self.temperature = classifier.calibration.temperature
        self.multi_label = classifier.multi_label
        self.branches = nn.ModuleList(map(branch, classifier.branches))

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the mean of the branches' probabilities, calibrated."""
        recordings = Recordings(waveforms)
        names = {str(branch.representation) for branch in self.branches}
        static = {name: compute(name, recordings) for name in sorted(names)}
        samples = waveforms.shape[1]
        scores = [branch(static[str(branch.representation)], samples) for branch in self.branches]
        # `Calibration.together` in PyTorch, and in float32, so that it is exported.
        mean = torch.stack(scores).mean(dim=0)
        if self.temperature == 1:
            return mean
        if self.multi_label:
            return (mean.clamp(SMALLEST, LARGEST).logit() / self.temperature).sigmoid()
        return (mean.clamp(min=SMALLEST).log() / self.temperature).softmax(dim=1)
