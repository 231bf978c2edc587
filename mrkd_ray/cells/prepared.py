"""What is known about a data set once it is checked: made once, shared by every cell of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mrkd_ray.datasets.base import Dataset
from mrkd_ray.datasets.checking.problems import Skipped
from mrkd_ray.datasets.checking.scan import ClipScan
from mrkd_ray.datasets.splits import Split
from mrkd_ray.features.store import FeatureStore
from mrkd_ray.features.window_extents import whole_window
from mrkd_ray.representations.timing import ticks_of
from mrkd_ray.training.branch_task import FrozenTeacher


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked data set, its splits and its features.

    Attributes:
        dataset: the clips that can be used.
        scans: what one look at each clip's file found, by clip_id.
        digests: the hash of each clip's bytes, by clip_id.
        skipped: clips that `--skip-bad` left out of `dataset`.
        splits: of the folds that were asked for.
        stores: of each representation, by name. Clips may lack in them: `grid.preparation.compute`.
        cache: the folder of all caches.
        content: hash of labels, splits and the bytes of all labelled clips.
        teachers: frozen ones, of any fold.
    """

    dataset: Dataset
    scans: Mapping[str, ClipScan]
    digests: Mapping[str, str]
    skipped: tuple[Skipped, ...]
    splits: tuple[Split, ...]
    stores: Mapping[str, FeatureStore]
    cache: Path
    content: str
    teachers: tuple[FrozenTeacher, ...] = ()

    @cached_property
    def ticks(self) -> dict[str, int]:
        """Ticks of each clip, labelled or not, by clip_id: its frames at the paper's hop."""
        clips = self.dataset.recordings
        return {clip.clip_id: ticks_of_scan(self.scans[clip.clip_id]) for clip in clips}

    @property
    def whole_window(self) -> int:
        """Ticks of a window that holds any labelled clip (`whole_window`)."""
        return whole_window(self.ticks[clip.clip_id] for clip in self.dataset.clips)

    def split(self, fold: int) -> Split:
        """Return the split that tests this fold."""
        (found,) = (split for split in self.splits if split.fold == fold)
        return found


def ticks_of_scan(scan: ClipScan) -> int:
    """Return a clip's ticks, as its features will have them."""
    return ticks_of(round(scan.seconds * scan.sample_rate), scan.sample_rate)
