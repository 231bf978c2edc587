"""UrbanSound8K: 8,732 clips of 10 classes in 10 folds."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release

TABLE = "metadata/UrbanSound8K.csv"
COLUMNS = ("slice_file_name", "fsID", "fold", "class")


@layout(
    "urbansound8k",
    description=f"UrbanSound8K: {TABLE} and audio/fold1/ to audio/fold10/",
    specificity=20,
    matches=lambda path: (path / TABLE).is_file(),
)
def read_urbansound8k(root: Path) -> Dataset:
    """Read the official folds, with the Freesound recordings that clips were cut from as groups.

    Raises:
        UserError: lists all that is wrong.
    """
    release = Release("UrbanSound8K", root, "Get them from the official archive.")
    rows = release.rows(TABLE, COLUMNS)
    torn = release.torn(rows, "fsID")
    clips = [
        Clip(
            clip_id=row["slice_file_name"],
            path=root / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
            labels=(row["class"],),
            fold=release.whole(row["fold"], "fold", row["slice_file_name"]),
            group=None if row["fsID"] in torn else row["fsID"],
        )
        for row in rows
    ]
    checked = release.check(clips, ["audio"])
    return Dataset(name="urbansound8k", root=root, clips=checked, notes=release.note_on(torn))
