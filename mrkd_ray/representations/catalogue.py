"""Representations: waveforms to [bins, frames], most of them in dB, one function each.

Each has a sample rate and a hop (`timing.Timing`); most have the paper's. Only the static channel
is computed here; deltas are derived where they are needed (`deltas.py`).

To add one, decorate a function with its name, its number of bins and a line of description::

    @representation("logmel40", bins=40, description="40 Mel bands, dB", constants=["mel-40"])
    def logmel(recordings: Recordings, bins: int) -> Tensor: ...

It computes in PyTorch, for a batch, from what `spectra.Recordings` has, at its sample rate.
Everything that changes its result is a keyword of the decorator, which hands it to the function:
stored features are keyed by these keywords and by the values of the constants, so a new value means
new features.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrkd_ray.audio.decoding import SAMPLE_RATE, Recording
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.registry import Registry
from mrkd_ray.representations import frozen, pretrained
from mrkd_ray.representations.filters import FRAME, HOP, digest
from mrkd_ray.representations.timing import AUDIOSET, EMBEDDING, PAPER, WINDOW_TICKS, Timing

if TYPE_CHECKING:  # the driver reads names and bins, and never loads PyTorch
    from torch import Tensor

    from mrkd_ray.representations.spectra import Recordings

DELTA_WIDTH = 9  # frames: librosa's default width of a delta
FRONTEND = 1  # to be raised when `spectra.py` computes other values from the same parameters


@dataclass(frozen=True)
class Representation:
    """A registered representation: its function, with all that decides its result."""

    name: str
    bins: int
    description: str
    transform: Callable[[Recordings], Tensor]
    params: Mapping[str, Any]
    constants: Sequence[str]
    timing: Timing = PAPER
    gain: tuple[float, ...] = ()  # of each bin for 1 dB of gain; empty: 1 everywhere
    linear: bool = False  # proportional to the samples: normalised by one scale, gain multiplies
    normalised: bool = False  # as its networks know it: taken as it is
    weights: str = ""  # the pretrained weights that it is made with, by their name
    frozen: str = ""  # the network from ImageNet that it is made with
    made_for: str = ""  # a network that it is for; empty: for all
    reach: float = 1.0  # seconds of the recording, before a frame and after it, that it depends on

    @property
    def embedding(self) -> bool:
        """Whether it is what a frozen network hears or sees: for a head."""
        return bool(self.weights or self.frozen)

    def check(self) -> None:
        """Raise UserError if the pretrained weights that it needs are not there."""
        if self.weights:
            pretrained.find(self.weights)

    def windows(self, ticks: int = WINDOW_TICKS) -> tuple[int, int]:
        """Return the bins and frames of a window of so many ticks."""
        return self.bins, self.timing.window(ticks)

    @property
    def levels(self) -> Float32:
        """Return how far each bin moves when the recording gets 1 dB louder, [bins]."""
        return np.array(self.gain or [1.0] * self.bins, np.float32)

    @property
    def version(self) -> str:
        """Short hash that changes with the name, the bins, a parameter, a constant or FRONTEND."""
        filters = {key: digest(key) for key in self.constants}
        key = [FRONTEND, self.name, self.bins, self.params, filters]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


class Representations(Registry[Representation]):
    """The registered representations, and `REPRESENTATION@NETWORK` (`frozen`) where it is there."""

    def __getitem__(self, name: str) -> Representation:
        """Return the representation of this name. Raises UserError where there is none."""
        base, at, network = name.partition(frozen.SEPARATOR)
        return _frozen(super().__getitem__(base), network) if at else super().__getitem__(name)


REPRESENTATIONS = Representations("representation")


def _frozen(base: Representation, network: str) -> Representation:
    found = frozen.find(network)
    return Representation(
        name=f"{base.name}{frozen.SEPARATOR}{network}",
        bins=found.bins,
        description=f"what {network} from ImageNet sees in {base.name}",
        transform=lambda recordings: frozen.embed(base.transform(recordings), network),
        params={**base.params, "of": base.name, "bins": base.bins, "network": found.sha256},
        constants=base.constants,
        timing=Timing(base.timing.sample_rate, frozen.HOP * base.timing.hop),
        gain=(0.0,) * found.bins,
        frozen=network,
        reach=base.reach + frozen.HOP * base.timing.frame_seconds,
    )


def representation(
    name: str,
    *,
    bins: int,
    description: str,
    constants: Sequence[str] = (),
    timing: Timing = PAPER,
    gain: Sequence[float] = (),
    linear: bool = False,
    normalised: bool = False,
    weights: str = "",
    made_for: str = "",
    reach: float = 1.0,
    **params: Any,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register the decorated `function(recordings, bins, **params)` as the representation `name`.

    It returns [B, bins, timing.frames(samples)]. `constants` are the keys (`filters.get`) that it
    uses; `params` go to the function and into the version, and must be JSON values. `gain` is how
    far each bin moves when the recording gets 1 dB louder, for augmentation; by default 1 in every
    bin, as of values in dB. `linear` says that all values are proportional to the samples instead.
    `normalised` values are what networks take, without statistics of the training clips.
    `weights` is a name in `pretrained.FILES`: its bytes go into the version. `made_for` is the
    network that it is for, where it is not for all. `reach` is how many seconds before and after
    it a frame depends on, besides the floor in dB: parts of a long recording overlap by it
    (`parts`).

    Raises:
        ValueError: the name is registered already.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        REPRESENTATIONS.add(
            name,
            Representation(
                name=name,
                bins=bins,
                description=description,
                transform=functools.partial(function, bins=bins, **params),
                params={
                    "sample_rate": timing.sample_rate,
                    "frame": FRAME,
                    "hop": timing.hop,
                    **params,
                    **({"weights": pretrained.FILES[weights].identity} if weights else {}),
                },
                constants=constants,
                timing=timing,
                gain=tuple(gain),
                linear=linear,
                normalised=normalised,
                weights=weights,
                made_for=made_for,
                reach=reach,
            ),
        )
        return function

    return decorate


def compute(name: str, recordings: Recordings) -> Tensor:
    """Return the representation `name` of a batch: float32 [B, bins, frames].

    On the device of the waveforms, which are at its sample rate. Frames behind the end of a
    recording that is padded are 80 dB under its maximum, or follow from such frames, and stand for
    nothing.

    Raises:
        UserError: nobody registered `name`.
        ValueError: the function returned another shape (an error in that function).
    """
    from mrkd_ray.representations.spectra import full_precision

    entry = REPRESENTATIONS[name]
    # What it sets is the whole process's, and CPUs have no use for it.
    with full_precision() if recordings.waveforms.is_cuda else nullcontext():
        result = entry.transform(recordings)
    batch, samples = recordings.waveforms.shape
    expected = (batch, entry.bins, entry.timing.frames(samples))
    if tuple(result.shape) != expected:
        raise ValueError(f"representation {name!r} has shape {tuple(result.shape)}, not {expected}")
    return result


def compute_clip(names: Iterable[str], recording: Recording) -> dict[str, Float32]:
    """Return representations of one clip, each float32 [frames, bins], contiguous.

    By itself and on one CPU thread, so that its bits depend neither on the clips beside it nor on
    who computes it: a worker or a user's process.

    Args:
        names: registered names.
        recording: resampled once for each rate that they have.

    Raises:
        UserError, ValueError: as `compute`.
    """
    import torch

    from mrkd_ray.representations.spectra import Recordings, one_thread

    @functools.cache
    def at(sample_rate: int) -> Recordings:
        return Recordings(torch.from_numpy(recording.at(sample_rate))[None])

    with one_thread(), torch.no_grad():
        return {
            name: compute(name, at(REPRESENTATIONS[name].timing.sample_rate))[0]
            .T.contiguous()
            .numpy()
            for name in names
        }


@representation(
    "logmel64", bins=64, description="64 Mel bands, the paper's log-Mel, dB", constants=["mel-64"]
)
@representation("logmel128", bins=128, description="128 Mel bands, dB", constants=["mel-128"])
def logmel(recordings: Recordings, bins: int) -> Tensor:
    """Power in Mel bands, dB, floored at 80 dB under the recording's maximum."""
    return recordings.decibels(recordings.mel(bins))


@representation(
    "mfcc",
    bins=64,
    description="64 cepstral coefficients of 128 Mel bands",
    bands=128,
    constants=["mel-128", "dct-64-128"],
    gain=[128**0.5] + [0.0] * 63,  # the orthonormal cosine transform of a constant
)
def mfcc(recordings: Recordings, bins: int, bands: int) -> Tensor:
    """Mel frequency cepstral coefficients: the cosine transform of the log-Mel bands.

    librosa's default of 128 bands, as in the code published for the paper's reference [64]
    (github.com/Cocoxili/DCASE2018Task2), where only the number of coefficients is 64.
    """
    return recordings.constant(f"dct-{bins}-{bands}") @ logmel(recordings, bands)


@representation(
    "cqt",
    bins=84,
    description="constant-Q transform, 7 octaves of 12 bins, dB",
    constants=["halving", *(f"cqt-84-{octave}" for octave in range(7))],
)
def cqt(recordings: Recordings, bins: int) -> Tensor:
    """Magnitude of the constant-Q transform from C1 (32.7 Hz) up, dB, floored as `logmel`."""
    return recordings.decibels(recordings.cqt(bins))


PCEN: dict[str, Any] = {
    "scale": 2**31,
    "seconds": 0.4,
    "pcen_gain": 0.98,
    "bias": 2.0,
    "power": 0.5,
    "eps": 1e-6,
}
PCEN_REACH = 20.0  # seconds: by then the past has faded to 2e-22


@representation(
    "pcen64",
    bins=64,
    description="64 Mel bands, each normalised by its own recent past (PCEN)",
    constants=["mel-64"],
    reach=PCEN_REACH,
    gain=[0.0] * 64,  # a louder recording has a louder past: 1 dB is 0.2 % at most
    **PCEN,
)
def pcen_mel(
    recordings: Recordings, bins: int, scale: float, seconds: float, pcen_gain: float, **rest: float
) -> Tensor:
    """Per-channel energy normalisation of the magnitude in Mel bands; no unit, no floor.

    `librosa.pcen` with its defaults, of samples as 32-bit integers as its documentation advises.
    """
    from mrkd_ray.representations.pcen import pcen

    frames = seconds * SAMPLE_RATE / HOP
    energy = recordings.mel(bins, magnitude=True) * scale
    return pcen(energy, frames=frames, gain=pcen_gain, **rest)


LOWEST = 50.0  # Hz: the middle of the first gammatone band


@representation(
    "gammatone64", bins=64, description="64 gammatone bands from 50 Hz up, dB", lowest=LOWEST
)
def gammatone(recordings: Recordings, bins: int, lowest: float) -> Tensor:
    """Power in gammatone bands, evenly spaced on the ear's scale (ERB), dB, floored as `logmel`."""
    return recordings.decibels(recordings.gammatone(bins, lowest))


@representation(
    "fused",
    bins=192,
    description="logmel64, pcen64 and gammatone64 one above the other, for vgg_fused",
    constants=["mel-64"],
    reach=PCEN_REACH,
    gain=[1.0] * 64 + [0.0] * 64 + [1.0] * 64,
    made_for="vgg_fused",
    lowest=LOWEST,
    **PCEN,
)
def fused(recordings: Recordings, bins: int, lowest: float, **pcen: float) -> Tensor:
    """Three representations for one network: what a cohort of three is compared with.

    Log-Mel and gammatone have one floor, 80 dB under the maximum of both.
    """
    import torch

    bands = bins // 3
    power = [recordings.mel(bands), recordings.gammatone(bands, lowest)]
    level = recordings.decibels(torch.cat(power, dim=1))
    parts = [level[:, :bands], pcen_mel(recordings, bands, **pcen), level[:, bands:]]
    return torch.cat(parts, dim=1)


@representation(
    "waveform",
    bins=HOP,
    description="the samples, 220 a frame, for leaf_small",
    linear=True,
    made_for="leaf_small",
)
def waveform(recordings: Recordings, bins: int) -> Tensor:
    """The samples themselves, in frames side by side: read in order, frames are the recording."""
    return recordings.samples()


@representation(
    "logmel_mn",
    bins=128,
    description="128 Mel bands at 32 kHz, as networks trained on AudioSet take them (mn04)",
    timing=AUDIOSET,
    gain=[0.2 * math.log(10) / 10] * 128,
    normalised=True,
    made_for="mn04",
)
def logmel_mn(recordings: Recordings, bins: int) -> Tensor:
    """EfficientAT's front-end: log power in Kaldi's Mel bands, scaled to about -1 to 1."""
    from mrkd_ray.representations import mobilenet

    waveforms = recordings.waveforms
    return mobilenet.filled(mobilenet.logmel(waveforms), AUDIOSET.frames(waveforms.shape[1]))


def _embedding(recordings: Recordings, bins: int, network: str) -> Tensor:
    """The last convolution of a frozen network of EfficientAT's, the mean over its bands."""
    from mrkd_ray.representations import mobilenet

    waveforms = recordings.waveforms
    trained = mobilenet.trained(network, waveforms.device)
    found = trained.embedding(mobilenet.logmel(waveforms)[:, None])
    return mobilenet.filled(found, EMBEDDING.frames(waveforms.shape[1]))


for _name, _bins, _size in (("mn04", 384, "small"), ("mn10", 960, "medium-sized")):
    representation(
        _name,
        bins=_bins,
        description=f"what a {_size} network trained on AudioSet hears: its embedding, every "
        "0.32 s",
        timing=EMBEDDING,
        gain=[0.0] * _bins,
        reach=5.0,  # of its convolutions; its squeezes take the mean of all that they are given
        weights=_name,
    )(functools.partial(_embedding, network=_name))


@representation(
    "mn04_context",
    bins=896,
    description="the last two layers of that small network, over the 10 s around each frame",
    timing=EMBEDDING,
    gain=[0.0] * 896,
    weights="mn04_context",
    reach=10.0,  # of `mn04`, and half of the context
    context=31,  # frames: what it was trained on, and the whole of a clip of 5 s
)
def mn04_context(recordings: Recordings, bins: int, context: int) -> Tensor:
    """`mn04` and the hidden layer of its AudioSet classifier, as `AudioMobileNet.summary`."""
    from mrkd_ray.representations import mobilenet

    waveforms = recordings.waveforms
    network = mobilenet.trained("mn04_context", waveforms.device)
    found = network.summary(network.embedding(mobilenet.logmel(waveforms)[:, None]), context)
    return mobilenet.filled(found, EMBEDDING.frames(waveforms.shape[1]))


def _panns(recordings: Recordings, bins: int, network: str) -> Tensor:
    """The last convolution of a frozen network of the PANNs, the mean over its bands."""
    from mrkd_ray.representations import panns

    return panns.trained(network, recordings.waveforms.device).embedding(recordings.waveforms)


for _name, _bins, _stride in (("panns_cnn10", 512, 16), ("panns_mobilenetv1", 1024, 32)):
    representation(
        _name,
        bins=_bins,
        description=f"what PANNs' network hears, trained on AudioSet: every {_stride / 100:g} s",
        timing=Timing(AUDIOSET.sample_rate, _stride * AUDIOSET.hop),
        gain=[0.0] * _bins,
        reach=5.0,
        weights=_name,
    )(functools.partial(_panns, network=_name))
