"""`best/` in a run's folder: the model that the run recommends, always at the same path.

`branches/` has its members (hard links of those in `cells/`), and `best.json` says what it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mrkd_ray.common.files import link_or_copy, write_json
from mrkd_ray.common.text import count_text, megabytes_text, milliseconds_text
from mrkd_ray.results.models import TrainedKind, branch_folder, comparable, size, standing
from mrkd_ray.scores import metrics
from mrkd_ray.scores.comparison import Condition

NAME, FACTS = "best", "best.json"

By = Literal["accuracy", "latency", "size"]
BY: tuple[By, ...] = get_args(By)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What a model takes for one clip, on one thread, from the waveform to probabilities.

    Attributes:
        milliseconds: median of several clips.
        seconds: the clip's length.
        processor: that it was measured on.
    """

    milliseconds: float
    seconds: float
    processor: str


@dataclass(frozen=True, kw_only=True)
class Best:
    """What `best.json` says of the model beside it.

    Attributes:
        model: in words.
        chosen_by: see `compare.choose`.
        branches: `REPRESENTATION:NETWORK` of its members by their names; several are an ensemble.
        scores: mean of each metric over runs, by name, the main one first; in [0, 1].
        deviations: their standard deviations; None of a single run.
        runs: how many these scores are of.
        fold, seed: of the run whose weights lie here: the first, not the luckiest.
        cells: the folders under `cells/` that they are from, of each member.
        parameters, bytes: of all members.
        latency: None where nobody has measured it yet.
    """

    model: str
    condition: Condition
    chosen_by: By
    branches: dict[str, str]
    variants: list[str]
    temperature: float | None
    scores: dict[str, float]
    deviations: dict[str, float | None]
    runs: int
    fold: int
    seed: int
    cells: dict[str, str]
    parameters: int
    bytes: int
    latency: Latency | None = None

    @property
    def text(self) -> str:
        """One line for people: what it is, how good, how large, how fast."""
        return f"{self.model}: {self.score_text}; {self.cost_text}"

    @property
    def score_text(self) -> str:
        """Its scores: `accuracy 92.7 ± 1.2 %, mAP@3 95.7 ± 0.9 %`."""
        shown = []
        for metric in metrics.named(self.scores):
            deviation = self.deviations[metric.name]
            spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
            shown.append(f"{metric.title} {100 * self.scores[metric.name]:.1f}{spread} %")
        return ", ".join(shown)

    @property
    def cost_text(self) -> str:
        """Its size and, where it was measured, what a clip takes."""
        text = f"{count_text(self.parameters)} parameters, {megabytes_text(self.bytes)} MB"
        if self.latency:
            took = milliseconds_text(self.latency.milliseconds)
            text += f", {took} ms for a clip of {self.latency.seconds:.3g} s"
        return text


def most_accurate(results: Path, kinds: Sequence[TrainedKind]) -> TrainedKind | None:
    """Return the model that comes first (`standing`) among those that are `comparable`."""
    return max(
        comparable(kinds),
        key=lambda kind: standing(kind.mean_scores(), kind.folders(results)),
        default=None,
    )


def facts(results: Path, kind: TrainedKind, chosen_by: By) -> Best | None:
    """Return what `best.json` would say of a model; None where files of its weights are missing."""
    sizes = size(kind.folders(results))
    if sizes is None:
        return None
    names = [metric.name for metric in kind.metrics]
    fold, seed = kind.first_run
    return Best(
        model=kind.title,
        condition=kind.condition,
        chosen_by=chosen_by,
        branches=dict(kind.branches),
        variants=[name for name in kind.variants if name],
        temperature=kind.temperature,
        scores=dict(zip(names, kind.mean_scores(), strict=True)),
        deviations=dict(zip(names, kind.deviations(), strict=True)),
        runs=len(kind.scores),
        fold=fold,
        seed=seed,
        cells=dict(zip(kind.branches, kind.cells[kind.first_run], strict=True)),
        parameters=sizes[0],
        bytes=sizes[1],
    )


def point(results: Path, best: Best) -> Path:
    """Have `best/` hold this model; return its path. It is there whole or not at all.

    What is known of the latency is kept where the members are of the same kinds as before.
    """
    folder, made, old = (results / name for name in (NAME, ".best.tmp", ".best.old"))
    before = read(results)
    same = before is not None and before.branches == best.branches
    if before and same and best.latency is None:
        best = replace(best, latency=before.latency)
    for path in (made, old):
        shutil.rmtree(path, ignore_errors=True)
    for name, cell in best.cells.items():
        source = branch_folder(results, cell, name)
        shutil.copytree(source, made / "branches" / name, copy_function=link_or_copy)
    write_json(made / FACTS, asdict(best))
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def read(results: Path) -> Best | None:
    """Return what a run's `best.json` says; None where there is none that can be read."""
    try:
        values = json.loads((results / NAME / FACTS).read_text(encoding="utf-8"))
        latency = values.pop("latency")
        return Best(**values, latency=Latency(**latency) if latency else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def note_latency(results: Path, best: Best, latency: Latency) -> Best:
    """Keep what was measured in `best.json`; return it."""
    best = replace(best, latency=latency)
    write_json(results / NAME / FACTS, asdict(best))
    return best


def recommend(results: Path, kinds: Sequence[TrainedKind]) -> Best | None:
    """Point `best/` at the most accurate model and return what it is.

    None where there is no model, or files of its weights are missing; `best/` then stays as it is.
    """
    kind = most_accurate(results, kinds)
    best = facts(results, kind, "accuracy") if kind else None
    if best is None:
        return None
    point(results, best)
    return read(results)
