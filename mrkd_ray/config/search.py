"""What a search is told: a grid's fields, what is varied, and how many samples are tried."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mrkd_ray.config.fields import BASIC, StrictModel
from mrkd_ray.config.method import Options
from mrkd_ray.config.schema import GridConfig, Variant

COHORT, TEMPERATURE = "cohort", "temperature"
PREPARED_ONCE = {"weights", "held_out", "verified_only"}
VARIED = ({*Options.model_fields} - PREPARED_ONCE) | {"cycles", TEMPERATURE}
"""Options that a search may vary, besides the cohort."""

Value = bool | int | float | str


class Range(StrictModel):
    """All numbers between two, both included."""

    low: float
    high: float
    log: bool = Field(False, description="Draw evenly on a logarithmic scale.")

    @model_validator(mode="after")
    def _goes_up(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low:g} is not below high: {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low: {self.low:g} is not above 0, as a logarithmic scale needs")
        return self


Domain = Range | tuple[Value, ...]

SPACE: dict[str, Domain] = {
    "lr": Range(low=0.005, high=0.2, log=True),
    "divergence": ("forward", "reverse"),
    "kl_weight": Range(low=0.1, high=10, log=True),
    "mixup": (0.0, 0.2),
    "augment_gain": (0.0, 6.0),
    "augment_shift": (0.0, 0.75),
    "specaugment_time": (0, 20),
    "specaugment_bins": (0, 8),
}
"""Of small networks from random weights."""


def ends_of(domain: Domain) -> tuple[Value, ...]:
    """Return the values of a domain, of a range both ends."""
    return (domain.low, domain.high) if isinstance(domain, Range) else domain


class SearchConfig(GridConfig):
    """A search over cohorts and options, whose best sample is confirmed on other folds."""

    space: dict[str, Domain] = Field(
        {},
        description="What is varied, by option: a list of values, or low, high and log. "
        "`temperature` is an option here. Default: learning rate, divergence, weight of the KL "
        "loss and augmentation.",
    )
    samples: int = Field(
        20, ge=2, le=10_000, description="Samples that are tried.", json_schema_extra=BASIC
    )
    scheduler: Literal["asha", "none"] = Field(
        "asha",
        description="asha: samples that are behind are stopped early. They are compared at equal "
        "parts of their schedules, the first time after the warm-up. none: all run to the end.",
        json_schema_extra=BASIC,
    )
    searcher: Literal["random", "optuna"] = Field(
        "random",
        description="How samples are chosen. random: by chance. optuna: by what earlier samples "
        "scored (TPE); it needs the package optuna.",
        json_schema_extra=BASIC,
    )
    search_fold: int | None = Field(
        None,
        ge=0,
        description="Fold whose test clips score the samples. The best is trained again, and "
        "tested on the other folds. Default: the first.",
    )
    search_seed: int = Field(0, ge=0, lt=2**31, description="Seed of the samples.")

    @field_validator("space")
    @classmethod
    def _of_options(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        for name, domain in space.items():
            if name not in VARIED:
                raise ValueError(f"{name!r} is not varied: of options {', '.join(sorted(VARIED))}")
            if isinstance(domain, Range) and _kind(name) not in (int, float):
                raise ValueError(f"{name} is no number: give a list of values")
            if not (ends := ends_of(domain)):
                raise ValueError(f"{name} has no values")
            for value in ends:
                cls._check(name, value)
        return space

    @classmethod
    def _check(cls, name: str, value: Value) -> None:
        given = {"temperatures": (value,)} if name == TEMPERATURE else {name: value}
        try:
            Variant.model_validate(given)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"{name}: {value}: {why}") from None

    @model_validator(mode="after")
    def _is_no_grid(self) -> SearchConfig:
        for name in ("variants", "teachers", "alone"):
            if getattr(self, name):
                raise ValueError(f"{name}: a search has none; what it varies is its space")
        if self.mirror:
            raise ValueError("output: a search writes to a folder, not to an object store")
        if self.runner == "local":
            raise ValueError("runner: local: a search runs its samples with Ray")
        return self

    @property
    def domains(self) -> dict[str, Domain]:
        """What is varied, the cohort and the temperature included."""
        found = dict(self.space or SPACE)
        if TEMPERATURE not in found:
            several = len(self.temperatures) > 1
            warmer = Range(low=1, high=4, log=False)
            found[TEMPERATURE] = self.temperatures if several else warmer
        cohorts = tuple("+".join(map(str, cohort)) for cohort in self.cohorts)
        return {COHORT: cohorts, **found}

    def at(self, point: dict[str, Value]) -> GridConfig:
        """Return the grid of one sample. Raises ValidationError: options do not go together."""
        fields = self.model_dump(include={*GridConfig.model_fields})
        fields |= {name: value for name, value in point.items() if name in fields}
        fields |= {"cohorts": (point[COHORT],), "temperatures": (point[TEMPERATURE],)}
        return GridConfig(**fields | {"conclusion": None, "reported": None})


def _kind(name: str) -> Any:
    if name in (TEMPERATURE, "lr"):
        return float
    return int if name == "cycles" else Options.model_fields[name].annotation


def is_whole(name: str) -> bool:
    """Return whether an option is a whole number."""
    return _kind(name) is int
