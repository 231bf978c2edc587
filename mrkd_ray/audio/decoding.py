"""Recordings to waveforms: any format libsndfile decodes, any rate, channels and length."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 22050
"""Hz; of the authors' published code for the paper's reference [64]."""

AUDIO_SUFFIXES = frozenset(
    ".wav .wave .bwf .w64 .rf64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au "
    ".snd .caf .voc .sph .nist .avr .htk .iff .svx .8svx .paf .pvf .sd2 .sds .sf .ircam".split()  # noqa: SIM905
)
"""Endings, in lower case, of what libsndfile reads: what counts as a recording in a folder."""

UNREAD_SUFFIXES = frozenset(
    ".m4a .m4b .m4r .mp4 .m4v .mov .3gp .3g2 .aac .adts .amr .awb .wma .wmv .asf .webm "
    ".weba .mka .mkv .avi .ape .wv .tta .tak .mpc .ra .rm .ac3 .eac3 .dts .dsf .dff .spx "
    ".gsm .shn".split()  # noqa: SIM905
)
"""Endings, in lower case, of recordings that libsndfile does not read."""

BLOCK_FRAMES = 1 << 20  # bounds the memory of a long recording with many channels

Waveform = npt.NDArray[np.float32]


class AudioError(ValueError):
    """A recording cannot be used; the message is a short reason without the path."""


class EmptyAudioError(AudioError):
    """The recording holds no samples."""


class Decoded(NamedTuple):
    """A decoded recording."""

    samples: Waveform  # [n], n >= 1, mean of the channels, as stored (full scale is 1)
    sample_rate: int  # Hz, native
    channels: int


def decode(path: Path) -> Decoded:
    """Decode a recording at its native rate.

    Reads in blocks up to the end of the data instead of trusting the header's length, which is
    wrong in cut-off Ogg files.

    Raises:
        EmptyAudioError: no bytes or no samples.
        AudioError: no such file, not audio, or broken.
    """
    import soundfile

    try:
        if not path.is_file():
            raise AudioError("no such file")
        if path.stat().st_size == 0:
            raise EmptyAudioError("the file has 0 bytes")
        blocks: list[Waveform] = []
        with soundfile.SoundFile(str(path)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block.mean(axis=1) if channels > 1 else block[:, 0])
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        if "does not exist" in reason:  # what libsndfile says of a text file named .mp3
            reason = "Format not recognised"
        raise AudioError(f"not readable as audio: {reason}") from error
    except UnicodeEncodeError as error:
        raise AudioError("its name is not valid UTF-8: rename it") from error
    except (OSError, RuntimeError) as error:
        raise AudioError(f"not readable: {error}") from error
    if not blocks:
        raise EmptyAudioError("holds 0 samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return Decoded(np.ascontiguousarray(samples), rate, channels)


def read(path: Path) -> tuple[Waveform, int]:
    """Return a recording as mono float32 `[n]` (mean of the channels) and its native rate in Hz.

    Raises:
        AudioError: as `decode`.
    """
    samples, rate, _ = decode(path)
    return samples, rate


def load(path: Path, sample_rate: int = SAMPLE_RATE) -> Waveform:
    """Return a recording as finite mono float32 `[n]`, n >= 1, contiguous, at `sample_rate` Hz.

    Raises:
        AudioError: as `decode`, or the recording holds NaN or infinite samples.
    """
    samples, rate = read(path)
    if not np.isfinite(samples).all():
        raise AudioError("holds NaN or infinite samples")
    if rate == sample_rate:
        return samples
    import soxr

    resampled: Waveform = soxr.resample(samples, rate, sample_rate, quality="HQ")
    # soxr rounds the length, and we count every sample begun.
    length = -(-len(samples) * sample_rate // rate)
    if len(resampled) < length:
        return np.pad(resampled, (0, length - len(resampled)))
    return resampled[:length]
