"""Options that change nothing in a cell are set to one value before its key is made.

So two cells with the same bits have one key: they are one cell, and are trained once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mrkd_ray.config.method import Training


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What decides, besides the options themselves, which of them change nothing.

    Attributes:
        temperature: T of the soft labels.
        device: "cpu" or "cuda".
        all_verified: no clip of the data set has a label that nobody verified.
        default_weights: each branch starts from the weights that it has by default.
        default_lr: the learning rate that each branch has by default; None where they differ.
    """

    temperature: float
    device: str
    all_verified: bool
    default_weights: bool
    default_lr: float | None


def effective(training: Training, where: Circumstances) -> Training:
    """Return the options of a cohort's cells, those that change nothing at their defaults.

    An option that says in other words what the default says is written as the default too.
    """
    update = {name: _default(name) for name, _ in idle(training, where)}
    if where.device == "cpu" and training.precision == "fp32":
        update["precision"] = "auto"  # which is fp32 on a CPU
    if where.default_weights:
        update["weights"] = None
    if training.lr is not None and training.lr == where.default_lr:
        update["lr"] = None
    by_default = training.model_copy(update={"warm_up": _default("warm_up")})
    if training.warm_up_cycles == by_default.warm_up_cycles:
        update["warm_up"] = by_default.warm_up
    else:  # as many cycles, whatever part was asked for
        update["warm_up"] = training.warm_up_cycles / training.cycles
    return training.model_copy(update=update)


def idle(training: Training, where: Circumstances) -> Iterator[tuple[str, str]]:
    """Yield the options that were given and change nothing, each with the reason."""
    reasons = {}
    if not training.trust and training.soft_labels != "clip":
        reasons["teacher_momentum"] = "it is for trust and for soft_labels: clip"
    if where.temperature == 1:
        reasons["t_squared"] = "at T = 1 it multiplies by 1"
    elif training.kl_weight == 0:
        reasons["t_squared"] = "kl_weight is 0"
    if where.all_verified:
        why = "every label of the data set is verified"
        reasons |= dict.fromkeys(("verified_only", "unverified_ce", "unverified_kl"), why)
    for name, why in reasons.items():
        if getattr(training, name) != _default(name):
            yield name, why


def _default(name: str) -> object:
    return Training.model_fields[name].default
