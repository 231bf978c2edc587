"""Configurations from YAML files and the command line, checked; and back to YAML."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import unknown
from mrkd_ray.common.text import printable
from mrkd_ray.config import yaml_files
from mrkd_ray.config.fields import RENAMED, REPEATED, current_names, flag
from mrkd_ray.config.schema import Variant

C = TypeVar("C", bound=BaseModel)

LONGEST = 200
"""Characters of a value that an error shows."""

COMMAND_LINE = "command line"
PYTHON = "train()"
"""Sources of values besides files: how a missing one is given depends on it."""


def noted(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return fields under the names that they have today, with a note on those that had another.

    Raises:
        UserError: one is given under both; names `source`.
    """
    try:
        current = current_names(values)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    for old in (name for name in values if name not in current):
        print(f"note: {source}: {old} is called {RENAMED[old]} now", file=sys.stderr)
    return current


def parse(model: type[C], values: dict[str, Any], source: str) -> C:
    """Validate `values`; `source` (a file, `COMMAND_LINE` or `PYTHON`) is named in the error.

    Raises:
        UserError: with one line for each field that is wrong.
    """
    values = noted(values, source)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found: dict[str, str] = {}  # one line for each place: a union reports each of its members
        for item in error.errors():
            depth = len(item["loc"])
            if any(e["loc"][:depth] == item["loc"] != e["loc"] for e in error.errors()):
                continue  # what is wrong inside it is reported
            # The place in the user's terms: without pydantic's names for members of a union.
            unknown_field = item["type"] == "extra_forbidden"
            own = item["loc"][-1:] if unknown_field else ()  # a name that the user made up
            parts = [
                printable(p)
                for p in item["loc"]
                if isinstance(p, int) or re.fullmatch(r"[\w.-]+", p) or p in own
            ]
            where = parts[0] if parts[:1] == ["folds"] else ".".join(parts)
            where = where or "configuration"
            told = item["type"] == "missing" or not item["loc"]
            given = "" if told else f" (got {_cut(repr(item['input']))})"
            if item["type"] == "string_type" and isinstance(item["input"], (bool, int, float)):
                given += ": YAML reads it so; write it in quotes"
            message = f"{where}: {item['msg'].removeprefix('Value error, ')}{given}"
            if item["type"] == "literal_error" and where == "folds":
                message = f"folds: all, or whole numbers such as 1,2 or 1..3{given}"
            elif item["type"] == "missing" and where in model.model_fields:
                message = f"{where}: {_missing(where, model.model_fields[where], source)}"
            elif unknown_field:
                message = f"{where}: unknown field"
                if len(parts) == 1:
                    message = str(unknown("field", where, model.model_fields))
                elif parts[0] == "variants":
                    message = f"{where}: {unknown('field', str(parts[-1]), Variant.model_fields)}"
            found.setdefault(where, message)
        lines = [f"{source}: {len(found)} problem(s) in the configuration", *found.values()]
        raise UserError("\n  ".join(lines)) from None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _missing(name: str, info: FieldInfo, source: str) -> str:
    """Say what a field takes and how it is given."""
    (example,) = info.examples or [""]
    words = example if name in REPEATED else [example]
    option = " ".join(f"{flag(name)} {word}" for word in words)
    value = json.dumps(example)  # which is YAML and Python too
    given = {COMMAND_LINE: option, PYTHON: f"{name}={value}"}
    both = f"{name}: {value} in the file, or {option}"
    return f"missing. {info.description} Example: {given.get(source, both)}"


def to_yaml(config: BaseModel) -> str:
    """Return the whole configuration, defaults included, as YAML that can be given back."""
    return yaml_files.text_of(config.model_dump(mode="json"))
