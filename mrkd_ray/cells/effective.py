"""Options that change nothing in a cell are set to one value before its key is made.

So two cells with the same bits have one key: they are one cell, and are trained once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mrkd_ray.config.method import DISTILLATION, Training
from mrkd_ray.datasets.label_experiments import kept_count, wrong_count
from mrkd_ray.features.window_extents import window_ticks
from mrkd_ray.representations.timing import PAPER, ticks_in


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What decides, besides the options themselves, which of them change nothing.

    Attributes:
        temperature: T of the soft labels; None without a teacher.
        device: "cpu" or "cuda".
        branches: Γ.
        default_lr: the learning rate that each branch has by default; None where they differ.
        bins: the most bins that SpecAugment can hide in a branch: 0 where all see raw samples.
        clips: training clips, with labels or not; an epoch has as many windows.
        labels: labelled training clips of each class.
        held_out: clips that are held out of training.
        whole_window: ticks of a window that holds a whole clip.
        all_verified: every clip that is not tested has a verified label.
        frozen: of each branch, whether its representation is a frozen pretrained one.
        teachers: the same of each frozen teacher.
    """

    temperature: float | None
    device: str
    branches: int
    default_lr: float | None
    bins: int
    clips: int
    labels: tuple[int, ...]
    held_out: int
    whole_window: int
    all_verified: bool
    frozen: tuple[bool, ...]
    teachers: tuple[bool, ...] = ()


def effective(training: Training, where: Circumstances) -> Training:
    """Return the options of a cell, those that change nothing at their defaults.

    An option that says in other words what the default says is written as the default, and one
    that is rounded or capped in training as what it comes to.
    """
    training = training.at_default(name for name, _ in idle(training, where))
    update: dict[str, Any] = {}
    ticks = window_ticks(training.window, where.whole_window)
    if ticks != window_ticks(Training.model_fields["window"].default):
        update["window"] = round(ticks * PAPER.frame_seconds, 4)
    else:
        update["window"] = Training.model_fields["window"].default
    if where.device == "cpu" and training.precision == "fp32":
        update["precision"] = "auto"  # which is fp32 on a CPU
    if training.lr is not None and training.lr == where.default_lr:
        update["lr"] = None
    update["specaugment_bins"] = min(training.specaugment_bins, where.bins)
    update["specaugment_time"] = min(training.specaugment_time, ticks)
    update["batch_size"] = min(training.batch_size, max(2, where.clips))
    if training.early_stop is not None:  # counted from the best cycle, or from the warm-up's end
        counted = training.cycles - max(1, training.warm_up_cycles)
        update["early_stop"] = min(training.early_stop, max(1, counted))
    if where.temperature is not None:
        update |= _of_the_teacher(training, where.branches)
    return training.model_copy(update=update)


def _of_the_teacher(training: Training, branches: int) -> dict[str, Any]:
    update: dict[str, Any] = {}
    by_default = training.at_default(["warm_up"])
    if training.warm_up_cycles == by_default.warm_up_cycles:
        update["warm_up"] = by_default.warm_up
    else:  # as many cycles, whatever part was asked for
        update["warm_up"] = training.warm_up_cycles / training.cycles
    if training.average == "weighted" and branches == 1:
        update["average"] = "mean"  # of one
    return update


def idle(training: Training, where: Circumstances) -> Iterator[tuple[str, str]]:
    """Yield the options that were given and change nothing, each with the reason."""
    reasons: dict[str, str] = {}
    if where.temperature is None:
        reasons |= dict.fromkeys(DISTILLATION, "nothing is distilled")
    else:
        if not training.trust and training.soft_labels != "clip":
            reasons["teacher_momentum"] = "it is for trust and for soft_labels: clip"
        elif training.cycles - training.warm_up_cycles == 1:
            reasons["teacher_momentum"] = "only one cycle has a teacher"
        if where.temperature == 1:
            reasons["t_squared"] = "at T = 1 it multiplies by 1"
        elif training.kl_weight == 0:
            reasons["t_squared"] = "kl_weight is 0"
        if all(where.frozen) or not any(where.frozen + where.teachers):
            why = "no branch has a mate with a frozen pretrained representation, such as mn04"
            reasons["embedding_weight"] = why
        if not any(where.frozen + where.teachers):
            reasons["neighbours"] = "no branch has a frozen pretrained representation, such as mn04"
        elif not training.trust and _all_labelled(training, where):
            reasons["neighbours"] = "it is for trust and for unlabelled clips"
    if where.all_verified:
        why = "every label that could be trained on is verified"
        reasons |= dict.fromkeys(("verified_only", "unverified_ce", "unverified_kl"), why)
    if ticks_in(training.augment_shift) == 0:
        reasons["augment_shift"] = "it is less than half a frame"
    if where.bins == 0:
        reasons["specaugment_bins"] = "raw samples have no bins to hide"
    if (
        len(set(where.labels)) == 1
        and wrong_count(training.label_noise, sum(where.labels) + where.held_out) == 0
    ):
        reasons["class_weights"] = "all classes have as many clips"
    if wrong_count(training.label_noise, sum(where.labels) + where.held_out) == 0:
        reasons["label_noise"] = "of so few clips it is none"
        reasons["label_noise_kind"] = "no label is changed"
    elif len(where.labels) == 2:
        reasons["label_noise_kind"] = "there are two classes"
    if _all_keep_their_label(training, where):
        reasons["labelled"] = "of so few clips it is all"
    plain = training.at_default(reasons)
    for name, why in reasons.items():
        if getattr(training, name) != getattr(plain, name):
            yield name, why


def _all_keep_their_label(training: Training, where: Circumstances) -> bool:
    return all(kept_count(training.labelled, count) == count for count in where.labels)


def _all_labelled(training: Training, where: Circumstances) -> bool:
    return where.clips == sum(where.labels) and _all_keep_their_label(training, where)
