"""Multi-label losses: the paper's equations with a distribution for each class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence

from mrkd_ray.method.label_kinds import MultiLabel, SingleLabel, label_kind
from mrkd_ray.method.losses import cross_entropy, distillation_loss, divergence, entropy, soften

SIGMOID = MultiLabel()


def rows(n: int = 6, m: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels as under mixup, and a teacher, float64 [n, m]."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(scale=3, size=(n, m)))
    labels = torch.from_numpy(rng.choice([0.0, 0.3, 1.0], (n, m)))
    return logits, labels, torch.from_numpy(rng.uniform(0.01, 0.99, (n, m)))


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """Of each clip, the sum over its classes: [n]."""
    return kl_divergence(Bernoulli(p), Bernoulli(q)).sum(dim=1)


def test_eq1_is_the_binary_cross_entropy_summed_over_classes() -> None:
    logits, labels, _ = rows()
    found = cross_entropy(SIGMOID.logits(logits), SIGMOID.distributions(labels))
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    assert torch.allclose(found, expected.sum(dim=1).mean())


def test_weighted_labels_weigh_absent_classes_too() -> None:
    logits, labels, _ = rows()
    weights = torch.linspace(0, 1, 6, dtype=torch.float64)
    targets = SIGMOID.distributions(labels) * weights[:, None, None]
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1)
    assert torch.allclose(
        cross_entropy(SIGMOID.logits(logits), targets), (expected * weights).mean()
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_eq2_and_eq4_are_of_independent_bernoullis(temperature: float) -> None:
    logits, _, teacher = rows()
    student = soften(logits, temperature, SIGMOID)
    assert torch.allclose(student, torch.sigmoid(logits / temperature))
    expected = {
        "forward": bernoulli_kl(teacher, student),
        "reverse": bernoulli_kl(student, teacher),
    }
    for kind, clips in expected.items():
        inputs = SIGMOID.logits(logits), SIGMOID.distributions(teacher), temperature, kind
        assert torch.allclose(divergence(*inputs), clips.mean())
        weights = torch.arange(6, dtype=torch.float64)
        assert torch.allclose(divergence(*inputs, weights), (clips * weights).mean())


def test_eq5_and_its_gradient() -> None:
    logits, labels, teacher = rows()
    logits.requires_grad_()
    loss, ce, kl = distillation_loss(
        SIGMOID.logits(logits),
        SIGMOID.distributions(labels),
        SIGMOID.distributions(teacher),
        temperature=2.0,
        kind="forward",
        t_squared=True,
        kl_weight=0.5,
    )
    assert torch.allclose(loss, ce + 2 * kl)
    (found,) = torch.autograd.grad(loss, logits)
    to_labels = torch.sigmoid(logits) - labels
    to_teacher = (torch.sigmoid(logits / 2) - teacher) / 2
    assert torch.allclose(found, (to_labels + 2 * to_teacher) / 6)


@pytest.mark.parametrize("kind", ["reverse", "forward"])
def test_losses_stay_finite_where_a_teacher_or_a_branch_is_certain(kind: str) -> None:
    logits = torch.tensor([[200.0, -200.0, 200.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0, 1.0]])
    loss = divergence(SIGMOID.logits(logits), SIGMOID.distributions(teacher), 1.0, kind)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_entropy_of_a_clip_is_the_sum_over_its_classes() -> None:
    _, _, teacher = rows()
    expected = Bernoulli(teacher).entropy().sum(dim=1).mean()
    assert torch.allclose(entropy(SIGMOID.distributions(teacher)), expected)
    assert entropy(SIGMOID.distributions(teacher.round())) == 0


def test_one_label_a_clip_is_left_as_it_is() -> None:
    logits, labels, _ = rows()
    kind = label_kind(multi_label=False)
    assert isinstance(kind, SingleLabel)
    assert kind.logits(logits) is logits
    assert kind.distributions(labels) is labels
    assert torch.equal(kind.probabilities(logits), F.softmax(logits, dim=1))
