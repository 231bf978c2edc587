"""TUT Urban Acoustic Scenes 2018, development set, with its official split."""

from __future__ import annotations

from pathlib import Path

from mrkd_ray.datasets.base import Clip, Dataset, Side
from mrkd_ray.datasets.layouts.registry import layout
from mrkd_ray.datasets.layouts.release import Release

NAME = "TUT-urban-acoustic-scenes-2018-development"
SETUP = "evaluation_setup/fold1_{}.txt"


def _root(path: Path) -> Path:
    """Return the release's own folder, where the path is the folder around it."""
    return path / NAME if (path / NAME).is_dir() else path


def _matches(path: Path) -> bool:
    root = _root(path)
    tables = (root / "evaluation_setup").is_dir() and (root / "meta.csv").is_file()
    return root.is_dir() and (root.name == NAME or tables)


@layout(
    "tut2018",
    description=f"TUT Urban Acoustic Scenes 2018: {NAME}/ (meta.csv, evaluation_setup/, audio/) "
    "or the folder around it",
    specificity=20,
    matches=_matches,
)
def read_tut2018(path: Path) -> Dataset:
    """Read the official split, with locations as groups, so that no split divides them.

    Raises:
        UserError: lists all that is wrong.
    """
    root = _root(path)
    release = Release(
        "TUT Urban Acoustic Scenes 2018",
        root,
        "Get them from the official release: mrkd download tut2018 --to FOLDER.",
    )
    columns = ("filename", "scene_label", "identifier")
    rows = release.rows("meta.csv", columns, delimiter="\t")
    side_of = _sides(release, {row["filename"]: row["scene_label"] for row in rows})
    clips = [
        Clip(
            clip_id=row["filename"],
            path=root / row["filename"],
            labels=(row["scene_label"],),
            split=side_of.get(row["filename"], "train"),
            group=row["identifier"],
        )
        for row in rows
    ]
    return Dataset(name="tut2018", root=root, clips=release.check(clips, ["audio"]))


def _sides(release: Release, labels: dict[str, str]) -> dict[str, Side]:
    """Return the side of each file; where the tables contradict each other is noted."""

    def table(part: str, columns: tuple[str, ...]) -> dict[str, str]:
        rows = release.rows(SETUP.format(part), columns, delimiter="\t", header=False)
        return {row["filename"]: row.get("scene_label", "") for row in rows}

    train = table("train", ("filename", "scene_label"))
    evaluate = table("evaluate", ("filename", "scene_label"))
    test = table("test", ("filename",))
    if not (labels and train and evaluate and test):
        return {}  # a table is missing, which is noted; comparisons would list all files

    def note(what: str, files: set[str]) -> None:
        for file in sorted(files):
            release.faults.add(what, "Mend the tables.", file)

    listed = {**train, **evaluate}
    note("files of meta.csv that evaluation_setup does not list", labels.keys() - listed.keys())
    note("files of evaluation_setup that meta.csv does not list", listed.keys() - labels.keys())
    note("files to train on and to evaluate", train.keys() & evaluate.keys())
    note(
        "files in only one of fold1_evaluate.txt and fold1_test.txt", evaluate.keys() ^ test.keys()
    )
    both = labels.keys() & listed.keys()
    note(
        "labels that differ between meta.csv and evaluation_setup",
        {file for file in both if labels[file] != listed[file]},
    )
    return {file: "test" if file in evaluate else "train" for file in listed}
