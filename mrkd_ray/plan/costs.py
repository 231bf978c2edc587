"""From a probe to what cells cost: seconds, bytes on disk, memory; and when they will all be done.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.run import PROFILE
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.inference import calibration
from mrkd_ray.inference.model_folder import TENSORS, TRAINED_ON
from mrkd_ray.method.averaging import AVERAGES
from mrkd_ray.plan.measurements import CYCLES, Probe, Sizes, Turn, cycle_seconds, kind_of, window_of

# What a cycle's phases and a cell's files grow with; others are the same for all sizes.
PHASES = {
    "train": "train",
    "soft_labels": "train_windows",
    "held_out_accuracy": "held_out_windows",
    "distil": "train",
    "evaluate": "test_windows",
}
FILES = {
    "soft_labels.npz": "train",
    TRAINED_ON: "train",
    "predictions.csv": "test",
    calibration.FILE: "test",
    "predicted.npy": "test",
}
BY_CYCLE = ("history.csv", "predicted.npy", PROFILE)
CHECKPOINTS = 4
"""At once, of a cell under way: the last two, the next, and one that faster branches begin."""


@dataclass(frozen=True)
class Cost:
    """What one cell takes.

    Attributes:
        cycle: seconds.
        cycles: that are left to run.
        turn: seconds before its first cycle.
        disk: bytes of its folder when it is finished; `soft_labels` of them are the last teacher's.
        checkpoints: bytes on disk besides, while it runs, at most.
    """

    branches: tuple[BranchSpec, ...]
    cycle: float
    cycles: int
    turn: Turn
    disk: int
    soft_labels: int
    checkpoints: int

    @property
    def seconds(self) -> float:
        """From the begin of its first cycle to the end of its last."""
        return self.cycle * self.cycles


def cost(
    cell: Cell, cycles: int, sizes: Sizes, probe: Probe, one_by_one: bool, profile: bool
) -> Cost:
    """Scale what was measured of a cell's kind to its own sizes and cycles.

    Args:
        cycles: that are left to run; files are those of all of the cell's cycles.
        sizes: of its split, with its windows.
        one_by_one: its branches take turns in one process.
        profile: it writes its timeline.
    """
    measured = probe.kinds[kind_of(cell)]

    few = probe.sizes[window_of(cell)]

    def grown(unit: str | None) -> float:
        probed = getattr(few, unit) if unit else 1
        return getattr(sizes, unit) / probed if unit and probed else 1.0

    units = PHASES | ({"soft_labels": "train"} if cell.training.soft_labels != "clip" else {})
    taught = 1 - cell.training.warm_up_cycles / cell.training.cycles  # probes have no warm-up
    parts = {"soft_labels": taught}
    if cell.training.early_stop is None:  # it looks at held-out clips in every cycle
        parts["held_out_accuracy"] = taught
    phases = [
        {
            name: seconds * grown(units.get(name)) * parts.get(name, 1.0)
            for name, seconds in branch.items()
        }
        for branch in measured.phases
    ]
    files = {}
    for path, size in measured.files.items():
        name = path.rpartition("/")[2]
        by_cycle = cell.training.cycles / CYCLES if name in BY_CYCLE else 1.0
        files[path] = round(size * grown(FILES.get(name)) * by_cycle)
    if not profile:
        files.pop(PROFILE, None)
    models = sum(size for path, size in files.items() if path.endswith(TENSORS))
    teachers = files.get("soft_labels.npz", 0)
    stops = cell.training.early_stop is not None  # the best cycle's checkpoint stays
    copies = len(cell.branches) if AVERAGES[cell.training.average].shared else 1
    remembered = copies * teachers if cell.training.remembers else 0
    # After its last cycle the cell before scores its test clips once more.
    tested = [
        {"evaluate": grown_.get("evaluate", 0.0) - probed.get("evaluate", 0.0)}
        for grown_, probed in zip(phases, measured.phases, strict=True)
    ]
    more = max(0.0, cycle_seconds(tested, 0.0, one_by_one))
    turn = probe.turns[cell.branches]
    return Cost(
        branches=cell.branches,
        cycle=cycle_seconds(phases, measured.rest, one_by_one),
        cycles=cycles,
        turn=Turn(turn.new + more, turn.cold + more, turn.warm + more),
        disk=sum(files.values()),
        soft_labels=teachers,
        checkpoints=(2 * models + remembered) * (CHECKPOINTS + stops),  # weights and momentum
    )


def duration(costs: Sequence[Cost], at_once: Sequence[int]) -> float:
    """Return the seconds until all cells are done, each begun in order as soon as there is room.

    Args:
        at_once: how many cells like this one fill the workers, for each cell.
    """
    running: list[tuple[float, int]] = []
    idle: list[tuple[BranchSpec, ...]] = []  # processes of cells that ended
    free, now, last = Fraction(1), 0.0, 0.0
    for i, cell in enumerate(costs):
        while free < Fraction(1, at_once[i]):
            now, ended = heappop(running)
            free += Fraction(1, at_once[ended])
            idle.append(costs[ended].branches)
        turn = cell.turn.new
        if same := [b for b in idle if len(b) == len(cell.branches)]:
            taken = cell.branches if cell.branches in same else same[-1]
            turn = cell.turn.warm if taken == cell.branches else cell.turn.cold
            idle.remove(taken)
        free -= Fraction(1, at_once[i])
        heappush(running, (now + turn + cell.seconds, i))
        last = max(last, now + turn + cell.seconds)
    return last


def extrapolate(seen: Sequence[tuple[float, int]], clips: int) -> float:
    """Return the seconds for so many clips, from (seconds, clips done) as a sample went on.

    The time until the first clips are done counts once, since processes start in it.
    """
    (begin, _), (first, some), (end, done) = seen[0], seen[1], seen[-1]
    if done == some:
        return (end - begin) * clips / done
    return (first - begin) + (end - first) / (done - some) * max(0, clips - some)
