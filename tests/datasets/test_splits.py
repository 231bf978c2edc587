import random
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.splits import Split, make_splits, without_part


def clip(i: int, label: str, **fields: object) -> Clip:
    return Clip(clip_id=f"{i:03d}.wav", path=Path(f"/x/{i:03d}.wav"), labels=(label,), **fields)  # type: ignore[arg-type]


def data(clips: list[Clip]) -> Dataset:
    return Dataset(name="d", root=Path("/x"), clips=tuple(clips))


def plain(n: int = 60, classes: int = 3) -> Dataset:
    return data([clip(i, f"c{i % classes}") for i in range(n)])


def grouped() -> Dataset:
    """12 groups of 5 clips; each group holds clips of one class."""
    return data([clip(i, f"c{i // 5 % 3}", group=f"g{i // 5}") for i in range(60)])


def labels(dataset: Dataset, ids: tuple[str, ...]) -> Counter[str]:
    return Counter(dataset.by_id[id_].label for id_ in ids)


def is_partition(dataset: Dataset, split: Split) -> bool:
    parts = [*split.train, *split.held_out, *split.test]
    return sorted(parts) == sorted(dataset.by_id) and len(set(parts)) == len(parts)


def test_given_folds_are_the_test_sides() -> None:
    dataset = data([clip(i, f"c{i % 2}", fold=(3, 7, 9)[i % 3]) for i in range(12)])
    splits = make_splits(dataset, "all", seed=0)
    assert [s.fold for s in splits] == [3, 7, 9]
    assert make_splits(dataset, None, seed=5) == splits
    for split in splits:
        assert {dataset.by_id[i].fold for i in split.test} == {split.fold}
        assert split.fold not in {dataset.by_id[i].fold for i in split.train}
        assert is_partition(dataset, split)
    assert make_splits(dataset, [9, 3, 9], seed=0) == [splits[2], splits[0]]


def test_a_given_split_is_fold_1() -> None:
    dataset = data([clip(i, f"c{i % 2}", split="test" if i < 4 else "train") for i in range(10)])
    (split,) = make_splits(dataset, "all", seed=0)
    assert split.fold == 1
    assert split.test == tuple(f"{i:03d}.wav" for i in range(4))
    assert split.train == tuple(f"{i:03d}.wav" for i in range(4, 10))
    with pytest.raises(UserError, match="2 asked for, but d has only 1"):
        make_splits(dataset, [2], seed=0)


def test_computed_folds_are_stratified_and_test_each_clip_once() -> None:
    dataset = plain()
    splits = make_splits(dataset, "all", seed=0)
    assert [s.fold for s in splits] == [1, 2, 3, 4, 5]
    for split in splits:
        assert labels(dataset, split.test) == {"c0": 4, "c1": 4, "c2": 4}
        assert is_partition(dataset, split)
    assert sorted(i for s in splits for i in s.test) == sorted(dataset.by_id)


def test_the_seed_decides_and_the_order_of_clips_does_not() -> None:
    for dataset in (plain(), grouped()):
        splits = make_splits(dataset, "all", seed=1, held_out=0.2)
        shuffled = list(dataset.clips)
        random.Random(0).shuffle(shuffled)
        for one, two in zip(
            splits, make_splits(data(shuffled), "all", seed=1, held_out=0.2), strict=True
        ):
            for part in ("train", "held_out", "test"):
                assert set(getattr(one, part)) == set(getattr(two, part))
            assert list(two.train) == [c.clip_id for c in shuffled if c.clip_id in two.train]
        assert make_splits(dataset, "all", seed=1, held_out=0.2) == splits
        other = make_splits(dataset, "all", seed=2)
        assert [set(s.test) for s in other] != [set(s.test) for s in splits]


def test_fewer_folds_for_a_rare_class() -> None:
    clips = [clip(i, "many") for i in range(20)] + [clip(20 + i, "rare") for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = make_splits(data(clips), "all", seed=0)
        assert len(splits) == 3
        assert all(labels(data(clips), s.test)["rare"] == 1 for s in splits)
        assert len(make_splits(data([*clips, clip(30, "once")]), "all", seed=0)) == 3


def test_groups_stay_together_and_every_class_is_on_both_sides() -> None:
    dataset = grouped()
    splits = make_splits(dataset, "all", seed=3, held_out=0.3)
    assert len(splits) == 4  # each class has 4 groups
    for split in splits:
        sides = [{dataset.by_id[i].group for i in part} for part in (split.train, split.held_out)]
        sides.append({dataset.by_id[i].group for i in split.test})
        assert sum(map(len, sides)) == len(set.union(*sides)) == 12
        assert set(labels(dataset, split.test)) == set(labels(dataset, split.train))
        assert set(labels(dataset, split.train)) == set(dataset.classes)


def mixed(groups: list[str]) -> Dataset:
    """A clip for each letter, its class, of each group."""
    rows = [(label, f"g{number}") for number, group in enumerate(groups) for label in group]
    return data([clip(i, label, group=group) for i, (label, group) in enumerate(rows)])


@pytest.mark.parametrize(
    ("groups", "folds"),
    [
        # 3 folds exist, but a single shuffle does not find them
        (["dd", "a", "bd", "baad", "b", "aa"], 3),
        # each class has 3 groups; a and b want g2 and g3 in one fold of three, c apart
        (["ab", "ab", "ac", "bc", "c"], 2),
    ],
)
def test_groups_of_several_classes_leave_every_class_in_every_fold(
    groups: list[str], folds: int
) -> None:
    dataset = mixed(groups)
    for seed in range(5):
        splits = make_splits(dataset, "all", seed=seed)
        assert len(splits) == folds
        for split in splits:
            assert set(labels(dataset, split.test)) == set(dataset.classes)
            assert set(labels(dataset, split.train)) == set(dataset.classes)


def test_clips_without_a_group_stand_alone() -> None:
    dataset = data([clip(i, f"c{i % 2}", group="g" if i < 4 else None) for i in range(24)])
    splits = make_splits(dataset, "all", seed=0)
    assert len(splits) == 5
    for split in splits:
        assert len({dataset.by_id[i].group for i in split.test if int(i[:3]) < 4}) <= 1
        assert len({i for i in split.test if int(i[:3]) < 4}) in (0, 4)


@pytest.mark.parametrize("field", ["fold", "split"])
def test_a_group_on_both_given_sides_is_refused(field: str) -> None:
    values = {"fold": (1, 2), "split": ("train", "test")}[field]
    clips = [
        clip(i, f"c{i % 2}", group=f"g{i // 2}", **{field: values[i in (1, 4, 7)]})
        for i in range(10)
    ]
    with pytest.raises(UserError, match=f"3 groups stand in more than one {field}.*: g0, g2, g3"):
        make_splits(data(clips), "all", seed=0)
    free = [replace(c, group=None) for c in clips]
    assert make_splits(data(free), "all", seed=0)


def test_unknown_folds_list_those_there_are() -> None:
    with pytest.raises(UserError, match="6, 0 asked for, but d has the folds 1, 2, 3, 4, 5"):
        make_splits(plain(), [6, 1, 0], seed=0)
    with pytest.raises(UserError, match="none asked for"):
        make_splits(plain(), [], seed=0)


@pytest.mark.parametrize(
    "clips",
    [
        [clip(i, f"c{i % 2}", fold=1) for i in range(4)],
        [clip(i, f"c{i % 2}", split="train") for i in range(4)],
        [clip(i, f"c{i}") for i in range(4)],
        [clip(i, f"c{i % 2}", group="g") for i in range(4)],
        [],
    ],
)
def test_what_cannot_be_split_is_refused(clips: list[Clip]) -> None:
    with pytest.raises(UserError, match="/x: "):
        make_splits(data(clips), "all", seed=0)


def test_held_out_is_a_stratified_part_of_train_alone() -> None:
    dataset = plain(90)
    for before, after in zip(
        make_splits(dataset, "all", seed=0),
        make_splits(dataset, "all", seed=0, held_out=0.25),
        strict=True,
    ):
        assert before.test == after.test
        assert before.held_out == ()
        assert set(after.train) | set(after.held_out) == set(before.train)
        assert labels(dataset, after.held_out) == {"c0": 6, "c1": 6, "c2": 6}
        assert is_partition(dataset, after)
        assert list(after.held_out) == sorted(after.held_out)


def test_held_out_leaves_each_class_a_clip_to_train_on() -> None:
    clips = [clip(i, "many", split="train") for i in range(20)]
    clips += [clip(20 + i, "one", group="g", split="train") for i in range(4)]
    clips += [clip(24 + i, ("many", "one")[i], split="test") for i in range(2)]
    dataset = data(clips)
    (split,) = make_splits(dataset, "all", seed=0, held_out=0.499)
    assert labels(dataset, split.train) == {"many": 10, "one": 4}
    assert labels(dataset, split.held_out) == {"many": 10}


@pytest.mark.parametrize("fraction", [-0.1, 0.5, 0.001])
def test_a_held_out_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="held_out"):
        make_splits(plain(), "all", seed=0, held_out=fraction)


def test_clips_without_a_verified_label_can_be_kept_out_of_training_but_not_of_the_test() -> None:
    whole = plain()
    doubtful = {c.clip_id for c in whole.clips[::4]}
    dataset = data([replace(c, verified=c.clip_id not in doubtful) for c in whole.clips])
    for split, all_of_it in zip(
        make_splits(dataset, "all", 0, held_out=0.2, verified_only=True),
        make_splits(dataset, "all", 0),
        strict=True,
    ):
        assert split.test == all_of_it.test
        assert doubtful & set(split.test)
        assert set(split.train) | set(split.held_out) == set(all_of_it.train) - doubtful


def tagged(clips: int = 60) -> Dataset:
    """Every clip has a common label; a tenth of them also a rare one, the others one of two."""
    made = [
        replace(clip(i, "x"), labels=("common", "rare" if i % 10 == 0 else f"b{i % 2}"))
        for i in range(clips)
    ]
    return replace(data([]), clips=tuple(made), multi_label=True)


def test_clips_with_several_labels_are_stratified_by_the_rarest() -> None:
    dataset = tagged(100)
    for split in make_splits(dataset, "all", seed=0, held_out=0.2):
        assert is_partition(dataset, split)
        assert sum("rare" in dataset.by_id[i].labels for i in split.test) == 2
        assert len(split.held_out) == 16
        assert 1 <= sum("rare" in dataset.by_id[i].labels for i in split.held_out) <= 2


def test_few_clips_with_many_labels_are_split_into_what_there_is() -> None:
    made = [replace(clip(i, "x"), labels=("all", f"c{i % 3}")) for i in range(6)]
    splits = make_splits(replace(data([]), clips=tuple(made), multi_label=True), "all", seed=0)
    assert [split.fold for split in splits] == [1, 2]


def numbered(*labels: str) -> Dataset:
    return data([clip(i, label) for i, label in enumerate(labels)])


def test_classes_are_sorted_as_people_do() -> None:
    assert numbered("10", "2", "1").classes == ("1", "2", "10")
    assert numbered("a10b", "a9c", "a9b").classes == ("a9b", "a9c", "a10b")
    plain = ("B", "a", "a-1", "a1", "a_1", "car", "car horn", "01", "1st", "\u00e9")
    assert list(numbered(*plain).classes) == sorted(plain)  # as before, and so are their results
    assert numbered("10", "2").labels.tolist() == [1, 0]


def test_a_fingerprint_changes_with_the_order_of_classes_only() -> None:
    assert numbered("1", "2").fingerprint == "071dfa9721cba5de"  # made before numbers were sorted
    assert numbered("2", "10").fingerprint != "4168efe307aa32ee"  # its class indices are others now


@pytest.mark.parametrize("make", [plain, grouped])
def test_each_training_clip_is_in_one_part_that_a_model_is_trained_without(
    make: Callable[[], Dataset],
) -> None:
    dataset = make()
    (split,) = make_splits(dataset, [1], seed=3)
    without = [without_part(dataset, split, f"{part}/3") for part in (1, 2, 3)]
    left_out = [set(split.train).difference(each.train) for each in without]
    assert sorted(clip_id for part in left_out for clip_id in part) == sorted(split.train)
    for each, part in zip(without, left_out, strict=True):
        assert (each.test, each.held_out) == (split.test, split.held_out)
        assert len(labels(dataset, tuple(part))) == 3  # stratified
        groups = {dataset.by_id[clip_id].group for clip_id in part} - {None}
        assert groups.isdisjoint(dataset.by_id[clip_id].group for clip_id in each.train)
    with pytest.raises(UserError, match=r"cross_fit: 1/99: .* at most \d+ parts"):
        without_part(dataset, split, "1/99")
