from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

from mrkd_ray.cli.review import mend, review
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_text
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.opening import open_dataset
from tests.report.fakes import fake_grid

CLASSES = ("cat", "dog", "owl")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def answered(file: Path, answers: Mapping[str, str]) -> Path:
    rows = rows_of(file)
    for row in rows:
        row["answer"] = answers.get(row["clip_id"], "")
    with (file.parent / "answers.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file.parent / "answers.csv"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, and its data: clips in two folds, of which one is not tested."""
    rng = np.random.default_rng(0)
    rows = ["filename,label,fold,group"]
    (tmp_path / "data").mkdir()
    for fold in (1, 2):
        for i in range(12):
            name = f"{fold}-{i}"
            sound = rng.uniform(-0.5, 0.5, 800)
            soundfile.write(tmp_path / f"data/{name}", sound, 8000, format="WAV")
            rows.append(f"{name},{CLASSES[i % 3]},{fold},g{fold}-{i // 2}")
    (tmp_path / "data/meta.csv").write_text("\n".join(rows) + "\n")
    data, cache = str(tmp_path / "data"), str(tmp_path / "cache")
    pairings = ("logmel64:resnet_small+cqt:vgg_small",)
    return fake_grid(
        tmp_path / "run",
        pairings=pairings,
        temperatures=(1,),
        folds=(1,),
        classes=CLASSES,
        clips=12,
        data=data,
        cache=cache,
    )


def test_the_list_has_clips_with_reasons_and_the_answers_become_data(run: Path) -> None:
    file, mended = run.parent / "review.csv", run.parent / "data/mended.csv"
    console = Console(record=True, width=200)
    review(run, file, 6, console)
    rows = rows_of(file)
    assert len(rows) == 6
    assert {row["reason"] for row in rows} == {"branches disagree", "uncertain"}
    assert all(Path(row["file"]).is_file() and row["answer"] == "" for row in rows)
    said = console.export_text()
    assert "6 of 12 clips, by 4 branches" in said
    assert "12 were never tested" in said

    first, second, third = (row["clip_id"] for row in rows[:3])
    before = open_dataset(run.parent / "data", run.parent)
    other = "cat" if before.by_id[first].label != "cat" else "dog"
    answers = answered(file, {first: other, second: "-", third: before.by_id[third].label})
    mend(run, answers, mended, console)
    after = open_dataset(mended, run.parent)
    assert after.by_id.keys() == before.by_id.keys() - {second}
    for clip_id, clip in after.by_id.items():
        own = before.by_id[clip_id]
        assert (clip.path, clip.fold, clip.group) == (own.path, own.fold, own.group)
        assert clip.label == (other if clip_id == first else own.label)
    assert "of 3 answers 1 are other labels, 1 leave a clip out" in console.export_text()


def test_answers_that_are_no_class_and_files_that_are_there_are_refused(run: Path) -> None:
    file = run.parent / "review.csv"
    review(run, file, 6, Console(quiet=True))
    with pytest.raises(UserError, match=r"review\.csv: it is there, maybe with answers"):
        review(run, file, 6, Console(quiet=True))
    mended = run.parent / "mended.csv"
    first = rows_of(file)[0]["clip_id"]
    with pytest.raises(
        UserError, match=r"row 2: the answer 'dgo' is no class\. Did you mean 'dog'"
    ):
        mend(run, answered(file, {first: "dgo"}), mended, Console(quiet=True))
    with pytest.raises(UserError, match="its column answer is empty"):
        mend(run, file, mended, Console(quiet=True))
    assert not mended.exists()


def test_answers_are_read_as_spreadsheets_save_them(run: Path) -> None:
    file, mended = run.parent / "review.csv", run.parent / "mended.csv"
    review(run, file, 6, Console(quiet=True))
    first = rows_of(file)[0]["clip_id"]
    text = answered(file, {first: "-"}).read_text()
    saved = run.parent / "saved.csv"
    saved.write_text("\ufeff" + text.replace(",", ";"), encoding="utf-8")
    mend(run, saved, mended, Console(quiet=True))
    assert first not in mended.read_text()
    saved.write_text(text + text.splitlines()[1].replace(",-,", ",cat,") + "\n")
    with pytest.raises(UserError, match=r"saved\.csv row \d: clip .* has another answer above"):
        mend(run, saved, run.parent / "other.csv", Console(quiet=True))
    saved.write_text(text.replace("answer", "Antwort"))
    with pytest.raises(UserError, match=r"saved\.csv: no column 'answer'"):
        mend(run, saved, run.parent / "other.csv", Console(quiet=True))


def test_data_that_have_changed_since_are_refused(run: Path) -> None:
    meta = run.parent / "data/meta.csv"
    meta.write_text(meta.read_text().replace("1-3,cat,1,g1-1\n", ""))
    with pytest.raises(UserError, match=r"1 clips of the run are not in it any more: 1-3"):
        review(run, run.parent / "review.csv", 6, Console(quiet=True))


@pytest.mark.parametrize("several", [False, True])
def test_events_keep_their_times_and_what_was_missed_becomes_one(
    tmp_path: Path, several: bool
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, 80_000), 8000)
    marks = ["5.0\t5.2\towl", "2.0\t2.0\tfox", *["5.1\t5.15\tfox"] * several]
    (tmp_path / "a.txt").write_text("\n".join(marks))
    (tmp_path / "b.txt").write_text("9.0\t9.2\tfox\n1.0\t1.4\towl\n")
    run = tmp_path / "run"
    run.mkdir()
    asked = f"data: {tmp_path}\ncache: {tmp_path}/cache\nnegatives: nothing\nwindow: 2.0\n"
    write_text(run / "grid.yaml", asked)

    def opened(path: Path) -> Dataset:
        return open_dataset(path, tmp_path / "cache", window=2.0, negatives="nothing")

    before = opened(tmp_path)
    assert before.multi_label == several
    drawn = [clip.clip_id for clip in before.clips if clip.labels == ("nothing",)]
    lines = ["clip_id,answer", f"{drawn[0]},owl", f"{drawn[1]},nothing", "a.wav@2-2,owl"]
    (tmp_path / "answers.csv").write_text("\n".join(lines) + "\n")
    mend(run, tmp_path / "answers.csv", tmp_path / "mended.csv", Console(quiet=True))
    rows = rows_of(tmp_path / "mended.csv")
    assert len(rows) == 5 + several
    after = opened(tmp_path / "mended.csv")
    assert after.multi_label == several
    own = {clip.clip_id: clip for clip in before.clips if clip.clip_id not in drawn}
    for clip_id, clip in own.items():
        assert after.by_id[clip_id].stretch == clip.stretch
        assert after.by_id[clip_id].group == clip.group
        if clip_id != "a.wav@2-2":
            assert after.by_id[clip_id].labels == clip.labels
    assert after.by_id["a.wav@2-2"].labels == ("owl",)
    assert after.by_id[drawn[0]].labels == ("owl",)
