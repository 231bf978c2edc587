"""FSDKaggle2018 as released on Zenodo, or as Kaggle's competition had it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mrkd_ray.datasets.base import Clip, Dataset, Side
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release, Row


class Edition(NamedTuple):
    """Where an edition's parts lie, relative to its root."""

    train_table: str
    test_table: str
    train_audio: str
    test_audio: str


OFFICIAL = Edition(
    "FSDKaggle2018.meta/train_post_competition.csv",
    "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
    "FSDKaggle2018.audio_train",
    "FSDKaggle2018.audio_test",
)
KAGGLE = Edition("train.csv", "test_post_competition.csv", "audio_train", "audio_test")


def _edition(path: Path) -> Edition | None:
    """Return the edition of which something lies here: of Kaggle's common names, two."""
    if any((path / part).exists() for part in ("FSDKaggle2018.meta", *OFFICIAL[2:])):
        return OFFICIAL
    return KAGGLE if sum((path / part).exists() for part in KAGGLE) >= 2 else None


@layout(
    "fsdkaggle2018",
    description="FSDKaggle2018: the official release (FSDKaggle2018.meta/, ...) or Kaggle's "
    "edition (train.csv, audio_train/, ...)",
    specificity=20,
    matches=lambda path: _edition(path) is not None,
)
def read_fsdkaggle2018(root: Path) -> Dataset:
    """Read the official split, with what people verified; test clips all are.

    Raises:
        UserError: lists all that is wrong.
    """
    edition = _edition(root) or OFFICIAL
    release = Release(
        "FSDKaggle2018",
        root,
        "Get them from the official release (mrkd download fsdkaggle2018 --to FOLDER) or Kaggle.",
    )
    train = release.rows(edition.train_table, ("fname", "label", "manually_verified"))
    test = release.rows(edition.test_table, ("fname", "label", "usage"))
    scored = [row for row in test if row["usage"] != "Ignored"]

    def clip(row: Row, folder: str, side: Side) -> Clip:
        verified = row.get("manually_verified", "1")
        return Clip(
            clip_id=row["fname"],
            path=root / folder / row["fname"],
            labels=(row["label"],),
            split=side,
            verified=release.whole(verified, "manually_verified", row["fname"]) != 0,
        )

    clips = [clip(row, edition.train_audio, "train") for row in train]
    clips += [clip(row, edition.test_audio, "test") for row in scored]
    padding = {root / edition.test_audio / row["fname"] for row in test}
    checked = release.check(clips, edition[2:], unused=padding)
    notes: tuple[str, ...] = ()
    if ignored := len(test) - len(scored):
        notes = (
            f"{ignored} clips of {edition.test_audio}/ are padding (usage Ignored), which the "
            "competition did not score: left out.",
        )
    return Dataset(name="fsdkaggle2018", root=root, clips=checked, notes=notes)
