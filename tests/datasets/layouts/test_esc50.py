from collections import Counter
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import make_splits

HEADER = "filename,fold,target,category,esc10,src_file,take"
ESC10 = range(0, 50, 5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy in the size of the release: 50 classes of 8 clips in each of 5 folds.

    Two clips share a source; as in the release, few sources lie in two folds.
    """
    rows = []
    (tmp_path / "esc" / "audio").mkdir(parents=True)
    for target in range(50):
        for i in range(40):
            fold, source = i // 8 + 1, 1000 * target + i // 2
            if (target, i) in {(1, 8), (5, 8)}:
                source -= 1  # of a clip in fold 1
            name = f"{fold}-{source}-{'AB'[i % 2]}-{target}.wav"
            rows.append(
                f"{name},{fold},{target},class{target},{target in ESC10},{source},{'AB'[i % 2]}"
            )
            (tmp_path / "esc" / "audio" / name).touch()
    (tmp_path / "esc" / "meta").mkdir()
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path / "esc"


def test_the_whole_release(root: Path) -> None:
    dataset = open_dataset(root, root)
    assert (dataset.name, len(dataset.clips), len(dataset.classes)) == ("esc50", 2000, 50)
    assert Counter(clip.fold for clip in dataset.clips) == dict.fromkeys(range(1, 6), 400)
    first = dataset.clips[0]
    assert (first.clip_id, first.label, first.group) == ("1-0-A-0.wav", "class0", "0")
    assert first.path == root / "audio" / "1-0-A-0.wav"
    assert dataset.notes == (
        "The official folds of ESC-50 divide 2 source recordings (1003, 5003): kept as they are, "
        "so that figures compare with published ones.",
    )
    splits = make_splits(dataset, "all", seed=0, held_out=0.1)
    assert [len(split.test) for split in splits] == [400] * 5
    for split in splits:
        sides = [{dataset.by_id[i].group for i in part} for part in (split.train, split.held_out)]
        assert sides[0] & sides[1] <= {None}


def test_the_subset_esc10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (Path(f"{root}#esc10"), f"{root}#esc10", f"{root}/#esc10"):
        dataset = open_dataset(path, root)
        assert (dataset.name, dataset.root) == ("esc10", root)
        assert len(dataset.clips) == 400
        assert dataset.classes == tuple(f"class{target}" for target in ESC10)
        assert Counter(clip.fold for clip in dataset.clips) == dict.fromkeys(range(1, 6), 80)
    assert "divide 1 source recordings (5003)" in dataset.notes[0]
    monkeypatch.chdir(root.parent)
    assert open_dataset("esc#esc10", root).root == root


def test_other_subsets_are_refused_and_folders_may_have_the_sign(root: Path) -> None:
    with pytest.raises(UserError, match=r"esc50 has no subset 'esc20', it has: esc10\."):
        open_dataset(f"{root}#esc20", root)
    with pytest.raises(UserError, match="no such file or folder"):
        open_dataset(f"{root}-gone#esc10", root)
    renamed = root.rename(root.with_name("esc#2"))
    assert open_dataset(renamed, root).root == renamed
    assert len(open_dataset(f"{renamed}#esc10", root).clips) == 400


def test_all_that_is_wrong_comes_at_once(root: Path) -> None:
    table = root / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace(",1,", ",one,", 1)
    lines[3] = lines[3].replace("class0", "")
    table.write_text("\n".join([*lines, lines[1]]))
    (root / "audio" / lines[4].split(",")[0]).unlink()
    (root / "audio" / "new.wav").touch()
    with pytest.raises(UserError) as error:
        open_dataset(root, root)
    message = str(error.value)
    assert message.startswith(f"{root}: not usable as ESC-50.")
    assert "fold is no whole number (1): 'one' of 1-0-B-0.wav." in message
    assert (
        "rows that are not complete (1): '1-1-A-0.wav,1,0,,True,1,A' of meta/esc50.csv" in message
    )
    assert "clips with more than one row (1): 1-0-A-0.wav." in message
    assert "recordings that no table lists (2): audio/1-1-A-0.wav, audio/new.wav." in message
    assert "audio files that are missing (1): audio/1-1-B-0.wav. Get them from" in message


def test_without_any_audio(root: Path) -> None:
    (root / "audio").rename(root / "sound")
    with pytest.raises(UserError, match=r"audio files that are missing \(2000\): .* and 1900 more"):
        open_dataset(root, root)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEADER.encode(), "tables without rows (1): meta/esc50.csv."),
        (b"filename,fold,target\na,1,1\n", "tables without the column category, esc10, src_file"),
        (HEADER.encode() + b"\n\xff,1,1,a,True,1,A\n", "tables that cannot be read"),
    ],
)
def test_a_table_that_is_no_table(root: Path, content: bytes, reason: str) -> None:
    (root / "meta" / "esc50.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        open_dataset(root, root)
    assert reason in str(error.value)
    assert "no table lists" not in str(error.value)  # which would be all of them
