from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.audio.decoding import SAMPLE_RATE, Decoding, load, read
from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.layouts.tut2018 import NAME
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import make_splits

SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)
TRAIN, TEST = 6_122, 2_518
AT_ONE_PLACE = 27  # clips of a location at most


def write(root: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Write tables and empty audio files of (file, scene, location, train or test)."""
    (root / "evaluation_setup").mkdir(parents=True)
    (root / "audio").mkdir()
    meta = ["filename\tscene_label\tidentifier\tsource_label"]
    meta += [f"{file}\t{scene}\t{location}\ta" for file, scene, location, _ in rows]
    (root / "meta.csv").write_text("\n".join(meta) + "\n")
    lists = {
        "train": [f"{row[0]}\t{row[1]}" for row in rows if row[3] == "train"],
        "evaluate": [f"{row[0]}\t{row[1]}" for row in rows if row[3] == "test"],
        "test": [row[0] for row in rows if row[3] == "test"],
    }
    for part, lines in lists.items():
        (root / "evaluation_setup" / f"fold1_{part}.txt").write_text("\n".join(lines) + "\n")
    for row in rows:
        (root / row[0]).touch()


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A copy in the size of the release: 864 clips of each scene, locations on one side only."""
    rows = []
    for number, scene in enumerate(SCENES):
        trained = TRAIN // len(SCENES) + (number < TRAIN % len(SCENES))
        for i in range(864):
            side, place = ("train", i) if i < trained else ("test", i - trained)
            location = f"london-{1000 * number + 500 * (side == 'test') + place // AT_ONE_PLACE}"
            rows.append((f"audio/{scene}-{location}-{i}-a.wav", scene, location, side))
    write(tmp_path / NAME, rows)
    return tmp_path / NAME


def test_the_whole_release(whole: Path) -> None:
    for path in (whole, whole.parent):
        dataset = open_dataset(path, whole)
        assert (dataset.name, dataset.root) == ("tut2018", whole)
        assert Counter(clip.label for clip in dataset.clips) == dict.fromkeys(SCENES, 864)
        assert Counter(clip.split for clip in dataset.clips) == {"train": TRAIN, "test": TEST}
    first = dataset.clips[0]
    assert (first.clip_id, first.group) == ("audio/airport-london-0-0-a.wav", "london-0")
    assert first.path == whole / first.clip_id
    assert dataset.notes == ()


def test_locations_never_cross_a_split(whole: Path) -> None:
    dataset = open_dataset(whole, whole)
    for seed in range(3):
        (split,) = make_splits(dataset, "all", seed, held_out=0.15)
        parts = (split.train, split.held_out, split.test)
        assert sum(map(len, parts)) == len(dataset.clips)
        assert len(split.test) == TEST
        assert 0.1 * TRAIN < len(split.held_out) < 0.2 * TRAIN
        places = [{dataset.by_id[clip_id].group for clip_id in part} for part in parts]
        assert len(set.union(*places)) == sum(map(len, places))


ROWS = [
    ("audio/a-x-1-1-a.wav", "park", "x-1", "train"),
    ("audio/b-x-2-2-a.wav", "bus", "x-2", "train"),
    ("audio/a-x-3-3-a.wav", "park", "x-3", "test"),
    ("audio/b-x-4-4-a.wav", "bus", "x-4", "test"),
]


def refused(root: Path) -> str:
    with pytest.raises(UserError) as error:
        open_dataset(root, root)
    return str(error.value)


def test_tables_that_contradict_each_other_are_all_named(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    train = tmp_path / "evaluation_setup" / "fold1_train.txt"
    train.write_text("audio/a-x-1-1-a.wav\ttram\naudio/a-x-3-3-a.wav\tpark\naudio/new.wav\tpark\n")
    (tmp_path / "evaluation_setup" / "fold1_test.txt").write_text("audio/a-x-3-3-a.wav\n")
    (tmp_path / "audio" / "b-x-4-4-a.wav").unlink()
    (tmp_path / "audio" / "c.wav").touch()
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path}: not usable as TUT Urban Acoustic Scenes 2018.")
    for fault in (
        "files of meta.csv that evaluation_setup does not list (1): audio/b-x-2-2-a.wav.",
        "files of evaluation_setup that meta.csv does not list (1): audio/new.wav.",
        "files to train on and to evaluate (1): audio/a-x-3-3-a.wav.",
        "files in only one of fold1_evaluate.txt and fold1_test.txt (1): audio/b-x-4-4-a.wav.",
        "labels that differ between meta.csv and evaluation_setup (1): audio/a-x-1-1-a.wav.",
        "recordings that no table lists (1): audio/c.wav.",
        "audio files that are missing (1): audio/b-x-4-4-a.wav.",
    ):
        assert fault in message


def test_missing_tables_are_all_named(tmp_path: Path) -> None:
    write(tmp_path / NAME, ROWS)
    for name in ("meta.csv", "evaluation_setup/fold1_test.txt"):
        (tmp_path / NAME / name).unlink()
    message = refused(tmp_path)
    assert "tables that are missing (2): meta.csv, evaluation_setup/fold1_test.txt." in message
    assert "mrkd download tut2018" in message
    assert message.count("\n") == 1


def test_a_location_on_both_sides_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [*ROWS[:3], ("audio/b-x-4-4-a.wav", "bus", "x-1", "test")])
    dataset = open_dataset(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"1 groups stand in more than one split.*x-1"):
        make_splits(dataset, "all", 0)


def test_the_sample_and_its_two_channels(shared: Path, tmp_path: Path) -> None:
    sample = (shared / "data" / "tut2018_sample").resolve()
    dataset = open_dataset(sample, tmp_path)
    assert dataset.root == sample / NAME
    assert [(clip.label, clip.group, clip.split) for clip in dataset.clips] == [
        ("airport", "london-205", "train"),
        ("public_square", "helsinki-112", "train"),
        ("tram", "paris-280", "train"),
        ("tram", "prague-1086", "test"),
    ]
    for clip in dataset.clips:
        both, _ = soundfile.read(clip.path)
        decoded = Decoding(clip.path)
        assert (decoded.channels, decoded.sample_rate) == (2, 48_000)
        assert both.shape == (480_000, 2)
        np.testing.assert_allclose(read(clip.path)[0], both.mean(axis=1), atol=1e-6)
        assert load(clip.path).at(SAMPLE_RATE).shape == (220_500,)
