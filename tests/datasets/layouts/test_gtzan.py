from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.layouts.gtzan import LISTS
from mrkd_ray.datasets.opening import open_dataset


@pytest.fixture(params=["", "genres", "Data/genres_original"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for genre in ("blues", "rock"):
        for i in range(4):
            file = tmp_path / "gtzan" / request.param / genre / f"{genre}.{i:05d}.au"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, np.full(10, 0.1), 8000)
    return tmp_path / "gtzan"


def split(root: Path, **files: str) -> None:
    for name, lines in files.items():
        text = "".join(f"{line.split('.')[0]}/{line}\n" for line in lines.split())
        (root / f"{name}_filtered.txt").write_text(text)


def test_without_its_lists_the_genres_are_read_with_a_warning(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert (dataset.name, dataset.classes, len(dataset.clips)) == ("gtzan", ("blues", "rock"), 8)
    assert dataset.clips[0].clip_id == "blues/blues.00000.au"
    assert not dataset.gives_sides
    assert "scores of folds drawn here are too good" in dataset.notes[0]


def test_the_lists_give_the_split_whatever_ending_they_have(root: Path) -> None:
    split(
        root,
        train="blues.00000.wav rock.00000.wav",
        valid="blues.00001.wav",
        test="blues.00002.wav rock.00002.wav rock.00009.wav",
    )
    dataset = open_dataset(root, root)
    assert {clip.clip_id: clip.split for clip in dataset.clips} == {
        "blues/blues.00000.au": "train",
        "blues/blues.00002.au": "test",
        "rock/rock.00000.au": "train",
        "rock/rock.00002.au": "test",
    }
    assert dataset.notes == (
        "recordings that the split leaves out (3): blues/blues.00003, rock/rock.00001, "
        "rock/rock.00003.",
        "recordings of the lists that are not there (1): rock/rock.00009.",
        "1 validation clips are left out: there are test clips too.",
    )


def test_lists_that_lack_or_contradict_each_other_are_refused(root: Path) -> None:
    split(root, train="blues.00000.wav", test="blues.00000.wav")
    with pytest.raises(UserError) as error:
        open_dataset(root, root)
    assert "lists of the split that are missing (1): valid_filtered.txt" in str(error.value)
    assert "recordings in two lists (1): blues/blues.00000.wav" in str(error.value)


def test_folders_of_other_names_or_files_are_no_gtzan(tmp_path: Path) -> None:
    for genre in ("blues", "rock"):
        (tmp_path / genre).mkdir()
        soundfile.write(tmp_path / genre / "song.wav", np.full(10, 0.1), 8000)
    assert open_dataset(tmp_path, tmp_path).name == tmp_path.name
    assert set(LISTS.values()) == {"train", "validation", "test"}
