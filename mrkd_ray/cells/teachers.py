"""Frozen teachers: the branches of finished cells, found, and checked against a student's data."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from mrkd_ray.cells import intact
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.hashing import hash_of, sha256_of
from mrkd_ray.common.reading import Damaged
from mrkd_ray.common.text import few
from mrkd_ray.datasets.splits import Split
from mrkd_ray.features.window_extents import window_ticks
from mrkd_ray.inference import model_folder
from mrkd_ray.representations.timing import PAPER, WINDOW_TICKS
from mrkd_ray.training.branch_task import FrozenTeacher

EXAMPLE = "'results/train/cells/independent_*_fold1_*'"


def find(patterns: Iterable[str]) -> tuple[FrozenTeacher, ...]:
    """Return the branches of the cells that are meant, each once, in order.

    Args:
        patterns: folders of cells, or patterns with `*`, `?` or `[` of them.

    Raises:
        UserError: names each that is no finished cell, or what is damaged.
    """
    cells: dict[Path, None] = {}
    wrong = []
    for pattern in patterns:
        given = Path(pattern).expanduser().absolute()
        found = [given] if given.exists() else sorted(map(Path, glob.glob(str(given))))
        own = [path for path in found if (path / "branches").is_dir()]
        if not own:
            wrong.append(f"{pattern}: no cell there. Give the folder of one, or {EXAMPLE}")
        cells |= dict.fromkeys(own)
    if wrong:
        raise UserError("\n".join(wrong))
    try:
        return tuple(teacher for cell in cells for teacher in _branches(cell))
    except Damaged as error:
        raise UserError(f"{error}. A damaged cell teaches nobody: train it again") from None


def _branches(cell: Path) -> list[FrozenTeacher]:
    intact.check(cell)
    result = intact.read_result(cell)
    if result is None:
        resume = f"mrkd grid {cell.parents[1] / 'grid.yaml'} --resume"
        raise UserError(f"{cell}: not finished, so it teaches nobody yet: {resume}")
    folders = sorted(path for path in (cell / "branches").iterdir() if model_folder.is_model(path))
    return [_teacher(folder, int(result["fold"])) for folder in folders]


def _teacher(folder: Path, fold: int) -> FrozenTeacher:
    config = model_folder.read_config(folder)
    return FrozenTeacher(
        folder=folder,
        representation=config["representation"],
        fold=fold,
        classes=tuple(config["classes"]),
        multi_label=config.get("multi_label", False),
        window_ticks=config.get("window_ticks", WINDOW_TICKS),
        digest=hash_of(
            *(config[name] for name in ("representation", "representation_version", "network")),
            sha256_of(folder / model_folder.TENSORS),
        ),
        trained_on=frozenset(model_folder.read_digests(folder)),
        cross_fit=config.get("training", {}).get("cross_fit"),
    )


def check(
    teachers: Sequence[FrozenTeacher],
    prepared: Prepared,
    windows: Iterable[float | Literal["whole"]],
    *,
    virtual: bool = False,
) -> None:
    """Refuse teachers that cannot teach these clips, or have heard clips that will be tested.

    Args:
        teachers: of all folds.
        prepared: the student's data.
        windows: `config.method.Learning.window` of each variant.
        virtual: whether soft labels of a variant are those of mixed windows.

    Raises:
        UserError: names the first, and what to do.
    """
    if virtual and (apart := [teacher for teacher in teachers if teacher.cross_fit]):
        raise UserError(
            f"{apart[0].folder}: it answers out of fold (cross_fit: {apart[0].cross_fit}), for "
            "windows of one clip: soft_labels: window"
        )
    lengths = {window_ticks(window, prepared.whole_window) for window in windows}
    for teacher in teachers:
        dataset = prepared.dataset
        if (teacher.classes, teacher.multi_label) != (dataset.classes, dataset.multi_label):
            raise UserError(
                f"{teacher.folder}: it knows other classes than {dataset.name} has: "
                "give the data set that it was trained on (--data)"
            )
        if other := lengths - {teacher.window_ticks}:
            seconds = round(teacher.window_ticks * PAPER.frame_seconds, 3)
            asked = round(other.pop() * PAPER.frame_seconds, 3)
            raise UserError(
                f"{teacher.folder}: it hears windows of {seconds:g} s, and the student is to hear "
                f"{asked:g} s: --window {seconds:g}, or other teachers"
            )
    for split in prepared.splits:
        of_fold = [teacher for teacher in teachers if teacher.fold == split.fold]
        if not of_fold:
            folds = sorted({teacher.fold for teacher in teachers})
            raise UserError(
                f"fold {split.fold} has no teacher, only {', '.join(map(str, folds))}: "
                "leave it out (--folds), or train teachers for it"
            )
        _check_parts(of_fold, split, prepared)
        tested = {prepared.digests[clip_id] for clip_id in split.test}
        for teacher in of_fold:
            if heard := len(tested & teacher.trained_on):
                raise UserError(
                    f"{teacher.folder}: it was trained on {heard} of the {len(tested)} test clips "
                    f"of fold {split.fold}: give teachers of the same data, folds and split"
                )


def _check_parts(of_fold: Sequence[FrozenTeacher], split: Split, prepared: Prepared) -> None:
    """Refuse teachers that answer out of fold where a training clip would have none."""
    parts = sorted({teacher.cross_fit for teacher in of_fold if teacher.cross_fit})
    if not parts:
        return
    heard = frozenset.intersection(*(teacher.trained_on for teacher in of_fold))
    answered_by_none = sum(prepared.digests[clip_id] in heard for clip_id in split.train)
    if whole := [teacher for teacher in of_fold if not teacher.cross_fit]:
        raise UserError(
            f"{whole[0].folder}: it has heard all training clips of fold {split.fold}, and others "
            f"answer out of fold (cross_fit: {few(parts)}): leave it out"
        )
    if answered_by_none:
        raise UserError(
            f"fold {split.fold}: each teacher has heard {answered_by_none} of the "
            f"{len(split.train)} training clips, so none answers for them out of fold. There are "
            f"teachers of the parts {few(parts)}: give those of all parts of one number"
        )
