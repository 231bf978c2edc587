"""A search: samples of a space on one fold, then the best of them on the others."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.files import read_models
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.run import past
from mrkd_ray.common.arrays import Float64
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_text
from mrkd_ray.common.progress import say
from mrkd_ray.common.reading import read_rows
from mrkd_ray.config.grid_files import WHERE
from mrkd_ray.config.parsing import to_yaml
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.config.search import Domain, SearchConfig, Value, ends_of
from mrkd_ray.config.yaml_files import read_yaml
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.opening import OpenGrid, open_grid
from mrkd_ray.grid.preparation import compute
from mrkd_ray.grid.run import CellsFailed, Stopped, last_line, listed, run_cells, trackers_of
from mrkd_ray.grid.shown import Shown
from mrkd_ray.results.gather import Results, gather
from mrkd_ray.scores import metrics
from mrkd_ray.scores.intervals import Interval, paired_bootstrap

if TYPE_CHECKING:
    from mrkd_ray.distributed.trackers import Trackers

ASKED, SAMPLES = "search.yaml", "search.csv"
FIRST = ("sample", "state", "score", "part", "cell")
"""Columns of `search.csv` before those of what was varied."""

Point = dict[str, Value]


@dataclass
class Sample:
    """A point, its cell, and how far it came: percent of its cycles, score of its best branch."""

    point: Point
    cell: Cell
    part: float = 0.0
    score: float = float("nan")
    failed: str = ""
    cycles: int = 0

    @property
    def epochs(self) -> int:
        """Epochs of all its branches."""
        training = self.cell.training
        return self.cycles * (training.b + training.d) * len(self.cell.branches)


@dataclass
class Samples:
    """All samples so far, in order; `search.csv` has them."""

    folder: Path
    make: Callable[[Point], Cell]
    found: dict[str, Sample] = field(default_factory=dict)

    def at(self, point: Point) -> Sample:
        """Return the sample of a point; of several with one cell there is one."""
        cell = self.make(point)
        if cell.key not in self.found:
            self.found[cell.key] = Sample(point, cell)
            for rows in past(self.folder / "cells" / cell.key, cell.names):
                self.heard(cell.key, rows)
        return self.found[cell.key]

    def heard(self, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take a cycle's figures; those of a cycle that is behind it are known."""
        sample, main = self.found[key], metrics.named(rows[0])[0]
        if rows[0]["cycle"] < sample.cycles:
            return
        sample.cycles = rows[0]["cycle"] + 1
        sample.part = 100 * sample.cycles / sample.cell.training.cycles
        sample.score = 100 * max(row[main.name] for row in rows)

    def state(self, sample: Sample) -> str:
        """Return finished, failed, stopped (also: where the search was) or waiting."""
        if result_of(self.folder / "cells" / sample.cell.key) is not None:
            return "finished"
        return "failed" if sample.failed else "stopped" if sample.part else "waiting"

    def best(self) -> Sample | None:
        """Return the finished sample with the highest score; of equal ones the first."""
        finished = [s for s in self.found.values() if self.state(s) == "finished"]
        return max(finished, key=lambda sample: sample.score, default=None)

    def write(self) -> None:
        """Write `search.csv`, and list the cells for `mrkd status`."""
        text = io.StringIO(newline="")
        names = list(dict.fromkeys(n for s in self.found.values() for n in s.point))
        table = csv.writer(text, lineterminator="\n")
        table.writerow([*FIRST, *names])
        for number, sample in enumerate(self.found.values(), 1):
            shown = f"{sample.score:.1f}" if sample.part else "", f"{sample.part:.1f}"
            table.writerow(
                [number, self.state(sample), *shown, sample.cell.key, *sample.point.values()]
            )
        write_text(self.folder / SAMPLES, text.getvalue())
        grid_folder.list_cells(self.folder, [sample.cell for sample in self.found.values()])


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        results: of the best sample on the folds that the search has not seen.
        best: that sample.
        samples: all of them, in order.
        states: of each.
        fold: that scored them.
        metric: the score, for people.
        confirmed: of each model of the best sample that score on the other folds, with its 95 %
            interval.
    """

    results: Results
    best: Sample
    samples: tuple[Sample, ...]
    states: tuple[str, ...]
    fold: int
    metric: str
    confirmed: dict[str, Interval]

    @property
    def epochs(self) -> int:
        """Epochs of all branches of all samples."""
        return sum(sample.epochs for sample in self.samples)

    def show(self, console: Console) -> None:
        """Print the best samples, what was confirmed, and where the results are."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        counts = {state: self.states.count(state) for state in dict.fromkeys(self.states)}
        many = ", ".join(f"{count} {state}" for state, count in counts.items())
        say(console, f"Samples: {many}; {self.epochs} epochs of a branch. Fold {self.fold}:")
        shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        varied = [n for n in self.best.point if len({s.point[n] for s in self.samples}) > 1]
        for name in ("#", "state", f"{self.metric}, %", "part, %"):
            shown.add_column(name, no_wrap=True)
        shown.add_column("sample", overflow="fold")  # a column a field would be five letters wide
        order = sorted(
            zip(self.samples, self.states, range(1, len(self.samples) + 1), strict=True),
            key=lambda each: (each[1] != "finished", -each[0].part, -each[0].score),
        )
        for sample, state, number in order[:10]:
            fields = ", ".join(f"{name} {sample.point[name]}" for name in varied)
            row = [str(number), state, f"{sample.score:.1f}", f"{sample.part:.0f}", fields]
            shown.add_row(*row)
        console.print(shown)
        tested = sorted(set(self.results.tidy["fold"])) if len(self.results.tidy) else []
        listed = ", ".join(map(str, tested))
        say(console, f"The best of them, tested on folds that the search has not seen ({listed}):")
        self.results.show(console)
        for name, interval in self.confirmed.items():
            score = f"{interval.mean:.1f} % {interval.ends_text} ({interval.kind})"
            say(console, f"Confirmed: {name}: {self.metric} {score}")


def run(config: SearchConfig, *, resume: bool = False, console: Console | None = None) -> Found:
    """Search, then train and test the best sample on the other folds.

    Args:
        config: what is asked.
        resume: go on in the newest search of this name: what was tried is not tried again.
        console: where progress is shown; default: standard error.

    Raises:
        UserError: bad input, before any training.
        CellsFailed: no sample was finished, or the best could not be confirmed.
        Stopped: Ctrl-C.
    """
    began = time.perf_counter()
    console = console or Console(stderr=True)
    trackers = trackers_of(config, lambda line: say(console, line))
    folder = _folder(config, resume)
    with open_grid(config, console, resume=resume) as opened:
        known = opened.config  # with its cycles
        assert isinstance(known, SearchConfig)
        fold, others = _folds(config, opened)
        seen = [split for split in opened.prepared.splits if split.fold == fold]
        unseen = [split for split in opened.prepared.splits if split.fold in others]
        with grid_folder.locked(folder):
            samples = Samples(folder, lambda point: _cell(known, opened, point, seen))
            before = _tried(known, folder)
            write_text(folder / ASKED, to_yaml(known))
            grid_folder.write_request(folder, known, opened.prepared.skipped, [])
            compute(opened.prepared, opened.workers.map, opened.display)
            try:
                _search(known, opened, samples, before, trackers)
            except KeyboardInterrupt:
                done = sum(samples.state(s) == "finished" for s in samples.found.values())
                raise Stopped(
                    f"Stopped with {done} finished of {len(samples.found)} samples."
                ) from None
            finally:
                samples.write()
            best = samples.best()
            failed = [(s.cell.key, s.failed) for s in samples.found.values() if s.failed]
            if best is None:
                raise CellsFailed(f"No sample was finished.\n{listed(failed)}")
            confirmed = _confirm(known, opened, samples, best, unseen, folder, began, trackers)
            results, cells = confirmed
            if trackers:
                trackers.send_tables(folder)
    found = tuple(samples.found.values())
    metric = metrics.named(results.tidy.columns)[0].title
    states = tuple(map(samples.state, found))
    return Found(results, best, found, states, fold, metric, intervals_of(folder, cells))


def _folder(config: SearchConfig, resume: bool) -> Path:
    """Return the folder to write to. Raises UserError: there is another search in it."""
    for folder in grid_folder.newest_first(config.output, config.name) if resume else ():
        if not (folder / ASKED).exists():
            continue
        there = read_yaml(folder / ASKED)
        asked = config.model_dump(mode="json")
        own = WHERE | {"samples", "seeds", "independent", "cycles"}
        other = [n for n in asked if n not in own and there.get(n) != asked[n]]
        if config.cycles is not None and there.get("cycles") != config.cycles:
            other.append("cycles")
        if other:
            raise UserError(
                f"{folder / ASKED}: another search: it differs in {', '.join(other)}. Leave "
                "--resume out, and it begins in a folder of its own"
            )
        return folder
    return grid_folder.choose(config.output, config.name, [], resume=False)


def _folds(config: SearchConfig, opened: OpenGrid) -> tuple[int, list[int]]:
    """Return the fold that scores samples, and the others."""
    there = [split.fold for split in opened.prepared.splits]
    fold = there[0] if config.search_fold is None else config.search_fold
    if fold not in there or len(there) < 2:
        raise UserError(
            f"search_fold: {fold}: the folds are {', '.join(map(str, there))} (--folds). A search "
            "needs its own and at least one other, on which the best is confirmed"
        )
    return fold, [each for each in there if each != fold]


def _cell(known: SearchConfig, opened: OpenGrid, point: Point, seen: Sequence[Any]) -> Cell:
    """Return the cell of a sample."""
    try:
        asked = known.at(point)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        shown = ", ".join(f"{name}: {value}" for name, value in point.items())
        raise UserError(f"space: {shown}: {why}") from None
    asked = asked.model_copy(update={"independent": False, "seeds": known.seeds[:1]})
    (cell,) = opened.expanded(asked, seen)
    return cell


def _tried(known: SearchConfig, folder: Path) -> list[Point]:
    """Return the points of the samples of a search that goes on."""
    if not (folder / SAMPLES).exists():
        return []
    found = []
    for row in read_rows(folder / SAMPLES, FIRST):
        texts = {name: value for name, value in row.items() if name not in FIRST}
        found.append({name: _value(text, known.domains[name]) for name, text in texts.items()})
    return found


def _value(text: str, domain: Domain) -> Value:
    """Return a value as it was drawn."""
    if isinstance(domain, tuple):
        return next(value for value in domain if str(value) == text)
    return float(text) if "." in text or "e" in text else int(text)


def _search(
    known: SearchConfig,
    opened: OpenGrid,
    samples: Samples,
    before: Sequence[Point],
    trackers: Trackers | None,
) -> None:
    from mrkd_ray.distributed import search, tune_trials

    domains, display = known.domains, opened.display
    gpus = opened.workers.gpus

    given: set[str] = set()

    def job_of(point: Point) -> tune_trials.Job | None:
        cell = samples.at(point).cell
        if cell.key in given:
            return None
        given.add(cell.key)
        samples.write()
        return tune_trials.Job(cell, gpus(len(cell.branches)))

    cells: Any
    if known.searcher == "optuna":
        for point in before:
            samples.at(point)
        cells = search.Suggested(domains, known.search_seed, before, job_of)
    else:
        drawn = search.draw(domains, known.search_seed)
        for _ in range(known.samples * search.TRIES):
            if len(samples.found) < known.samples:
                samples.at(drawn())
        cells = [
            tune_trials.Job(s.cell, gpus(len(s.cell.branches))) for s in samples.found.values()
        ]
        if len(cells) < known.samples:
            display.tell(f"note: the space has no more than {len(cells)} samples that differ")
        samples.write()
    display.grid(known.samples, known.samples * (known.cycles or 1))
    shown = Shown(opened, samples.folder, lambda key: samples.found[key].cell, {})

    def on_cycle(key: str, rows: list[dict[str, Any]]) -> None:
        samples.heard(key, rows)
        shown.cycle(key, rows)

    def on_end(key: str) -> None:
        shown.end(key)
        samples.write()

    def on_wait(waiting: int) -> None:
        display.tell(f"note: samples that wait: {waiting}. No node has room for one of them")

    watch = tune_trials.Watch(on_cycle, on_end, shown.retry, shown.lost, on_wait)
    warm_up = max([known.warm_up, *map(float, ends_of(domains.get("warm_up", ())))])
    scheduler = search.scheduler_of(known.scheduler, warm_up)
    failed = search.run(
        cells,
        known.samples,
        scheduler,
        watch,
        prepared=opened.prepared,
        folder=samples.folder,
        profile=known.profile,
        alone=opened.workers.cluster.alone,
        trackers=trackers.callbacks(samples.folder) if trackers else (),
    )
    for key, error in failed.items():
        samples.found[key].failed = last_line(error)


def _confirm(
    known: SearchConfig,
    opened: OpenGrid,
    samples: Samples,
    best: Sample,
    unseen: Sequence[Any],
    folder: Path,
    began: float,
    trackers: Trackers | None,
) -> tuple[Results, list[Cell]]:
    """Train and test the best sample on the folds that the search has not seen."""
    grid = known.at(best.point).model_copy(
        update={"folds": tuple(split.fold for split in unseen), "cycles": best.cell.training.cycles}
    )
    assert type(grid) is GridConfig
    cells = opened.expanded(grid, unseen)
    every = [*(sample.cell for sample in samples.found.values()), *cells]
    grid_folder.write_request(folder, grid, opened.prepared.skipped, every)
    opened.display.tell(f"Confirming the best sample on {len(unseen)} other folds")
    asked = replace(opened, config=grid, cells=cells)
    try:
        failed = run_cells(asked, folder, profile=known.profile, trackers=trackers)
    except KeyboardInterrupt:
        raise Stopped("Stopped while the best sample was confirmed.") from None
    failed = [(key, last_line(error)) for key, error in failed]
    results = gather(folder, known.name, cells, time.perf_counter() - began, failed)
    if failed:
        raise CellsFailed(f"The best sample is not confirmed.\n{listed(failed)}", results)
    return results, [cell for cell in cells if cell.condition == "distilled"]


def intervals_of(folder: Path, cells: Sequence[Cell]) -> dict[str, Interval]:
    """Return the main score of each model in percent with its 95 % interval, by name.

    Args:
        folder: the grid's.
        cells: finished ones of one cohort, on several folds or with several seeds.
    """
    terms: dict[str, dict[int, list[Float64]]] = {}
    for cell in cells:
        place = folder / "cells" / cell.key
        for name, model in read_models(place, cell.condition, cell.fold, cell.seed).items():
            main = metrics.of(model.labels)[0]
            of_fold = terms.setdefault(name, {}).setdefault(cell.fold, [])
            of_fold.append(main.terms(model.probabilities, model.labels))
    return {
        name: paired_bootstrap([np.stack(runs) for runs in by_fold.values()])
        for name, by_fold in terms.items()
    }
