"""The one schema behind YAML files, the command line and Python.

`TrainConfig` describes one cohort, `GridConfig` a set of them. Both are made of `Training` (what
changes a result) and `Run` (where things lie and on what they run). Every field carries the help
text that the command line shows.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from mrkd_ray.config.fields import (
    BranchField,
    BranchSpec,
    CohortSpec,
    Count,
    FolderName,
    Names,
    Numbers,
    Reported,
    Temperatures,
)
from mrkd_ray.config.method import Learning, Options, Published, Training
from mrkd_ray.config.run import Branches, Run


class Variant(Options, Published):
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


class TrainConfig(Training, Run, Published):
    """One cohort, on one or several folds."""

    branches: tuple[BranchField, ...] = Field(
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
            cohorts=(self.branches,),
            temperatures=(self.temperature,),
            seeds=(self.seed,),
        )


class GridConfig(Training, Run, Published):
    """Cohorts x variants x temperatures x folds x seeds."""

    name: FolderName = Field("grid", description="Name of the results folder.")
    cohorts: tuple[CohortSpec, ...] = Field(
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
    conclusion: str | None = Field(
        None,
        description="What its table shows, in a sentence or two that are printed at the end. Of "
        "the file as it is: options that change what is trained leave it out.",
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


class RecommendConfig(Learning, Branches):
    """Short probes of independent branches, and which of them to make a cohort of."""

    cycles: int = Field(
        20, ge=1, description="Epochs of a probe, over which its learning rate falls to 0."
    )
    representations: Names | None = Field(
        None, description="Representations of the candidates. Default: all but raw samples."
    )
    networks: Names | None = Field(
        None,
        description="Networks of the candidates, each with each representation. Default: the small "
        "ones; on GPUs give those that you would use.",
    )
    branches: tuple[BranchField, ...] | None = Field(
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
        shared = {*Learning.model_fields, *Branches.model_fields}
        return GridConfig(
            **self.model_dump(include=shared),
            folds=(self.fold,),
            name=self.name,
            cohorts=tuple((branch,) for branch in candidates),
            seeds=(self.seed,),
        )
