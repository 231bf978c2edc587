"""Classify recordings with a trained branch, or with several branches as an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.audio import decoding
from mrkd_ray.audio.decoding import samples_at
from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows
from mrkd_ray.inference.clip_logits import BATCH, clip_logits
from mrkd_ray.inference.inputs import recordings
from mrkd_ray.inference.long_recordings import LogitsOfParts
from mrkd_ray.inference.model_folder import is_model, read_model
from mrkd_ray.inference.spans import Span, segments
from mrkd_ray.inference.threads import of_files, side_by_side
from mrkd_ray.method.label_kinds import label_kind
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.representations.parts import compute_parts
from mrkd_ray.representations.spectra import one_thread
from mrkd_ray.representations.timing import ticks_of
from mrkd_ray.scores.ensemble import mean_probabilities


class BranchModel:
    """One trained branch; `model` is what its folder holds. Raises as `read_model`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.model = read_model(folder, device)
        self.label_kind = label_kind(self.model.multi_label)
        self._device = device

    @property
    def sample_rate(self) -> int:
        """Hz, of what it hears: recordings of any rate are resampled to it."""
        return REPRESENTATIONS[self.model.representation].timing.sample_rate

    @one_thread()
    def probabilities(self, frames: Float32, ticks: int) -> Float32:
        """Return the probabilities [M] of one clip from its static frames [frames, bins].

        Args:
            ticks: the clip's length (`representations.timing`).
        """
        windows, clip = self.windows(frames, ticks), np.zeros(1, np.int64)
        map_ = map if len(windows.even_starts(clip)[1]) <= BATCH else side_by_side
        return self.probabilities_of(clip_logits(self.model.network, windows, clip, map_))

    def windows(self, frames: Float32, ticks: int) -> Windows:
        """Return the windows of one clip; arguments as of `probabilities`."""
        length, ticks_ = np.array([[len(frames)], [ticks]], np.int64)
        bank = Bank(frames, np.zeros(1, np.int64), length, ticks_)
        timing = REPRESENTATIONS[self.model.representation].timing
        window = self.model.window_ticks
        return Windows(bank, self.model.statistics, self._device, timing, ticks=window)

    def logits_of_parts(self, recording: decoding.LongRecording) -> LogitsOfParts:
        """Return what takes the static frames of a long recording, part by part."""
        statistics = self.model.statistics
        timing = REPRESENTATIONS[self.model.representation].timing
        rate, clip = recording.sample_rate, np.zeros(1, np.int64)
        frames = timing.frames(samples_at(len(recording), rate, timing.sample_rate))
        length, ticks = np.array([[frames], [ticks_of(len(recording), rate)]], np.int64)
        none = np.zeros((0, statistics.mean.shape[1]), np.float32)
        bank = Bank(none, clip, length, ticks)
        window = self.model.window_ticks
        windows = Windows(bank, statistics, self._device, timing, ticks=window)
        first = windows.first_frames(*windows.even_starts(clip))
        network = self.model.network
        return LogitsOfParts(network, statistics, timing, window, first, frames, self._device)

    def probabilities_of(self, logits: Tensor) -> Float32:
        """Return the probabilities [M] of one clip's logits [1, M]."""
        probabilities: Float32 = self.label_kind.probabilities(logits)[0].cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise UserError(f"{self.folder}: its probabilities are not finite for this recording")
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

    def predict_all(
        self,
        inputs: str | Path | Iterable[str | Path],
        *,
        on_error: Callable[[UserError], None] | None = None,
    ) -> Iterator[tuple[Path, dict[str, float]]]:
        """Yield each recording with its probabilities by class, the highest first.

        In the order of the inputs, each once; several are classified side by side.

        Example:
            `for file, scores in classifier.predict_all("recordings/*.wav"): ...`

        Args:
            inputs: a file, a folder (all recordings at any depth) or a pattern; or several.
            on_error: called where a recording cannot be classified, which is then left out;
                without it, the error is raised.

        Raises:
            UserError: at once where one of the inputs names nothing, otherwise as `predict`.
        """
        files = recordings([inputs] if isinstance(inputs, str | Path) else inputs)
        return self._predict_files(files, on_error)

    def _predict_files(
        self, files: Sequence[Path], on_error: Callable[[UserError], None] | None
    ) -> Iterator[tuple[Path, dict[str, float]]]:
        for file, found in zip(files, of_files(self.predict, files, Path), strict=True):
            if not isinstance(found, Exception):
                yield file, self.by_class(found)
                continue
            error = found if isinstance(found, UserError) else UserError(f"{file}: {found}")
            if on_error is None:
                raise error
            on_error(error)

    def predict_windows(
        self, file: str | Path, window: float, hop: float | None = None
    ) -> Iterator[Span]:
        """Yield the probabilities in each window of a recording, in order of time.

        Each is what `predict` returns of a file that holds the window alone. The recording's file
        is streamed, so that memory does not grow with its length.

        Args:
            file: the recording.
            window: its length in seconds.
            hop: seconds from the start of one to the next; default: `window`.

        Raises:
            UserError: the file cannot be decoded; names it.
        """

        def classified(segment: tuple[float, float, decoding.Recording]) -> Span:
            start, end, recording = segment
            found = mean_probabilities(self.branches_of(recording)).astype(np.float32)
            return Span(start, end, found)

        try:
            yield from side_by_side(classified, segments(Path(file), window, hop or window))
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"{file}: cannot be classified: {error}") from None

    def by_class(self, probabilities: Float32) -> dict[str, float]:
        """Return probabilities [M] by class, the highest first."""
        return {self.classes[i]: float(probabilities[i]) for i in probabilities.argsort()[::-1]}

    def predict_branches(
        self, file: str | Path, stretch: decoding.Stretch | None = None
    ) -> Float32:
        """Return the probabilities [Γ, M] of each branch, also of a part; raises as `predict`."""
        try:
            recording = decoding.load_or_stream(Path(file), stretch)
            if isinstance(recording, decoding.LongRecording):
                return self._branches_of_parts(recording)
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"{file}: cannot be classified: {error}") from None
        return self.branches_of(recording)

    def _branches_of_parts(self, recording: decoding.LongRecording) -> Float32:
        """As `branches_of`, in memory that does not grow with the length."""
        parts = [branch.logits_of_parts(recording) for branch in self.branches]
        means = [_Mean() for _ in parts]
        names = {branch.model.representation for branch in self.branches}
        for name, frames in compute_parts(names, recording):
            for branch, part, mean in zip(self.branches, parts, means, strict=True):
                if branch.model.representation == name:
                    mean.add(part.add(frames))
        found = zip(self.branches, means, strict=True)
        return np.stack([branch.probabilities_of(mean.value()) for branch, mean in found])

    def branches_of(self, recording: decoding.Recording) -> Float32:
        """Return the probabilities [Γ, M] of each branch."""
        frames = compute_clip({b.model.representation for b in self.branches}, recording)
        ticks = ticks_of(len(recording), recording.sample_rate)
        return np.stack(
            [b.probabilities(frames[b.model.representation], ticks) for b in self.branches]
        )


class _Mean:
    """Of the rows of tensors [n, M]."""

    def __init__(self) -> None:
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0

    def add(self, batches: Iterable[Tensor]) -> None:
        for batch in batches:
            self._sum = self._sum + batch.double().sum(dim=0)
            self._count += len(batch)

    def value(self) -> Tensor:
        """[1, M] float32."""
        return (self._sum / self._count).float()[None]


def load(path: str | Path, device: str = "cpu") -> Classifier:
    """Load a branch's folder; of a run's `best/`, or a cell's folder, the branches as an ensemble.

    Raises:
        UserError: neither of the two lies at `path`, its branches do not agree, or they are not
            those that were written there.
    """
    root = Path(path)
    # Finder and Jupyter put hidden files and folders everywhere.
    inside = (path for path in root.glob("branches/*") if not path.name.startswith("."))
    folders = [root] if is_model(root) else sorted(inside)
    if not folders:
        raise UserError(
            f"{path}: no model there. Give a run's best/, for example results/demo/best "
            "(`mrkd compare results/demo` makes it of an older run), a cell's folder "
            "(results/demo/cells/distilled_...), or one of the folders in its branches/."
        )
    if folders != [root]:
        _check_members(root, {folder.name for folder in folders})
    branches = [BranchModel(folder, torch.device(device)) for folder in folders]
    if len({(branch.model.classes, branch.model.multi_label) for branch in branches}) > 1:
        raise UserError(f"{path}: its branches were trained on different classes.")
    return Classifier(branches)


def _check_members(root: Path, found: set[str]) -> None:
    """Refuse an ensemble of other branches than were written: without one it says other things."""
    sums = manifest.read(root)
    if sums is None:  # of an earlier version, or put together by hand
        return
    written = {PurePosixPath(name).parts[1] for name in sums if name.startswith("branches/")}
    wrong = [f"{name} is gone" for name in sorted(written - found)]
    wrong += [f"{name} was not there" for name in sorted(found - written)]
    if wrong:
        raise UserError(
            f"{root / 'branches'}: {few(wrong)}: not the ensemble that was written. Get it again, "
            "or give the folder of one branch."
        )
