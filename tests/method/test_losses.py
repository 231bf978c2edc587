"""Eqs. 1, 2, 4 and 5 against numbers worked out by hand and formulas written another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from mrkd_ray.method.label_kinds import MultiLabel
from mrkd_ray.method.losses import (
    cross_entropy,
    distillation_loss,
    divergence,
    hard_label_loss,
    mix,
    soften,
    trust,
)

LN2, LN3 = math.log(2), math.log(3)
KINDS = ("reverse", "forward")

# The example worked out by hand: one clip, two classes. At T = 2 the logits (2 ln 3, 0) become
# (ln 3, 0), so P = (3/4, 1/4); at T = 1 they are P = (9/10, 1/10). The teacher is even.
HAND_LOGITS = torch.tensor([[2 * LN3, 0.0]], dtype=torch.float64)
HAND_TEACHER = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
HAND_CE = math.log(10 / 9)  # label: the first class
HAND_KL = {
    "reverse": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
    "forward": 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25),
}


def rows(n: int = 5, m: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets as under mixup, and a teacher, float64 [n, m]."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=3, size=(n, m)))
    targets = torch.from_numpy(rng.dirichlet(np.ones(m) / 2, size=n))
    teacher = torch.from_numpy(rng.dirichlet(np.ones(m), size=n))
    return logits, targets, teacher


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    at = logits.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(at), at)
    return result


def test_eq1_by_hand() -> None:
    logits = torch.tensor([[LN3, 0.0], [0.0, 0.0]], dtype=torch.float64)
    targets = torch.tensor([[1.0, 0.0], [0.25, 0.75]], dtype=torch.float64)
    # -ln(3/4) for the first clip; -ln(1/2) for the second, whatever its mixture of labels is.
    assert cross_entropy(logits, targets).item() == pytest.approx((math.log(4 / 3) + LN2) / 2)


def test_eq1_equals_torch_for_one_hot_labels_and_for_mixtures() -> None:
    logits, targets, _ = rows()
    labels = targets.argmax(dim=1)
    one_hot = F.one_hot(labels, 4).double()
    assert torch.allclose(cross_entropy(logits, one_hot), F.cross_entropy(logits, labels))
    assert torch.allclose(cross_entropy(logits, targets), F.cross_entropy(logits, targets))


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gce_is_its_formula_and_near_the_cross_entropy_at_a_small_q(q: float) -> None:
    logits, targets, _ = rows()
    expected = (targets * (1 - logits.softmax(1) ** q) / q).sum(1).mean()
    assert hard_label_loss(logits, targets, q).item() == pytest.approx(expected.item())
    near = hard_label_loss(logits, targets, 1e-6).item()
    assert near == pytest.approx(cross_entropy(logits, targets).item(), rel=1e-4)
    assert hard_label_loss(logits, targets).item() == cross_entropy(logits, targets).item()


def test_gce_by_hand_in_eq5_and_with_labels_that_the_network_does_not_believe() -> None:
    targets = torch.tensor([[0.0, 1.0]], dtype=torch.float64)  # P of it is 1/10
    options = {"temperature": 1.0, "kl_weight": 0.0, "q": 0.7}
    loss, part, _ = distillation_loss(HAND_LOGITS, targets, HAND_TEACHER, **options)
    assert loss.item() == pytest.approx((1 - 0.1**0.7) / 0.7)
    assert part.item() == loss.item()
    pulls = []
    for q in (0.0, 0.7):
        logits = HAND_LOGITS.clone().requires_grad_()
        hard_label_loss(logits, targets, q).backward()
        pulls.append(logits.grad.abs().max().item())
    assert pulls[1] == pytest.approx(0.1**0.7 * pulls[0])  # dL/dp is p^(q - 1) and not 1 / p


def test_eq2_by_hand() -> None:
    assert torch.allclose(
        soften(HAND_LOGITS, 2.0), torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    )
    assert torch.allclose(soften(HAND_LOGITS, 1.0), torch.tensor([[0.9, 0.1]], dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_eq2_equals_scipy(temperature: float) -> None:
    logits = rows()[0]
    expected = scipy.special.softmax(logits.numpy() / temperature, axis=1)
    np.testing.assert_allclose(soften(logits, temperature).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_eq4_by_hand(kind: str) -> None:
    kl = divergence(HAND_LOGITS, HAND_TEACHER, 2.0, kind)
    assert kl.item() == pytest.approx(HAND_KL[kind])
    assert HAND_KL["reverse"] != pytest.approx(HAND_KL["forward"])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["reverse", "forward"])
def test_eq4_equals_a_sum_over_clips_and_classes(kind: str, temperature: float) -> None:
    logits, _, teacher = rows()
    total = 0.0
    for z, t in zip(logits.numpy(), teacher.numpy(), strict=True):
        p = np.exp(z / temperature) / np.exp(z / temperature).sum()
        first, second = (p, t) if kind == "reverse" else (t, p)
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(first, second, strict=True))
    kl = divergence(logits, teacher, temperature, kind)
    assert kl.item() == pytest.approx(total / len(logits))


def test_eq4_forward_equals_torch() -> None:
    logits, _, teacher = rows()
    expected = F.kl_div(F.log_softmax(logits / 3, dim=1), teacher, reduction="batchmean")
    assert torch.allclose(divergence(logits, teacher, 3.0, "forward"), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_eq4_is_zero_under_a_teacher_that_agrees(kind: str) -> None:
    logits = rows()[0]
    teacher = soften(logits, 2.0)
    assert abs(divergence(logits, teacher, 2.0, kind).item()) < 1e-12
    assert divergence(logits, teacher, 1.0, kind).item() > 1e-2
    slope = gradient(lambda z: divergence(z, teacher, 2.0, kind), logits)
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1.0),
        ({"t_squared": True}, 4.0),
        ({"kl_weight": 0.3}, 0.3),
        ({"t_squared": True, "kl_weight": 0.3}, 1.2),
        ({"kl_weight": 0.0}, 0.0),
    ],
)
def test_eq5_by_hand(options: dict[str, float], factor: float, kind: str) -> None:
    label = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss, ce, kl = distillation_loss(
        HAND_LOGITS, label, HAND_TEACHER, temperature=2.0, kind=kind, **options
    )
    # The hard labels are met at T = 1, the teacher at T = 2.
    assert ce.item() == pytest.approx(HAND_CE)
    assert kl.item() == pytest.approx(HAND_KL[kind])
    assert loss.item() == pytest.approx(HAND_CE + factor * HAND_KL[kind])


def test_eq5_takes_the_papers_choices_where_none_are_given() -> None:
    label = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss = distillation_loss(HAND_LOGITS, label, HAND_TEACHER, temperature=2.0)[0]
    assert loss.item() == pytest.approx(HAND_CE + HAND_KL["reverse"])


def test_gradient_of_eq1_is_softmax_less_label() -> None:
    logits, targets, _ = rows()
    expected = (torch.softmax(logits, dim=1) - targets) / len(logits)
    assert torch.allclose(gradient(lambda z: cross_entropy(z, targets), logits), expected)


def test_gradient_of_eq4_forward() -> None:
    logits, _, teacher = rows()
    heat = 2.5
    expected = (soften(logits, heat) - teacher) / (heat * len(logits))
    found = gradient(lambda z: divergence(z, teacher, heat, "forward"), logits)
    assert torch.allclose(found, expected)


def test_gradient_of_eq4_reverse() -> None:
    logits, _, teacher = rows()
    heat = 2.5
    p = soften(logits, heat)
    terms = p.log() - teacher.log()
    kl = (p * terms).sum(dim=1, keepdim=True)
    expected = p * (terms - kl) / (heat * len(logits))
    found = gradient(lambda z: divergence(z, teacher, heat, "reverse"), logits)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind: str) -> None:
    logits, targets, teacher = rows(n=3)

    def loss(z: Tensor) -> Tensor:
        return distillation_loss(
            z,
            targets,
            teacher,
            temperature=3.0,
            kind=kind,
            t_squared=True,
            kl_weight=0.7,
        )[0]

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


def test_eq5_weighs_hard_labels() -> None:
    label = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    loss, ce, _ = distillation_loss(
        HAND_LOGITS, label, HAND_TEACHER, temperature=2.0, ce_weight=0.25
    )
    assert loss.item() == pytest.approx(0.25 * HAND_CE + HAND_KL["reverse"])
    assert ce.item() == pytest.approx(HAND_CE)


def test_trust_is_the_belief_in_a_label_over_that_in_the_likeliest_class() -> None:
    targets = torch.eye(3)[[0, 1, 1]]
    teacher = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    assert torch.allclose(trust(targets, teacher), torch.tensor([[1.0], [0.5], [0.0]]))


def test_trust_of_multi_label_is_of_each_class_for_itself() -> None:
    outputs = MultiLabel()
    labels = outputs.distributions(torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    teacher = outputs.distributions(torch.tensor([[0.8, 0.2, 0.2, 0.6]]))
    expected = torch.tensor([[[1.0], [0.25], [1.0], [0.4 / 0.6]]])
    assert torch.allclose(trust(labels, teacher), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_probabilities_and_large_logits_stay_finite(kind: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [0.0, 5.0, -5.0]], dtype=dtype)
    teacher = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    at = logits.clone().requires_grad_()
    loss, ce, kl = distillation_loss(at, teacher, teacher, temperature=1.0, kind=kind)
    loss.backward()
    assert torch.isfinite(torch.stack((loss, ce, kl))).all()
    assert at.grad is not None
    assert torch.isfinite(at.grad).all()
    assert kl.item() > 5  # a confident disagreement still costs: the floor does not hide it
    # Of the second clip: KL(t || p) with a one-hot teacher is the cross-entropy.
    alone = divergence(logits[1:], teacher[1:], 1.0, "forward")
    assert torch.allclose(alone, cross_entropy(logits[1:], teacher[1:]))


def test_mix_by_hand() -> None:
    batch = torch.tensor([[0.0, 8.0], [4.0, 0.0], [2.0, 2.0]])
    partners = batch[[1, 2, 0]]
    expected = torch.tensor([[3.0, 2.0], [2.5, 1.5], [0.5, 6.5]])
    assert torch.equal(mix(batch, 0.25), expected)
    assert torch.equal(mix(batch, 1.0), batch)
    assert torch.equal(mix(batch, 0.0), partners)
    assert torch.equal(mix(batch[:1], 0.25), batch[:1])
    memory = torch.empty_like(batch)
    assert mix(batch, 0.25, out=memory) is memory
    assert torch.equal(memory, expected)


def test_mix_treats_inputs_labels_and_teacher_rows_alike() -> None:
    # Whatever is a function of the input that mixing commutes with stays that function.
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy(rng.normal(size=(6, 3, 5, 7)))
    weights = torch.from_numpy(rng.normal(size=(3 * 5 * 7, 4)))
    labels = inputs.flatten(1) @ weights
    mixed = mix(inputs, 0.3)
    assert mixed.shape == inputs.shape
    assert torch.allclose(mixed.flatten(1) @ weights, mix(labels, 0.3))
    teacher = torch.from_numpy(rng.dirichlet(np.ones(4), size=6))
    assert torch.allclose(mix(teacher, 0.3).sum(dim=1), torch.ones(6).double())


def test_weights_are_of_each_clip_in_the_divergence_alone() -> None:
    label = torch.tensor([[1.0, 0.0]]).repeat(2, 1).to(HAND_LOGITS.dtype)
    logits, teacher = HAND_LOGITS[:1].repeat(2, 1), HAND_TEACHER[:1].repeat(2, 1)
    plain = distillation_loss(logits, label, teacher, temperature=2.0)
    weights = torch.tensor([0.5, 3.5]).to(logits.dtype)
    loss, ce, kl = distillation_loss(logits, label, teacher, temperature=2.0, weights=weights)
    assert torch.allclose(ce, plain[1])
    assert torch.allclose(kl, 2 * plain[2])
    assert torch.allclose(loss, ce + kl)
