"""Data sets: `open_dataset` finds out from what lies at a path how to read it.

A new layout is one module in `layouts/` with a function under `@layout(...)`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from dataclasses import replace
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import is_printable, printable
from mrkd_ray.datasets import layouts
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.events import SHORTEST, in_windows, with_negatives
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.registry import LAYOUTS, Layout, layout

__all__ = [
    "EMBEDDED",
    "LAYOUTS",
    "SYNTHETIC",
    "Clip",
    "Dataset",
    "Layout",
    "layout",
    "open_dataset",
]

SYNTHETIC = "synthetic"
EMBEDDED = {
    SYNTHETIC: "sounds of twelve kinds, made on first use from a seed",
    "mixtures": "one to three of these sounds a clip: multi-label",
}
"""The names of embedded data sets; `./synthetic` is a folder of that name."""

_RENAME = "Rename them: such characters can clear a screen, or forge a line."
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")

for _module in pkgutil.iter_modules(layouts.__path__):
    importlib.import_module(f"{layouts.__name__}.{_module.name}")


def open_dataset(
    data: str | Path, cache: Path, *, window: float = SHORTEST, negatives: str | None = None
) -> Dataset:
    """Open the data set at a path, or the embedded one.

    Args:
        data: a path, a path with `#` and the name of a subset that its layout knows
            (`ESC-50-master#esc10`), or a name in `EMBEDDED`, whose clips are made on first use.
        cache: folder for what is made from data sets.
        window: seconds; clips around events of longer recordings are so long at least.
        negatives: name of a class of what is not marked in such recordings; None: no such class.

    Raises:
        UserError: nothing there, an unknown layout or subset, a file of the layout is wrong, or
            there can be no such class.
    """
    found = in_windows(_opened(data, cache), window)
    return found if negatives is None else with_negatives(found, negatives, window)


def _opened(data: str | Path, cache: Path) -> Dataset:
    if data in EMBEDDED:
        return _open_embedded(str(data), cache)
    path, subset = Path(data).expanduser(), ""
    if not path.exists() and "#" in path.name:
        parent, _, subset = str(path).rpartition("#")
        path = Path(parent)
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        if near := difflib.get_close_matches(path.name, beside, n=1):
            raise UserError(
                f"data {str(data)!r}: no such file or folder. Did you mean "
                f"{str(path.parent / near[0])!r}?"
            )
        raise UserError(
            f"data {str(data)!r}: no such file or folder; `mrkd download` fetches the paper's "
            f"data sets.{_layouts()}"
        )
    path = path.resolve()
    for name, known in sorted(LAYOUTS.items(), key=lambda item: -item[1].specificity):
        if known.matches(path):
            if subset and subset not in known.subsets:
                raise UserError(
                    f"data {str(data)!r}: the layout {name} has no subset {subset!r}, it has: "
                    f"{', '.join(known.subsets) or 'none'}."
                )
            found = known.subsets[subset](path) if subset else known.read(path)
            check_names(found)
            return found
    raise UserError(f"data {str(data)!r}: {_why_not(path)}{_layouts()}")


def check_names(dataset: Dataset) -> None:
    """Refuse names that do not show what they are: with line breaks or other control characters.

    Raises:
        UserError: names the labels and the clips.
    """
    faults = Faults(f"{dataset.root}: names that cannot be shown.")
    labels = {label for clip in dataset.clips for label in clip.labels}
    for label in sorted(labels):
        if not is_printable(label):
            faults.add("labels with control characters", _RENAME, printable(label))
    for clip in dataset.recordings:
        if _CONTROL.search(clip.clip_id):
            faults.add("clips with control characters", _RENAME, printable(clip.clip_id))
    faults.raise_any()


def _open_embedded(name: str, cache: Path) -> Dataset:
    from mrkd_ray.datasets import synthetic

    root = cache.expanduser().resolve() / f"{name}-{synthetic.VERSION}"
    if not (root / "meta.csv").is_file():
        make = synthetic.make_synthetic if name == SYNTHETIC else synthetic.make_mixtures
        make(root)
    return replace(LAYOUTS["csv"].read(root), name=name)


def _why_not(path: Path) -> str:
    """Say why no layout fits."""
    from mrkd_ray.datasets.audio_files import audio_files, csv_hint, is_audio, no_recordings

    if path.is_file():
        return "a file that is not .csv; give a folder or a .csv file."
    if not any(path.iterdir()):
        return "the folder is empty."
    if any(is_audio(entry) for entry in path.iterdir()):
        return (
            "the recordings lie directly in the folder, so they have no labels; put them into "
            f"one folder per class, or list them in meta.csv.{csv_hint(path)}"
        )
    if next(audio_files(path), None) is None:
        return f"{no_recordings(path)}{csv_hint(path)}"
    return f"no layout fits.{csv_hint(path)}"


def _layouts() -> str:
    lines = [f"\n  {name}: {known.description}" for name, known in sorted(LAYOUTS.items())]
    embedded = " or ".join(map(repr, EMBEDDED))
    return "\nKnown layouts:" + "".join(lines) + f"\nOr {embedded}: made on the fly."
