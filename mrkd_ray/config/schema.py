"""The one schema behind YAML files, the command line and Python.

`TrainConfig` describes one cohort, `GridConfig` a set of them. Both are made of `Training` (what
changes a result) and `Run` (where things lie and on what they run). Every field carries the help
text that the command line shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

Folds = Literal["all"] | tuple[int, ...]
Reported = Literal["table1", "table2", "table3", "table4", "table5", "table6", "table7", "figure3"]

PRETRAINED_LR = 0.001  # the paper's
SCRATCH_LR = (
    0.05  # small networks with BatchNorm from random weights: docs/method.md, "Learning rate"
)
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
)
"""Fields of `Training` that change nothing where there is no teacher."""


class BranchSpec(BaseModel):
    """One network trained on one representation, written `REPRESENTATION:NETWORK`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    representation: str
    network: str

    def __str__(self) -> str:
        return f"{self.representation}:{self.network}"


def _parse_branch(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    representation, colon, network = value.strip().partition(":")
    if not (representation and colon and network):
        raise ValueError(
            "a branch is written REPRESENTATION:NETWORK, for example logmel64:resnet_small"
        )
    return {"representation": representation.strip(), "network": network.strip()}


def _whole_path(weights: str | None) -> str | None:
    """Make a path absolute: actors have other working folders."""
    if weights is None or weights in ("imagenet", "none"):
        return weights
    return str(Path(weights).expanduser().absolute())


def _parse_pairing(value: Any) -> Any:
    return value.split("+") if isinstance(value, str) else value


def _parse_numbers(value: Any) -> Any:
    """Turn `1,2` and `0..4` into tuples; leave `all` and what is a list already."""
    if isinstance(value, bool):
        raise ValueError("numbers are written 1,2 or 0..4")
    if isinstance(value, int | float):
        return (value,)
    if not isinstance(value, str):
        return value
    if value.strip() == "all":
        return "all"
    numbers: list[Any] = []
    for part in value.split(","):
        first, dots, last = part.partition("..")
        try:
            numbers += range(int(first), int(last) + 1) if dots else [float(part)]
        except ValueError:
            raise ValueError("numbers are written 1,2 or 0..4") from None
    if not numbers:
        raise ValueError("a range goes up: 0..4")
    return tuple(int(n) if float(n).is_integer() else n for n in numbers)


def _parse_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(","))


Branch = Annotated[BranchSpec, BeforeValidator(_parse_branch), PlainSerializer(str)]
Pairing = Annotated[tuple[Branch, ...], Field(min_length=1), BeforeValidator(_parse_pairing)]
Numbers = BeforeValidator(_parse_numbers)
Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_parse_names)]


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
FolderName = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
Temperatures = Annotated[tuple[Positive, ...], Numbers, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Options(_Model):
    cycles: int = Field(
        150,
        ge=1,
        description="Q: cycles of Algorithm 1; Q x (b + d) epochs in all (150 as published).",
    )
    b: int = Field(0, ge=0, description="Epochs of single branch training in each cycle (Eq. 1).")
    d: int = Field(1, ge=1, description="Epochs of distillation training in each cycle (Eq. 5).")
    batch_size: int = Field(64, ge=2, description="Windows in a minibatch.")
    lr: float | None = Field(
        None,
        gt=0,
        description="Initial learning rate, annealed by a cosine over the cycles. "
        f"Default: {PRETRAINED_LR} with loaded weights, {SCRATCH_LR} from random ones.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(5e-4, ge=0, description="Weight decay of SGD.")
    mixup: float = Field(0.0, ge=0, description="Alpha of mixup's Beta distribution; 0 is off.")
    augment_gain: float = Field(
        0.0, ge=0, description="Random gain of training windows, at most this many dB up or down."
    )
    augment_shift: float = Field(
        0.0,
        ge=0,
        le=1.5,
        description="Random circular shift of training windows, at most this many seconds either "
        "way; the same in every branch.",
    )
    specaugment_time: int = Field(
        0,
        ge=0,
        le=150,
        description="SpecAugment: most frames of a training window to hide, of 150.",
    )
    specaugment_bins: int = Field(
        0, ge=0, description="SpecAugment: most bins of a training window to hide."
    )
    weights: Annotated[str | None, AfterValidator(_whole_path)] = Field(
        None,
        description="Initial weights: imagenet, none, the path of a file, or of a folder with one "
        "file a network (resnet101*.pth). Default: imagenet for torchvision's and timm's networks. "
        "The small ones start from none.",
    )
    warm_up: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Part of the cycles, the first ones, without a teacher: all their epochs on "
        "hard labels. The last cycle has one.",
    )
    soft_labels: Literal["clip", "window", "virtual"] = Field(
        "virtual",
        description="Soft labels from the mean logits over a clip's windows; window: from the very "
        "window that the distillation epoch trains on; virtual: from its very windows, mixed as "
        "they are, the same pairs and shares in every branch.",
    )
    divergence: Literal["reverse", "forward"] = Field(
        "forward",
        description="reverse: KL(student || teacher), Eq. 4 as printed; forward: "
        "KL(teacher || student), the usual one.",
    )
    t_squared: bool = Field(False, description="Multiply the KL loss by the temperature squared.")
    kl_weight: float = Field(1.0, ge=0, description="Weight of the KL loss in Eq. 5.")
    ce_weight: float = Field(
        1.0, ge=0, description="Weight of the hard labels' loss in Eq. 5: in distillation epochs."
    )
    average: str = Field(
        "logits", description="Rule of Eq. 3: mean, leave_one_out, weighted or logits."
    )
    teacher_momentum: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="The part of each cycle's teacher that stays in the next: an exponential "
        "average over cycles. Of use with soft_labels=clip, and for trust.",
    )
    trust: bool = Field(
        False,
        description="For labels that may be wrong: weigh a clip's hard label, unless it is "
        "verified, by the teacher's probability of it over that of its likeliest class, as "
        "remembered by teacher_momentum.",
    )
    held_out: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="Part of the training clips kept out of training; needed by average=weighted.",
    )
    verified_only: bool = Field(
        False, description="Train on clips with a verified label only; all test clips stay."
    )
    unverified_ce: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Weight of L_ce of training clips whose label is not verified.",
    )
    unverified_kl: float = Field(
        1.0,
        ge=0,
        description="Weight of L_kl of training clips whose label is not verified.",
    )
    label_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Part of the training clips that get another label, drawn at random: an "
        "experiment. Test labels stay.",
    )
    labelled: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Part of the training clips that keep their label, drawn at random in each "
        "class, one at least; the others are unlabelled: an experiment. Test labels stay.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="What the network computes in; weights, softmax and loss stay fp32. "
        "auto: bf16 on GPUs that support it, fp32 elsewhere.",
    )
    channels_last: bool = Field(
        True, description="Keep weights and activations channels last in memory."
    )
    compile: bool = Field(
        False, description="Compile the network with torch.compile: pays in long runs on GPUs."
    )


class Training(_Options):
    """Everything about the method and the optimiser that changes a result."""

    @model_validator(mode="after")
    def _options_that_go_together(self) -> Training:
        if self.soft_labels == "virtual" and self.d != 1:
            raise ValueError("soft_labels: virtual needs d: 1, an epoch on the samples it is of")
        return self

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


class Run(_Model):
    """Where the data, the cache and the results lie, and what a run may use."""

    data: str = Field(
        "synthetic",
        description="A folder with one folder per class, a CSV file, a folder with meta.csv, a "
        "release of FSDKaggle2018, TUT 2018 or ESC-50 (FOLDER#esc10: its subset), or one "
        "that is made: 'synthetic' or 'mixtures' (multi-label).",
    )
    unlabelled: Path | None = Field(
        None,
        description="A folder of recordings without labels, at any depth: their soft labels join "
        "the distillation epochs.",
    )
    cache: Path = Field(
        Path("cache"), description="Folder for computed representations; shared by all runs."
    )
    output: Path = Field(Path("results"), description="Folder under which results are written.")
    folds: Annotated[Folds, Numbers] = Field(
        "all", description="Test folds, cross-validated: all, or numbers such as 1,2 or 1..3."
    )
    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the split where the data set gives none."
    )
    skip_bad: bool = Field(
        False, description="Go on without the clips that the check of the data set rejects."
    )
    runner: Literal["ray", "local"] = Field(
        "ray", description="ray: branches as actors; local: one after the other in this process."
    )
    address: str | None = Field(
        None, description="Address of a running Ray cluster (auto, or HOST:PORT)."
    )
    gpus_per_branch: float | None = Field(
        None,
        ge=0,
        description="GPUs of one branch actor; fractions share a card. "
        "Default: 1 where the cluster has enough, a share where it has fewer, 0 where none.",
    )
    windows: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="resident: keep all windows' channels on the device; streamed: make each batch "
        "from frames in main memory; auto: resident where memory allows. The same results.",
    )
    cpus_per_branch: int = Field(1, ge=1, description="CPU threads of one branch actor.")
    overlap: bool = Field(
        False,
        description="On CPUs: branches compute with the threads of the whole cohort, so that one "
        "that waits leaves its core to a slower one. Changes last bits.",
    )
    profile: bool = Field(
        False, description="Write a timeline of each cell, profile.json, for ui.perfetto.dev."
    )


class _Published(_Model):
    paper: StrictBool = Field(
        False,
        description="The paper's own method: its published value for each option not given.",
    )

    @model_validator(mode="before")
    @classmethod
    def _publish(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("paper") is True:
            return {name: PAPER[name] for name in PAPER if name in cls.model_fields} | values
        return values


class Variant(_Options, _Published):
    """What one variant of a grid changes: the fields that are given, and no others.

    Which of them go together is checked with the grid's.
    """

    temperatures: Temperatures = Field((1.0,), description="In place of the grid's.")

    @field_validator("paper")
    @classmethod
    def _paper_only(cls, value: bool) -> bool:
        if not value:
            raise ValueError("true, or not at all: a variant changes what the grid says")
        return value

    @field_validator("weights", "held_out", "verified_only")
    @classmethod
    def _prepared_once(cls, value: Any) -> Any:
        raise ValueError("one for all variants: set it beside 'variants'")

    @model_serializer(mode="wrap")
    def _given(self, whole: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if name in self.model_fields_set}


class TrainConfig(Training, Run, _Published):
    """One cohort, on one or several folds."""

    branches: tuple[Branch, ...] = Field(
        min_length=1,
        description="REPRESENTATION:NETWORK; repeat it for every branch of the cohort.",
    )
    temperature: float = Field(1.0, gt=0, description="T of the soft labels (Eq. 2).")
    seed: int = Field(0, ge=0, description="Seed of initial weights, windows, order and mixup.")
    name: FolderName = Field("train", description="Name of the results folder.")
    independent: bool = Field(
        False, description="Also train each branch alone, with the same epochs: the baseline."
    )

    def as_grid(self) -> GridConfig:
        """Return the grid of this one cohort."""
        fields = self.model_dump(exclude={"branches", "temperature", "seed"})
        return GridConfig(
            **fields,
            pairings=(self.branches,),
            temperatures=(self.temperature,),
            seeds=(self.seed,),
        )


class GridConfig(Training, Run, _Published):
    """Pairings x variants x temperatures x folds x seeds."""

    name: FolderName = Field("grid", description="Name of the results folder.")
    pairings: tuple[Pairing, ...] = Field(
        min_length=1,
        description="Cohorts, each written REPRESENTATION:NETWORK+REPRESENTATION:NETWORK...",
    )
    temperatures: Temperatures = Field(
        (1.0,), description="Temperatures of the soft labels (Eq. 2), such as 1,2,4."
    )
    seeds: Annotated[tuple[Count, ...], Numbers, Field(min_length=1)] = Field(
        (0,), description="Seeds; every cell is repeated with each, such as 0..4."
    )
    independent: bool = Field(
        True, description="Also train each branch alone, with the same epochs: the baseline."
    )
    reported: Reported | None = Field(
        None,
        description="What the report shows the paper's figures of: table1 to table7, figure3.",
    )
    variants: dict[FolderName, Variant] = Field(
        {},
        description="Settings to compare, by name: of each, the options of the method (and "
        "temperatures) that it changes. Those that differ in more than distillation have baselines "
        "of their own.",
    )

    @property
    def training(self) -> Training:
        """The options of the method alone."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})

    def by_variant(self) -> dict[str, GridConfig]:
        """Return the grid of each variant, by its name: "" where there are none."""
        return {
            name: self.model_copy(
                update={field: getattr(variant, field) for field in variant.model_fields_set}
                | {"variants": {}}
            )
            for name, variant in self.variants.items()
        } or {"": self}

    @model_validator(mode="after")
    def _differ(self) -> GridConfig:
        seen: dict[tuple[Training, float], str] = {}
        for name, grid in self.by_variant().items():
            try:
                training = grid.training
            except ValidationError as error:
                why = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"variants.{name}: {why}") from None
            for temperature in grid.temperatures:
                other = seen.setdefault((training, temperature), name)
                if other != name:
                    raise ValueError(
                        f"variants {other!r} and {name!r} are the same at T = {temperature:g}"
                    )
        return self


class RecommendConfig(Training, Run):
    """Short probes of independent branches, and which of them to make a cohort of."""

    cycles: int = Field(
        20, ge=1, description="Cycles of a probe, of b + d epochs, over which its rate falls to 0."
    )
    representations: Names | None = Field(
        None, description="Representations of the candidates. Default: all but raw samples."
    )
    networks: Names | None = Field(
        None,
        description="Networks of the candidates, each with each representation. Default: the small "
        "ones; on GPUs give those that you would use.",
    )
    branches: tuple[Branch, ...] | None = Field(
        None, description="REPRESENTATION:NETWORK, a candidate besides those; repeat it."
    )
    size: int = Field(2, ge=2, le=5, description="Branches of the cohort.")
    margin: float = Field(
        10.0,
        ge=0,
        description="Points of accuracy that a member may lack to the best candidate at most.",
    )
    fold: int = Field(
        1,
        ge=0,
        description="Fold whose test clips take no part, so that they can judge the cohort.",
    )
    parts: int = Field(
        4,
        ge=1,
        le=20,
        description="Parts of the training clips, at most, that are held out in turn and decide.",
    )
    minutes: float | None = Field(
        None, gt=0, description="Time that probes may take: as many parts as fit are used."
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, windows, order and mixup.")
    name: FolderName = Field("recommend", description="Name of the results folder.")

    def as_grid(self, candidates: tuple[BranchSpec, ...]) -> GridConfig:
        """Return the grid of which the independent cells are the probes."""
        shared = {*Training.model_fields, *Run.model_fields} & {*GridConfig.model_fields}
        return GridConfig(
            **self.model_dump(include=shared - {"folds"}),
            folds=(self.fold,),
            name=self.name,
            pairings=tuple((branch,) for branch in candidates),
            seeds=(self.seed,),
        )
