from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.layouts.birdclef import AUDIO
from mrkd_ray.datasets.opening import open_dataset


def write(file: Path, seconds: float = 0.1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, int(8000 * seconds))
    soundfile.write(file, sound, 8000)


@pytest.fixture(params=AUDIO)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    short = request.param == "train_short_audio"
    rows = ["primary_label,secondary_labels,author,filename"]
    for species, others, name in (
        ("owl", "[]", "XC1.wav"),
        ("owl", "['wren']", "XC2.wav"),
        ("wren", "['owl', 'jay']", "XC3.wav"),
    ):
        write(tmp_path / "clef" / request.param / species / name)
        place = name if short else f"{species}/{name}"
        rows.append(f'{species},"{others}",me,{place}')
    (tmp_path / "clef/train_metadata.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "clef"


def test_recordings_have_their_primary_label(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert [(clip.clip_id, clip.label) for clip in dataset.clips] == [
        ("owl/XC1.wav", "owl"),
        ("owl/XC2.wav", "owl"),
        ("wren/XC3.wav", "wren"),
    ]
    assert all(clip.path.is_file() for clip in dataset.clips)
    assert dataset.notes == (
        "secondary labels are not used (2 clips have some): clef#all_labels has them, several "
        "labels a clip.",
    )


def test_a_subset_has_the_secondary_labels_too(root: Path) -> None:
    dataset = open_dataset(f"{root}#all_labels", root)
    assert dataset.multi_label
    labels = [clip.labels for clip in dataset.clips]
    assert labels == [("owl",), ("owl", "wren"), ("jay", "owl", "wren")]
    table = root / "train_metadata.csv"
    table.write_text(table.read_text().replace("['owl', 'jay']", "['owl' 'jay']"))
    with pytest.raises(UserError, match=r"secondary labels: a list without commas.*XC3\.wav"):
        open_dataset(root, root)


def test_marked_soundscapes_are_pieces_of_five_seconds(root: Path) -> None:
    write(root / "train_soundscapes/7019_COR_20190904.wav", seconds=10)
    write(root / "train_soundscapes/9_SSW_20190904.wav")
    rows = ["row_id,site,audio_id,seconds,birds"]
    rows += ["7019_COR_5,COR,7019,5,nocall", "7019_COR_10,COR,7019,10,owl jay"]
    table = root / "train_soundscape_labels.csv"
    table.write_text("\n".join(rows) + "\n")
    dataset = open_dataset(f"{root}#soundscapes", root)
    recording = "train_soundscapes/7019_COR_20190904.wav"
    assert [(c.clip_id, c.labels, c.group, c.stretch) for c in dataset.clips] == [
        (f"{recording}@0-5", ("nocall",), recording, (0.0, 5.0)),
        (f"{recording}@5-10", ("jay", "owl"), recording, (5.0, 10.0)),
    ]
    assert dataset.multi_label
    assert "soundscapes without labels (1): 9_SSW_20190904.wav: left out." in dataset.notes
    assert "is not used: clef#soundscapes reads it." in open_dataset(root, root).notes[-1]
    table.write_text("\n".join([*rows, "1_COR_5,COR,1,5,owl", "7019_COR_15,COR,7019,15,owl"]))
    with pytest.raises(UserError, match=r"(?s)not one file in .*1_COR.*beyond the recording's end"):
        open_dataset(f"{root}#soundscapes", root)
