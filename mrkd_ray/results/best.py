"""`best/` in a run's folder: the model that the run recommends, always at the same path.

`branches/` has its members (hard links of those in `cells/`), and `best.json` says what it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mrkd_ray.common import manifest
from mrkd_ray.common.files import link_or_copy, write_json
from mrkd_ray.common.reading import Damaged, read_json
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

    @property
    def text(self) -> str:
        """For people: `8.4 ms for a clip of 5 s`."""
        return f"{milliseconds_text(self.milliseconds)} ms for a clip of {self.seconds:.3g} s"


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
        parameters, bytes: of all members, frozen pretrained networks included; None where files of
            their weights are missing, and so there is no `best/`.
        trained_parameters: of them; None also where an earlier version wrote the file.
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
    parameters: int | None
    bytes: int | None
    latency: Latency | None = None
    trained_parameters: int | None = None

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
        latency = f", {self.latency.text}" if self.latency else ""
        return self.size_text + latency

    @property
    def size_text(self) -> str:
        """Its size: `167 k parameters, 0.675 MB`; of a frozen network, which were trained."""
        if self.parameters is None or self.bytes is None:
            return "its weights are not in cells/ any more"
        trained = ""
        if self.trained_parameters not in (None, self.parameters):
            trained = f" ({count_text(self.trained_parameters)} trained)"
        return f"{count_text(self.parameters)} parameters{trained}, {megabytes_text(self.bytes)} MB"

    def is_of(self, kind: TrainedKind) -> bool:
        """Say whether it is a model of the run, from the cells that it names."""
        cells = dict(zip(kind.branches, kind.cells[kind.first_run], strict=True))
        return (self.condition, self.cells) == (kind.condition, cells)


def most_accurate(results: Path, kinds: Sequence[TrainedKind]) -> TrainedKind | None:
    """Return the model that comes first (`standing`) among those that are `comparable`."""
    return max(
        comparable(kinds),
        key=lambda kind: standing(kind.mean_scores(), kind.folders(results)),
        default=None,
    )


def facts(results: Path, kind: TrainedKind, chosen_by: By) -> Best:
    """Return what `best.json` would say of a model."""
    found = size(kind.folders(results))
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
        parameters=found and found.parameters,
        bytes=found and found.bytes,
        trained_parameters=found and found.trained,
    )


def point(results: Path, best: Best) -> Best:
    """Have `best/` hold this model, whole or not at all; return what `best.json` says of it.

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
    manifest.write(made)
    write_json(made / FACTS, asdict(best))  # not in it: the latency is written later
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return best


def read(results: Path) -> Best | None:
    """Return what a run's `best.json` says; None where there is none that can be read."""
    try:
        values = read_json(results / NAME / FACTS, "latency")
        latency = values.pop("latency")
        return Best(**values, latency=Latency(**latency) if latency else None)
    except (Damaged, TypeError):
        return None


def note_latency(results: Path, best: Best, latency: Latency) -> Best:
    """Keep what was measured in `best.json`; return it."""
    best = replace(best, latency=latency)
    write_json(results / NAME / FACTS, asdict(best))
    return best


def recommend(results: Path, kinds: Sequence[TrainedKind]) -> Best | None:
    """Point `best/` at the most accurate model and return what it is.

    Without files of its weights `best/` stays as it is. None where there is no model.
    """
    kind = most_accurate(results, kinds)
    if kind is None:
        return None
    best = facts(results, kind, "accuracy")
    return best if best.bytes is None else point(results, best)


def current(results: Path, kinds: Sequence[TrainedKind]) -> Best | None:
    """Return what `best/` holds, if it still is one of the run's models; else `recommend`."""
    best = read(results)
    kind = next((kind for kind in kinds if best and best.is_of(kind)), None)
    if best is None or kind is None:
        return recommend(results, kinds)
    return replace(facts(results, kind, best.chosen_by), latency=best.latency)
