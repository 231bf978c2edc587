"""Recordings without labels beside a data set: only distillation uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.audio_files import is_audio, no_recordings, unread, visible_files
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking.scan import ClipScan


def with_unlabelled(dataset: Dataset, folder: Path) -> Dataset:
    """Return the data set with all recordings of a folder, at any depth, as unlabelled clips.

    Their clip_ids begin with `unlabelled:`, so that they differ from those of the labelled ones.

    Raises:
        UserError: no such folder, or no recordings in it.
    """
    root = folder.expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"unlabelled {str(folder)!r}: no such folder.")
    files = list(visible_files(root))
    clips = tuple(
        Clip(clip_id=f"unlabelled:{path.relative_to(root).as_posix()}", path=path, labels=())
        for path in filter(is_audio, files)
    )
    if not clips:
        raise UserError(f"unlabelled {str(folder)!r}: {no_recordings(root)}")
    notes = (f"unlabelled: {note}" for note in unread(files, root))
    return replace(dataset, unlabelled=clips, notes=(*dataset.notes, *notes))


def without_copies(dataset: Dataset, scans: Mapping[str, ClipScan]) -> Dataset:
    """Return the data set less unlabelled clips with the bytes of a labelled one, or of another.

    A branch would else be distilled on the very clips that it is tested on.

    Args:
        scans: of all labelled clips that there are, also of those that the data set is without.
    """
    unlabelled = {clip.clip_id for clip in dataset.unlabelled}
    seen = {scan.digest for clip_id, scan in scans.items() if clip_id not in unlabelled}
    copies = []
    for clip in dataset.unlabelled:
        if scans[clip.clip_id].digest in seen:
            copies.append(clip.clip_id)
        seen.add(scans[clip.clip_id].digest)
    return dataset.without(copies)
