"""Google's Speech Commands: a folder per word, and lists of what to test and to validate on."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import few
from mrkd_ray.datasets.audio_files import audio_files, listing, unread, visible_files
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts.faults import Faults
from mrkd_ray.datasets.layouts.registry import layout, sides

LISTS = {"testing_list.txt": "test", "validation_list.txt": "validation"}
NOISE = "_background_noise_"


@layout(
    "speech_commands",
    description=f"Speech Commands: a folder per word, {' and '.join(LISTS)}",
    specificity=20,
    matches=lambda path: any((path / name).is_file() for name in LISTS),
)
def read_speech_commands(root: Path) -> Dataset:
    """Read the official split, with speakers as groups; the background noise is no class.

    Raises:
        UserError: lists all that is wrong.
    """
    faults = Faults(f"{root}: not usable as Speech Commands.")
    word_of: dict[str, str] = {}  # path below the root -> side, as the lists have it
    for name, word in LISTS.items():
        for file in _lines(root / name):
            if word_of.setdefault(file, word) != word:
                faults.add("recordings in both lists", "Keep one line.", file)
    words = [f for f in listing(root) if f.is_dir() and f.name != NOISE]
    files = {path.relative_to(root).as_posix(): path for f in words for path in audio_files(f)}
    if not files.keys() & word_of.keys():
        faults.add("lists of none of the recordings", "Mend them.", few(LISTS))
    faults.raise_any()
    side_of = sides([word_of.get(file, "train") for file in files])
    clips = tuple(
        Clip(
            clip_id=file,
            path=path,
            labels=(file.partition("/")[0],),
            split=side,
            group=path.stem.partition("_nohash_")[0],
        )
        for (file, path), side in zip(files.items(), side_of, strict=True)
        if side is not None
    )
    notes = []
    if left_out := side_of.count(None):
        notes.append(f"{left_out} validation clips are left out: there are test clips too.")
    if noise := sum(1 for _ in audio_files(root / NOISE)):
        notes.append(f"{noise} recordings of {NOISE}/ are no class: left out.")
    if gone := sorted(word_of.keys() - files.keys()):
        notes.append(f"recordings of the lists that are not there ({len(gone)}): {few(gone, 3)}.")
    others = (path for path in visible_files(root) if path.name not in LISTS)
    notes += unread(others, root)
    return Dataset(name=root.name, root=root, clips=clips, notes=tuple(notes))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split() if file.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
