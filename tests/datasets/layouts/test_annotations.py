import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.inference.prediction_files import FORMATS, Asked

HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("night.wav", "night2.flac", "day.wav"):
        (tmp_path / "field").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "field" / name, rng.uniform(-0.5, 0.5, 80_000), 8000)
    return tmp_path / "field"


def events(path: Path) -> list[tuple[str, str]]:
    dataset = open_dataset(path, path.parent / "cache")
    return [(clip.clip_id, clip.label) for clip in dataset.clips]


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        open_dataset(path, path.parent / "cache")
    return str(error.value)


def raven(file: Path, *rows: str, header: str = HEADER) -> None:
    file.write_text("\n".join([header, *rows]) + "\n")


def test_a_selection_table_is_of_the_recording_that_its_name_begins_with(root: Path) -> None:
    raven(
        root / "night.Table.1.selections.txt",
        "1\tWaveform 1\t1\t2.0\t2.5\t100\towl",
        "1\tSpectrogram 1\t1\t2.0\t2.5\t100\towl",  # the same selection in another view
        "2\tSpectrogram 1\t1\t7.0\t7.25\t100\tfox",
    )
    raven(root / "night2.txt", "1\tSpectrogram 1\t1\t1.0\t4.0\t100\tfox")
    dataset = open_dataset(root, root / "cache")
    assert [(c.clip_id, c.label, c.group) for c in dataset.clips] == [
        ("night.wav@2-2.5", "owl", "night.wav"),
        ("night.wav@7-7.25", "fox", "night.wav"),
        ("night2.flac@1-4", "fox", "night2.flac"),
    ]
    assert dataset.notes == (
        "recordings without a table (1): day.wav: left out.",
        "columns that are not used (2): channel, low freq (hz).",
    )


def test_a_column_names_the_recording_and_the_offset_in_it(root: Path) -> None:
    header = "Begin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tLabel"
    raven(
        root / "all.txt",
        "2.0\t2.5\tnight.wav\t2.0\towl",
        "13.0\t15.0\tnight2.flac\t3.0\tfox",  # the second of two files in a row
        header=header,
    )
    assert events(root / "all.txt") == [("night.wav@2-2.5", "owl"), ("night2.flac@3-5", "fox")]
    header = "Begin Time (s)\tEnd Time (s)\tBegin Path\tCommon Name"
    raven(root / "all.txt", "2.0\t2.5\tC:\\x\\night.wav\towl", header=header)
    assert events(root) == [("night.wav@2-2.5", "owl")]


def test_a_table_without_rows_says_that_nothing_is_in_its_recording(root: Path) -> None:
    raven(root / "night.txt", "1\tSpectrogram 1\t1\t2.0\t2.5\t100\towl")
    raven(root / "day.txt")
    dataset = open_dataset(root, root / "cache", negatives="background")
    assert {each.name for each in dataset.annotated} == {"night.wav", "day.wav"}
    assert dataset.classes == ("background", "owl")


def test_a_label_track_is_of_the_recording_of_its_name(root: Path) -> None:
    track = "2.000000\t2.500000\towl\n\\\t1000.0\t3000.0\n7.0\t7.0\tfox\n"
    (root / "night.txt").write_text(track)
    dataset = open_dataset(root, root / "cache")
    assert [(c.clip_id, c.label, c.stretch) for c in dataset.clips] == [
        ("night.wav@2-2.5", "owl", (1.5, 3.0)),
        ("night.wav@7-7", "fox", (6.25, 7.75)),
    ]
    assert "events without a length (1): night.wav@7-7: a clip is around each." in dataset.notes
    assert "frequencies of label tracks are not used: a clip has all of them." in dataset.notes


def test_events_of_other_labels_that_sound_together_are_several_labels(root: Path) -> None:
    (root / "night.txt").write_text("2.0\t4.0\towl\n2.5\t3.0\tfox\n7.0\t8.0\tfox\n")
    dataset = open_dataset(root, root / "cache")
    assert dataset.multi_label
    assert [clip.labels for clip in dataset.clips] == [("owl",), ("fox", "owl"), ("fox",)]
    assert (
        "events of other labels that sound together (1 pairs): night.wav@2-4 (owl) and "
        "night.wav@2.5-3 (fox)."
    ) in dataset.notes[0]


def test_all_that_is_wrong_is_named_with_file_and_line(root: Path) -> None:
    raven(
        root / "night.txt",
        "1\tS\t1\t2.0\t1.5\t100\towl",
        "2\tS\t1\t2.0\t11.0\t100\tfox",
        "3\tS\t1\tx\t3.0\t100\tfox",
        "4\tS\t1\t4.0\t5.0\t100\t?",
        "5\tS\t1\t4.0\t5.0\t100\t",
    )
    message = refused(root)
    assert "end before they begin (1): 2.0 to 1.5 of night.txt line 2." in message
    assert "end (1): 2 to 11 s of night.txt line 3, but night.wav has 10 s." in message
    assert "times that are no seconds (1): 'x' of night.txt line 4." in message
    assert "without a label (2): '?' of night.txt line 5, '' of night.txt line 6." in message


def test_tables_that_fit_no_recording_or_have_no_labels_are_refused(root: Path) -> None:
    raven(root / "other.txt", "1\tS\t1\t2.0\t3.0\t100\towl")
    raven(root / "night.txt", "1\t2.0\t3.0", header="Selection\tBegin Time (s)\tEnd Time (s)")
    (root / "odd.txt").write_text("1.0\t2.0\towl\n")
    message = refused(root)
    assert "tables without a recording (1): other.txt. Name a table as its recording" in message
    assert "tables without a recording (1): odd.txt." in message
    assert "without a column of labels (1): night.txt. Name one of them Label;" in message
    for file in root.glob("*.txt"):
        file.unlink()
    header = "Begin Time (s)\tEnd Time (s)\tBegin File\tLabel"
    raven(root / "x.txt", "1.0\t2.0\tgone.wav\towl", header=header)
    assert "recordings that do not exist, all (1): gone.wav." in refused(root)


@pytest.mark.parametrize("format", ["raven", "audacity"])
def test_what_predict_writes_reads_back(root: Path, format: str) -> None:
    classes = ("owl", "=fox", "background")
    heard = [(1, 2.5, 0), (2.5, 3.5, 0), (3.5, 5, 1), (5, 6.25, 2), (6.25, 8, 0)]
    windows = [
        Prediction(str(root / "night.wav"), start, end, classes, np.eye(3, dtype=np.float32)[[i]])
        for start, end, i in heard
    ]
    asked = Asked(classes, False, windows=True, top=1, least=None, nothing="background")
    file = root / ("found.txt" if format == "raven" else "night.txt")
    file.write_text("".join(FORMATS[format](iter([windows]), asked)))
    for path in (root, file):
        assert events(path) == [
            ("night.wav@1-3.5", "owl"),
            ("night.wav@3.5-5", "=fox"),
            ("night.wav@6.25-8", "owl"),
        ]


@pytest.mark.slow
def test_a_raven_table_of_predictions_trains(tmp_path: Path) -> None:
    """Two recordings, in each both classes, as `mrkd predict --format raven` writes them."""
    from mrkd_ray.grid.run import train

    rng = np.random.default_rng(2)
    found = []
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, rng.normal(0, 0.1, 12 * 22050), 22050)
        rows = np.eye(2, dtype=np.float32)
        found.append(
            [
                Prediction(str(tmp_path / name), 2 * i, 2 * i + 1.5, ("owl", "fox"), rows[[i % 2]])
                for i in range(6)
            ]
        )
    asked = Asked(("owl", "fox"), False, windows=True, top=1, least=None)
    table = tmp_path / "found.txt"
    table.write_text("".join(FORMATS["raven"](iter(found), asked)))
    results = train(
        data=str(table),
        branches=["logmel64:vgg_small"],
        alone=True,
        cycles=1,
        folds=[1],
        runner="local",
        cache=tmp_path / "cache",
        output=tmp_path / "results",
    )
    (cell,) = (results.folder / "cells").iterdir()
    scored = json.loads((cell / "result.json").read_text())
    assert (scored["train_clips"], scored["clips"]) == (6, 6)
    assert scored["classes"] == ["fox", "owl"]
