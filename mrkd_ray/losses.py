"""The paper's equations 1, 2, 4 and 5 in PyTorch. Equation 3 is `averaging`, which needs no torch.

Shapes: N windows or clips, M classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PROBABILITY_FLOOR = 1e-12
"""A teacher's probability is not taken below this, so that its logarithm stays finite."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Eq. 1: cross-entropy with the hard labels.

    Args:
        logits: [N, M], float.
        targets: [N, M], one-hot rows, or their mixture under mixup.

    Returns:
        Scalar, the mean over N, in nats.
    """
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def soften(logits: Tensor, temperature: float) -> Tensor:
    """Eq. 2: soft labels, the softmax of logits [N, M] at a temperature."""
    return F.softmax(logits / temperature, dim=1)


def kl_divergence(
    logits: Tensor,
    teacher: Tensor,
    temperature: float,
    direction: str,
    weights: Tensor | None = None,
) -> Tensor:
    """Eq. 4: divergence between a branch's soft labels P and the teacher's.

    Args:
        logits: [N, M], the branch's.
        teacher: [N, M], probabilities at the same temperature; no gradient flows into them.
        temperature: T of Eq. 2.
        direction: "reverse" is KL(P || teacher), as Eq. 4 is printed; "forward" is
            KL(teacher || P), the usual one (Hinton et al.).
        weights: [N], of each clip in the mean; 1 where None.

    Returns:
        Scalar, the mean over N, in nats.
    """
    log_student = F.log_softmax(logits / temperature, dim=1)
    teacher = teacher.detach()
    log_teacher = teacher.clamp_min(PROBABILITY_FLOOR).log()
    if direction == "reverse":
        terms = log_student.exp() * (log_student - log_teacher)
    else:
        terms = teacher * (log_teacher - log_student)
    divergences = terms.sum(dim=1)
    return (divergences if weights is None else divergences * weights).mean()


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    direction: str = "reverse",
    t_squared: bool = False,
    kl_weight: float = 1.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 5: L_d = L_ce + L_kl, where the options weigh the second term.

    `weights` [N] are of each clip in L_kl; those of L_ce are in `targets`, whose rows then do not
    sum to 1.

    Returns:
        The loss, and its two parts L_ce and L_kl unweighted.
    """
    ce = cross_entropy(logits, targets)
    kl = kl_divergence(logits, teacher, temperature, direction, weights)
    factor = kl_weight * (temperature**2 if t_squared else 1.0)
    return ce + factor * kl, ce, kl


def mix(rows: Tensor, share: float, out: Tensor | None = None) -> Tensor:
    """Mixup (Zhang et al. 2018): `share` of each row and the rest of the next row, in a circle.

    In a batch that was drawn at random the next row is a random partner, found without a copy.
    `out`, shaped and laid out as `rows`, takes the result where given: batch after batch in the
    same memory stays in the cache.
    """
    mixed = torch.empty_like(rows) if out is None else out
    torch.lerp(rows[1:], rows[:-1], share, out=mixed[:-1])
    torch.lerp(rows[:1], rows[-1:], share, out=mixed[-1:])
    return mixed
