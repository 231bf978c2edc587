"""Groups from names: what a pattern takes, and which names are taken for groups."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.datasets import name_groups
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.name_groups import crossing, guess, with_groups
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import make_splits


def data(names: Iterable[str], **fields: object) -> Dataset:
    """Clips by clip_id; the class is the first folder, `x` where there is none."""
    clips = [
        Clip(
            clip_id=name,
            path=Path("/d") / name,
            labels=(name.partition("/")[0] if "/" in name else "x",),
            **fields,  # type: ignore[arg-type]
        )
        for name in names
    ]
    return Dataset(name="d", root=Path("/d"), clips=tuple(clips))


def groups(dataset: Dataset) -> list[str | None]:
    return [clip.group for clip in dataset.clips]


SPEAKERS = [f"{word}/{who}_{i}.wav" for word in ("yes", "no") for who in "ABC" for i in range(5)]


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        ("^([a-z]+)_", "anna"),  # the first group of the match
        ("^[a-z]+", "anna"),  # the match
        (r"(\d+)-(\d+)$", "7"),
        ("^[^/]+/([^/]+)/", "hall"),  # with a slash: the path
        ("(z)?anna", "anna"),  # a group that took no part
        ("wav", None),  # the ending is no part of the name
        ("x*", None),  # empty
    ],
)
def test_what_a_pattern_takes_of_a_name(pattern: str, group: str | None) -> None:
    dataset = data(["yes/hall/anna_7-2.wav"])
    if group is None:
        with pytest.raises(UserError, match=r"no match in 1 of 1 names: yes/hall/anna_7-2\.wav"):
            with_groups(dataset, pattern)
    else:
        assert groups(with_groups(dataset, pattern)) == [group]


def test_a_group_is_on_one_side_of_every_split() -> None:
    dataset = with_groups(data(SPEAKERS), "^([^_]+)_")
    splits = make_splits(dataset, "all", seed=0, held_out=0.4)
    assert len(splits) == 3
    for split in splits:
        sides = [
            {dataset.by_id[clip_id].group for clip_id in side}
            for side in (split.train, split.held_out, split.test)
        ]
        assert all(sides)
        assert sum(map(len, sides)) == 3  # none of the three is in two of them


def test_a_data_set_with_groups_keeps_them() -> None:
    with pytest.raises(UserError, match="/d says itself which clips are of one group"):
        with_groups(data(SPEAKERS, group="g"), "^([^_]+)_")


def classes(*names: str, sets: Iterable[str] = ("dog", "cat", "owl")) -> list[str]:
    """Return the names in the folder of each class, `{}` in them replaced by the class."""
    return [f"{label}/{name.format(label)}.wav" for label in sets for name in names]


def takes(*begins: str, count: int = 4) -> list[str]:
    return [f"{begin}{i:03d}" for begin in begins for i in range(count)]


def test_a_pattern_that_would_search_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_groups, "PATIENCE", 0.05)
    with pytest.raises(UserError, match=r"group_by '\^\(a\|aa\|a\?\)\+\$': not done with 'aaa"):
        with_groups(data([f"yes/{'a' * 200}!.wav"]), "^(a|aa|a?)+$")


@pytest.mark.parametrize(
    ("names", "pattern", "told"),
    [
        (
            classes(*takes("anna_", "bob_")),
            "^([^_]+)_",
            "begin with one of 2 words ('anna', 'bob')",
        ),
        (classes(*takes("anna", "bob")), r"^(\D+)\d+$", "'anna', 'bob'"),
        (classes(*takes("speaker03_take", "speaker04_take")), "^([^_]+)_", "'speaker03'"),
        (classes(*takes("anna ", "bob ")), "^([^ ]+) ", "'anna', 'bob'"),
        (classes("0a7c_nohash_0", "0a7c_nohash_1", "b1_b_nohash_0"), "^(.+?)_nohash_", "'0a7c'"),
        # freesound's: a source is in one class only
        (
            [
                f"{c}/{10 * i + j}-{i}-{k}.wav"
                for i, c in enumerate("ab")
                for j in (1, 2)
                for k in (0, 5)
            ],
            "^([^-]+)-",
            "one of 4 words",
        ),
        (classes(*takes("rec_anna_", "rec_bob_")), "^[^_]*_([^_]+)_", "have one of 2 words"),
        (classes(*takes("{}_01_", "{}_02_", "{}_03_")), "^[^_]*_([^_]+)_", "'01', '02', '03'"),
        (
            classes("anna/1", "anna/2", "bob/1", "bob/2"),
            "^[^/]*/([^/]+)/",
            "lie in one of 2 folders",
        ),
        # ESC-50's: a fold, a source recording, a take
        (
            [
                f"{c}/{fold}-{100 * i + 10 * fold + source}-{take}.wav"
                for i, c in enumerate("ab")
                for fold in range(4)
                for source in (0, 1)
                for take in "AB"
            ],
            "^(.+)[-_ ][^-_ ]+$",
            "16 names are shared by files but for their last part ('0-0', '0-1', '1-10' and 13",
        ),
        # one name in twenty is of no scheme
        ([*classes(*takes("anna_", "bob_")), "dog/x.wav"], "^([^_]+)_|.+", "'anna'"),
    ],
)
def test_names_that_may_tell_groups(names: list[str], pattern: str, told: str) -> None:
    dataset = data(names)
    found = guess(dataset)
    assert found is not None
    assert found.pattern == pattern
    assert told in found.sentence
    together = with_groups(dataset, pattern)
    assert found.groups == len(set(groups(together)))
    named = {clip.path.name: clip.group for clip in together.clips}
    assert len({named[name] for name in found.example}) == 1
    assert None not in groups(with_groups(dataset, pattern))
    warning = crossing(dataset, make_splits(dataset, "all", seed=0))
    assert warning is not None
    assert f"--group-by '{pattern}'" in warning


@pytest.mark.parametrize(
    "names",
    [
        classes(*takes("clip_", count=9)),
        classes(*takes("", count=9)),
        classes(*takes("{}_", count=9)),  # the class
        classes(*takes("{}s_", count=9)),
        classes(*takes("{}", count=9)),
        classes(*(f"{i}_x" for i in range(9))),  # a counter, in every class
        classes(*(f"{{}}_{i}_x" for i in range(9))),
        [f"{kind}/{i}_x.wav" for kind in "ab" for i in range(9 if kind == "a" else 5)],
        [f"{c}/{i:03d}_{c}.wav" for c in "ab" for i in range(50 * (c == "b"), 50)] * 1,
        [
            f"{c}/{top}_{c}_{i}.wav"
            for c, top in (("dog", "pet"), ("cat", "pet"), ("car", "town"))
            for i in range(5)
        ],
        ["a/x_1.wav", "b/y_2.wav"],
        classes(*(f"{i:04x}" for i in range(4000, 40000, 4000))),  # random names
        classes(*(f"{i:04x}_a" for i in range(4000, 40000, 4000)), sets=("a",)),
        [*classes(*takes("clip_", count=9)), "dog/x_1.wav", "dog/x_2.wav"],
    ],
)
def test_names_that_tell_none(names: list[str]) -> None:
    assert guess(data(names)) is None


def test_names_that_given_folds_keep_apart_are_not_warned_of() -> None:
    dataset = data(SPEAKERS)
    by_speaker = [replace(c, fold=1 + "ABC".index(c.path.name[0])) for c in dataset.clips]
    apart = replace(dataset, clips=tuple(by_speaker))
    assert guess(apart) is not None
    assert crossing(apart, make_splits(apart, "all", seed=0)) is None
    by_take = [replace(c, fold=1 + int(c.path.stem[-1]) % 2) for c in dataset.clips]
    torn = replace(dataset, clips=tuple(by_take))
    warning = crossing(torn, make_splits(torn, [1], seed=0))
    assert warning is not None
    assert "one of 3 words ('A', 'B', 'C'); 3 of them are both trained on and tested" in warning


@pytest.mark.parametrize("name", ["synthetic", "mixtures"])
def test_made_sounds_tell_none(name: str, cache: Path) -> None:
    assert guess(open_dataset(name, cache)) is None


@pytest.mark.parametrize("name", ["esc10", "esc50"])
def test_names_of_esc_begin_with_the_fold_and_are_not_warned_of(
    name: str, shared: Path, cache: Path
) -> None:
    dataset = open_dataset(shared / "data" / name, cache)
    assert dataset.gives_sides
    assert crossing(dataset, make_splits(dataset, "all", seed=0)) is None


def test_names_as_speech_commands_has_them_are_told_by_their_speakers(
    shared: Path, cache: Path, tmp_path: Path
) -> None:
    data = shared / "cases" / "sc" / "data"
    assert guess(open_dataset(data, cache)) is None  # its layout says who speaks
    shutil.copytree(data, tmp_path / "words", ignore=shutil.ignore_patterns("*.txt", "_*"))
    found = guess(open_dataset(tmp_path / "words", cache))
    assert found is not None
    assert found.pattern == "^(.+?)_nohash_"
