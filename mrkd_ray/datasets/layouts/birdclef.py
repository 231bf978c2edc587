"""BirdCLEF's competitions: recordings of species, and since 2021 soundscapes with marked calls."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.common.text import few
from mrkd_ray.datasets.audio_files import listing
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.layouts import label_cells, marks
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release, Row

TABLE, AUDIO = "train_metadata.csv", ("train_audio", "train_short_audio")
"""`train_short_audio` in 2021, whose filenames are without the species' folder."""
MARKS, SOUNDSCAPES = "train_soundscape_labels.csv", "train_soundscapes"
SEGMENT = 5.0  # seconds that a row of `MARKS` ends
MEND = "Get them from the competition's page."


def _audio(root: Path) -> str:
    return next((name for name in AUDIO if (root / name).is_dir()), "")


def read_all_labels(root: Path) -> Dataset:
    """Read the recordings with their secondary labels too: several labels a clip."""
    return _read(root, several=True)


def read_soundscapes(root: Path) -> Dataset:
    """Read the soundscapes, in pieces of 5 s: several labels a clip, `nocall` where nothing calls.

    Raises:
        UserError: lists all that is wrong.
    """
    release = Release("BirdCLEF", root, MEND)
    rows = release.rows(MARKS, ("row_id", "site", "audio_id", "seconds", "birds"))
    recordings = marks.Recordings(release.faults)
    files = listing(root / SOUNDSCAPES)
    found: dict[str, Path | None] = {}
    clips = []
    for row in rows:
        name = f"{row['audio_id']}_{row['site']}"
        if name not in found:
            own = [file for file in files if file.name.startswith(f"{name}_")]
            found[name] = own[0] if len(own) == 1 else None
            if len(own) != 1:
                what = f"soundscapes of which there is not one file in {SOUNDSCAPES}/"
                release.faults.add(what, MEND, name)
        path = found[name]
        end = release.whole(row["seconds"], "seconds", row["row_id"])
        if path is not None:
            labels = tuple(sorted(set(row["birds"].split())))
            clip = Clip(clip_id=path.relative_to(root).as_posix(), path=path, labels=labels)
            clips.append(recordings.event(clip, (max(0.0, end - SEGMENT), end), row["row_id"]))
    release.faults.raise_any()
    notes: list[str] = []
    events, _ = marks.as_events(clips, True, notes)
    unlisted = [file.name for file in files if file not in found.values()]
    if unlisted:
        notes.append(f"soundscapes without labels ({len(unlisted)}): {few(unlisted, 3)}: left out.")
    return Dataset(
        name="birdclef-soundscapes",
        root=root,
        clips=tuple(events),
        notes=tuple(notes),
        multi_label=True,
        annotated=recordings.all,
    )


@layout(
    "birdclef",
    description=f"BirdCLEF since 2021: {TABLE} and {' or '.join(f'{name}/' for name in AUDIO)}; "
    "PATH#all_labels has the secondary labels too, PATH#soundscapes the marked calls of "
    f"{MARKS}",
    specificity=20,
    matches=lambda path: (path / TABLE).is_file() and bool(_audio(path)),
    subsets={"all_labels": read_all_labels, "soundscapes": read_soundscapes},
)
def read_birdclef(root: Path) -> Dataset:
    """Read the recordings with their primary label.

    Raises:
        UserError: lists all that is wrong.
    """
    return _read(root, several=False)


def _read(root: Path, *, several: bool) -> Dataset:
    release = Release("BirdCLEF", root, MEND)
    rows = release.rows(TABLE, ("primary_label", "filename"))
    audio = _audio(root)
    clips = []
    others = 0
    for row in rows:
        place = row["filename"]
        if audio == AUDIO[1]:
            place = f"{row['primary_label']}/{place}"
        secondary = _secondary(release, row)
        others += bool(secondary - {row["primary_label"]})
        labels = {row["primary_label"], *(secondary if several else ())}
        clips.append(Clip(clip_id=place, path=root / audio / place, labels=tuple(sorted(labels))))
    checked = release.check(clips, [audio])
    notes = []
    if others and not several:
        notes.append(
            f"secondary labels are not used ({others} clips have some): {root.name}#all_labels "
            "has them, several labels a clip."
        )
    if (root / MARKS).is_file():
        notes.append(f"{MARKS} is not used: {root.name}#soundscapes reads it.")
    return Dataset(
        name="birdclef", root=root, clips=checked, notes=tuple(notes), multi_label=several
    )


def _secondary(release: Release, row: Row) -> set[str]:
    """Return the species that are heard too; where the list is none is noted."""
    cell = row.get("secondary_labels", "")
    try:
        return set(label_cells.split_list(cell)) if cell else set()
    except label_cells.LabelError as error:
        release.faults.add(f"secondary labels: {error}", "Mend the table.", row["filename"])
        return set()
