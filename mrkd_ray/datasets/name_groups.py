"""Groups read off the clips' names, and whether names look as if they held some.

Clips of one speaker or source recording must not stand on both sides of a split. Where a data set
does not say which these are, the names of its files often do: `anna_03.wav`, `anna/03.wav`.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import LISTED, few
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.splits import Split

MOST = 0.8  # of the clips: names that a few others stand among are still a scheme of names
ONE_WORD = 0.8  # of the clips: a word in more of them is what names begin with
TAKES = 0.1  # of the clips: that many share their name but for its last part
PATIENCE = 2.0  # seconds for a name: it takes microseconds
DEPTH = 4  # parts of a name, or folders, that are looked at


def group_of(clip: Clip, pattern: str, search: Callable[[str, str], Any] = re.search) -> str | None:
    """Return a clip's group: the first group of the match, or without one the whole match.

    The regular expression is searched for in the file's name without its ending; one with a `/` in
    the clip_id without its ending, which in a folder of classes is `CLASS/.../NAME`. None: no
    match, or an empty one.
    """
    path = PurePosixPath(clip.clip_id)
    name = str(path.with_suffix("")) if "/" in pattern else path.stem
    match = search(pattern, name)
    if match is None:
        return None
    found: str | None = match[1] if match.lastindex else match[0]
    return found or None


def _patiently(pattern: str, name: str) -> Any:
    """Search as `re.search`, for a while: nested repeats would try every division of a name."""
    import regex

    try:
        return regex.search(pattern, name, timeout=PATIENCE)
    except TimeoutError:
        raise UserError(
            f"group_by {pattern!r}: not done with {name!r} after {PATIENCE:g} s. Write it without "
            "repeats of repeats, such as (a+)+."
        ) from None


def with_groups(dataset: Dataset, pattern: str) -> Dataset:
    """Return the data set with groups from its clips' names: see `group_of`.

    Raises:
        UserError: the data set gives groups itself, names do not match: lists them; or a search
            takes longer than `PATIENCE`.
    """
    if _gives_groups(dataset):
        raise UserError(
            f"group_by {pattern!r}: {dataset.root} says itself which clips are of one group. Leave "
            "group_by out, or its column group."
        )
    groups = {clip.clip_id: group_of(clip, pattern, _patiently) for clip in dataset.clips}
    if lacking := [clip_id for clip_id, group in groups.items() if group is None]:
        raise UserError(
            f"group_by {pattern!r}: no match in {len(lacking)} of {len(groups)} names: "
            f"{few(lacking, LISTED)}. Every clip needs a group. A pattern without '/' is searched "
            "for in the file's name without its ending, one with '/' in its path below the data "
            "set; PATTERN|.+ makes each of the others a group of its own."
        )
    clips = (replace(clip, group=groups[clip.clip_id]) for clip in dataset.clips)
    return replace(dataset, clips=tuple(clips))


@dataclass(frozen=True)
class Guess:
    """A scheme of names that may tell speakers or source recordings.

    Attributes:
        pattern: for `with_groups`; every name matches.
        sentence: what was seen, for people.
        groups: that the pattern makes of all clips.
        example: the names of two files of one group.
    """

    pattern: str
    sentence: str
    groups: int
    example: tuple[str, str]


def guess(dataset: Dataset) -> Guess | None:
    """Return a scheme of names by which many clips may belong together; None where there is none.

    It is the folder that files lie in or the first part of their names, less what is the same in
    all and what only says the class. Counters are none: most clips must share their word with
    others, and a number (of which there must be three) with others of their class. Where names
    are the same but for their last part, takes of one recording, that comes before a number which
    tells less. None as well where the data set says itself which clips are of one group.
    """
    if _gives_groups(dataset):
        return None
    found = _word(dataset)
    if found is None or found[2]:
        found = _takes(dataset, found[2] if found else 0) or found
    if found is None:
        return None
    pattern, sentence, _ = found
    by_group = defaultdict(list)
    for clip in dataset.clips:
        by_group[group_of(clip, pattern)].append(PurePosixPath(clip.clip_id).name)
    first = max(by_group.values(), key=len)
    return Guess(pattern, sentence, len(by_group), (first[0], first[1]))


def _word(dataset: Dataset) -> tuple[str, str, int] | None:
    """Return a pattern for one part of the names, a sentence, and how many numbers it is of."""
    for scheme in _schemes():
        for pattern, sentence in scheme:
            found = [(clip.label, group_of(clip, pattern)) for clip in dataset.clips]
            named = [(label, value) for label, value in found if value is not None]
            if len(named) < MOST * len(found):
                break
            if _says_nothing(named):
                continue
            counts = Counter(value for _, value in named)
            if _are_groups(named, counts):
                words = [repr(value) for value, n in counts.most_common() if n > 1]
                whole = pattern if len(named) == len(found) else f"{pattern}|.+"
                said = sentence.format(len(words), few(words, limit=3))
                return whole, said, len(counts) if _numbers(named) else 0
            break
    return None


def _takes(dataset: Dataset, numbers: int) -> tuple[str, str, int] | None:
    """Return a pattern for names without their last part, where it tells takes of recordings.

    Each of these names is of one class, and a part of the clips share theirs: `1-211-A`, `1-211-B`.
    They are more than a class and one of so many numbers make.
    """
    pattern = r"^(.+)[-_ ][^-_ ]+$"
    found = [(clip.label, group_of(clip, pattern)) for clip in dataset.clips]
    named = [(label, value) for label, value in found if value is not None]
    if len(named) < MOST * len(found) or _says_nothing(named):
        return None
    counts = Counter(value for _, value in named)
    several = [value for value, n in counts.most_common() if n > 1]
    of_one_class = len({*named}) == len(counts)
    classes = len({label for label, _ in named})
    if not of_one_class or len(counts) <= numbers * classes:
        return None
    if sum(counts[value] for value in several) < TAKES * len(found):
        return None
    if max(counts.values()) > ONE_WORD * len(found) or len(several) < 3:
        return None
    words = few(map(repr, several), limit=3)
    sentence = f"{len(several)} names are shared by files but for their last part ({words})"
    return pattern if len(named) == len(found) else f"{pattern}|.+", sentence, 0


def crossing(dataset: Dataset, splits: Sequence[Split]) -> str | None:
    """Say that what names have in common stands on both sides of a split; None: it does not."""
    found = guess(dataset)
    if found is None:
        return None
    groups = {clip.clip_id: group_of(clip, found.pattern) for clip in dataset.clips}
    shared: set[str | None] = set()
    for split in splits:
        trained = {groups[clip_id] for clip_id in (*split.train, *split.held_out)}
        shared |= trained & {groups[clip_id] for clip_id in split.test}
    if not shared:
        return None
    return (
        f"{found.sentence}; {len(shared)} of them are both trained on and tested. If these are "
        "speakers or source recordings, the scores are too good for others: give "
        f"--group-by {shlex.quote(found.pattern)}. If not: --group-by none."
    )


def _gives_groups(dataset: Dataset) -> bool:
    return any(clip.group is not None for clip in dataset.clips)


def _schemes() -> Iterator[list[tuple[str, str]]]:
    """Yield patterns for the parts of a name one after the other, each with a sentence."""
    first = "file names begin with one of {} words ({})"
    yield [(r"^(.+?)_nohash_", first)]  # Speech Commands: the speaker
    folder = "files lie in one of {} folders ({})"
    yield [(f"^{'[^/]*/' * i}([^/]+)/", folder) for i in range(DEPTH)]
    for sign in ("_", "-", " "):
        later = "file names have one of {} words ({}) in the " + f"same place between {sign!r}"
        yield [
            (f"^{f'[^{sign}]*{sign}' * i}([^{sign}]+){sign}", later if i else first)
            for i in range(DEPTH)
        ]
    yield [(r"^(\D+)\d+$", first)]


def _says_nothing(named: Sequence[tuple[str, str]]) -> bool:
    """Whether values are all the same, or say no more than the label. Pairs: label and value."""
    values = defaultdict(set)
    for label, value in named:
        values[label].add(value.casefold())
    if all(len(own) == 1 for own in values.values()):
        return True
    return sum(_is_label(value.casefold(), label.casefold()) for label, value in named) > (
        len(named) / 2
    )


def _is_label(value: str, label: str) -> bool:
    """Whether a word is the class's name, or one is part of the other: `dogs` of the class dog."""
    if value == label:
        return True
    words = len(value) > 2 and not re.search(r"\d", value)
    return words and (value in label or label in value)


def _numbers(named: Sequence[tuple[str, str]]) -> bool:
    return sum(value.isdigit() for _, value in named) > len(named) / 2


def _are_groups(named: Sequence[tuple[str, str]], counts: Counter[str]) -> bool:
    """Whether most clips share their value with others. Pairs: label and value."""
    several = {value for value, n in counts.items() if n > 1}
    if sum(counts[value] for value in several) < len(named) / 2:
        return False
    if max(counts.values()) > ONE_WORD * len(named):
        return False
    if not _numbers(named):
        return len(several) > 1
    within = sum(n for n in Counter(named).values() if n > 1)  # a counter is once in each class
    return len(several) > 2 and within >= len(named) / 2
