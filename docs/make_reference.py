"""Write docs/reference from the code: commands, configuration, names, the Python interface.

    python -m docs.make_reference          # write the pages
    python -m docs.make_reference --check  # say which differ from the code, and exit with 1

`tests/test_docs.py` checks the same. The results folder and the glossary are written by hand.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import mrkd_ray
from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.cli.main import app
from mrkd_ray.config import method, run, schema, search
from mrkd_ray.datasets.opening import EMBEDDED, LAYOUTS
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.networks.catalogue import describe
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.representations.filters import HOP

FOLDER = Path(__file__).parent / "reference"
HOW = "<!-- Made by `python -m docs.make_reference`: change the code, not this page. -->\n"


@dataclass(frozen=True)
class Section:
    """A class of the configuration: what it adds to its parents, or says otherwise."""

    title: str
    text: str
    model: type[BaseModel]
    parents: tuple[type[BaseModel], ...] = ()

    @property
    def own(self) -> dict[str, FieldInfo]:
        """Its fields that no parent has with the same default and the same text."""
        old = {name: info for parent in self.parents for name, info in parent.model_fields.items()}
        return {
            name: info
            for name, info in self.model.model_fields.items()
            if name not in old or _said(info) != _said(old[name])
        }

    @property
    def link(self) -> str:
        """A link to it from a page beside that of the configuration."""
        return f"configuration.md#{self.title.lower().replace(' ', '-')}"


def _said(info: FieldInfo) -> tuple[Any, str]:
    return info.default, _sentences(info.description)


SECTIONS = (
    Section("Data", "Labelled recordings.", run.Data),
    Section(
        "Where work is done", "Checks, representations, branches.", run.CheckedData, (run.Data,)
    ),
    Section("Prepared ahead", "Of a data set.", run.Preparation, (run.CheckedData,)),
    Section(
        "Branches", "On what they run, and where results go.", run.Branches, (run.CheckedData,)
    ),
    Section("A run", "What a run does besides.", run.Run, (run.Branches, run.Preparation)),
    Section("Learning", "How a network learns, taught or not.", method.Learning),
    Section("Teaching", "How branches teach each other.", method.Options, (method.Learning,)),
    Section("Paper", "One switch.", method.Published),
    Section(
        "One cohort",
        "`mrkd train`, its `--config FILE`, and `train()` in Python take all of the above, and "
        "these. The class is `TrainConfig`.",
        schema.TrainConfig,
        (method.Training, run.Run, method.Published),
    ),
    Section(
        "A grid",
        "`mrkd grid`, `mrkd plan` and a grid file take all of the above but those of one cohort, "
        "and these. The class is `GridConfig`.",
        schema.GridConfig,
        (method.Training, run.Run, method.Published),
    ),
    Section(
        "A search",
        "`mrkd search` takes a grid's fields, but for variants, and these. The class is "
        "`SearchConfig`.",
        search.SearchConfig,
        (schema.GridConfig,),
    ),
    Section(
        "A variant",
        "An entry of a grid's `variants`: the fields of learning, teaching and paper that it "
        "changes, and this.",
        schema.Variant,
        (method.Options, method.Published),
    ),
    Section(
        "A student",
        "`mrkd distil`, whose arguments are the teachers, and `distil()` in Python take the fields "
        "of data, branches and learning, and these. The class is `DistilConfig`.",
        schema.DistilConfig,
        (run.Run, method.Learning),
    ),
    Section(
        "Probes",
        "`mrkd recommend` takes the fields of data, branches and learning, and these. The class is "
        "`RecommendConfig`.",
        schema.RecommendConfig,
        (run.Branches, method.Learning),
    ),
)


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "commands.md": "\n".join(_commands()),
        "configuration.md": "\n".join(_configuration()),
        "names.md": "\n".join(_names()),
        "python.md": "\n".join(_python()),
    }


def differing(folder: Path = FOLDER) -> list[str]:
    """Return the names of the pages in a folder that are not what the code says."""
    made = pages()
    kept = {name: folder / name for name in made}
    return [
        name
        for name, path in kept.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != made[name]
    ]


def _commands() -> Iterator[str]:
    yield HOW
    yield "# Commands\n"
    yield (
        "Every command ends with 0 where it did what was asked, 1 where cells failed, 2 where the "
        "input is wrong (one message that names the file or the value), and 130 after Ctrl-C.\n"
    )
    for name, command in _by_name().items():
        yield f"## `mrkd {name}`\n"
        yield f"{_sentences(command.help)}\n"
        arguments = " ".join(_metavar(p) for p in _arguments(command))
        yield f"```\nmrkd {name} {arguments}".rstrip() + " [OPTIONS]\n```\n"
        yield from _parameters(command)


@functools.cache
def _by_name() -> dict[str, Any]:
    """The commands, with all their options."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="mrkd")
    names = group.list_commands(context)
    return {name: group.resolve_command(context, [name])[1] for name in names}


def _arguments(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "argument"]


def _parameters(command: Any) -> Iterator[str]:
    """A table of what a command takes itself, and links to the fields that are options too."""
    rows = []
    options: dict[str, str] = {}
    for parameter in command.params:
        text = _sentences(getattr(parameter, "help", None))
        if parameter.param_type_name == "argument":
            rows.append((f"`{_sentences(_metavar(parameter))}`", text))
        elif {"--help", "--help-all"} & {*parameter.opts}:
            continue
        elif section := _section_of(parameter.name, text):
            options[parameter.name] = f"[`{parameter.opts[0]}`]({section.link})"
        else:
            default = "" if parameter.is_flag or not parameter.default else parameter.default
            rows.append(
                (f"`{_flag(parameter)}`", text + (f" Default: {default}." if default else ""))
            )
    if rows:
        yield from _table(("argument or option", "what it is"), rows)
    if options:
        yield f"And fields of the configuration as options: {', '.join(_links(options))}.\n"


def _section_of(name: str, text: str) -> Section | None:
    """The section that has this field with this text, to which options add their default."""
    for section in SECTIONS:
        info = section.own.get(name)
        if info is not None and text.startswith(_sentences(info.description)):
            return section
    return None


def _links(options: Mapping[str, str]) -> Iterator[str]:
    """A link to each section of which all fields are options; to single fields of the others."""
    every = {p.name for command in _by_name().values() for p in command.params}
    for section in SECTIONS:
        here = {name: link for name, link in options.items() if link.endswith(f"({section.link})")}
        if here and here.keys() >= section.own.keys() & every:
            yield f"[{section.title.lower()}]({section.link})"
        else:
            yield from here.values()


def _metavar(parameter: Any) -> str:
    numbers = isinstance(parameter.default, int | float)
    return str(parameter.metavar or ("N" if numbers else "TEXT"))


def _flag(parameter: Any) -> str:
    taken = "" if parameter.is_flag else f" {_metavar(parameter)}"
    return f"{'/'.join([*parameter.opts, *parameter.secondary_opts])}{taken}"


def _configuration() -> Iterator[str]:
    yield HOW
    yield "# Configuration\n"
    yield (
        "One schema is behind grid files, the command line and Python. A field `some_field` is "
        "`some_field:` in a YAML file, `--some-field` on the command line and `some_field=` in "
        "Python. `branches` is `--branch` and `cohorts` is `--cohort`, once for each. Numbers are "
        "written `1,2` or `0..4`. An unknown field is refused, with the nearest name.\n"
    )
    for section in SECTIONS:
        yield f"## {section.title}\n"
        yield f"{section.text}\n"
        rows = []
        for name, info in section.own.items():
            default = "needed" if info.is_required() else _default(info.default)
            rows.append(
                (f"`{name}`", _kind(info.annotation), default, _sentences(info.description))
            )
        yield from _table(("field", "takes", "default", "what it is"), rows)
    yield "## What `paper: true` sets\n"
    yield "Fields that are given keep their value.\n"
    published = [(f"`{name}`", _default(value)) for name, value in method.PAPER.items()]
    yield from _table(("field", "published value"), published)


def _default(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(annotation: Any) -> str:
    """What a field takes, in words."""
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f"`{word}`" for word in typing.get_args(annotation))
    if typing.get_origin(annotation) is dict:
        return "names to fields"
    text = str(annotation)
    if "BranchSpec" in text:
        return "cohorts" if text.count("tuple") > 1 else "branches"
    if "Literal" in text and "tuple" not in text:
        return "a name"
    for word, said in (
        ("bool", "true or false"),
        ("Path", "path"),
        ("all", "`all` or numbers"),
        ("tuple[str", "names"),
        ("tuple", "numbers"),
        ("float", "number"),
        ("int", "whole number"),
    ):
        if word in text:
            return said
    return "text"


def _names() -> Iterator[str]:
    yield HOW
    yield "# Names\n"
    yield "What `mrkd list` prints. A branch is written `REPRESENTATION:NETWORK`.\n"
    entries = [(name, f"{r.description} ({r.bins} bins)") for name, r in REPRESENTATIONS.items()]
    layouts = [(name, layout.description) for name, layout in LAYOUTS.items()]
    for title, text, rows in (
        (
            "Representations",
            f"A hop of {HOP} samples at {SAMPLE_RATE:,} Hz where no other is named.",
            entries,
        ),
        ("Networks", "Any number of bins and classes.", list(describe().items())),
        (
            "Averages",
            "Of the branches' soft labels.",
            [(n, a.description) for n, a in AVERAGES.items()],
        ),
        ("Layouts of data sets", "Found by looking at the path.", layouts),
        ("Embedded data sets", "Made on first use.", list(EMBEDDED.items())),
    ):
        yield f"## {title}\n"
        yield f"{text}\n"
        yield from _table(("name", "what it is"), [(f"`{name}`", said) for name, said in rows])


def _python() -> Iterator[str]:
    yield HOW
    yield "# Python\n"
    yield (
        "What `mrkd_ray` exports, and what its functions return. Everything else may change "
        "from one version to the next.\n"
    )
    objects = [getattr(mrkd_ray, name) for name in mrkd_ray.__all__]
    functions = [thing for thing in objects if inspect.isfunction(thing)]
    returned = [typing.get_type_hints(f)["return"] for f in functions]
    for thing in dict.fromkeys([*functions, *returned, *objects]):
        members = "      members: false\n" if _is_class(thing, BaseModel) else ""
        options = f"    options:\n{members}" if members else ""
        yield f"::: {thing.__module__}.{thing.__qualname__}\n{options}"
        if members:
            yield "Its fields: [configuration](configuration.md).\n"


def _is_class(thing: Any, kind: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, kind)


def _sentences(text: str | None) -> str:
    """Text in one line, as a cell of a table takes it."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        wrong = differing()
        print(
            "\n".join(f"docs/reference/{name} differs: run this without --check" for name in wrong)
        )
        sys.exit(bool(wrong))
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(f"docs/reference/{file}")
