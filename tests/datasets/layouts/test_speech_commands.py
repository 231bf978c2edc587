from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.opening import open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for word in ("yes", "no", "_background_noise_"):
        for speaker in "abcd":
            for i in range(2):
                name = f"noise{speaker}{i}.wav" if word[0] == "_" else f"{speaker}_nohash_{i}.wav"
                (tmp_path / "sc" / word).mkdir(parents=True, exist_ok=True)
                soundfile.write(tmp_path / "sc" / word / name, np.full(10, 0.1), 8000)
    (tmp_path / "sc/testing_list.txt").write_text("yes/a_nohash_0.wav\nno/a_nohash_1.wav\n")
    (tmp_path / "sc/validation_list.txt").write_text("yes/b_nohash_0.wav\nno/gone.wav\n")
    return tmp_path / "sc"


def sides(dataset: Dataset) -> dict[str, str | None]:
    return {clip.clip_id: clip.split for clip in dataset.clips}


def test_the_lists_give_the_split_and_speakers_are_groups(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert dataset.classes == ("no", "yes")
    assert len(dataset.clips) == 15
    assert [clip_id for clip_id, side in sides(dataset).items() if side == "test"] == [
        "no/a_nohash_1.wav",
        "yes/a_nohash_0.wav",
    ]
    assert "yes/b_nohash_0.wav" not in dataset.by_id
    assert {clip.group for clip in dataset.clips} == set("abcd")
    assert dataset.notes == (
        "1 validation clips are left out: there are test clips too.",
        "8 recordings of _background_noise_/ are no class: left out.",
        "recordings of the lists that are not there (1): no/gone.wav.",
    )


def test_validation_is_tested_on_where_it_is_the_only_list(root: Path) -> None:
    (root / "testing_list.txt").unlink()
    assert [i for i, side in sides(open_dataset(root, root)).items() if side == "test"] == [
        "yes/b_nohash_0.wav"
    ]


def test_lists_that_contradict_each_other_or_the_folders_are_refused(root: Path) -> None:
    (root / "validation_list.txt").write_text("yes/a_nohash_0.wav\n")
    with pytest.raises(UserError, match=r"in both lists \(1\): yes/a_nohash_0\.wav"):
        open_dataset(root, root)
    for name in ("testing_list.txt", "validation_list.txt"):
        (root / name).write_text("other/x.wav\n")
    with pytest.raises(UserError, match="lists of none of the recordings"):
        open_dataset(root, root)
