from collections import Counter
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.parallel_map import serial_map
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.checking.problems import check, scan
from mrkd_ray.datasets.layouts.fsdkaggle2018 import KAGGLE, OFFICIAL, Edition
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import Split, make_splits

Release = tuple[Edition, Dataset]

TRAIN, VERIFIED, TEST, PADDING, CLASSES = 9_473, 3_710, 1_600, 7_800, 41


def copy(root: Path, edition: Edition) -> Path:
    """Write a copy in the size of the release; audio files are empty."""
    official = edition is OFFICIAL
    extra = (",freesound_id,license", ",{},Creative Commons 0") if official else ("", "")
    train = ["fname,label,manually_verified" + extra[0]]
    for i in range(TRAIN):
        train.append(f"{i:08x}.wav,label{i % CLASSES},{int(i < VERIFIED)}{extra[1].format(i)}")
    test = ["fname,label,usage,freesound_id,license"]
    for i in range(TEST):
        usage = "Public" if i % 4 else "Private"
        test.append(f"f{i:07x}.wav,label{i % CLASSES},{usage},{i},Attribution")
    if not official:
        test += [f"e{i:07x}.wav,None,Ignored,," for i in range(PADDING)]
    for table, rows, folder in (
        (edition.train_table, train, edition.train_audio),
        (edition.test_table, test, edition.test_audio),
    ):
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        (root / table).write_text("\n".join(rows) + "\n")
        (root / folder).mkdir()
        for row in rows[1:]:
            (root / folder / row.partition(",")[0]).touch()
    return root


@pytest.fixture(scope="module", params=[OFFICIAL, KAGGLE], ids=["official", "kaggle"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    root = copy(tmp_path_factory.mktemp("release"), request.param)
    return request.param, open_dataset(root, root)


def test_the_whole_release(release: Release) -> None:
    edition, dataset = release
    root = dataset.root
    assert dataset.name == "fsdkaggle2018"
    assert len(dataset.classes) == CLASSES
    train = [clip for clip in dataset.clips if clip.split == "train"]
    test = [clip for clip in dataset.clips if clip.split == "test"]
    assert (len(train), len(test)) == (TRAIN, TEST)
    assert sum(clip.verified for clip in train) == VERIFIED
    assert all(clip.verified for clip in test)
    assert train[0].path == root / edition.train_audio / "00000000.wav"
    assert test[-1].path == root / edition.test_audio / f"f{TEST - 1:07x}.wav"
    assert all(clip.fold is None and clip.group is None for clip in dataset.clips)
    (split,) = make_splits(dataset, None, seed=0)
    assert (len(split.train), len(split.test)) == (TRAIN, TEST)
    padding = f"{PADDING} clips of audio_test/ are padding (usage Ignored)"
    assert [padding in note for note in dataset.notes] == ([] if edition is OFFICIAL else [True])


def small(root: Path) -> Path:
    """Two labels, two clips a side, in the official layout."""
    (root / "FSDKaggle2018.meta").mkdir(parents=True)
    (root / OFFICIAL.train_table).write_text(
        "fname,label,manually_verified,freesound_id,license\na.wav,x,1,1,\nb.wav,y,0,2,\n"
    )
    (root / OFFICIAL.test_table).write_text(
        "fname,label,usage,freesound_id,license\nc.wav,x,Public,3,\nd.wav,y,Private,4,\n"
    )
    for name in ("audio_train/a", "audio_train/b", "audio_test/c", "audio_test/d"):
        path = root / f"FSDKaggle2018.{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return root


def refused(root: Path) -> str:
    with pytest.raises(UserError) as error:
        open_dataset(root, root)
    return str(error.value)


def test_one_error_for_all_sides(tmp_path: Path) -> None:
    root = small(tmp_path)
    table = root / OFFICIAL.train_table
    table.write_text(table.read_text().replace("b.wav,y,0", "b.wav,z,maybe") + "c.wav,x,1,5,\n")
    (root / "FSDKaggle2018.audio_test" / "e.wav").touch()
    (root / "FSDKaggle2018.audio_test" / "d.wav").unlink()
    message = refused(root)
    assert message.startswith(f"{root}: not usable as FSDKaggle2018.")
    assert "manually_verified is no whole number (1): 'maybe' of b.wav" in message
    assert "clips with more than one row (1): c.wav." in message
    assert "recordings that no table lists (1): FSDKaggle2018.audio_test/e.wav." in message
    assert (
        "audio files that are missing (2): FSDKaggle2018.audio_train/c.wav, "
        "FSDKaggle2018.audio_test/d.wav. Get them from" in message
    )
    assert "labels on one side only (2): y (only test), z (only train)." in message


def test_missing_tables_are_all_named(tmp_path: Path) -> None:
    root = small(tmp_path)
    for table in OFFICIAL[:2]:
        (root / table).unlink()
    message = refused(root)
    assert f"tables that are missing (2): {OFFICIAL.train_table}, {OFFICIAL.test_table}" in message
    assert "mrkd download fsdkaggle2018" in message
    assert "no table lists" not in message
    (root / "FSDKaggle2018.meta").rmdir()
    assert "tables that are missing (2)" in refused(root)


def test_a_few_missing_files_and_labels_are_left_to_the_check(tmp_path: Path) -> None:
    """Which lists them with all else that is wrong, and can go on without them."""
    root = small(tmp_path)
    table = root / OFFICIAL.test_table
    table.write_text(table.read_text().replace("d.wav,y", "d.wav,yy"))
    (root / "FSDKaggle2018.audio_test" / "d.wav").unlink()
    assert [clip.path.is_file() for clip in open_dataset(root, root).clips] == [1, 1, 1, 0]


def test_kaggles_common_names_alone_are_not_enough(tmp_path: Path) -> None:
    for name in ("audio_train/1.wav", "other/2.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert open_dataset(tmp_path, tmp_path).classes == ("audio_train", "other")


def test_the_sample(shared: Path, tmp_path: Path) -> None:
    dataset = open_dataset(shared / "data" / "fsdkaggle2018_sample", tmp_path)
    assert Counter(clip.split for clip in dataset.clips) == {"train": 30, "test": 10}
    assert len(dataset.classes) == 10

    def splits(candidate: Dataset) -> list[Split]:
        return make_splits(candidate, "all", 0)

    scans = scan(dataset, tmp_path, serial_map)
    checked, problems, skipped = check(dataset, scans, splits, skip_bad=False)
    assert (checked, problems, skipped) == (dataset, [], [])
    assert {scan.sample_rate for scan in scans.values()} == {44100}


def test_the_sample_in_kaggles_layout(shared: Path, tmp_path: Path) -> None:
    sample, root = shared / "data" / "fsdkaggle2018_sample", tmp_path / "kaggle"
    root.mkdir()
    for ours, theirs in zip(KAGGLE[2:], OFFICIAL[2:], strict=True):
        (root / ours).symlink_to(sample / theirs)
    rows = [line.split(",") for line in (sample / OFFICIAL.train_table).read_text().splitlines()]
    (root / "train.csv").write_text("\n".join(",".join(row[:3]) for row in rows) + "\n")
    (root / "test_post_competition.csv").write_text(
        (sample / OFFICIAL.test_table).read_text() + "0000.wav,None,Ignored,,\n"
    )
    dataset = open_dataset(root, tmp_path)
    # The same clip_ids: predictions on both editions can be compared.
    assert dataset.fingerprint == open_dataset(sample, tmp_path).fingerprint
