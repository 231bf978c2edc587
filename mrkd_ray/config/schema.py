"""The one schema behind YAML files, the command line and Python.

`TrainConfig` describes one cohort, `GridConfig` a set of them. Both are made of `Method` and
`Budget` (what changes a result: of a cell it is `Training`) and `Run` (where things lie and on what
they run). Every field carries the help text that the command line shows.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from mrkd_ray.config.fields import (
    BASIC,
    BranchField,
    BranchList,
    BranchSpec,
    CohortSpec,
    Count,
    FolderName,
    Names,
    Numbers,
    Paths,
    Reported,
    Temperatures,
    once,
)
from mrkd_ray.config.method import (
    GPU_CYCLES,
    Budget,
    Learning,
    Method,
    Options,
    Published,
    Training,
)
from mrkd_ray.config.run import Branches, Run

MOST_CELLS = 100_000
"""Of a grid: a cell takes seconds at least."""


class Variant(Options, Budget, Published):
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

    @field_validator("cycles")
    @classmethod
    def _number(cls, value: int | None) -> int:
        if value is None:
            raise ValueError("a number, or not at all: a variant changes what the grid says")
        return value

    @field_validator("weights", "init", "held_out", "verified_only")
    @classmethod
    def _prepared_once(cls, value: Any) -> Any:
        raise ValueError("one for all variants: set it beside 'variants'")

    @model_serializer(mode="wrap")
    def _given(self, whole: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if name in self.model_fields_set}


class TrainConfig(Method, Budget, Run, Published):
    """One cohort, on one or several folds."""

    branches: BranchList = Field(
        (),
        description="A branch: a representation and a network, such as cqt:vgg_small. `mrkd list` "
        "has their names. Repeat it for every branch of the cohort. Default: heads on mn04 where "
        "`mrkd download mn04` has fetched its weights, else logmel64:resnet_small and "
        "cqt:vgg_small.",
        examples=[["logmel64:resnet_small", "cqt:vgg_small"]],
        json_schema_extra=BASIC,
    )
    temperature: float = Field(1.0, gt=0, description="Temperature T of the soft labels (Eq. 2).")
    seed: int = Field(0, ge=0, description="Seed of initial weights, windows, order and mixup.")
    name: FolderName = Field(
        "train", description="Name of the results folder.", json_schema_extra=BASIC
    )
    independent: bool = Field(
        False,
        description="Also train each branch alone, for as many epochs: the baseline.",
        json_schema_extra=BASIC,
    )

    alone: bool = Field(
        False,
        description="Train each branch alone and teach none: the baselines without a cohort.",
        json_schema_extra=BASIC,
    )

    def as_grid(self) -> GridConfig:
        """Return the grid of this one cohort."""
        fields = self.model_dump(exclude={"branches", "temperature", "seed"})
        fields["independent"] |= self.alone
        return GridConfig(
            **fields,
            cohorts=(self.branches,),
            temperatures=(self.temperature,),
            seeds=(self.seed,),
        )


class GridConfig(Method, Budget, Run, Published):
    """Cohorts x variants x temperatures x folds x seeds."""

    name: FolderName = Field(
        "grid",
        description="Name of the results folder. Default: the file's name.",
        json_schema_extra=BASIC,
    )
    cohorts: Annotated[tuple[CohortSpec, ...], AfterValidator(once)] = Field(
        min_length=1,
        description="A cohort: branches, such as logmel64:resnet_small+cqt:vgg_small. Repeat it "
        "for every cohort.",
        examples=[["logmel64:resnet_small+cqt:vgg_small"]],
    )
    temperatures: Temperatures = Field(
        (1.0,), description="Temperatures of the soft labels (Eq. 2), such as 1,2,4."
    )
    seeds: Annotated[tuple[Count, ...], Numbers, Field(min_length=1), AfterValidator(once)] = Field(
        (0,),
        description="Seeds, such as 0..4. Every cell is repeated with each.",
        json_schema_extra=BASIC,
    )
    independent: bool = Field(
        True,
        description="Also train each branch alone, for as many epochs: the baseline.",
        json_schema_extra=BASIC,
    )
    alone: bool = Field(
        False, description="Train the baselines alone: no cohort, nothing is distilled."
    )
    reported: Reported | None = Field(
        None,
        description="Of which of the paper's results the report shows figures beside its own: "
        "table1 to table7, or figure3.",
    )
    conclusion: str | None = Field(
        None,
        description="What its table shows, in a sentence or two that are printed at the end. Of "
        "the file as it is: options that change what is trained leave it out.",
    )
    teachers: Paths = Field(
        (),
        description="Folders of finished cells, or patterns of them, whose branches teach in place "
        "of the cohort's own, and learn no more: in each fold those that tested it. `mrkd distil` "
        "writes such a grid.",
    )
    variants: dict[FolderName, Variant] = Field(
        {},
        description="Settings to compare, by name: of each, the options of the method (and "
        "temperatures) that it changes. Those that differ in more than distillation have baselines "
        "of their own.",
    )

    @property
    def training(self) -> Training:
        """The options of the method alone. Raises ValidationError where `cycles` is not known."""
        return Training(**{name: getattr(self, name) for name in Training.model_fields})

    def with_cycles(self, default: int) -> GridConfig:
        """Return the grid with this many cycles where it does not say how many."""
        return self if self.cycles is not None else self.model_copy(update={"cycles": default})

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
    def _trains_something(self) -> GridConfig:
        if self.alone and not self.independent:
            raise ValueError("alone trains the baselines only, and independent: false has none")
        return self

    @model_validator(mode="after")
    def _teachers_see_what_students_see(self) -> GridConfig:
        for grid in self.by_variant().values() if self.teachers else ():
            if grid.soft_labels == "clip":
                raise ValueError(
                    "teachers answer for the windows of the epoch to come, and soft_labels: clip "
                    "are of others: leave one of the two out"
                )
        return self

    @model_validator(mode="after")
    def _is_bounded(self) -> GridConfig:
        folds = 1 if self.folds == "all" else len(self.folds)
        temperatures = sum(len(grid.temperatures) for grid in self.by_variant().values())
        cells = len(self.cohorts) * temperatures * folds * len(self.seeds)
        if cells > MOST_CELLS:
            raise ValueError(f"{cells} cells of cohorts, and {MOST_CELLS} are taken")
        return self

    @model_validator(mode="after")
    def _differ(self) -> GridConfig:
        seen: dict[tuple[Training, float, bool], str] = {}
        for name, grid in self.by_variant().items():
            known = grid.cycles is not None
            try:
                training = grid.with_cycles(GPU_CYCLES).training
            except ValidationError as error:
                why = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"variants.{name}: {why}") from None
            for temperature in grid.temperatures:
                other = seen.setdefault((training, temperature, known), name)
                if other != name:
                    raise ValueError(
                        f"variants {other!r} and {name!r} are the same at T = {temperature:g}"
                    )
        return self


class DistilConfig(Learning, Budget, Run):
    """One student, taught by branches that are trained already (Beyer et al. 2022)."""

    teachers: Paths = Field(
        min_length=1,
        description="Folders of finished cells, or patterns of them: their branches teach "
        "together, by the mean of their logits, and learn no more. In each fold those that tested "
        "it. Those that were trained with cross_fit answer only for clips that they have not "
        "heard.",
        examples=[["results/train/cells/independent_*"]],
    )
    student: BranchField = Field(
        description="The branch to train.",
        examples=["logmel64:vgg_small"],
        json_schema_extra=BASIC,
    )
    data: str = Field(
        "",
        description="The labelled recordings that the teachers were trained on. Default: where "
        "they lay then.",
        json_schema_extra=BASIC,
    )
    cycles: int | None = Field(
        240, ge=1, description="Epochs of the student.", json_schema_extra=BASIC
    )
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of SGD.")
    mixup: float = Field(
        0.3,
        ge=0,
        description="Alpha of mixup's Beta distribution: of windows that teachers and student both "
        "see mixed. 0: no mixup.",
    )
    augment_gain: float = Field(
        6.0, ge=0, description="Random gain of training windows: at most this many dB up or down."
    )
    augment_shift: float = Field(
        0.75,
        ge=0,
        le=1.5,
        description="Random circular shift of training windows: at most this many seconds either "
        "way. Teachers hear the same.",
    )
    temperature: float = Field(2.0, gt=0, description="Temperature T of the soft labels (Eq. 2).")
    ce_weight: float = Field(0.02, ge=0, description="Weight of the hard labels' loss.")
    kl_weight: float = Field(
        0.98, ge=0, description="Weight of T squared times KL(teachers || student)."
    )
    embedding_weight: float = Field(
        0.0,
        ge=0,
        description="Where a teacher hears through a frozen pretrained network (mn04:linear, say): "
        "weight of a loss by which the student also learns to predict that network's embedding of "
        "the same window. 3 to 10 are usual. 0: none.",
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, windows, order and mixup.")
    name: FolderName = Field(
        "distil", description="Name of the results folder.", json_schema_extra=BASIC
    )
    independent: bool = Field(
        False,
        description="Also train the student without teachers, for as many epochs: the control.",
        json_schema_extra=BASIC,
    )


class RecommendConfig(Learning, Branches):
    """Short probes of independent branches, and which of them to make a cohort of."""

    cycles: int = Field(
        20,
        ge=1,
        description="Epochs of a probe, over which its learning rate falls to 0.",
        json_schema_extra=BASIC,
    )
    representations: Names | None = Field(
        None,
        description="Representations of the candidates. Default: all but raw samples.",
        json_schema_extra=BASIC,
    )
    networks: Names | None = Field(
        None,
        description="Networks of the candidates, each with each representation. Default: the small "
        "ones; on GPUs give those that you would use.",
        json_schema_extra=BASIC,
    )
    branches: BranchList | None = Field(
        None, description="A candidate besides those, such as cqt:vgg_small. Repeat it for others."
    )
    size: int = Field(2, ge=2, le=5, description="Branches of the cohort.", json_schema_extra=BASIC)
    margin: float = Field(
        10.0,
        ge=0,
        description="Points of accuracy by which a member may be worse than the best candidate.",
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
        description="Parts of the training clips that are held out in turn and decide, at most.",
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description="Minutes that probes may take. As many parts are used as fit.",
        json_schema_extra=BASIC,
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, windows, order and mixup.")
    name: FolderName = Field(
        "recommend", description="Name of the results folder.", json_schema_extra=BASIC
    )

    def as_grid(self, candidates: tuple[BranchSpec, ...]) -> GridConfig:
        """Return the grid of which the independent cells are the probes."""
        shared = {*Learning.model_fields, *Branches.model_fields}
        return GridConfig(
            **self.model_dump(include=shared),
            cycles=self.cycles,
            folds=(self.fold,),
            name=self.name,
            cohorts=tuple((branch,) for branch in candidates),
            seeds=(self.seed,),
        )
