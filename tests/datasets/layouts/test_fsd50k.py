from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "fsd"
    for name in ("dev_audio/1", "dev_audio/2", "dev_audio/3", "eval_audio/7", "eval_audio/8"):
        file = root / f"FSD50K.{name}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, np.full(10, 0.1), 8000)
    (root / "FSD50K.ground_truth").mkdir()
    dev = 'fname,labels,mids,split\n1,"Bark,Dog",x,train\n2,Dog,x,val\n3,Rain,x,train\n'
    (root / "FSD50K.ground_truth/dev.csv").write_text(dev)
    (root / "FSD50K.ground_truth/eval.csv").write_text(
        'fname,labels,mids\n7,"Dog,Bark",x\n8,Rain,x\n'
    )
    return root


def test_the_evaluation_set_is_tested_and_validation_is_left_out(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert dataset.multi_label
    assert [(c.clip_id, c.labels, c.split, c.path.is_file()) for c in dataset.clips] == [
        ("1", ("Bark", "Dog"), "train", True),
        ("3", ("Rain",), "train", True),
        ("7", ("Bark", "Dog"), "test", True),
        ("8", ("Rain",), "test", True),
    ]
    assert dataset.notes == ("1 validation clips are left out: there are test clips too.",)


def test_other_words_for_the_split_and_recordings_that_are_not_listed_are_refused(
    root: Path,
) -> None:
    table = root / "FSD50K.ground_truth/dev.csv"
    table.write_text(table.read_text().replace(",val", ",dev"))
    with pytest.raises(UserError, match=r"neither train nor val \(1\): 'dev' of 2"):
        open_dataset(root, root)
