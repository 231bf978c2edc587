"""Classify recordings with a trained branch, or with several branches as an ensemble."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from mrkd_ray.audio import decoding
from mrkd_ray.audio.decoding import samples_at
from mrkd_ray.common import manifest
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.environment import local_device
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.features.store import Bank
from mrkd_ray.features.windows import Windows, windows_of
from mrkd_ray.inference import noise, packing
from mrkd_ray.inference.calibration import Calibration
from mrkd_ray.inference.clip_logits import BATCH, Apply, clip_logits
from mrkd_ray.inference.embedding import before_last_layer
from mrkd_ray.inference.inputs import Input, Source, is_one, sources
from mrkd_ray.inference.long_recordings import LogitsOfParts
from mrkd_ray.inference.model_folder import branch_folders, read_model
from mrkd_ray.inference.prediction import Prediction, table
from mrkd_ray.inference.spans import segments
from mrkd_ray.inference.threads import PARTS, of_sources, side_by_side
from mrkd_ray.method.label_kinds import label_kind
from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip
from mrkd_ray.representations.parts import compute_parts
from mrkd_ray.representations.spectra import one_thread
from mrkd_ray.representations.timing import PAPER, ticks_of

if TYPE_CHECKING:
    import pandas as pd

GROUP = 64
"""Recordings whose windows a GPU gets together. On CPUs each is by itself, on a thread."""

OnError = Callable[[UserError], None]


@dataclass(frozen=True)
class Heard:
    """A recording as its branches hear it: static frames [frames, bins] by representation.

    `ticks` and `seconds` are its length, `silent` whether it is (`noise.is_silent`). Of a recording
    that is too long to be held, there are the logits [1, M] of each branch in place of the frames.
    """

    ticks: int
    seconds: float
    frames: dict[str, Float32]
    logits: list[Tensor] | None = None
    silent: bool = False


class BranchModel:
    """One trained branch; `model` is what its folder holds. Raises as `read_model`."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.model = read_model(folder, device)
        self.label_kind = label_kind(self.model.multi_label)
        self.device = device

    @property
    def sample_rate(self) -> int:
        """Hz, of what it hears: recordings of any rate are resampled to it."""
        return REPRESENTATIONS[self.model.representation].timing.sample_rate

    @one_thread()
    def logits(self, heard: Sequence[Heard], network: Apply | None = None) -> Tensor:
        """Return the logits [n, M] of recordings.

        Args:
            heard: of each recording, with its frames.
            network: in place of the branch's own.
        """
        windows, clips = self.windows(heard), np.arange(len(heard))
        many = self.device.type == "cpu" and len(windows.even_starts(clips)[1]) > BATCH
        map_ = side_by_side if many else map
        return clip_logits(network or self.model.network, windows, clips, map_)

    def windows(self, heard: Sequence[Heard]) -> Windows:
        """Return the windows of recordings."""
        return windows_of(
            [each.frames[self.model.representation] for each in heard],
            [each.ticks for each in heard],
            self.model.statistics,
            self.device,
            REPRESENTATIONS[self.model.representation].timing,
            self.model.window_ticks,
        )

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
        windows = Windows(bank, statistics, self.device, timing, ticks=window)
        first = windows.first_frames(*windows.even_starts(clip))
        network = self.model.network
        return LogitsOfParts(network, statistics, timing, window, first, frames, self.device)

    def probabilities(self, logits: Tensor) -> Float32:
        """Return the probabilities [n, M] of logits [n, M]."""
        found: Float32 = self.label_kind.probabilities(logits).cpu().numpy()
        return found


class Classifier:
    """One branch, or the mean of several branches' probabilities.

    Example:
        `Classifier.load("results/train").predict("recording.wav").label`

    Attributes:
        classes: names of the M classes.
        multi_label: whether each class has a probability of its own; else they sum to 1.
        config: what the (first) branch was trained with.
        trained_on: digests of the clips that the branches were trained on.
        calibration: what their probabilities are worth.
    """

    def __init__(self, branches: Sequence[BranchModel]) -> None:
        self.branches = branches
        first = branches[0].model
        self.classes, self.multi_label, self.config = first.classes, first.multi_label, first.config
        self.trained_on = frozenset().union(*(branch.model.trained_on for branch in branches))
        evidence = [branch.model.evidence for branch in branches]
        self.calibration = Calibration.of(evidence, self.multi_label)
        self._group = GROUP if branches[0].device.type == "cuda" else 1
        # Of a packed model: the file of a frozen network is read when the first recording is heard.
        self._parts: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> Classifier:
        """Load a trained model.

        Args:
            path: a run's results folder, which stands for its `best/`; a cell's folder, whose
                branches are an ensemble; a branch's folder; or a packed model (`mrkd pack`).
            device: `cpu`, `cuda` or `cuda:N`; by default the GPU where there is one.

        Raises:
            UserError: nothing of these lies at `path`, it is damaged, its branches do not agree, or
                they are not those that were written there.
        """
        root = Path(path)
        if root.suffix == packing.SUFFIX and root.is_file():
            parts = tempfile.TemporaryDirectory(prefix="mrkd")
            packing.unpack(root, Path(parts.name))
            found = cls.load(parts.name, device)
            found._parts = parts
            return found
        folders = branch_folders(root)
        if not folders:
            raise UserError(
                f"{path}: no model there. Give a run's folder, for example results/demo "
                "(`mrkd compare results/demo` makes the best/ in it of an older run), a cell's "
                "folder (results/demo/cells/distilled_...), one of those in its branches/, or a "
                f"packed model (NAME{packing.SUFFIX})."
            )
        if folders != [root]:
            _check_members(folders[0].parents[1], {folder.name for folder in folders})
        on = torch.device(device or local_device())
        branches = [BranchModel(folder, on) for folder in folders]
        if len({(branch.model.classes, branch.model.multi_label) for branch in branches}) > 1:
            raise UserError(f"{path}: its branches were trained on different classes.")
        return cls(branches)

    def __reduce__(self) -> Any:
        """Pickle a packed model as its file: its parts lie in a folder that ends with it."""
        if self._parts is None:
            return super().__reduce__()
        return of_packed, (self.packed(), str(self.branches[0].device))

    def packed(self) -> bytes:
        """Return the model as the bytes of a packed one, for another process or machine."""
        with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
            file, parts = Path(folder) / f"model{packing.SUFFIX}", Path(folder) / "parts"
            if self._parts is None:
                folders = [branch.folder for branch in self.branches]
                packing.write_folder(parts, folders, {}, self.calibration)
            packing.pack(file, parts if self._parts is None else Path(self._parts.name))
            return file.read_bytes()

    @property
    def names(self) -> list[str]:
        """Names of the branches."""
        return [branch.model.branch for branch in self.branches]

    @property
    def window(self) -> float:
        """Seconds that a network sees at once: the longest of the branches' windows."""
        return max(branch.model.window_ticks for branch in self.branches) * PAPER.frame_seconds

    @overload
    def predict(
        self,
        inputs: Input | Iterable[Input],
        *,
        sample_rate: int | None = ...,
        window: float,
        hop: float | None = ...,
        on_error: OnError | None = ...,
    ) -> pd.DataFrame: ...
    @overload
    def predict(
        self,
        inputs: list[Any] | tuple[Any, ...],
        *,
        sample_rate: int | None = ...,
        on_error: OnError | None = ...,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        inputs: Input,
        *,
        sample_rate: int | None = ...,
        on_error: OnError | None = ...,
    ) -> Any: ...
    def predict(
        self,
        inputs: Input | Iterable[Input],
        *,
        sample_rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
        on_error: OnError | None = None,
    ) -> Any:
        """Classify recordings.

        Example:
            `classifier.predict(samples, sample_rate=44100).top(3)`

        Args:
            inputs: a file's path, samples, or a file that is open for reading bytes: one
                recording. A folder (all recordings at any depth), a pattern such as `*.wav`, or
                a list of all these: several, each file once. Samples are an array [n] or
                [channels, n] of floats in -1..1, signed integers or unsigned bytes.
            sample_rate: of samples, in Hz; they are not taken without.
            window: look at windows of so many seconds. Each is classified as a recording of its
                own; files are streamed, so that memory does not grow with their length.
            hop: seconds from the start of one window to the next; by default `window`.
            on_error: called where a recording cannot be classified, which is then left out;
                without it, the error is raised.

        Returns:
            A `Prediction` of one recording, a list of them of several. With `window` a pandas
            table of all: `file`, `start`, `end` (seconds), and the probability of each class.

        Raises:
            UserError: an input that is no recording, or cannot be decoded; names it.
        """
        found = self.stream(
            inputs, sample_rate=sample_rate, window=window, hop=hop, on_error=on_error
        )
        if window is not None:
            return table(found, self.classes)
        return next(found, None) if is_one(inputs) else list(found)

    def stream(
        self,
        inputs: Input | Iterable[Input],
        *,
        sample_rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
        on_error: OnError | None = None,
    ) -> Iterator[Prediction]:
        """Yield predictions as they are made, for more than fits into memory; as `predict`.

        In the order of the inputs, each recording's windows in order of time. Inputs that are
        nothing are told at once, before the first prediction is asked for.
        """
        given = sources(inputs, sample_rate)
        if window is None:
            if hop is not None:
                raise UserError("hop: it is the way from one window to the next: give window too")
            return self.classify(given, on_error)
        for name, seconds in (("window", window), ("hop", hop)):
            if seconds is not None and not 0 < seconds < np.inf:
                raise UserError(f"{name}: {seconds} is no length of time: seconds, above 0")
        return self._in_windows(given, window, hop or window, on_error)

    def embed(self, inputs: Input | Iterable[Input], *, sample_rate: int | None = None) -> Float32:
        """Return what the last layer of the network is given: features of a recording.

        The mean over a recording's windows (and, where the layer is a convolution, over what it
        sees of a window); of several branches, one after the other.

        Args:
            inputs: as of `predict`.
            sample_rate: as of `predict`.

        Returns:
            float32 [D] of one recording, [n, D] of several.

        Raises:
            UserError: as `predict`, or a recording of more than two minutes.
        """
        rows = []
        given = sources(inputs, sample_rate)
        for source, heard in zip(given, of_sources(self._hear, given), strict=True):
            if isinstance(heard, Exception):
                raise heard
            if heard.logits is not None:
                raise UserError(f"{source.name}: of up to {decoding.LONG:g} s only: cut it first")
            row = []
            for branch in self.branches:
                with before_last_layer(branch.model.network) as features:
                    row.append(branch.logits([heard], features)[0].cpu().numpy())
            rows.append(np.concatenate(row))
        found: Float32 = rows[0] if is_one(inputs) else np.stack(rows)
        return found

    def branches_of(self, recording: decoding.Recording) -> Float32:
        """Return the probabilities [Γ, M] of each branch, as training's evaluation has them."""
        found: Float32 = self._probabilities([self.heard(recording)])[0]
        return found

    def heard(self, recording: decoding.Recording) -> Heard:
        """Return a recording as the branches hear it."""
        names = {branch.model.representation for branch in self.branches}
        ticks = ticks_of(len(recording), recording.sample_rate)
        seconds = len(recording) / recording.sample_rate
        samples = recording.at(recording.sample_rate)
        silent = noise.is_silent(float(samples.min()), float(samples.max()))
        return Heard(ticks, seconds, compute_clip(names, recording), silent=silent)

    def hear(self, recording: decoding.Recording, name: str) -> Prediction:
        """Return what is said of samples; `name` is told in place of a file."""
        heard = self.heard(recording)
        return self._prediction(Source(name, recording), heard, self._probabilities([heard])[0])

    def _hear(self, source: Source) -> Heard:
        try:
            with source.opened() as sound:
                recording = (
                    decoding.load_or_stream(sound, source.stretch)
                    if isinstance(sound, Path)
                    else sound
                )
                if isinstance(recording, decoding.Recording):
                    return self.heard(recording)
                return self._hear_parts(recording)
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"{source.name}: cannot be classified: {error}") from None

    def _hear_parts(self, recording: decoding.LongRecording) -> Heard:
        """As `heard`, in memory that does not grow with the length."""
        parts = [branch.logits_of_parts(recording) for branch in self.branches]
        means = [_Mean() for _ in parts]
        names = {branch.model.representation for branch in self.branches}
        map_ = partial(side_by_side, most=PARTS)
        for name, frames in compute_parts(names, recording, map_):
            for branch, part, mean in zip(self.branches, parts, means, strict=True):
                if branch.model.representation == name:
                    mean.add(part.add(frames))
        ticks = ticks_of(len(recording), recording.sample_rate)
        seconds = len(recording) / recording.sample_rate
        silent = noise.is_silent(recording.lowest, recording.highest)
        return Heard(ticks, seconds, {}, [mean.value() for mean in means], silent=silent)

    def _probabilities(self, heard: Sequence[Heard]) -> Float32:
        """Return the probabilities [n, Γ, M] of recordings, all with frames or one without."""
        found = []
        for place, branch in enumerate(self.branches):
            known = heard[0].logits
            logits = branch.logits(heard) if known is None else known[place]
            found.append(branch.probabilities(logits))
        return np.stack(found, axis=1)

    def _prediction(self, source: Source, heard: Heard, branches: Float32) -> Prediction:
        for branch, row in zip(self.branches, branches, strict=True):
            if not np.isfinite(row).all():
                raise UserError(
                    f"{source.name}: {branch.folder}: its probabilities are not finite for this "
                    "recording"
                )
        return Prediction(
            source.name,
            0.0,
            heard.seconds,
            self.classes,
            branches,
            self.calibration,
            heard.silent,
        )

    def _classify(self, source: Source) -> Prediction:
        heard = self._hear(source)
        return self._prediction(source, heard, self._probabilities([heard])[0])

    def classify(
        self, given: Sequence[Source], on_error: OnError | None = None
    ) -> Iterator[Prediction]:
        """Yield what is said of each of these recordings; `on_error` as of `predict`."""
        if self._group == 1:
            found: Iterable[Any] = of_sources(self._classify, given)
        else:
            found = self._in_groups(given)
        for source, each in zip(given, found, strict=True):
            if isinstance(each, Prediction):
                yield each
            else:
                _tell(each, source, on_error)

    def _in_groups(self, given: Sequence[Source]) -> Iterator[Prediction | Exception]:
        """Yield for each recording what is said of it; windows of several in one batch."""
        coming = zip(given, of_sources(self._hear, given), strict=True)
        while group := list(islice(coming, self._group)):
            held = [each for _, each in group if isinstance(each, Heard) and each.logits is None]
            rows = iter(self._probabilities(held) if held else ())
            for source, heard in group:
                if isinstance(heard, Exception):
                    yield heard
                    continue
                row = next(rows) if heard.logits is None else self._probabilities([heard])[0]
                try:
                    yield self._prediction(source, heard, row)
                except UserError as error:
                    yield error

    def _in_windows(
        self, given: Sequence[Source], window: float, hop: float, on_error: OnError | None
    ) -> Iterator[Prediction]:
        for source in given:

            def classified(
                segment: tuple[float, float, decoding.Recording], source: Source = source
            ) -> Prediction:
                start, end, recording = segment
                return replace(self.hear(recording, source.name), start=start, end=end)

            try:
                with source.opened() as sound:
                    blocks: Iterable[decoding.Waveform]
                    if isinstance(sound, Path):
                        blocks = decoding.Decoding(sound, source.stretch)
                        rate = blocks.sample_rate
                    else:
                        blocks, rate = [sound.at(sound.sample_rate)], sound.sample_rate
                    yield from side_by_side(classified, segments(blocks, rate, window, hop))
            except (decoding.AudioError, OSError, UserError) as error:
                _tell(error, source, on_error)


def of_packed(content: bytes, device: str | None = None) -> Classifier:
    """Return the classifier of a packed model's bytes; `device` and errors as of `load`."""
    with tempfile.TemporaryDirectory(prefix="mrkd") as folder:
        file = Path(folder) / f"model{packing.SUFFIX}"
        file.write_bytes(content)
        return Classifier.load(file, device)


def _tell(error: Exception, source: Source, on_error: OnError | None) -> None:
    """Hand on why a recording cannot be classified, with its name."""
    if not isinstance(error, UserError):
        error = UserError(f"{source.name}: cannot be classified: {error}")
    if on_error is None:
        raise error from None
    on_error(error)


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
