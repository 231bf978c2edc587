"""The fields that configurations are made of: branches, cohorts, numbers, names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

Folds = Literal["all"] | tuple[int, ...]

Reported = Literal["table1", "table2", "table3", "table4", "table5", "table6", "table7", "figure3"]


BASIC: dict[str, Any] = {"basic": True}
"""The `json_schema_extra` of a field that a command's short help shows."""

MOST_NUMBERS = 10_000
"""Of one field: seeds, folds, temperatures."""

REPEATED = {"branches": "--branch", "cohorts": "--cohort"}
"""Fields that the command line gives by repeating an option, and the option's name."""


def flag(field: str) -> str:
    """Return the command-line option of a field."""
    return REPEATED.get(field, f"--{field.replace('_', '-')}")


RENAMED = {"pairings": "cohorts", "windows": "window_memory"}
"""Fields by their names before, which are still taken."""


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Return fields under the names that they have today. Raises ValueError: one under both."""
    for old, new in RENAMED.items():
        if old in values and new in values:
            raise ValueError(f"{old} is called {new} now: give one of the two")
    return {RENAMED.get(name, name): value for name, value in values.items()}


LONGEST_WINDOW = 60
"""Seconds of a window, at most."""


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


def whole_path(weights: str | None) -> str | None:
    """Make a path absolute: actors have other working folders."""
    if weights is None or weights in ("imagenet", "none"):
        return weights
    return str(Path(weights).expanduser().absolute())


def regular_expression(pattern: str | None) -> str | None:
    """Return it as it is. Raises ValueError: it is none."""
    import regex

    try:
        regex.compile(pattern or "")
    except regex.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def _parse_cohort(value: Any) -> Any:
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
            found: Sequence[Any] = range(int(first), int(last) + 1) if dots else [float(part)]
        except ValueError:
            raise ValueError("numbers are written 1,2 or 0..4") from None
        if len(numbers) + _count(found) > MOST_NUMBERS:
            raise ValueError(f"more than {MOST_NUMBERS} numbers")
        numbers += found
    if not numbers:
        raise ValueError("a range goes up: 0..4")
    return tuple(int(n) if float(n).is_integer() else n for n in numbers)


def once(values: Any) -> Any:
    """Return several values as they are. Raises ValueError: one is there twice."""
    if isinstance(values, tuple) and len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        shown = "+".join(map(str, twice)) if isinstance(twice, tuple) else twice
        raise ValueError(f"{shown} is there twice: every run counts once")
    return values


def _count(numbers: Sequence[Any]) -> int:
    """Return how many there are; `len` does not take a range of more than 2**63."""
    return numbers.stop - numbers.start if isinstance(numbers, range) else len(numbers)


def _parse_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(name.strip() for name in value.split(","))


def _parse_paths(value: Any) -> Any:
    """Turn one path into several, and paths into text."""
    several = [value] if isinstance(value, str | Path) else value
    return tuple(map(str, several)) if isinstance(several, list | tuple) else several


def _parse_window(value: Any) -> Any:
    if value == "whole":
        return value
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds <= LONGEST_WINDOW or isinstance(value, bool):
        raise ValueError(f"seconds, more than 0 and at most {LONGEST_WINDOW}, or whole")
    return seconds


Window = Annotated[float | Literal["whole"], BeforeValidator(_parse_window)]

BranchField = Annotated[BranchSpec, BeforeValidator(_parse_branch), PlainSerializer(str)]

BranchList = Annotated[tuple[BranchField, ...], BeforeValidator(_parse_cohort)]
"""Also as one text, `a:b+c:d`."""

CohortSpec = Annotated[tuple[BranchField, ...], Field(min_length=1), BeforeValidator(_parse_cohort)]

Numbers = BeforeValidator(_parse_numbers)

Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_parse_names)]

Paths = Annotated[tuple[str, ...], BeforeValidator(_parse_paths)]
"""Also as one text."""

Positive = Annotated[float, Field(gt=0)]

Count = Annotated[int, Field(ge=0)]

FolderName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=150)]

Temperatures = Annotated[tuple[Positive, ...], Numbers, Field(min_length=1), AfterValidator(once)]


class StrictModel(BaseModel):
    """A configuration: frozen, and no field that it does not know, but for former names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, values: Any) -> Any:
        return current_names(values) if isinstance(values, dict) else values

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is asked for: pydantic takes it for 1."""
        asked = cls.model_fields[info.field_name or ""].annotation
        values = value if isinstance(value, list | tuple) else (value,)
        number = _holds(asked, int, float) and not _holds(asked, bool)
        if number and any(isinstance(v, bool) for v in values):
            raise ValueError("true and false are for switches, and this is none")
        return value


def _holds(annotation: Any, *types: type) -> bool:
    """Return whether one of the types is named in an annotation."""
    return annotation in types or any(_holds(part, *types) for part in get_args(annotation))
