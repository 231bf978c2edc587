"""Command-line options made from a configuration's fields: one schema, no second list.

They are made when a command is called: the list of commands, and `predict`, need no configuration.
`--help` shows the basic ones, `--help-all` all of them in groups.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

FILE_ONLY = {"variants", "conclusion", "teachers", "space", "mirror"}
"""Fields of YAML files that have no option; `mrkd distil` takes teachers as arguments."""
RENAMED = {"--pairing": "--cohort", "--windows": "--window-memory"}
"""Options by their names before; those of fields are in `config.fields.RENAMED`."""
RENAMED_OF = {"predict": {"--threshold": "--min-confidence", "--json": "--format=json"}}
"""Those of commands that have no configuration."""

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]

ALL = "mrkd_ray.help_all"
"""Whether all options are asked for, in a context's `meta`."""
FURTHER = {"scale", "print_config", "force"}
"""A command's own options that are not basic."""
SWITCHES = "A switch is turned off by its --no-..., such as --no-paper where a file sets paper."
GROUPS = {
    "Processes": "Where it runs",
    "Preparation": "Data",
    "Run": "Where it runs",
    "Budget": "How a branch learns",
    "Learning": "How a branch learns",
    "Options": "How branches teach each other",
}
"""Groups of options: an option is in that of the first of these classes that has its field."""

METAVARS = {
    "branches": "R:N",
    "student": "R:N",
    "cohorts": "R:N+R:N",
    "data": "PATH",
    "group_by": "REGEX",
    "weights": "PATH",
    "window": "SECONDS|whole",
    "address": "HOST:PORT",
    "mlflow": "URI",
    "wandb": "PROJECT",
}


def _help_all(ctx: typer.Context, asked: bool) -> None:
    """Print the help with all options and stop."""
    if asked:
        ctx.meta[ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_help_all,
        is_eager=True,
        metavar="",
        help="Show all options, in groups, and exit.",
    ),
]

_complete: dict[str, Callable[[], Any]] = {}  # makes a command with the options of its fields


class Commands(TyperGroup):
    """Commands by name; those of `config_command` are listed without options, called with them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called."""
        name, command, rest = super().resolve_command(ctx, args)
        if command and (option := command.get_help_option(ctx)):
            option.metavar = ""
        if name not in _complete:
            renamed = RENAMED_OF.get(name or "", {})
            return name, command, [_current_flag(word, renamed) for word in rest]
        return name, _complete[name](), [_current_flag(word, RENAMED) for word in rest]


def _current_flag(word: str, renamed: dict[str, str]) -> str:
    """Return an option as it is called today, with a note where it was called otherwise."""
    flag, equals, value = word.partition("=")
    if flag not in renamed:
        return word
    print(f"note: {flag} is called {renamed[flag]} now", file=sys.stderr)
    return f"{renamed[flag]}{equals}{value}"


def config_command(
    app: typer.Typer, model: str, *examples: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a command with an option for each field of a configuration.

    The command is called with `values`: the fields that were given, still as text, for
    `parsing.parse`, besides its own parameters.

    Args:
        app: what the command is added to, of class `Commands`.
        model: a class in `mrkd_ray.config`, such as `schema.GridConfig`, whose fields are options.
        examples: command lines that its help ends with.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def listed() -> None:
            raise AssertionError("resolve_command puts the complete command in this one's place")

        listed.__doc__ = command.__doc__
        app.command(command.__name__)(listed)
        _complete[command.__name__] = partial(_make, command, model, examples)
        return command

    return decorate


def ending(*examples: str, last: str = "") -> str:
    """Return the end of a command's help: examples, and a last line."""
    text = "\n".join(["Examples:", *examples]).replace("[", r"\[")  # no markup of Rich
    return f"{text}\n\n{last}" if last else text


def _make(command: Callable[..., None], model: str, examples: Sequence[str]) -> Any:
    module, _, class_ = model.rpartition(".")
    config = getattr(importlib.import_module(f"mrkd_ray.config.{module}"), class_)
    fields = {name: info for name, info in config.model_fields.items() if name not in FILE_ONLY}
    basic = {name for name, info in fields.items() if info.json_schema_extra == {"basic": True}}
    hints = typing.get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "values"
    ]
    made = [_parameter(name, info) for name, info in fields.items()]
    made.sort(key=lambda parameter: not fields[parameter.name].is_required())
    help_all = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll
    )

    def wrapper(**given: Any) -> None:
        given.pop("help_all")
        values = {name: given.pop(name) for name in fields}
        command(**given, values={k: v for k, v in values.items() if v is not None and v != []})

    class WithShortHelp(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            everything = ctx.meta.get(ALL, False)
            for option in self.params:
                option.secondary_opts = []  # --no-...: the last line says that they are there
                if isinstance(option, TyperOption) and not everything:
                    option.hidden = option.name in (fields.keys() - basic) | FURTHER
                    option.rich_help_panel = None
            if help_option := self.get_help_option(ctx):
                help_option.metavar = ""
            last = SWITCHES if everything else f"All options: mrkd {self.name} --help-all"
            self.epilog = ending(*examples, last=last)
            super().format_help(ctx, formatter)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    parameters = [*made, *own, help_all]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(cls=WithShortHelp)(wrapper)
    return typer.main.get_command(alone)


def _parameter(name: str, info: FieldInfo) -> inspect.Parameter:
    from rich.markup import escape

    from mrkd_ray.config.fields import REPEATED, flag

    help_text = info.description or ""
    kind: Any = str | None
    names = flag(name)
    metavar = _metavar(name, info)
    if name in REPEATED:
        kind = list[str] | None
    elif info.annotation is bool:
        kind, metavar = bool | None, ""
        off = f"--no-{name.replace('_', '-')}"
        names = f"{names}/{off}"
        if info.default:
            help_text += f" On by default: {off} turns it off."
    elif not (info.is_required() or info.default is None or "Default:" in help_text):
        help_text += f" Default: {_shown(info.default)}."
    option = typer.Option(
        names,
        help=escape(help_text),
        show_default=False,
        rich_help_panel=None if info.is_required() else _group(name),
        metavar=metavar,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _group(name: str) -> str | None:
    from mrkd_ray.config import method, run

    for class_, title in GROUPS.items():
        model = getattr(run, class_, None) or getattr(method, class_)
        if name in model.model_fields:
            return title
    return None


def _metavar(name: str, info: FieldInfo) -> str:
    if name in METAVARS:
        return METAVARS[name]
    if typing.get_origin(info.annotation) is Literal:
        return "|".join(typing.get_args(info.annotation))
    text = str(info.annotation)
    if "tuple" in text:
        return "NAME,NAME,..." if "str" in text else "N,N,..."
    if "Path" in text:
        return "FOLDER"
    return "N" if "int" in text else "X" if "float" in text else "NAME"


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
