"""Power spectra of recordings in PyTorch: by complex numbers, or by real ones in a program."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

_REAL = ContextVar("real", default=False)


@contextmanager
def real_numbers() -> Iterator[None]:
    """Have `power` use real numbers alone, on CPUs, as programs in ONNX and for LiteRT do."""
    before = _REAL.set(True)
    try:
        yield
    finally:
        _REAL.reset(before)


def power(waveforms: Tensor, size: int, hop: int, window: Tensor, pad_mode: str) -> Tensor:
    """Return |STFT|², [B, 1 + size // 2, 1 + samples // hop], of centred frames.

    Args:
        waveforms: float32 [B, samples].
        size: samples of a frame.
        hop: samples from one frame to the next.
        window: [at most `size`]; it stands in the middle of a frame.
        pad_mode: `constant` or `reflect`: what is before the first sample and behind the last.
    """
    if _REAL.get():
        return _real_power(waveforms, size, hop, window, pad_mode)
    spectrum = torch.stft(
        waveforms, size, hop, len(window), window=window, pad_mode=pad_mode, return_complex=True
    )
    return spectrum.real.square() + spectrum.imag.square()


def _real_power(waveforms: Tensor, size: int, hop: int, window: Tensor, pad_mode: str) -> Tensor:
    """As `power`: one step of Cooley and Tukey (1965), its two halves as matrix products.

    With size = a b, samples n = b i + j and frequencies k = p + a q, the sum over i is a transform
    of size a, then each (p, j) is turned by j p / size, and the sum over j is one of size b.
    """
    a = next(each for each in range(math.isqrt(size), 0, -1) if size % each == 0)
    b = size // a
    hops = -(-size // hop)
    signal = F.pad(waveforms[:, None], (size // 2, size // 2), mode=pad_mode)
    signal = F.pad(signal, (0, hop * hops - size))
    # Cut into hops by a product with 1: of a slice's end a proof is asked for in a program for any
    # length, and is not found.
    pieces = F.conv1d(signal, _pieces(hop), stride=hop).mT
    count = pieces.shape[1] - hops + 1
    frames = torch.cat([pieces[:, i : i + count] for i in range(hops)], dim=2)[..., :size]
    before = (size - len(window)) // 2
    frames = frames * F.pad(window, (before, size - len(window) - before))
    x = frames.reshape(-1, a, b)
    real, imaginary = _turns(a, a, a)
    u, v = real @ x, imaginary @ x  # [., p, j]
    real, imaginary = _turns(a, b, size)
    u, v = u * real - v * imaginary, u * imaginary + v * real
    real, imaginary = _turns(b, 1 + size // 2 // a, b)
    u, v = u @ real - v @ imaginary, u @ imaginary + v @ real  # [., p, q]
    spectrum = (u.square() + v.square()).mT.reshape(-1, count, u.shape[1] * u.shape[2])
    return spectrum[..., : 1 + size // 2].mT


@functools.cache
@torch.inference_mode(False)
def _pieces(hop: int) -> Tensor:
    """Filters [hop, 1, hop], each of which takes one sample of a hop."""
    return torch.eye(hop)[:, None]


@functools.cache  # made before a program is traced, so that they are its constants
@torch.inference_mode(False)  # for both modes, whichever asks first
def _turns(rows: int, columns: int, size: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts [rows, columns] of exp(-2 pi i row column / size)."""
    angles = torch.outer(torch.arange(rows), torch.arange(columns)) % size
    turned = -2 * math.pi * angles.double() / size
    return turned.cos().float(), turned.sin().float()
