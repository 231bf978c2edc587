"""FSD50K as released on Zenodo: 51,197 clips of 200 classes, several labels a clip."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.datasets.base import Clip, Dataset, Side
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release, Row

DEV, EVAL = "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv"
DEV_AUDIO, EVAL_AUDIO = "FSD50K.dev_audio", "FSD50K.eval_audio"


@layout(
    "fsd50k",
    description=f"FSD50K: {DEV}, {EVAL}, {DEV_AUDIO}/ and {EVAL_AUDIO}/",
    specificity=20,
    matches=lambda path: (path / DEV).is_file(),
)
def read_fsd50k(root: Path) -> Dataset:
    """Read the official split: the development set's training part, tested on the evaluation set.

    Raises:
        UserError: lists all that is wrong.
    """
    release = Release("FSD50K", root, "Get them from the official release on Zenodo.")
    dev = release.rows(DEV, ("fname", "labels", "split"))
    test = release.rows(EVAL, ("fname", "labels"))

    def clip(row: Row, folder: str, side: Side) -> Clip:
        labels = tuple(sorted({label for label in row["labels"].split(",") if label}))
        path = root / folder / f"{row['fname']}.wav"
        return Clip(clip_id=row["fname"], path=path, labels=labels, split=side)

    clips = [clip(row, DEV_AUDIO, "train") for row in dev if row["split"] == "train"]
    clips += [clip(row, EVAL_AUDIO, "test") for row in test]
    held = {root / DEV_AUDIO / f"{row['fname']}.wav" for row in dev if row["split"] == "val"}
    for row in dev:
        if row["split"] not in ("train", "val"):
            where = f"{row['split']!r} of {row['fname']}"
            release.faults.add("splits that are neither train nor val", "Mend the table.", where)
    checked = release.check(clips, [DEV_AUDIO, EVAL_AUDIO], unused=held)
    notes = (f"{len(held)} validation clips are left out: there are test clips too.",) * bool(held)
    return Dataset(name="fsd50k", root=root, clips=checked, notes=notes, multi_label=True)
