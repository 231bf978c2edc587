"""Which representations and networks to make a cohort of, from short probes on the user's data.

Probes are independent cells that run as a grid's do (`probes`); they are judged on clips held out
from the training side (`choice`, `diversity`), which also say which labels look wrong (`labels`);
the answer is a grid file (`show`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.intact import result_of
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import check_folders, write_text
from mrkd_ray.common.progress import say
from mrkd_ray.common.text import time_text
from mrkd_ray.config.cpu_scale import STANDS_FOR
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.schema import GridConfig, RecommendConfig
from mrkd_ray.grid import folder as grid_folder
from mrkd_ray.grid.opening import OpenGrid, open_grid
from mrkd_ray.grid.preparation import compute
from mrkd_ray.grid.run import CellsFailed, listed, run_cells
from mrkd_ray.recommend import probes, show
from mrkd_ray.recommend.choice import Choice, choose
from mrkd_ray.representations import pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from mrkd_ray.results.latency import typical_seconds


def recommend(
    config: RecommendConfig, to: Path, *, force: bool = False, console: Console | None = None
) -> Choice:
    """Run the probes, choose a cohort and write its grid file.

    Probes that are finished are kept in the results folder, with the CSV files of `show.tables`:
    the same call, or one with other candidates besides, goes on from there.

    Args:
        config: what is asked.
        to: the grid file.
        force: write over a file that is there.
        console: where progress is shown; default: standard error.

    Raises:
        UserError: bad input, before any training.
        CellsFailed: some probes did not finish; the finished ones are kept.
    """
    console = console or Console(stderr=True)
    candidates = candidates_of(config)
    if to.exists() and not force:
        raise UserError(f"{to} is there: --force writes over it, --to FILE writes elsewhere")
    check_folders(to.parent)
    asked = config.as_grid(candidates)

    def finished(cells: Sequence[Cell], prepared: Prepared) -> bool:
        parts, seed = probes.parts_of(prepared.dataset, config)
        own = probes.of_parts(cells, parts, seed)
        folder, tried = _folder(asked, own), probes.short(own, parts[0], config.size)
        wanted = probes.worth_it(folder, own, tried, prepared.dataset, config)
        return probes.is_finished(folder, wanted)

    begun = any(grid_folder.newest_first(asked.output, asked.name))
    with open_grid(asked, console, finished if begun else None) as opened:
        parts, seed = probes.parts_of(opened.prepared.dataset, config)
        opened = probes.with_parts(opened, parts, seed)
        # As candidates were listed: heads on frozen networks, the cheapest, come first.
        every = sorted(opened.cells, key=lambda cell: candidates.index(cell.branches[0]))
        tried = probes.short(every, parts[0], config.size)
        folder = _folder(asked, every)
        if folder.exists():
            with grid_folder.locked(folder):
                grid_folder.rename_former(every, folder)
                for line in grid_folder.set_aside([*tried, *every], folder):
                    say(console, f"warning: {line}")
        wanted = probes.worth_it(folder, every, tried, opened.prepared.dataset, config)
        left = [cell for cell in wanted if result_of(folder / "cells" / cell.key) is None]
        opened = replace(opened, cells=wanted)
        if left:
            opened, left = _in_time(opened, left, config.minutes, console)
        wanted, prepared = opened.cells, opened.prepared
        with grid_folder.locked(folder):
            grid_folder.write_request(folder, asked, prepared.skipped, [*tried, *wanted])
            if left:
                compute(prepared, opened.workers.map, opened.display)
            if left and tried:
                _run(replace(opened, cells=tried), folder)
                wanted = probes.worth_it(folder, wanted, tried, prepared.dataset, config)
            _run(replace(opened, cells=probes.of_first_part(wanted)), folder)
            wanted = probes.worth_it(folder, wanted, tried, prepared.dataset, config)
            _run(replace(opened, cells=wanted), folder)
            probed = probes.read(folder, wanted, prepared.dataset, tried)
    # The workers have ended: nothing else computes while models are timed.
    seconds = typical_seconds(asked.model_dump(mode="json"))
    with console.status("Measuring what the candidates cost"):
        probed = probes.measured(folder, wanted, probed, seconds)
    choice = choose(probed, config.size, config.margin)
    for name, text in (show.tables(choice) | show.drawing(choice)).items():
        write_text(folder / name, text)
    write_text(to, show.grid_file(choice, config))
    console.print(f"Probes: {folder}", markup=False, soft_wrap=True)
    return choice


def _run(opened: OpenGrid, folder: Path) -> None:
    """Run what is not finished of some probes. Raises CellsFailed."""
    if failed := run_cells(opened, folder):
        raise CellsFailed(
            f"{len(failed)} of {len(opened.cells)} probes did not finish; the same call takes "
            f"them up again.\n{listed(failed)}\nWhat is finished is in {folder}."
        )


def _folder(asked: GridConfig, cells: Sequence[Cell]) -> Path:
    """Return where probes lie, or will: with those of these versions that are finished."""
    folder = grid_folder.choose(asked.output, asked.name, cells, resume=True)
    if folder.exists() and not grid_folder.same_versions(folder):
        folder = grid_folder.choose(asked.output, asked.name, cells, resume=False)
    return folder


HEADS = ("linear", "mlp")
"""The networks that embeddings are tried with by default."""


def _by_default() -> tuple[str, ...]:
    """Return embeddings whose weights are here, and all that small networks see.

    What is for a network of its own is left out: `--branch waveform:leaf_small` adds such a one.
    """
    entries = REPRESENTATIONS.items()
    embeddings = [name for name, entry in entries if pretrained.there(entry.weights)]
    seen = [name for name, e in entries if not (e.weights or e.made_for)]
    return (*embeddings, *seen)


def candidates_of(config: RecommendConfig) -> tuple[BranchSpec, ...]:
    """Return each representation with each network, as asked or by default, and single branches.

    Raises:
        UserError: too few for a cohort.
    """
    names = config.representations or _by_default()
    product = [
        BranchSpec(representation=name, network=network)
        for name in names
        for network in config.networks or (HEADS if REPRESENTATIONS[name].embedding else STANDS_FOR)
    ]
    found = tuple(dict.fromkeys([*product, *(config.branches or ())]))
    if len(found) < config.size:
        listed = ", ".join(map(str, found))
        raise UserError(
            f"{len(found)} candidate(s) ({listed}) for a cohort of {config.size}: give more "
            "--representations, --networks or --branch, or a smaller --size"
        )
    return found


def _in_time(
    opened: OpenGrid, left: list[Cell], minutes: float | None, console: Console
) -> tuple[OpenGrid, list[Cell]]:
    """Say what the probes will take, and keep those of as many parts as there is time for.

    Args:
        opened: its cells are the probes.
        left: those of them that are not finished.
        minutes: that they may take; None: any.

    Returns:
        Both, with the probes that are kept.
    """
    clock = probes.Clock.measure(opened, left)
    parts = [split.fold for split in opened.prepared.splits]
    for count in range(len(parts), 0, -1):
        now = [cell for cell in left if cell.fold in parts[:count]]
        seconds = clock.seconds(now)
        if minutes is None or seconds <= 60 * minutes:
            break
    else:
        raise UserError(
            f"minutes: probes on one part of the clips take about {time_text(seconds)}, more than "
            f"{minutes:g} min. Give fewer --representations, --networks or --cycles, or more time"
        )
    kept = [cell for cell in opened.cells if cell.fold in parts[:count]]
    candidates = {cell.branches for cell in kept}
    clips = sum(len(split.test) for split in opened.prepared.splits[:count])
    finished = f", {len(kept) - len(now)} of them finished" if len(now) < len(kept) else ""
    say(
        console,
        f"{len(kept)} probes of {kept[0].training.epochs} epochs{finished}: {len(candidates)} "
        f"candidates on {count} of {len(parts)} parts. {clips} held-out clips will decide. "
        f"About {time_text(seconds)} at most: short probes come first. Who is hopeless in them, "
        "or too weak on the first part, is in no other.",
    )
    return replace(opened, cells=kept), now
