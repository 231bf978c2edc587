"""Files in YAML: plain values only, bounded, and read as people mean them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import opened
from mrkd_ray.common.text import printable

if TYPE_CHECKING:
    import yaml

LARGEST = 1 << 20
"""Bytes of a file: the largest grid of this project has 6 kB."""
DEEPEST = 20
"""Levels of lists and fields in one another: a grid has 4."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a grid file.

    Raises:
        UserError: names the file where it cannot be read, is too large or too deep, has an alias, a
            tag or a name twice, or is no mapping.
    """
    import yaml

    try:
        with opened(path) as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the grid file: {error}") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: cannot read the grid file: it has more than {LARGEST} bytes")
    try:
        _check(yaml.parse(text, yaml.SafeLoader))
        values = yaml.load(text, _loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        shown = printable(repr(values))[:200]
        raise UserError(f"{path}: expected fields such as 'cohorts:', got {shown}")
    return values


def _check(events: Iterable[yaml.Event]) -> None:
    """Refuse what is not plain, before anything is made of it.

    Ten lines of aliases can stand for more values than there is memory.
    """
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(
                f"line {line}: *{event.anchor}: aliases are not taken: write it out"
            )
        kinds = yaml.ScalarEvent, yaml.CollectionStartEvent
        if isinstance(event, kinds) and event.tag is not None:
            raise yaml.YAMLError(f"line {line}: {event.tag}: tags are not taken")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"line {line}: more than {DEEPEST} levels in one another")


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a loader that takes names for text, numbers for decimal, and no name twice.

    YAML 1.1 reads the name off as false, 010 as 8, 1:30 as 90 and 2024-01-01 as a date.
    """
    import yaml

    kinds = ("str", "int", "float", "timestamp")
    text, whole, real, date = (f"tag:yaml.org,2002:{kind}" for kind in kinds)

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                    raise yaml.YAMLError(f"line {line}: a name is expected before the colon")
                key.tag = text
                if key.value in seen:
                    raise yaml.YAMLError(f"line {line}: {key.value} is there twice")
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (whole, real, date)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    digits = list("-+.0123456789")
    Loader.add_implicit_resolver(whole, re.compile("[-+]?(0|[1-9][0-9]*)$"), digits)
    number = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|nan)$"
    Loader.add_implicit_resolver(real, re.compile(number), digits)
    return Loader


def text_of(values: dict[str, Any]) -> str:
    """Return values as YAML that can be read back."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump(values, Dumper=Dumper, sort_keys=False)
    return text
