"""What comes before any training: the data set opened, checked, split, its features computed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import check_folders
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.common.progress import Display, say
from mrkd_ray.config.run import UNGROUPED, CheckedData, Preparation
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.checking.problems import check, scan
from mrkd_ray.datasets.checking.scan import ClipScan
from mrkd_ray.datasets.events import SHORTEST
from mrkd_ray.datasets.name_groups import crossing, with_groups
from mrkd_ray.datasets.opening import check_names, open_dataset
from mrkd_ray.datasets.splits import Splitter
from mrkd_ray.datasets.unlabelled import with_unlabelled, without_copies
from mrkd_ray.features.extraction import extract
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.grid.workers import Map, workers_of
from mrkd_ray.representations.catalogue import REPRESENTATIONS


def prepare_only(config: Preparation, names: Sequence[str], console: Console) -> Prepared:
    """Check a data set and compute representations, for runs to come.

    Ray is started only where there is much to do.
    """
    for name in names:
        REPRESENTATIONS[name].check()
    check_folders(config.cache)
    dataset = open_data(config, config.unlabelled, console)
    splitter = Splitter(folds=config.folds, seed=config.split_seed)
    tell = functools.partial(say, console)
    files = read_by_all(dataset, config.cache)
    with workers_of(config, tell, files=files) as workers, Display(console) as display:
        prepared = prepare(
            dataset,
            names,
            splitter,
            cache=config.cache,
            skip_bad=config.skip_bad,
            map_=workers.map_from_here,
            display=display,
            console=console,
        )
    warn_of_names(prepared, config.group_by, console)
    return prepared


def open_data(
    config: CheckedData,
    unlabelled: Path | None,
    console: Console,
    *,
    window: float = SHORTEST,
) -> Dataset:
    """Open a data set, with the unlabelled clips of a folder if one is given; print its notes.

    Args:
        config: which one, and how.
        unlabelled: the folder.
        console: for the notes.
        window: seconds of a clip around an event, at least (`open_dataset`).
    """
    dataset = open_dataset(config.data, config.cache, window=window, negatives=config.negatives)
    group_by = config.group_by
    if group_by is not None and group_by != UNGROUPED:
        dataset = with_groups(dataset, group_by)
        groups = len({clip.group for clip in dataset.clips})
        say(console, f"note: {len(dataset.clips)} clips of {groups} groups")
    if unlabelled:
        dataset = with_unlabelled(dataset, unlabelled)
        check_names(dataset)
    for note in dataset.notes:
        say(console, f"note: {note}")
    return dataset


def read_by_all(dataset: Dataset, cache: Path) -> tuple[Path, ...]:
    """Return what a node that checks clips or computes features has to see, where there are any."""
    some = (*dataset.clips[:1], *dataset.unlabelled[:1])
    return (cache.absolute(), *(clip.path for clip in some))


def warn_of_names(prepared: Prepared, group_by: str | None, console: Console) -> None:
    """Print a warning where names look as if they held groups that splits divide."""
    warning = crossing(prepared.dataset, prepared.splits) if group_by is None else None
    if warning:
        say(console, f"warning: {warning}")


def check_data(
    dataset: Dataset,
    representations: Sequence[str],
    splitter: Splitter,
    *,
    cache: Path,
    skip_bad: bool,
    map_: Map,
    display: Display,
    console: Console,
) -> Prepared:
    """Check a data set and split it. Its features may lack: `compute` makes them.

    Which clips are good is judged by the splits of all folds, also where few are run.

    Raises:
        UserError: lists everything that is wrong with the data set.
    """
    unlabelled = dataset.unlabelled
    scans = scan(dataset, cache, map_, display.step("Checking clips"))
    dataset, problems, skipped = check(dataset, scans, splitter.all, skip_bad)
    for problem in problems:
        if problem.severity == "warning":
            say(console, f"warning: {problem}")
    if skipped:
        say(console, f"left out {len(skipped)} clips (--skip-bad)")
    if unlabelled:
        dataset = _without_copies(dataset, scans, console)
        if not dataset.unlabelled:
            raise UserError(
                f"unlabelled: of {len(unlabelled)} recordings, such as {unlabelled[0].path}, none "
                "is good and not in the data set too. Give a folder with others."
            )
    digests = {clip.clip_id: scans[clip.clip_id].digest for clip in dataset.recordings}
    labelled = {clip.clip_id: digests[clip.clip_id] for clip in dataset.clips}
    stores = {
        name: FeatureStore(cache.absolute(), dataset, name, digests) for name in representations
    }
    return Prepared(
        dataset=dataset,
        scans=scans,
        digests=digests,
        skipped=tuple(skipped),
        splits=tuple(splitter.wanted(dataset)),
        stores=stores,
        cache=cache.absolute(),
        content=hash_of(dataset.fingerprint, labelled, splitter.seed_that_matters(dataset)),
    )


def _without_copies(dataset: Dataset, scans: Mapping[str, ClipScan], console: Console) -> Dataset:
    """Leave out unlabelled clips that are in the data set, and say how many."""
    found = without_copies(dataset, scans)
    count = len(dataset.unlabelled)
    if copies := count - len(found.unlabelled):
        console.print(
            f"note: {copies} of {count} unlabelled clips are left out: the same bytes are in the "
            "data set, or twice among them",
            markup=False,
        )
    return found


def prepare(
    dataset: Dataset,
    representations: Sequence[str],
    splitter: Splitter,
    *,
    cache: Path,
    skip_bad: bool,
    map_: Map,
    display: Display,
    console: Console,
) -> Prepared:
    """Check a data set and compute its features; see `check_data` and `compute`."""
    prepared = check_data(
        dataset,
        representations,
        splitter,
        cache=cache,
        skip_bad=skip_bad,
        map_=map_,
        display=display,
        console=console,
    )
    compute(prepared, map_, display)
    return prepared


def compute(prepared: Prepared, map_: Map, display: Display) -> None:
    """Compute the features that are not stored yet.

    Raises:
        UserError: a clip cannot be decoded.
    """
    show = display.step(f"Computing {', '.join(prepared.stores)}")
    extract(prepared.dataset, prepared.digests, prepared.stores, map_, show, display.waiting)
