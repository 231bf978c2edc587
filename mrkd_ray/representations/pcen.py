"""Per-channel energy normalisation (Wang et al. 2017), as `librosa.pcen` computes it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BLOCK = 256  # frames smoothed by one product of matrices


def pcen(
    energy: Tensor, *, frames: float, gain: float, bias: float, power: float, eps: float
) -> Tensor:
    """Divide each band by its own recent past, and compress what is left.

    (E / (eps + M)**gain + bias)**power - bias**power, where M is E smoothed in time.

    Args:
        energy: [B, bands, frames], not negative; its scale matters, by `eps` and `bias`.
        frames: the smoother's time constant in frames.

    Returns:
        [B, bands, frames], not negative.
    """
    squared = frames * frames
    share = ((1 + 4 * squared) ** 0.5 - 1) / (2 * squared)  # of each new frame in the average
    past = _smooth(energy, share)
    steady = (-gain * (torch.log1p(past / eps) + torch.tensor(eps).log())).exp()
    compressed: Tensor = bias**power * torch.expm1(power * torch.log1p(energy * steady / bias))
    return compressed


def _smooth(energy: Tensor, share: float) -> Tensor:
    """M[t] = (1 - share) M[t - 1] + share E[t]; M before the first frame is 1, as librosa's.

    In blocks of frames: a recursion frame by frame would be slow and long to export.
    """
    decay, weights = _past(share, energy.dtype, energy.device)
    last = torch.ones_like(energy[..., :1])
    smoothed = []
    for block in torch.split(energy, BLOCK, dim=-1):
        n = block.shape[-1]
        smoothed.append(block @ weights[:n, :n] + last * decay[:n])
        last = smoothed[-1][..., -1:]
    return torch.cat(smoothed, dim=-1)


@functools.cache  # made before a program is traced, so that they are its constants
@torch.inference_mode(False)  # for both modes, whichever asks first
def _past(share: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """What is left of M after frames, [BLOCK], and E's part in M, [from frame, to frame]."""
    ages = torch.arange(BLOCK + 1, device=device)
    decay = (1 - share) ** ages.double()
    lags = ages[None, :BLOCK] - ages[:BLOCK, None]
    weights = torch.where(lags >= 0, share * decay[lags.clamp_min(0)], 0.0)
    return decay[1:].to(dtype), weights.to(dtype)
