"""Options of the method and the optimiser: all that changes a result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from mrkd_ray.config.fields import BASIC, StrictModel, Window, whole_path


def _part_of_several(given: str) -> str:
    part, _, parts = given.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= 99):
        raise ValueError("give one part of several, as 2/4")
    if int(parts) == 1:
        raise ValueError("1/1 leaves no clip to train on: 1/2 to 2/2 are the fewest parts")
    return f"{int(part)}/{int(parts)}"


PRETRAINED_LR = 0.001  # the paper's

SCRATCH_LR = 0.05  # small networks with BatchNorm from random weights: see the page on the method


def default_lr(weights: str) -> float:
    """Return the initial learning rate from `none`, `imagenet` or a file of weights."""
    return SCRATCH_LR if weights == "none" else PRETRAINED_LR


GPU_CYCLES, CPU_CYCLES = 150, 40  # the published epochs; those of docs/results on CPUs


def default_cycles(gpus: bool) -> int:
    """Return the cycles of a run that was not told, by whether its branches have GPUs."""
    return GPU_CYCLES if gpus else CPU_CYCLES


PAPER: dict[str, Any] = {
    "cycles": 75,
    "b": 1,
    "d": 1,
    "batch_size": 64,
    "mixup": 0.2,
    "warm_up": 0.0,
    "soft_labels": "clip",
    "divergence": "reverse",
    "t_squared": False,
    "kl_weight": 1.0,
    "ce_weight": 1.0,
    "average": "mean",
    "teacher_momentum": 0.0,
    "trust": False,
    "temperature": 2.0,  # which it does not give
    "temperatures": (2.0,),
}
"""The published values, which `paper` sets: of fields whose default may be another."""

DISTILLATION = (
    "warm_up",
    "soft_labels",
    "divergence",
    "t_squared",
    "kl_weight",
    "ce_weight",
    "average",
    "teacher_momentum",
    "trust",
    "unverified_kl",
    "embedding_weight",
    "neighbours",
)
"""Fields of `Training` that change nothing where there is no teacher."""


class Learning(StrictModel):
    """How a network learns, taught or not."""

    batch_size: int = Field(64, ge=2, description="Windows in a minibatch.")
    lr: float | None = Field(
        None,
        gt=0,
        description="Initial learning rate, annealed by a cosine over the cycles. "
        f"Default: {PRETRAINED_LR} with loaded weights, {SCRATCH_LR} from random ones.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay of SGD.")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Part of a running average of the weights that each step keeps. The average, "
        "with BatchNorm's statistics, is what is evaluated, teaches and is saved. 0.99 to 0.999 "
        "are usual. 0: none.",
    )
    mixup: float = Field(0.0, ge=0, description="Alpha of mixup's Beta distribution. 0: no mixup.")
    window: Window = Field(
        1.5,
        description="Seconds of a clip that a network sees at once, or whole: all of the longest "
        "clip, 10 s at most. Shorter clips are padded, longer ones scored in pieces.",
    )
    augment_gain: float = Field(
        0.0, ge=0, description="Random gain of training windows: at most this many dB up or down."
    )
    augment_shift: float = Field(
        0.0,
        ge=0,
        le=1.5,
        description="Random circular shift of training windows: at most this many seconds either "
        "way, the same in every branch.",
    )
    specaugment_time: int = Field(
        0,
        ge=0,
        le=150,
        description="SpecAugment: hide at most this many frames of 10 ms of a training window.",
    )
    specaugment_bins: int = Field(
        0, ge=0, description="SpecAugment: hide at most this many bins of a training window."
    )
    class_weights: Literal["none", "balanced", "sampled"] = Field(
        "none",
        description="For classes of unlike size. balanced: in the hard labels' loss every class "
        "counts the same, however few clips it has. sampled: clips of every class are drawn as "
        "often; distillation epochs, which pass over each clip once, weigh classes as balanced.",
    )
    gce: float = Field(
        0.0,
        ge=0,
        le=1,
        description="For labels that may be wrong: the exponent q of the generalised "
        "cross-entropy, which is then the hard labels' loss. 0: the cross-entropy. 0.7, as "
        "published, hardly learns labels that the network finds improbable. 1: the absolute error.",
    )
    weights: Annotated[str | None, AfterValidator(whole_path)] = Field(
        None,
        description="Initial weights: imagenet, none, a file, or a folder with a file for each "
        "network (resnet101*.pth). Default: imagenet for networks of torchvision and timm, none "
        "for the small ones.",
    )
    init: Annotated[str | None, AfterValidator(whole_path)] = Field(
        None,
        description="Go on from a trained model: the folder of a run, a cell or a branch with the "
        "same branches. Classes may be others: the last layer keeps those of the same name.",
    )
    verified_only: bool = Field(
        False, description="Train only on clips with a verified label. All test clips stay."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="What networks compute in. auto: bf16 on GPUs that support it, fp32 elsewhere. "
        "Weights, softmax and loss are always fp32.",
    )
    channels_last: bool = Field(
        True, description="Keep weights and activations channels last in memory."
    )
    compile: bool = Field(
        False, description="Compile networks with torch.compile. It pays in long runs on GPUs."
    )


class Options(Learning):
    """And how branches teach each other."""

    b: int = Field(0, ge=0, description="Epochs of single branch training in each cycle (Eq. 1).")
    d: int = Field(1, ge=1, description="Epochs of distillation training in each cycle (Eq. 5).")
    warm_up: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Part of the cycles, from the first, in which branches learn from hard labels "
        "alone. The last cycle always has a teacher.",
    )
    soft_labels: Literal["clip", "window", "virtual"] = Field(
        "virtual",
        description="What a soft label is of. clip: a clip, by the mean of its windows' logits. "
        "window: the window that the next distillation epoch trains on. virtual: that window mixed "
        "with another clip's; all branches mix the same pairs.",
    )
    divergence: Literal["reverse", "forward"] = Field(
        "forward",
        description="Direction of the KL loss. forward: KL(teacher || student), the usual one. "
        "reverse: KL(student || teacher), Eq. 4 as printed.",
    )
    t_squared: bool = Field(False, description="Multiply the KL loss by the temperature squared.")
    kl_weight: float = Field(
        1.0, ge=0, description="Weight of the KL loss in distillation epochs (Eq. 5)."
    )
    ce_weight: float = Field(
        1.0, ge=0, description="Weight of the hard labels' loss in distillation epochs (Eq. 5)."
    )
    average: str = Field(
        "logits",
        description="How predictions become the teacher (Eq. 3): mean, leave_one_out, weighted or "
        "logits.",
    )
    teacher_momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Part of each cycle's teacher that stays in the next: an average over cycles. "
        "Used with soft_labels: clip, and by trust.",
    )
    embedding_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of a loss by which the branches also learn to predict the embedding "
        "that a frozen pretrained mate (mn04:linear, say) has of the same window, in every cycle: "
        "cosine distance, after a linear layer that the trained model leaves out. 3 to 10 are "
        "usual. 0: none.",
    )
    neighbours: int = Field(
        0,
        ge=0,
        description="Ask so many nearest neighbours in the frozen embeddings of the cohort (those "
        "of mn04, say). Labels spread from neighbour to neighbour to unlabelled clips, which learn "
        "them; trust also asks whether neighbours have the same label, from the first cycle on. 5 "
        "to 10 are usual. 0: none.",
    )
    trust: bool = Field(
        False,
        description="For labels that may be wrong: a clip's label weighs less, the less the "
        "teacher believes it (its probability over that of the likeliest class). Verified labels "
        "keep their weight.",
        json_schema_extra=BASIC,
    )
    held_out: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Part of the training clips kept out of training, for early_stop and "
        "average=weighted.",
    )
    early_stop: int | None = Field(
        None,
        ge=1,
        description="Stop a cell after so many cycles in which no branch's loss on held-out clips "
        "(held_out) was lower than before, those of the warm-up not counted, and keep each branch "
        "as its best cycle left it. Default: run all cycles, keep the last.",
    )
    unverified_ce: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Weight of the hard labels' loss of training clips whose label is not "
        "verified.",
    )
    unverified_kl: float = Field(
        1.0,
        ge=0,
        description="Weight of the KL loss of training clips whose label is not verified.",
    )
    label_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="For experiments: part of the training clips that get another label, drawn at "
        "random. Test labels stay.",
    )
    label_noise_kind: Literal["any", "next"] = Field(
        "any",
        description="Which label clips get by label_noise. any: each other class is as likely. "
        "next: that of the next class in the order of names, so each class is mistaken for one.",
    )
    labelled: float = Field(
        1.0,
        gt=0,
        le=1,
        description="For experiments: part of the training clips that keep their label, drawn at "
        "random in each class, one at least. The others are unlabelled. Test labels stay.",
    )
    cross_fit: Annotated[str, AfterValidator(_part_of_several)] | None = Field(
        None,
        description="For teachers of mrkd distil: train without one part of the training clips, as "
        "2/4, without the second of four. Teachers of all parts answer out of fold: each only for "
        "clips that it has not heard.",
        examples=["2/4"],
    )


class Budget(StrictModel):
    """How long it trains, as it is asked for."""

    cycles: int | None = Field(
        None,
        ge=1,
        le=999_999,  # as many as names of checkpoints have digits for
        description="How long to train: Q cycles, each of b + d epochs (two by default). "
        f"Default: {GPU_CYCLES} with GPUs (as published), {CPU_CYCLES} without.",
        json_schema_extra=BASIC,
    )


class Method(Options):
    """The options, of which some do not go together."""

    @model_validator(mode="after")
    def _options_that_go_together(self) -> Self:
        if self.init is not None and self.weights is not None:
            raise ValueError("init has weights: leave weights out")
        if self.soft_labels == "virtual" and self.d != 1:
            raise ValueError("soft_labels: virtual needs d: 1, an epoch on the samples it is of")
        if self.verified_only:
            for name, idle in (("unverified_ce", 1.0), ("unverified_kl", 1.0), ("trust", False)):
                if getattr(self, name) != idle:
                    raise ValueError(
                        f"{name} is for clips with a label that nobody verified, and verified_only "
                        "trains on none of these: leave one of the two out"
                    )
        return self


class Training(Method):
    """Everything about the method and the optimiser that changes a result."""

    cycles: int = Field(GPU_CYCLES, ge=1)

    def at_default(self, names: Iterable[str]) -> Training:
        """Return the options with these of them at their defaults."""
        update = {name: Training.model_fields[name].default for name in names}
        return self.model_copy(update=update)

    @property
    def warm_up_cycles(self) -> int:
        """The number of cycles before the first with a teacher."""
        return min(round(self.warm_up * self.cycles), self.cycles - 1)  # the last has a teacher

    @property
    def remembers(self) -> bool:
        """Whether a branch keeps an average of its teachers over cycles."""
        return self.trust or (self.teacher_momentum > 0 and self.soft_labels == "clip")

    @property
    def epochs(self) -> int:
        """The budget of every branch, distilled or not: Q x (b + d)."""
        return self.cycles * (self.b + self.d)


def published(**options: Any) -> Training:
    """Return the paper's method, with these options changed."""
    return Training(
        **{name: PAPER[name] for name in Training.model_fields if name in PAPER} | options
    )


class Published(StrictModel):
    """Whether what is not given has the paper's value."""

    paper: StrictBool = Field(
        False,
        description="The paper's own method: the published value of every option that is not "
        "given.",
    )

    @model_validator(mode="before")
    @classmethod
    def _publish(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("paper") is True:
            return {name: PAPER[name] for name in PAPER if name in cls.model_fields} | values
        return values
