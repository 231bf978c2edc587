"""What shortened cells say: from their timelines and files to seconds and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrkd_ray.cells.cell import Cell, branch_names, without_teacher
from mrkd_ray.cells.run import PROFILE
from mrkd_ray.common.reading import read_rows
from mrkd_ray.common.timeline import Span, read_trace
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import Training
from mrkd_ray.datasets.splits import Split
from mrkd_ray.features.window_extents import window_ticks
from mrkd_ray.inference.model_folder import read_config

CYCLES = 3  # of each shortened cell; the first warms up

Kind = tuple[str, tuple[BranchSpec, ...], Training]
"""Condition, branches and options: cells of one kind cost the same, but for the sizes of their
folds and their number of cycles."""
FREE = (
    *("cycles", "lr", "momentum", "weight_decay", "label_noise", "unverified_ce", "unverified_kl"),
    *("divergence", "t_squared", "kl_weight", "ce_weight", "teacher_momentum", "trust"),
    *("warm_up", "label_noise_kind", "cross_fit"),
)
"""Options that hardly change how long a cycle takes: cells that differ in them are of one kind.

What `trust` remembers is in the checkpoint: `costs` counts its bytes, but not its seconds."""


def kind_of(cell: Cell) -> Kind:
    """Return the kind of a cell."""
    independent = cell.condition == "independent"
    training = without_teacher(cell.training) if independent else cell.training
    stops = {"early_stop": training.early_stop and CYCLES}  # whether it may stop, not when
    return cell.condition, cell.branches, training.at_default(FREE).model_copy(update=stops)


def window_of(cell: Cell) -> int:
    """Return the ticks of a cell's windows."""
    return window_ticks(cell.training.window)  # in seconds, whatever was asked for: `effective`


@dataclass(frozen=True)
class Sizes:
    """What the seconds and bytes of a cell grow with."""

    train: int  # clips, labelled or not
    train_windows: int
    held_out_windows: int
    test: int
    test_windows: int

    @classmethod
    def of(
        cls, split: Split, unlabelled: Sequence[str], ticks: Mapping[str, int], window: int
    ) -> Sizes:
        """Count a split's and unlabelled clips and their windows.

        Args:
            ticks: of each clip.
            window: its ticks.
        """

        def windows(clip_ids: Sequence[str]) -> int:
            return sum(max(1, -(-ticks[clip_id] // window)) for clip_id in clip_ids)

        return cls(
            len(split.train) + len(unlabelled),
            windows(split.train) + windows(unlabelled),
            windows(split.held_out),
            len(split.test),
            windows(split.test),
        )


@dataclass(frozen=True)
class ProbedKind:
    """A cell of one kind at the sizes of the probe, once it is warm."""

    phases: tuple[dict[str, float], ...]  # of each branch: seconds a cycle of each phase
    rest: float  # seconds a cycle beyond the branches' phases: the exchange, waiting
    peak_bytes: tuple[int, ...]  # of each branch's process, or on its card
    window_bytes: tuple[int, ...]  # of each branch's windows, kept or not
    files: dict[str, int]  # bytes of each file of the cell's folder


@dataclass(frozen=True)
class Turn:
    """Seconds from the last cycle of one cell to the first of the next in its place.

    Without that first cycle itself as it is once warm.
    """

    new: float  # nothing was there before, or a cohort of another size
    cold: float  # other branches were
    warm: float  # the same branches were: their processes go on


@dataclass(frozen=True)
class Probe:
    """What the shortened cells took."""

    sizes: Mapping[int, Sizes]  # of theirs, by the ticks of a window
    kinds: dict[Kind, ProbedKind]
    turns: dict[tuple[BranchSpec, ...], Turn]
    end: float  # seconds from the last cycle of the last cell to the end of the run
    features: float  # seconds to compute all that lack


@dataclass(frozen=True)
class Ran:
    """A shortened cell that ran: the spans of each branch, cycle by cycle."""

    cell: Cell
    folder: Path
    cycles: list[list[list[Span]]]  # [branches][cycles][phases]
    one_by_one: bool  # branches take turns in one process

    @property
    def kind(self) -> Kind:
        """Its cell's."""
        return kind_of(self.cell)

    @property
    def begin(self) -> float:
        """When its first cycle began, in seconds since 1970."""
        return min(branch[0][0].begin for branch in self.cycles)

    @property
    def warm(self) -> float:
        """When the second cycle began."""
        return min(branch[1][0].begin for branch in self.cycles)

    @property
    def end(self) -> float:
        """When its last cycle ended."""
        return max(branch[-1][-1].end for branch in self.cycles)

    @property
    def cycle(self) -> float:
        """Seconds of a warm cycle."""
        if self.one_by_one:
            return (self.end - self.warm) / (CYCLES - 1)
        slowest = max(self.cycles, key=lambda b: sum(s.seconds for c in b[1:] for s in c))
        return (slowest[-1][-1].end - slowest[1][0].begin) / (CYCLES - 1)

    @property
    def phases(self) -> list[dict[str, float]]:
        """Of each branch: seconds of each phase in a warm cycle."""
        found: list[dict[str, float]] = [{} for _ in self.cycles]
        for branch, phases in zip(self.cycles, found, strict=True):
            for span in (span for cycle in branch[1:] for span in cycle):
                phases[span.name] = phases.get(span.name, 0.0) + span.seconds / (CYCLES - 1)
        return found


def cycle_seconds(phases: Sequence[Mapping[str, float]], rest: float, one_by_one: bool) -> float:
    """Return the seconds of a cycle: the slowest branch's, or all where they take turns."""
    sums = [sum(branch.values()) for branch in phases]
    return (sum(sums) if one_by_one else max(sums)) + rest


def read(cell: Cell, folder: Path, one_by_one: bool) -> Ran:
    """Read the timeline of a shortened cell that has ended."""
    rows = read_trace(folder / PROFILE)
    found = []
    for name in cell.names:
        spans = [span for span in rows[name] if span.name != "start"]
        begins = [i for i, span in enumerate(spans) if span.name == "train"]
        found.append([spans[i:j] for i, j in zip(begins, [*begins[1:], len(spans)], strict=True)])
    return Ran(cell, folder, found, one_by_one)


def probed_kind(like: Sequence[Ran]) -> ProbedKind:
    """Return the mean of copies."""
    names, folder = like[0].cell.names, like[0].folder
    phases = tuple(
        {name: float(np.mean([ran.phases[i][name] for ran in like])) for name in branch}
        for i, branch in enumerate(like[0].phases)
    )
    rest = [
        ran.cycle - cycle_seconds(ran.phases, rest=0.0, one_by_one=ran.one_by_one) for ran in like
    ]
    rows = read_rows(folder / "history.csv", ("peak_bytes",))[-len(names) :]
    peaks = tuple(int(row["peak_bytes"]) for row in rows)
    configs = [read_config(folder / "branches" / name) for name in names]
    windows = tuple(config["windows"]["bytes"] for config in configs)
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return ProbedKind(phases, max(0.0, float(np.mean(rest))), peaks, windows, files)


def alone(cohort: ProbedKind, branches: Sequence[BranchSpec], i: int) -> ProbedKind:
    """Return one branch of a cohort of independent branches as a cell of its own."""
    names = branch_names(branches)
    shared = dict.fromkeys(("history.csv", "predicted.npy", PROFILE), len(names))
    shared["predictions.csv"] = len(names) + (len(names) > 1)  # with the ensemble's
    files = {}
    for path, size in cohort.files.items():
        folder, _, rest = path.partition("/")
        if folder == "branches" and not rest.startswith(f"{names[i]}/"):
            continue
        files[path] = size // shared.get(path, 1)
    return ProbedKind(
        (cohort.phases[i],), cohort.rest, (cohort.peak_bytes[i],), (cohort.window_bytes[i],), files
    )


def turns_of(ran: Sequence[Ran], began: float) -> dict[tuple[BranchSpec, ...], Turn]:
    """Return the mean of what was seen; a turn that was not seen at all is as the others' mean."""
    seen: dict[str, dict[tuple[BranchSpec, ...], list[float]]] = {"new": {}, "cold": {}, "warm": {}}
    free = list(ran)  # cells whose processes no other cell has taken yet
    for each in sorted(ran, key=lambda one: one.begin):
        branches = each.cell.branches
        since = max((other.end for other in ran if other.end <= each.begin), default=began)
        before = [
            other
            for other in free
            if other.end <= each.begin and len(other.cell.branches) == len(branches)
        ]
        turn = "new"
        if before:
            last = max(before, key=lambda one: (one.cell.branches == branches, one.end))
            free.remove(last)
            turn = "warm" if last.cell.branches == branches else "cold"
            since = last.end
        seconds = max(0.0, each.warm - each.cycle - since)
        seen[turn].setdefault(branches, []).append(seconds)

    def mean(turn: str, branches: tuple[BranchSpec, ...]) -> float | None:
        own = seen[turn].get(branches) or [x for found in seen[turn].values() for x in found]
        return float(np.mean(own)) if own else None

    found = {}
    for branches in {each.cell.branches for each in ran}:
        new = mean("new", branches) or 0.0
        cold = mean("cold", branches)
        warm = mean("warm", branches)
        cold = new if cold is None else cold
        found[branches] = Turn(new, cold, cold if warm is None else warm)
    return found
