"""What comes before any training: the data set checked and split, its features, the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mrkd_ray.cells.tasks import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import check_folders
from mrkd_ray.common.hashing import hash_of
from mrkd_ray.common.progress import Display
from mrkd_ray.config.run import Run
from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.checking.problems import Skipped, check, scan
from mrkd_ray.datasets.checking.scan import ClipScan
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.splits import Split, make_splits
from mrkd_ray.datasets.unlabelled import with_unlabelled, without_copies
from mrkd_ray.features.extraction import extract
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.grid.workers import Map, workers_of
from mrkd_ray.representations.catalogue import REPRESENTATIONS


def open_data(config: Run) -> Dataset:
    """Open the data set, with its unlabelled clips where a folder of them is given."""
    dataset = open_dataset(config.data, config.cache)
    return with_unlabelled(dataset, config.unlabelled) if config.unlabelled else dataset


def prepare_only(config: Run, names: Sequence[str], console: Console) -> Prepared:
    """Check a data set and compute representations, for runs to come."""
    for name in names:
        REPRESENTATIONS[name]
    check_folders(config.cache)
    dataset = open_data(config)
    with workers_of(config, 1) as workers, Display(console) as display:
        return prepare(config, dataset, names, workers.map, display, console)


@dataclass(frozen=True)
class Checked:
    """A data set that can be trained on. Its features may lack: `compute` makes them."""

    prepared: Prepared
    scans: Mapping[str, ClipScan]  # by clip_id, those left out too
    skipped: list[Skipped]


def check_data(
    config: Run,
    dataset: Dataset,
    representations: Sequence[str],
    map_: Map,
    display: Display,
    console: Console,
    held_out: float = 0.0,
    verified_only: bool = False,
) -> Checked:
    """Check a data set and split it.

    Raises:
        UserError: lists everything that is wrong with the data set.
    """
    scans = scan(dataset, config.cache, map_, display.step("Checking clips"))

    def splits_of(candidate: Dataset) -> list[Split]:
        """All folds, also where few are run: which clips are good does not hang on that."""
        return make_splits(candidate, "all", config.split_seed, held_out, verified_only)

    dataset, problems, skipped = check(dataset, scans, splits_of, config.skip_bad)
    for problem in problems:
        if problem.severity == "warning":
            console.print(f"warning: {problem}", markup=False)
    if skipped:
        console.print(f"left out {len(skipped)} clips (--skip-bad)", markup=False)
    if config.unlabelled:
        dataset = _without_copies(dataset, scans, config.unlabelled, console)
    digests = {clip.clip_id: scans[clip.clip_id].digest for clip in dataset.recordings}
    cache = config.cache.absolute()
    labelled = {clip.clip_id: digests[clip.clip_id] for clip in dataset.clips}
    content = hash_of(dataset.fingerprint, labelled, config.split_seed)
    folds = config.folds if config.folds == "all" else list(config.folds)
    splits = tuple(make_splits(dataset, folds, config.split_seed, held_out, verified_only))
    prepared = Prepared(
        dataset=dataset,
        splits=splits,
        stores={name: FeatureStore(cache, dataset, name, digests) for name in representations},
        content=content,
    )
    return Checked(prepared, scans, skipped)


def _without_copies(
    dataset: Dataset, scans: Mapping[str, ClipScan], folder: Path, console: Console
) -> Dataset:
    """Leave out unlabelled clips that are in the data set, and say how many."""
    found = without_copies(dataset, scans)
    count = len(dataset.unlabelled)
    if copies := count - len(found.unlabelled):
        console.print(
            f"note: {copies} of {count} unlabelled clips are left out: the same bytes are in the "
            "data set, or twice among them",
            markup=False,
        )
    if not found.unlabelled:
        raise UserError(
            f"unlabelled {str(folder)!r}: no recording in it is good and not in the data set too."
        )
    return found


def prepare(
    config: Run,
    dataset: Dataset,
    representations: Sequence[str],
    map_: Map,
    display: Display,
    console: Console,
) -> Prepared:
    """Check a data set and compute its features; see `check_data` and `compute`."""
    prepared = check_data(config, dataset, representations, map_, display, console).prepared
    compute(config, prepared, map_, display)
    return prepared


def compute(config: Run, prepared: Prepared, map_: Map, display: Display) -> None:
    """Compute the features that are not stored yet.

    Raises:
        UserError: a clip cannot be decoded.
    """
    names = list(prepared.stores)
    digests = prepared.stores[names[0]].digests
    show = display.step(f"Computing {', '.join(names)}")
    extract(prepared.dataset, names, config.cache.absolute(), digests, map_, show)
