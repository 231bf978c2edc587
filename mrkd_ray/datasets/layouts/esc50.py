"""ESC-50 as its repository holds it: 2,000 clips of 50 classes in 5 folds; ESC-10 is part of it."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release

TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


def read_esc10(root: Path) -> Dataset:
    """Read the subset ESC-10: 400 clips of 10 classes in the same folds."""
    return _read(root, "esc10")


@layout(
    "esc50",
    description=f"ESC-50: {TABLE} and audio/; PATH#esc10 is its subset ESC-10",
    specificity=20,
    matches=lambda path: (path / TABLE).is_file(),
    subsets={"esc10": read_esc10},
)
def read_esc50(root: Path) -> Dataset:
    """Read all 50 classes, with the official folds and the source recordings as groups.

    Raises:
        UserError: lists all that is wrong.
    """
    return _read(root, "esc50")


def _read(root: Path, name: str) -> Dataset:
    release = Release(
        "ESC-50", root, "Get them from the official archive: mrkd download esc50 --to FOLDER."
    )
    rows = release.rows(TABLE, COLUMNS)
    torn = release.torn(rows, "src_file")
    wanted = [row for row in rows if name == "esc50" or row["esc10"] == "True"]
    clips = [
        Clip(
            clip_id=row["filename"],
            path=root / "audio" / row["filename"],
            labels=(row["category"],),
            fold=release.whole(row["fold"], "fold", row["filename"]),
            group=None if row["src_file"] in torn else row["src_file"],
        )
        for row in wanted
    ]
    others = {root / "audio" / row["filename"] for row in rows}
    checked = release.check(clips, ["audio"], unused=others)
    notes = release.note_on(torn & {row["src_file"] for row in wanted})
    return Dataset(name=name, root=root, clips=checked, notes=notes)
