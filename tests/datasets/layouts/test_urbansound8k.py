from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import open_dataset

HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [HEADER]
    for i, (source, fold, label) in enumerate(
        [(7, 1, "siren"), (7, 1, "siren"), (8, 2, "dog_bark"), (9, 1, "dog_bark"), (9, 2, "siren")]
    ):
        name = f"{source}-{i}.wav"
        rows.append(f"{name},{source},0,1,1,{fold},0,{label}")
        (tmp_path / f"us/audio/fold{fold}").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"us/audio/fold{fold}/{name}", np.full(10, 0.1), 8000)
    (tmp_path / "us/metadata").mkdir()
    (tmp_path / "us/metadata/UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "us"


def test_classes_folds_and_sources_are_those_of_its_table(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert [(c.clip_id, c.label, c.fold, c.group) for c in dataset.clips] == [
        ("7-0.wav", "siren", 1, "7"),
        ("7-1.wav", "siren", 1, "7"),
        ("8-2.wav", "dog_bark", 2, "8"),
        ("9-3.wav", "dog_bark", 1, None),
        ("9-4.wav", "siren", 2, None),
    ]
    assert all(c.path.is_file() for c in dataset.clips)
    assert "divide 1 source recordings (9)" in dataset.notes[0]


def test_recordings_that_it_does_not_list_are_refused(root: Path) -> None:
    soundfile.write(root / "audio/fold1/more.wav", np.full(10, 0.1), 8000)
    with pytest.raises(UserError, match=r"no table lists \(1\): audio/fold1/more\.wav"):
        open_dataset(root, root)
