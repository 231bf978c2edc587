"""The front-end: waveforms to what the representations are made of, in PyTorch on any device.

Everything is a transform of a batch and works on CPU, on GPU and in an exported program alike. It
follows librosa step by step, with librosa's own filters (`filters.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.common.arrays import Float64
from mrkd_ray.representations import filters as constants
from mrkd_ray.representations import fourier
from mrkd_ray.representations.filters import FRAME, HALVINGS, HOP, OCTAVE, REACH

AMIN = 1e-10  # librosa's smallest power
MARGIN = 2048 + HOP  # zeros on both sides of a waveform: half of the longest filter, and a hop
RANGE = 80.0  # dB under a recording's maximum, librosa's floor
PHASES = 16  # samples that one step of the halving filter yields, which makes it a fast product
MANY_HOPS = 8  # from so many hops on, filters are put together from pieces
PIECES_ERROR = 1e-6  # of the loudest hop of an octave's filters: a hundredth of the floor of 80 dB
MEL_GROUP = 16  # neighbouring Mel bands that are summed together, over the frequencies they share


class Part:
    """How `decibels` floors a part of a recording: 80 dB under the maximum of all parts.

    Args:
        own: the frames that count; those around them are there for the context only.
        maximum: dB, of the whole recording; None where it is not known yet: nothing is floored.

    Attributes:
        seen: the maximum of the own frames; None where nothing was asked for in dB.
    """

    def __init__(self, own: slice, maximum: float | None) -> None:
        self._own, self._maximum = own, maximum
        self.seen: float | None = None

    def floored(self, level: Tensor) -> Tensor:
        """Return dB [1, bins, frames], floored where the maximum is known."""
        self.seen = float(level[..., self._own].amax())
        return level if self._maximum is None else level.clamp_min(self._maximum - RANGE)


class Recordings:
    """A batch of waveforms, with what several representations of it share.

    Attributes:
        part: says that the batch is a part of one long recording; None: it is whole recordings.

    Args:
        waveforms: float32 mono [B, samples] at the rate of the representations that are made of
            them, at least one sample, all finite. All methods but `constant` are of `SAMPLE_RATE`.
        lengths: samples of each recording in a batch padded with zeros; by default they all fill
            their row.

    Raises:
        ValueError: the waveforms have another shape or dtype.
    """

    def __init__(self, waveforms: Tensor, lengths: Sequence[int] | None = None) -> None:
        if waveforms.ndim != 2 or 0 in waveforms.shape or waveforms.dtype != torch.float32:
            raise ValueError(
                "expected float32 waveforms [recordings, samples], at least one of each, not "
                f"{waveforms.dtype} {tuple(waveforms.shape)}"
            )
        self.waveforms = waveforms
        self.part: Part | None = None
        self.lengths = None if lengths is None else torch.tensor(lengths, device=waveforms.device)

    @property
    def frames(self) -> int:
        """The number of frames at the paper's hop: those of the longest recording."""
        return 1 + self.waveforms.shape[1] // HOP

    def constant(self, key: str) -> Tensor:
        """Return a constant (`filters.get`) on the waveforms' device."""
        return _constant(key, self.waveforms.device)

    @functools.cached_property
    def power(self) -> Tensor:
        """|STFT|², [B, frames, 1 + FRAME // 2], centred frames, Hann window."""
        window = _hann(self.waveforms.device)
        return fourier.power(self.waveforms, FRAME, HOP, window, "constant").mT

    def mel(self, bands: int, *, magnitude: bool = False) -> Tensor:
        """Power, or magnitude, in Mel bands, [B, bands, frames]."""
        spectrum = self.power.sqrt() if magnitude else self.power
        groups = _mel_filters(bands, self.waveforms.device)
        return torch.cat([spectrum[..., part] @ filters for part, filters in groups], dim=-1).mT

    def gammatone(self, bands: int, lowest: float) -> Tensor:
        """Power in gammatone bands from `lowest` Hz up, [B, bands, frames]."""
        return (self.power @ _gammatone_filters(bands, lowest, self.waveforms.device)).mT

    def samples(self) -> Tensor:
        """The waveforms in hops, [B, HOP, frames]: frame t has the HOP samples around its middle.

        Samples before the first are 0, and so are those behind the last.
        """
        length = self.frames * HOP - HOP // 2
        padded = F.pad(self.waveforms[:, :length], (HOP // 2, 0))
        padded = F.pad(padded, (0, self.frames * HOP - padded.shape[1]))
        return padded.view(-1, self.frames, HOP).mT

    def cqt(self, bins: int) -> Tensor:
        """Power of `librosa.cqt`, [B, bins, frames], for whole octaves of bins.

        librosa multiplies the spectra of frames with the spectra of its filters; here the same
        filters are applied to the samples, which is the same sum and less work.
        """
        octaves = []
        for octave in reversed(range(bins // OCTAVE)):
            step = min(octave, HALVINGS)
            hop = HOP >> step
            start, length, stages = _cqt_stages(f"cqt-{bins}-{octave}", hop, self.waveforms.device)
            signal = _cut(self._halved[step], start, (self.frames - 1) * hop + length)[:, None]
            for filters, stride in stages:
                signal = F.conv1d(signal, filters, stride=stride)
            octaves.append(signal)
        # Each octave: the real parts of its 12 bins and then the imaginary ones.
        parts = torch.cat(octaves, dim=1).view(-1, len(octaves), 2, OCTAVE, self.frames)
        return (parts[:, :, 0].square() + parts[:, :, 1].square()).flatten(1, 2)

    @functools.cached_property
    def _halved(self) -> list[Tensor]:
        """The waveforms at the full rate, its half, ...: [B, ceil(samples / 2**i) + 2 * MARGIN]."""
        signal = F.pad(self.waveforms, (MARGIN, MARGIN))
        signals = [signal]
        for i in range(1, HALVINGS + 1):
            signal = _halve(signal)
            if self.lengths is not None:  # the filter rings beyond the end of what is padded
                length = -(-self.lengths // 2**i)
                place = torch.arange(signal.shape[1], device=signal.device)
                signal = signal.masked_fill(place >= length[:, None], 0.0)
            signal = F.pad(signal, (MARGIN, MARGIN))
            signals.append(signal)
        return signals

    def decibels(self, power: Tensor) -> Tensor:
        """Power [B, bins, frames] to dB, floored at 80 dB under each recording's maximum.

        Frames behind the end of a recording in a padded batch are at that floor.
        """
        level = 10.0 * power.clamp_min(AMIN).log10()
        if self.part:
            return self.part.floored(level)
        if self.lengths is None:
            return torch.maximum(level, level.amax((1, 2), keepdim=True) - RANGE)
        behind = torch.arange(self.frames, device=level.device) > self.lengths[:, None] // HOP
        level = level.masked_fill(behind[:, None], -torch.inf)
        return torch.maximum(level, level.amax((1, 2), keepdim=True) - RANGE)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolve in float32 on GPUs too, not in TF32: quiet bins would drown in its rounding."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread: their number changes the order of sums, and so the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _halve(padded: Tensor) -> Tensor:
    """Halve the rate as librosa.resample: [B, samples + 2 * MARGIN] to [B, ceil(samples / 2)]."""
    length = (padded.shape[1] - 2 * MARGIN + 1) // 2  # ONNX rounds a negative quotient up
    steps = (length + PHASES - 1) // PHASES
    filters = _halving_filters(padded.device)
    used = _cut(padded, MARGIN - REACH, 2 * PHASES * (steps - 1) + filters.shape[-1])
    phases = F.conv1d(used[:, None], filters, stride=2 * PHASES)
    if torch.compiler.is_exporting():  # as below; for a transposition too a proof is asked for
        place = torch.arange(length, device=padded.device)
        return phases[:, place % PHASES, place // PHASES]
    return phases.mT.flatten(1)[:, :length]


def _cut(signal: Tensor, start: int, length: int) -> Tensor:
    """Return `length` of the samples [B, samples] from `start` on; in a program for any length too.

    There, a slice would ask for a proof that they are inside, and a gather does not.
    """
    if torch.compiler.is_exporting():
        return signal.index_select(1, start + torch.arange(length, device=signal.device))
    return signal[:, start : start + length]


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _constant(key: str, device: torch.device) -> Tensor:
    return torch.from_numpy(constants.get(key)).to(device)


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _mel_filters(bands: int, device: torch.device) -> list[tuple[slice, Tensor]]:
    """Groups of Mel filters: a range of frequencies, and their weights [frequencies, bands]."""
    every = constants.get(f"mel-{bands}")
    groups = []
    for first in range(0, bands, MEL_GROUP):
        filters = every[first : first + MEL_GROUP]
        used = np.flatnonzero(filters.any(axis=0))
        part = slice(int(used[0]), int(used[-1]) + 1)
        weights = np.ascontiguousarray(filters[:, part].T)
        groups.append((part, torch.from_numpy(weights).to(device)))
    return groups


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _gammatone_filters(bands: int, lowest: float, device: torch.device) -> Tensor:
    """Power responses [1 + FRAME // 2, bands] of gammatone filters of order 4, 1 at their middle.

    Their middles are evenly spaced on the scale of equivalent rectangular bandwidths (ERB: Glasberg
    and Moore 1990; Slaney 1993), from `lowest` to one step below half the sample rate.
    """
    quality, narrowest = 9.26449, 24.7  # of the ear's filters: ERB(f) = f / quality + narrowest
    offset = quality * narrowest
    range_ = (SAMPLE_RATE / 2 + offset) / (lowest + offset)
    middles = (lowest + offset) * range_ ** (np.arange(bands) / bands) - offset
    widths = 1.019 * (middles / quality + narrowest)
    frequencies = np.arange(1 + FRAME // 2)[:, None] * SAMPLE_RATE / FRAME
    responses = (1 + ((frequencies - middles) / widths) ** 2) ** -4.0
    return torch.from_numpy(responses.astype(np.float32)).to(device)


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _hann(device: torch.device) -> Tensor:
    return torch.hann_window(FRAME, device=device)


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _halving_filters(device: torch.device) -> Tensor:
    """The halving filter at PHASES successive places, [PHASES, 1, samples]."""
    taps = constants.get("halving")
    filters = np.zeros((PHASES, 1, len(taps) + 2 * (PHASES - 1)), np.float32)
    for phase in range(PHASES):
        filters[phase, 0, 2 * phase : 2 * phase + len(taps)] = taps
    return torch.from_numpy(filters).to(device)


@functools.cache
@torch.inference_mode(False)  # for both modes, whichever asks first
def _cqt_stages(
    key: str, hop: int, device: torch.device
) -> tuple[int, int, list[tuple[Tensor, int]]]:
    """An octave's filters as convolutions, one after the other.

    Returns:
        Where frame 0 begins in a signal with its margin (its middle is sample 0); the number of
        samples of a frame; and of each convolution the filters [out, in, n] and the stride. The
        last one yields the real parts of the octave's bins, and then the imaginary ones.
    """
    spectra = constants.get(key)
    samples = np.fft.fft(spectra, 2 * (spectra.shape[1] - 1))
    filters = np.concatenate([samples.real, samples.imag])
    start = MARGIN - filters.shape[1] // 2
    stages = [(filters[:, None], hop)]
    if filters.shape[1] >= MANY_HOPS * hop:
        filters = np.pad(filters, ((0, 0), (0, -filters.shape[1] % hop)))
        pieces, weights = _pieces(filters.reshape(len(filters), -1, hop))
        stages = [(pieces[:, None], hop), (weights, 1)]
    convolutions = [
        (torch.from_numpy(array.astype(np.float32)).to(device), stride) for array, stride in stages
    ]
    return start, filters.shape[1], convolutions


def _pieces(filters: Float64) -> tuple[Float64, Float64]:
    """Write filters, cut into hops [filters, hops, hop], as sums of few pieces of a hop.

    They are smooth, so that all their hops are combinations of a dozen pieces, which each hop of a
    signal is multiplied with once instead of with each hop of each filter. Pivoted Gram-Schmidt:
    unlike a library's decomposition it yields the same bits on any number of threads.

    Returns:
        The pieces [pieces, hop], and their weights [filters, pieces, hops].
    """
    rest = filters
    pieces, weights = [], []
    enough = PIECES_ERROR * np.square(filters).sum(axis=-1).max() ** 0.5
    while (size := np.square(rest).sum(axis=-1) ** 0.5).max() > enough:
        piece = rest[np.unravel_index(size.argmax(), size.shape)] / size.max()
        weight = (rest * piece).sum(axis=-1)
        rest = rest - weight[..., None] * piece
        pieces.append(piece)
        weights.append(weight)
    return np.stack(pieces), np.stack(weights, axis=1)
