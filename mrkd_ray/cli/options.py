"""Command-line options made from a configuration's fields: one schema, no second list.

They are made when a command is called: the list of commands, and `predict`, need no configuration.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

REPEATED = {"branches": "--branch", "cohorts": "--cohort"}
"""Fields that are given by repeating an option, and the option's name."""
FILE_ONLY = {"variants", "conclusion"}
"""Fields of YAML files that have no option."""
RENAMED = {"--pairing": "--cohort", "--windows": "--window-memory"}
"""Options by their names before; those of fields are in `config.fields.RENAMED`."""

_complete: dict[str, Callable[[], Any]] = {}  # makes a command with the options of its fields


class Commands(TyperGroup):
    """Commands by name; those of `config_command` are listed without options, called with them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        if name not in _complete:
            return name, command, rest
        return name, _complete[name](), [_current_flag(word) for word in rest]


def _current_flag(word: str) -> str:
    """Return an option as it is called today, with a note where it was called otherwise."""
    flag, equals, value = word.partition("=")
    if flag not in RENAMED:
        return word
    print(f"note: {flag} is called {RENAMED[flag]} now", file=sys.stderr)
    return f"{RENAMED[flag]}{equals}{value}"


def config_command(
    app: typer.Typer, model: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a command with an option for each field of a configuration.

    The command is called with `values`: the fields that were given, still as text, for
    `parsing.parse`, besides its own parameters.

    Args:
        app: what the command is added to, of class `Commands`.
        model: a class in `mrkd_ray.config`, such as `schema.GridConfig`, whose fields are options.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def listed() -> None:
            raise AssertionError("resolve_command puts the complete command in this one's place")

        listed.__doc__ = command.__doc__
        app.command(command.__name__)(listed)
        _complete[command.__name__] = partial(_make, command, model)
        return command

    return decorate


def _make(command: Callable[..., None], model: str) -> Any:
    module, _, class_ = model.rpartition(".")
    config = getattr(importlib.import_module(f"mrkd_ray.config.{module}"), class_)
    fields = {name: info for name, info in config.model_fields.items() if name not in FILE_ONLY}
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
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(wrapper)
    return typer.main.get_command(alone)


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
    from mrkd_ray.config.method import Training
    from mrkd_ray.config.run import Run

    if name in Training.model_fields:
        return "Method"
    return "Data and machines" if name in Run.model_fields else None


def _metavar(name: str, info: FieldInfo) -> str:
    if name in REPEATED:
        return "REPRESENTATION:NETWORK" + ("+..." if name == "cohorts" else "")
    if typing.get_origin(info.annotation) is Literal:
        return "|".join(typing.get_args(info.annotation))
    text = str(info.annotation)
    if "tuple" in text:
        return "NAME,NAME,..." if "str" in text else "N,N,..."
    return "N" if "int" in text else "X" if "float" in text else "TEXT"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
