"""The paper's equations 1, 2, 4 and 5 in PyTorch. Equation 3 is `averaging`, which needs no torch.

Shapes: N windows or clips, M classes. Where [N, M] is written for distributions, those of a
multi-label data set are [N, M, 2] (`label_kinds`); what is summed over M is summed over both axes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.method.label_kinds import LabelKind, SingleLabel

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
    return -_sum(targets * F.log_softmax(logits, dim=-1)).mean()


def hard_label_loss(logits: Tensor, targets: Tensor, q: float = 0.0) -> Tensor:
    """Generalised cross-entropy with the hard labels (Zhang and Sabuncu 2018): (1 - p^q) / q.

    A wrong label, which a network finds improbable, pulls less than in the cross-entropy.

    Args:
        logits: [N, M], float.
        targets: [N, M], as of `cross_entropy`; rows that do not sum to 1 are weighed.
        q: in [0, 1]. 0 is the cross-entropy, the limit; 1 the absolute error.

    Returns:
        Scalar, the mean over N.
    """
    if q == 0:
        return cross_entropy(logits, targets)
    return -_sum(targets * torch.expm1(q * F.log_softmax(logits, dim=-1))).mean() / q


def _sum(terms: Tensor) -> Tensor:
    """Return [N], the sum of each clip's terms."""
    return terms.flatten(1).sum(dim=1)


def soften(logits: Tensor, temperature: float, kind: LabelKind | None = None) -> Tensor:
    """Eq. 2: soft labels [N, M] of logits [N, M] at a temperature; by default one label a clip."""
    return (kind or SingleLabel()).probabilities(logits / temperature)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the mean entropy of distributions [N, M], in nats a clip: a scalar."""
    return -_sum(torch.xlogy(probabilities, probabilities)).mean()


def divergence(
    logits: Tensor,
    teacher: Tensor,
    temperature: float,
    kind: str,
    weights: Tensor | None = None,
) -> Tensor:
    """Eq. 4: divergence between a branch's soft labels P and the teacher's.

    Args:
        logits: [N, M], the branch's.
        teacher: [N, M], probabilities at the same temperature; no gradient flows into them.
        temperature: T of Eq. 2.
        kind: "reverse" is KL(P || teacher), as Eq. 4 is printed; "forward" is KL(teacher || P),
            the usual one (Hinton et al. 2015).
        weights: [N], of each clip in the mean; 1 where None.

    Returns:
        Scalar, the mean over N, in nats.
    """
    log_student = F.log_softmax(logits / temperature, dim=-1)
    divergences = _DIVERGENCES[kind](log_student, teacher.detach())
    return (divergences if weights is None else divergences * weights).mean()


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(PROBABILITY_FLOOR).log()


def _forward(log_student: Tensor, teacher: Tensor) -> Tensor:
    return _sum(teacher * (_log(teacher) - log_student))


def _reverse(log_student: Tensor, teacher: Tensor) -> Tensor:
    return _sum(log_student.exp() * (log_student - _log(teacher)))


_DIVERGENCES = {"reverse": _reverse, "forward": _forward}


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    kind: str = "reverse",
    t_squared: bool = False,
    kl_weight: float = 1.0,
    ce_weight: float = 1.0,
    weights: Tensor | None = None,
    q: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 5: L_d = L_ce + L_kl, where the options weigh the terms.

    `weights` [N] are of each clip in L_kl; those of L_ce are in `targets`, whose rows then do not
    sum to 1. `q` is that of `hard_label_loss`, which stands for L_ce.

    Returns:
        The loss, and its two parts L_ce and L_kl unweighted.
    """
    ce = hard_label_loss(logits, targets, q)
    kl = divergence(logits, teacher, temperature, kind, weights)
    factor = kl_weight * (temperature**2 if t_squared else 1.0)
    return ce_weight * ce + factor * kl, ce, kl


def embedding_distance(predicted: Tensor, embeddings: Tensor) -> Tensor:
    """Return 1 less the cosine of predicted [N, D] and given embeddings [N, D]: the mean over N."""
    return 1 - F.cosine_similarity(predicted, embeddings, dim=1).mean()


def trust(targets: Tensor, teacher: Tensor) -> Tensor:
    """Weigh hard labels by the teacher's belief in them: a wrong one is often seen by others.

    Args:
        targets: [N, M], one-hot rows.
        teacher: [N, M], probabilities of the same clips.

    Returns:
        [N, 1] in [0, 1], the probability of the label over that of the likeliest class; multi-label
        [N, M, 1], of what is said of each class over the likelier of present and absent.
    """
    belief = (targets * teacher).sum(dim=-1, keepdim=True)
    return belief / teacher.amax(dim=-1, keepdim=True)


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
