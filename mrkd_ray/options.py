"""Command-line options made from a configuration's fields: one schema, no second list."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Container
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mrkd_ray.config import Run, Training

REPEATED = {"branches": "--branch", "pairings": "--pairing"}
"""Fields that are given by repeating an option, and the option's name."""


def with_config(
    model: type[BaseModel], only: Container[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command an option for each field of `model`.

    The command is called with `values`: the fields that were given, still as text, for
    `config.parse`, besides its own parameters.
    """
    fields = {
        name: info for name, info in model.model_fields.items() if only is None or name in only
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "values"
        ]
        made = [_parameter(name, info) for name, info in fields.items()]

        def wrapper(**given: Any) -> None:
            values = {name: given.pop(name) for name in fields}
            command(**given, values={k: v for k, v in values.items() if v is not None and v != []})

        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *made)}
        return wrapper

    return decorate


def _parameter(name: str, info: FieldInfo) -> inspect.Parameter:
    flag = REPEATED.get(name, f"--{name.replace('_', '-')}")
    help_text = info.description or ""
    if not info.is_required() and info.default is not None:
        help_text += f" Default: {_shown(info.default)}."
    kind: Any = str | None
    option: dict[str, Any] = {"show_default": False, "rich_help_panel": _panel(name)}
    if name in REPEATED:
        kind, option["metavar"] = list[str] | None, _metavar(name, info)
    elif info.annotation is bool:
        kind = bool | None
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    else:
        option["metavar"] = _metavar(name, info)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, typer.Option(flag, help=help_text, **option)],
    )


def _panel(name: str) -> str | None:
    if name in Training.model_fields:
        return "Method"
    return "Data and machines" if name in Run.model_fields else None


def _metavar(name: str, info: FieldInfo) -> str:
    if name in REPEATED:
        return "REPRESENTATION:NETWORK" + ("+..." if name == "pairings" else "")
    if typing.get_origin(info.annotation) is Literal:
        return "|".join(typing.get_args(info.annotation))
    text = str(info.annotation)
    if "tuple" in text:
        return "N,N,..."
    return "N" if "int" in text else "X" if "float" in text else "TEXT"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
