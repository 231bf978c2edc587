"""What is wrong with a data set, all of it at once, before any training.

`scan` reads the files, `problems` lists what is wrong, `check` stops or goes on without the bad.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from mrkd_ray.audio.decoding import SAMPLE_RATE
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import LISTED, few, folded
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking.scan import ClipScan, Fault, scan
from mrkd_ray.datasets.splits import Split, why_fewer_folds

__all__ = ["ClipScan", "Problem", "Skipped", "check", "problems", "scan"]

Loss = Literal["channels cancel", "not heard", "cut short"]
LOUD = 100.0  # times full scale: no gain of a recording, but another unit
ProblemKind = Literal[
    Fault,
    Loss,
    "too loud",
    "same bytes",
    "two labels",
    "one side",
    "appears once",
    "spelling",
    "few folds",
    "splits",
    "classes",
]


_MENDS: dict[Fault, str] = {
    "unreadable": "Add the files that are missing, again from where the data set came from, and "
    "replace the others by recordings in wav, flac, ogg or mp3.",
    "empty": "Replace them or take them out.",
    "not finite": "Export them again, in 16 or 24 bits.",
    "silent": "Replace them or take them out.",
}


_ALIKE = str.maketrans("авеікмнорстухјѕαεικνορτυχ", "abeikmhopctyxjsaeikvoptux")
"""Letters that are Cyrillic or Greek and look Latin."""

_MISSING = {"nan", "none", "null", "nil", "na", "n/a", "<na>", "#n/a", "nat"}
"""In lower case, what programs write into a cell that is empty."""

_HEARD = f"{SAMPLE_RATE // 2:,} Hz"  # up to here
_LOSSES: dict[Loss, tuple[str, str]] = {
    "channels cancel": (
        "channels cancel in their mean, which is what is trained on",
        "Keep one channel of each, or turn one upside down.",
    ),
    "not heard": (
        f"most energy lies above {_HEARD} and is not heard",
        "Write them with a lower sample rate in the header, so that they play slower and lower.",
    ),
    "cut short": (
        "less sound than the header or the file's size says",
        "Get them again; their beginnings are used as they are.",
    ),
}
_MOSTLY = 0.9  # of the energy, above what is heard
_NOTICED = 0.02  # of the length


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of thing that is wrong, with every clip that has it."""

    kind: ProblemKind
    clip_ids: tuple[str, ...]
    """The clips that `--skip-bad` leaves out."""
    message: str
    mend: str
    severity: Literal["error", "warning"] = "error"
    skippable: bool = True
    """Whether going on without `clip_ids` mends it."""

    def __str__(self) -> str:
        return f"{self.message} {self.mend}"


class Skipped(NamedTuple):
    """A clip that `--skip-bad` left out."""

    clip_id: str
    reason: str


def problems(
    dataset: Dataset, scans: Mapping[str, ClipScan], splits: Sequence[Split]
) -> list[Problem]:
    """List what is wrong: in the files, between the sides of the splits, and with the labels.

    Clips whose files are bad still count for the other problems, except for the same bytes.
    A class is on one side only where a split tests it without training on it, or where no split
    tests it: errors. Where only some splits do not test it, that is a warning.
    """
    found = [
        _about_files(dataset, scans, kind)
        for kind in get_args(Fault)
        if any(scans[clip.clip_id].problem == kind for clip in dataset.recordings)
    ]
    found += _losses(dataset, scans)
    found += _too_loud(dataset, scans)
    found += _same_bytes(scans, splits)
    found += _two_labels(dataset, scans)
    count = Counter(label for clip in dataset.clips for label in clip.labels)
    if once := {label for label in dataset.classes if count[label] == 1}:
        listed = few((f"{label} ({_of(dataset, {label})[0]})" for label in sorted(once)), LISTED)
        found.append(
            Problem(
                kind="appears once",
                clip_ids=_of(dataset, once),
                message=f"label that appears once ({len(once)}): {listed}.",
                mend="Mend its spelling or add clips: a class needs one to train on and one to "
                "test.",
            )
        )
    found += _spelling(dataset)
    if fewer := why_fewer_folds(dataset, splits):
        found.append(
            Problem(
                kind="few folds",
                clip_ids=(),
                message=fewer,
                mend="A model is then trained on fewer of the clips; add clips of that class.",
                severity="warning",
            )
        )
    return found + _one_side(dataset, splits, ignored=once)


def check(
    dataset: Dataset,
    scans: Mapping[str, ClipScan],
    splits_fn: Callable[[Dataset], list[Split]],
    skip_bad: bool,
) -> tuple[Dataset, list[Problem], list[Skipped]]:
    """Stop at errors, or go on without the clips that have them.

    Args:
        splits_fn: makes the splits of a data set; called again whenever clips are left out.
        skip_bad: leave out what is bad instead of stopping, bad files first. Of the same bytes in
            train and test the training copy goes; of a class that cannot be both trained on and
            tested, all goes.

    Returns:
        The data set to use, the warnings about it, and the clips left out with the reason.

    Raises:
        UserError: lists every error there is (without `skip_bad`), or those that leaving out clips
            does not mend, such as fewer than two classes.
    """
    skipped: list[Skipped] = []
    if skip_bad:  # before anything is split: that takes long
        skipped += [
            Skipped(clip.clip_id, f"{scan.problem}: {scan.detail}")
            for clip in dataset.recordings
            if (scan := scans[clip.clip_id]).problem is not None
        ]
    if skipped:
        dataset = dataset.without([clip.clip_id for clip in skipped])
    while True:
        if not dataset.clips:
            raise UserError(f"{dataset.root}:\n  no clip is left")
        found = _all_problems(dataset, scans, splits_fn)
        errors = [problem for problem in found if problem.severity == "error"]
        if not errors:
            return dataset, found, skipped
        mendable = [problem for problem in errors if problem.skippable]
        if not skip_bad or not mendable:
            way_out = _way_out(dataset, scans, splits_fn) if mendable else ""
            raise UserError(_report(dataset, errors, way_out, skipped))
        bad = {id_: _reason(p, scans[id_]) for p in reversed(mendable) for id_ in p.clip_ids}
        left_out = (clip.clip_id for clip in dataset.recordings if clip.clip_id in bad)
        skipped += [Skipped(clip_id, bad[clip_id]) for clip_id in left_out]
        dataset = dataset.without(bad)


def _all_problems(
    dataset: Dataset,
    scans: Mapping[str, ClipScan],
    splits_fn: Callable[[Dataset], list[Split]],
) -> list[Problem]:
    """Return the problems including those that keep the data set from being split."""
    if len(dataset.classes) < 2:
        return [
            *problems(dataset, scans, []),
            Problem(
                kind="classes",
                clip_ids=(),
                message=f"at least two classes are needed, found {len(dataset.classes)}: "
                f"{few(dataset.classes) or 'none'}.",
                mend="Add labelled clips.",
                skippable=False,
            ),
        ]
    try:
        splits = splits_fn(dataset)
    except UserError as error:
        unsplit = Problem(kind="splits", clip_ids=(), message=str(error), mend="", skippable=False)
        return [*problems(dataset, scans, []), unsplit]
    return problems(dataset, scans, splits)


def _of(dataset: Dataset, labels: set[str]) -> tuple[str, ...]:
    return tuple(clip.clip_id for clip in dataset.clips if labels & set(clip.labels))


def _about_files(dataset: Dataset, scans: Mapping[str, ClipScan], kind: Fault) -> Problem:
    bad = [clip.clip_id for clip in dataset.recordings if scans[clip.clip_id].problem == kind]
    listed = few((f"{clip_id} ({scans[clip_id].detail})" for clip_id in bad), LISTED)
    return Problem(
        kind=kind, clip_ids=tuple(bad), message=f"{kind} ({len(bad)}): {listed}.", mend=_MENDS[kind]
    )


def _loss(scan: ClipScan, kind: Loss) -> float:
    """Return the part that is lost where it is worth a warning, else 0.

    Channels that have nothing in common keep one part in their number.
    """
    if scan.problem is not None:
        return 0.0
    lost, least = {
        "channels cancel": (scan.cancelled, 1 - 0.1 / max(scan.channels, 1)),
        "not heard": (scan.above, _MOSTLY),
        "cut short": (scan.missing, _NOTICED),
    }[kind]
    return lost if lost > least else 0.0


def _losses(dataset: Dataset, scans: Mapping[str, ClipScan]) -> list[Problem]:
    """Warn of sound that is in the files, or should be, and that the networks do not get."""
    found = []
    for kind, (what, mend) in _LOSSES.items():
        lost = {clip.clip_id: _loss(scans[clip.clip_id], kind) for clip in dataset.recordings}
        bad = {clip_id: part for clip_id, part in lost.items() if part}
        if bad:
            listed = few(f"{id_} ({_percent(part)} lost)" for id_, part in bad.items())
            message = f"{what} ({len(bad)}): {listed}."
            found.append(
                Problem(
                    kind=kind, clip_ids=tuple(bad), message=message, mend=mend, severity="warning"
                )
            )
    return found


def _too_loud(dataset: Dataset, scans: Mapping[str, ClipScan]) -> list[Problem]:
    """Warn of samples in another unit, such as floats that were 16-bit integers."""
    peaks = {clip.clip_id: scans[clip.clip_id].peak for clip in dataset.recordings}
    bad = {clip_id: peak for clip_id, peak in peaks.items() if peak > LOUD}
    if not bad:
        return []
    listed = few(f"{clip_id} ({peak:,.0f})" for clip_id, peak in bad.items())
    return [
        Problem(
            kind="too loud",
            clip_ids=tuple(bad),
            message=f"samples far beyond full scale, which is 1 ({len(bad)}): {listed}.",
            mend="Export them again in 16 or 24 bits, or divide them, by 32768 most likely.",
            severity="warning",
        )
    ]


def _percent(part: float) -> str:
    return "more than 99.9 %" if part > 0.999 else f"{100 * part:.1f} %"


def _two_labels(dataset: Dataset, scans: Mapping[str, ClipScan]) -> list[Problem]:
    """Warn of clips that sound the same, sample by sample, and have other labels."""
    alike: dict[str, list[Clip]] = defaultdict(list)
    for clip in dataset.clips:
        if sound := scans[clip.clip_id].sound:
            alike[sound].append(clip)
    torn = [clips for clips in alike.values() if len({clip.labels for clip in clips}) > 1]
    if not torn:
        return []
    listed = few(" = ".join(f"{clip.clip_id} ({clip.label})" for clip in own) for own in torn)
    return [
        Problem(
            kind="two labels",
            clip_ids=tuple(clip.clip_id for clips in torn for clip in clips),
            message=f"same sound under two labels ({len(torn)}): {listed}.",
            mend="Keep the right one of each.",
            severity="warning",
        )
    ]


def _same_bytes(scans: Mapping[str, ClipScan], splits: Sequence[Split]) -> list[Problem]:
    """Find training clips to leave out so that no split has the same bytes on both sides.

    Split after split, so that of copies in two folds one stays.
    """
    twin: dict[str, str] = {}  # training clip to leave out -> a test clip with its bytes
    for split in splits:
        tested = {
            scans[clip_id].digest: clip_id
            for clip_id in reversed(split.test)
            if scans[clip_id].problem is None and clip_id not in twin
        }
        for clip_id in (*split.train, *split.held_out):
            if scans[clip_id].digest in tested:
                twin[clip_id] = tested[scans[clip_id].digest]
    if not twin:
        return []
    listed = few((f"{clip_id} = {other}" for clip_id, other in twin.items()), LISTED)
    return [
        Problem(
            kind="same bytes",
            clip_ids=tuple(twin),
            message=f"same bytes in train and test ({len(twin)}): {listed}.",
            mend="Keep one of each, or give the copies the same group.",
        )
    ]


def _spelling(dataset: Dataset) -> list[Problem]:
    """Warn of names that are hardly told apart, and of labels that stand for none."""
    kinds = {
        "labels": dataset.classes,
        "groups": {clip.group for clip in dataset.clips if clip.group is not None},
        "clips": [clip.clip_id for clip in dataset.recordings],
    }
    found = []
    for what, names in kinds.items():
        alike: dict[object, list[str]] = defaultdict(list)
        for name in names:
            alike[folded(name) if what == "clips" else _skeleton(name)].append(name)
        if pairs := [" = ".join(map(ascii, sorted(own))) for own in alike.values() if own[1:]]:
            found.append(
                _about_names(
                    f"{what} that are hardly told apart ({len(pairs)}): {few(sorted(pairs))}",
                    "Each is taken for another; spell those alike that are the same.",
                )
            )
    if missing := [label for label in dataset.classes if label.casefold() in _MISSING]:
        found.append(
            _about_names(
                f"labels that programs write where there is none ({len(missing)}): {few(missing)}",
                "Each is taken for a class; delete these rows, or rename the class.",
            )
        )
    return found


def _skeleton(name: str) -> object:
    """Return what is equal of names that people hardly tell apart."""
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", name):
        return float(name)
    text = unicodedata.normalize("NFKC", folded(unicodedata.normalize("NFKC", name)))
    shown = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return re.sub(r"[\s_-]+", " ", shown.translate(_ALIKE))


def _about_names(message: str, mend: str) -> Problem:
    return Problem(
        kind="spelling", clip_ids=(), message=f"{message}.", mend=mend, severity="warning"
    )


def _one_side(dataset: Dataset, splits: Sequence[Split], ignored: set[str]) -> list[Problem]:
    untrained: dict[str, list[int]] = defaultdict(list)  # label -> folds that only test it
    untested: dict[str, list[int]] = defaultdict(list)
    for split in splits:
        trained, tested = (
            {label for clip_id in side for label in dataset.by_id[clip_id].labels}
            for side in (split.train, split.test)
        )
        for label in dataset.classes:
            if label in ignored:
                continue
            if label not in trained:
                untrained[label].append(split.fold)
            elif label not in tested:
                untested[label].append(split.fold)
    never = {label for label, folds in untested.items() if len(folds) == len(splits)}
    errors = untrained.keys() | never
    warned = untested.keys() - errors

    def folds(where: list[int]) -> str:
        return f"fold{'s' if len(where) > 1 else ''} {few(map(str, where))}"

    found: list[Problem] = []
    if errors:
        lines = (
            f"{label} (no clip to train on in {folds(untrained[label])})"
            if label in untrained
            else f"{label} (no clip to test)"
            for label in sorted(errors)
        )
        listed = few(lines, LISTED)
        found.append(
            Problem(
                kind="one side",
                clip_ids=_of(dataset, errors),
                message=f"class with clips on one side only ({len(errors)}): {listed}.",
                mend="Give it clips to train on and clips to test, of different groups.",
            )
        )
    if warned:
        listed = few(f"{label} (not in {folds(untested[label])})" for label in sorted(warned))
        found.append(
            Problem(
                kind="one side",
                clip_ids=_of(dataset, warned),
                message=f"class that some folds do not test ({len(warned)}): {listed}.",
                mend="Figures of those folds are without it.",
                severity="warning",
            )
        )
    return found


def _reason(problem: Problem, scan: ClipScan) -> str:
    if scan.problem == problem.kind:
        return f"{problem.kind}: {scan.detail}"
    return str(problem.kind)


def _way_out(
    dataset: Dataset,
    scans: Mapping[str, ClipScan],
    splits_fn: Callable[[Dataset], list[Split]],
) -> str:
    """Say whether leaving out what is bad would do."""
    try:
        check(dataset, scans, splits_fn, skip_bad=True)
    except UserError as error:
        why = str(error).splitlines()[1].strip()
        return f"Mend this. To leave these clips out (--skip-bad) is not enough: {why}"
    return "Mend this, or go on without these clips: --skip-bad."


def _report(
    dataset: Dataset, errors: Sequence[Problem], way_out: str, skipped: Sequence[Skipped]
) -> str:
    lines = [f"{dataset.root}: not ready for training."]
    lines += [f"  {error}".rstrip() for error in errors]
    if skipped:
        listed = few(f"{clip_id} ({reason})" for clip_id, reason in skipped)
        lines.append(f"  left out so far ({len(skipped)}): {listed}.")
    if way_out:
        lines.append(way_out)
    return "\n".join(lines)
