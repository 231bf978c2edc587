import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking import scan as scan_module
from mrkd_ray.datasets.checking.problems import (
    ClipScan,
    Problem,
    Skipped,
    check,
    problems,
    scan,
)
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import Split, make_splits
from tests.conftest import SHARED

RNG = np.random.default_rng(0)
DATA = SHARED / "data"


def serial(fn: Callable, items: Sequence) -> Iterator:
    return map(fn, items)


def backwards(fn: Callable, items: Sequence) -> Iterator:
    return map(fn, reversed(items))


def splits_of(dataset: Dataset) -> list[Split]:
    return make_splits(dataset, "all", seed=0)


def noise(path: Path, n: int = 200, rate: int = 8000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, RNG.uniform(-0.5, 0.5, (n, channels)), rate)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of six good clips."""
    for label in "abc":
        for i in range(6):
            noise(tmp_path / "set" / label / f"{i}.wav")
    return tmp_path / "set"


def opened(root: Path) -> tuple[Dataset, dict[str, ClipScan]]:
    dataset = open_dataset(root, root.parent / "cache")
    return dataset, scan(dataset, root.parent / "cache", serial)


def given(*rows: tuple[str, str, int]) -> Dataset:
    """Clips (name, label, fold) that no test reads."""
    clips = [Clip(clip_id=n, path=Path("/x") / n, labels=(lab,), fold=f) for n, lab, f in rows]
    return Dataset(name="d", root=Path("/x"), clips=tuple(clips))


def good(dataset: Dataset, **digests: str) -> dict[str, ClipScan]:
    return {c: ClipScan(digest=digests.get(c, c), seconds=1.0) for c in dataset.by_id}


def test_scan_measures_every_clip_whatever_the_order_of_results(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise(root / "a/long.flac", n=24000, rate=16000, channels=2)
    monkeypatch.setattr(scan_module, "CHUNK", 4)
    dataset = open_dataset(root, root)
    seen: list[tuple[int, int]] = []
    found = scan(dataset, root.parent / "c", backwards, lambda n, total: seen.append((n, total)))
    assert list(found) == [c.clip_id for c in dataset.clips]
    clip = found["a/long.flac"]
    assert (clip.seconds, clip.sample_rate, clip.channels, clip.problem) == (1.5, 16000, 2, None)
    assert len({c.digest for c in found.values()}) == 19
    assert all(len(c.digest) == 32 for c in found.values())
    assert seen == [(0, 19), (3, 19), (7, 19), (11, 19), (15, 19), (19, 19)]


def test_only_changed_files_are_read_again(root: Path) -> None:
    dataset, first = opened(root)
    cache = root.parent / "cache"
    read: list[str] = []

    def watched(fn: Callable, chunks: Sequence) -> Iterator:
        read.extend(clip.clip_id for chunk in chunks for clip in chunk)
        return map(fn, chunks)

    assert scan(dataset, cache, watched) == first
    assert read == []
    noise(root / "b/3.wav", n=300)
    second = scan(dataset, cache, watched)
    assert read == ["b/3.wav"]
    assert second["b/3.wav"].digest != first["b/3.wav"].digest
    (file,) = (cache / "scans").iterdir()
    file.write_text('{"version": ')
    assert scan(dataset, cache, watched) == second
    assert len(read) == 1 + 18
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"version": "older"}))
    scan(dataset, cache, watched)
    assert len(read) == 1 + 18 + 18


def test_an_interrupted_scan_keeps_what_it_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "CHUNK", 5)
    dataset = open_dataset(root, root)
    left: list[int] = []

    def stopped(fn: Callable, chunks: Sequence) -> Iterator:
        yield fn(chunks[0])
        raise KeyboardInterrupt

    def counted(fn: Callable, chunks: Sequence) -> Iterator:
        left.append(sum(map(len, chunks)))
        return map(fn, chunks)

    with pytest.raises(KeyboardInterrupt):
        scan(dataset, root.parent / "c", stopped)
    scan(dataset, root.parent / "c", counted)
    assert left == [18 - 5]


def spoil(root: Path) -> None:
    """Make one clip of each kind of bad file, all in class a."""
    (root / "a/0.wav").write_text("no audio")
    (root / "a/1.wav").write_bytes(b"")
    soundfile.write(root / "a/2.wav", np.array([0.1, np.nan, np.inf]), 8000, subtype="FLOAT")
    soundfile.write(root / "a/3.wav", np.full(50, 0.25), 8000)


def test_every_bad_file_is_reported_at_once(root: Path) -> None:
    spoil(root)
    dataset, scans = opened(root)
    found = problems(dataset, scans, splits_of(dataset))
    assert [(p.kind, p.clip_ids) for p in found] == [
        ("unreadable", ("a/0.wav",)),
        ("empty", ("a/1.wav",)),
        ("not finite", ("a/2.wav",)),
        ("silent", ("a/3.wav",)),
    ]
    with pytest.raises(UserError) as error:
        check(dataset, scans, splits_of, skip_bad=False)
    for part in [
        str(root),
        "unreadable (1): a/0.wav (not readable as audio: Format not recognised).",
        "empty (1): a/1.wav (the file has 0 bytes).",
        "not finite (1): a/2.wav (2 of 3 samples are NaN or infinite).",
        "silent (1): a/3.wav (all samples are 0.25).",
        "--skip-bad",
    ]:
        assert part in str(error.value)


def test_skip_bad_goes_on_without_them_and_says_which(root: Path) -> None:
    spoil(root)
    dataset, scans = opened(root)
    left, warnings, skipped = check(dataset, scans, splits_of, skip_bad=True)
    assert [c.clip_id for c in left.clips if c.label == "a"] == ["a/4.wav", "a/5.wav"]
    assert len(left.clips) == 14
    assert [(w.kind, w.message) for w in warnings] == [
        ("few folds", "2 folds in place of 5: the class a has 2 clips.")
    ]
    assert [s.clip_id for s in skipped] == [f"a/{i}.wav" for i in range(4)]
    assert skipped[1].reason == "empty: the file has 0 bytes"


def test_a_good_data_set_passes_untouched(root: Path) -> None:
    dataset, scans = opened(root)
    assert check(dataset, scans, splits_of, skip_bad=False) == (dataset, [], [])


def test_at_most_a_hundred_clips_are_listed(tmp_path: Path) -> None:
    dataset = given(*((f"{i:03d}", "ab"[i % 2], i // 2 % 2) for i in range(140)))
    scans = {i: ClipScan(digest="", problem="empty", detail="e") for i in dataset.by_id}
    (problem,) = problems(dataset, scans, [])
    assert problem.message.startswith("empty (140): 000 (e), 001 (e)")
    assert problem.message.endswith("099 (e) and 40 more.")
    assert len(problem.clip_ids) == 140


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        ([0.5], None),  # one sample is a recording
        ([0.0], "silent"),
        ([6e-5, -6e-5], "silent"),  # two steps of 16 bits
        ([7e-5, -7e-5], None),
        ([0.25, 0.25 + 6e-5], "silent"),
        ([0.25, 0.25 + 2e-4], None),
        ([7e-5], None),
        ([-0.5, -0.5], "silent"),
        ([0.0, -0.5], None),
        ([0.0, -np.inf], "not finite"),
    ],
)
def test_what_counts_as_silent(samples: list[float], kind: str | None) -> None:
    heard = scan_module.Heard()
    for sample in samples:
        heard.add(np.array([sample], np.float32))
    assert (heard.fault and heard.fault[0]) == kind


def test_a_file_that_vanished_is_unreadable(root: Path) -> None:
    dataset = open_dataset(root, root)
    (root / "a/0.wav").unlink()
    found = scan(dataset, root.parent / "c", serial)["a/0.wav"]
    assert (found.problem, found.detail) == ("unreadable", "No such file or directory")


def test_of_the_same_bytes_the_training_copy_goes(root: Path) -> None:
    for side in ("train", "test"):
        for label in "ab":
            for i in range(2):
                noise(root.parent / "two" / side / label / f"{side}{i}.wav")
    two = root.parent / "two"
    shutil.copy(two / "test/a/test0.wav", two / "train/b/train0.wav")
    shutil.copy(two / "train/a/train0.wav", two / "train/a/copy.wav")  # one side: no matter
    dataset, scans = opened(two)
    problem, other = problems(dataset, scans, splits_of(dataset))
    assert (other.kind, other.severity) == ("two labels", "warning")
    assert problem.kind == "same bytes"
    assert problem.clip_ids == ("train/b/train0.wav",)
    assert "train/b/train0.wav = test/a/test0.wav" in problem.message
    left, _, skipped = check(dataset, scans, splits_of, skip_bad=True)
    assert skipped == [("train/b/train0.wav", "same bytes")]
    assert len(left.clips) == 8


def test_bad_files_are_not_reported_as_the_same_bytes_too(root: Path) -> None:
    for i in range(6):
        (root / f"a/{i}.wav").write_bytes(b"")
    dataset, scans = opened(root)
    assert [p.kind for p in problems(dataset, scans, splits_of(dataset))] == ["empty"]


def test_of_copies_in_several_folds_one_stays() -> None:
    rows = [(f"{label}{fold}", label, fold) for label in "ab" for fold in (1, 2, 3)]
    dataset = given(*rows, ("x", "a", 2), ("y", "a", 3), ("z", "b", 3))
    scans = good(dataset, x="same", y="same", z="same")
    left, _, skipped = check(dataset, scans, splits_of, skip_bad=True)
    assert [s.clip_id for s in skipped] == ["y", "z"]
    assert "x" in left.by_id


def test_held_out_clips_count_as_training_side() -> None:
    dataset = given(*((f"{label}{i}", label, i) for label in "ab" for i in range(3)))
    scans = good(dataset, a1="same", a2="same")
    split = Split(fold=1, train=("a0", "b0"), held_out=("a1", "b1"), test=("a2", "b2"))
    assert [p.clip_ids for p in problems(dataset, scans, [split])] == [("a1",)]


def test_a_label_that_appears_once(root: Path) -> None:
    noise(root / "typo/0.wav")
    dataset, scans = opened(root)
    (problem,) = problems(dataset, scans, splits_of(dataset))
    assert (problem.kind, problem.clip_ids) == ("appears once", ("typo/0.wav",))
    assert "typo" in problem.message
    left, _, skipped = check(dataset, scans, splits_of, skip_bad=True)
    assert left.classes == ("a", "b", "c")
    assert skipped == [("typo/0.wav", "appears once")]


def kinds(found: list[Problem]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(p.kind, p.severity, p.clip_ids) for p in found]


def test_a_class_on_one_side_only() -> None:
    both = [(f"{label}{fold}", label, fold) for label in "ab" for fold in (1, 2, 3)]
    tested = given(*both, ("x", "c", 1), ("y", "c", 1))  # fold 1 tests it untrained
    found = problems(tested, good(tested), splits_of(tested))
    assert kinds(found) == [("one side", "error", ("x", "y"))]
    assert "c (no clip to train on in fold 1)" in found[0].message
    partly = given(*both, ("x", "c", 1), ("y", "c", 2))  # fold 3 does not test it
    found = problems(partly, good(partly), splits_of(partly))
    assert kinds(found) == [("one side", "warning", ("x", "y"))]
    assert "c (not in fold 3)" in found[0].message
    only_third = make_splits(partly, [3], seed=0)
    found = problems(partly, good(partly), only_third)
    assert kinds(found) == [("one side", "error", ("x", "y"))]
    assert "c (no clip to test)" in found[0].message
    left, warnings, skipped = check(tested, good(tested), splits_of, skip_bad=True)
    assert (left.classes, warnings, [s.clip_id for s in skipped]) == (("a", "b"), [], ["x", "y"])
    assert check(partly, good(partly), splits_of, skip_bad=True)[0] is partly


def test_leaving_out_goes_on_until_nothing_is_wrong(root: Path) -> None:
    for i in range(5):
        (root / f"a/{i}.wav").write_text("no audio")  # leaves one clip of class a
    dataset, scans = opened(root)
    left, _, skipped = check(dataset, scans, splits_of, skip_bad=True)
    assert left.classes == ("b", "c")
    assert [s.reason.split(":")[0] for s in skipped] == ["unreadable"] * 5 + ["appears once"]


def test_fewer_than_two_classes_left_is_an_error(root: Path) -> None:
    for label in "ab":
        for i in range(6):
            (root / label / f"{i}.wav").write_text(f"no audio {label} {i}")
    dataset, scans = opened(root)
    with pytest.raises(UserError) as error:
        check(dataset, scans, splits_of, skip_bad=True)
    assert "at least two classes are needed, found 1: c." in str(error.value)
    assert "left out so far (12): a/0.wav (unreadable" in str(error.value)
    assert "--skip-bad" not in str(error.value)
    with pytest.raises(
        UserError, match=r"--skip-bad\) is not enough: at least two classes .* 1: c"
    ):
        check(dataset, scans, splits_of, skip_bad=False)


def test_what_keeps_it_from_being_split_stands_beside_the_rest(root: Path) -> None:
    (root / "a/0.wav").write_text("no audio")
    dataset, scans = opened(root)

    def refuse(_: Dataset) -> list[Split]:
        raise UserError("folds: 9 asked for")

    with pytest.raises(UserError) as error:
        check(dataset, scans, refuse, skip_bad=False)
    assert "unreadable (1): a/0.wav" in str(error.value)
    assert "folds: 9 asked for" in str(error.value)
    with pytest.raises(UserError, match="folds: 9 asked for"):
        check(dataset, scans, refuse, skip_bad=True)


def test_esc10_has_no_problems(tmp_path: Path) -> None:
    if not (DATA / "esc10").is_dir():
        pytest.skip("shared data set esc10 is not here")
    dataset = open_dataset(DATA / "esc10", tmp_path)
    fold_1 = dataset.without([c.clip_id for c in dataset.clips if c.fold not in (1, 2)])
    scans = scan(fold_1, tmp_path, serial)
    assert check(fold_1, scans, splits_of, skip_bad=False) == (fold_1, [], [])
    assert all(s.channels == 1 and 3 < s.seconds < 8 for s in scans.values())


def test_of_several_labels_each_counts() -> None:
    rows = [("1", ("a", "b"), 1), ("2", ("a",), 1), ("3", ("a", "b"), 2), ("4", ("a", "c"), 2)]
    clips = tuple(
        Clip(clip_id=name, path=Path("/x") / name, labels=own, fold=fold)
        for name, own, fold in rows
    )
    dataset = Dataset(name="d", root=Path("/x"), clips=clips, multi_label=True)
    found = problems(dataset, good(dataset), make_splits(dataset, "all", 0))
    assert [(problem.kind, problem.clip_ids) for problem in found] == [("appears once", ("4",))]


def test_the_fingerprint_of_one_label_a_clip_stays() -> None:
    assert given(("a.wav", "x", 1)).fingerprint == "244fd6874e8da46c"  # cells' keys hang on it


def test_names_that_differ_in_spelling_only_are_warned_of() -> None:
    labels = ("dog", "Dog", "caf\u00e9", "cafe\u0301", "sea waves", "sea_waves", "owl")
    rows = [(f"{i}{label}", label, fold) for i, label in enumerate(labels) for fold in (1, 2)]
    clips = [
        Clip(clip_id=f"{n}{f}", path=Path("/x"), labels=(lab,), fold=f, group=f"{lab}{f}")
        for n, lab, f in rows
    ]
    dataset = Dataset(name="d", root=Path("/x"), clips=tuple(clips))
    found = problems(dataset, good(dataset), splits_of(dataset))
    assert kinds(found) == [("spelling", "warning", ())] * 2
    assert found[0].message == (
        "labels that are hardly told apart (3): "
        "'Dog' = 'dog', 'cafe\\u0301' = 'caf\\xe9', 'sea waves' = 'sea_waves'."
    )
    assert found[1].message.startswith("groups that are hardly told apart")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "01"),
        ("2", "2.0"),
        ("dog", "dog\u200b"),  # a blank of no width
        ("dog", "d\u043eg"),  # a Cyrillic letter
        ("dog", "\uff44og"),  # a wide one
        ("a b", "a\u00a0b"),
    ],
)
def test_labels_that_people_cannot_tell_apart_are_warned_of(one: str, other: str) -> None:
    dataset = given(*((f"{i}", lab, i % 2) for i, lab in enumerate([one, one, other, other])))
    (found,) = problems(dataset, good(dataset), splits_of(dataset))
    assert (found.kind, found.severity) == ("spelling", "warning")
    assert found.message.startswith("labels that are hardly told apart (1): ")


def test_labels_that_differ_in_what_they_say_are_not_warned_of() -> None:
    labels = ["1", "-1", "10", "none_of_these", "hund", "hundar"]
    dataset = given(*((f"{lab}{fold}", lab, fold) for lab in labels for fold in (1, 2)))
    assert problems(dataset, good(dataset), splits_of(dataset)) == []


def test_labels_that_programs_write_into_empty_cells_are_warned_of() -> None:
    dataset = given(*((f"{lab}{fold}", lab, fold) for lab in ("nan", "dog") for fold in (1, 2)))
    (found,) = problems(dataset, good(dataset), splits_of(dataset))
    assert found.message == "labels that programs write where there is none (1): nan."


def test_clips_that_differ_in_case_only_are_warned_of() -> None:
    rows = [(f"{label}{fold}", label, fold) for label in "ab" for fold in (1, 2)]
    dataset = given(*rows, ("x.wav", "a", 1), ("X.WAV", "a", 1), ("x_.wav", "a", 1))
    (found,) = problems(dataset, good(dataset), splits_of(dataset))
    assert found.message.endswith("(1): 'X.WAV' = 'x.wav'.")


def test_a_rare_class_that_leaves_fewer_folds_is_named() -> None:
    clips = tuple(
        Clip(clip_id=f"{label}{i}", path=Path("/x"), labels=(label,), group=f"{label}{i // 2}")
        for label, n in (("bg", 40), ("call", 6))
        for i in range(n)
    )
    dataset = Dataset(name="d", root=Path("/x"), clips=clips)
    (found,) = problems(dataset, good(dataset), splits_of(dataset))
    assert (found.kind, found.severity) == ("few folds", "warning")
    assert found.message == "3 folds in place of 5: the class call has 3 groups."
    alone = tuple(replace(clip, fold=i % 2, group=None) for i, clip in enumerate(clips))
    dataset = replace(dataset, clips=alone)  # as its author divided it
    assert problems(dataset, good(dataset), splits_of(dataset)) == []


def test_bad_files_are_left_out_before_anything_is_split(root: Path) -> None:
    dataset = open_dataset(root, root)
    scans = scan(dataset, root.parent / "c", serial)
    first, *others = scans
    scans[first] = ClipScan(digest="x", problem="silent", detail="peak 0")
    seen: list[int] = []

    def split(dataset: Dataset) -> list[Split]:
        seen.append(len(dataset.clips))
        return make_splits(dataset, None, 0)

    left, _, skipped = check(dataset, scans, split, skip_bad=True)
    assert skipped == [Skipped(first, "silent: peak 0")]
    assert seen == [len(others)] == [len(left.clips)]
