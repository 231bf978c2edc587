"""The driver's node, for branches on other nodes: no folder has to be shared between nodes.

Data, cache and results lie on the driver's node, and the coordinators run there. A branch on
another node is sent the features that its node lacks, once a node and not once a cell: they are
added to the store at the same path there, which is on the node's own disk unless it is shared.
What such a branch writes is handed over when it is written.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mrkd_ray.common import failures
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.features.store import FeatureStore, Row

Contents = Mapping[str, NDArray[np.uint8]]
"""The bytes of files, by their place in a folder."""

PART_BYTES = 64 * 2**20
"""Features travel in parts of at most this size, or of one clip, at most two at a time."""


class FilesActor:
    """On the driver's node: what branches on other nodes ask for and hand over."""

    def __repr__(self) -> str:
        return "Files"

    def features(
        self, store: FeatureStore, clip_ids: Sequence[str]
    ) -> Iterator[tuple[tuple[str, ...], Float32, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield clip_ids, their frames [total, bins], and frames and ticks of each clip [n]."""
        bank = store.bank(clip_ids)
        ticks = bank.lengths if bank.ticks is None else bank.ticks
        ends = np.cumsum(bank.lengths * (store.bins * bank.frames.itemsize))
        begin = 0
        while begin < len(clip_ids):
            before = int(ends[begin - 1]) if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, before + PART_BYTES, side="right")))
            places = zip(bank.offsets[begin:end], bank.lengths[begin:end], strict=True)
            frames = np.concatenate([bank.frames[at : at + count] for at, count in places])
            part = slice(begin, end)
            yield tuple(clip_ids[part]), frames, bank.lengths[part], ticks[part]
            begin = end

    def read(self, folder: Path, names: Sequence[str] = ()) -> Contents:
        """Return those of these files that are in a folder; without names all, at any depth."""
        if not names:
            return contents(folder)
        paths = [(name, folder / name) for name in names]
        return {name: np.fromfile(path, np.uint8) for name, path in paths if path.exists()}

    def write(self, folder: Path, files: Contents) -> None:
        """Write files into a folder."""
        unpack(files, folder)


def contents(folder: Path) -> Contents:
    """Return the files of a folder, at any depth."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): np.fromfile(path, np.uint8) for path in paths}


def unpack(files: Contents, folder: Path) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.data)


@dataclass(frozen=True)
class Home:
    """Where a run's folders are, as a branch's process is told.

    Attributes:
        node: id of the node.
        files: handle of the `FilesActor` there.
    """

    node: str
    files: Any

    @classmethod
    def start(cls, node: str) -> Home:
        """Start the actor of a node, which ends with this process."""
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 4}
        actor = ray.remote(FilesActor).options(scheduling_strategy=strategy, **options)
        return cls(node, actor.remote())

    @property
    def elsewhere(self) -> bool:
        """Whether this process runs on another node."""
        return bool(ray.get_runtime_context().get_node_id() != self.node)

    @contextmanager
    def reading(self, folder: Path, *names: str) -> Iterator[Path]:
        """Yield a folder of the same name with these files of `folder` at home."""
        if not self.elsewhere:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="mrkd-") as parent:
            here = Path(parent) / folder.name
            unpack(ray.get(self.files.read.remote(folder, names)), here)
            yield here

    @contextmanager
    def writing(self, folder: Path) -> Iterator[Path]:
        """Yield a folder to write to; its files are in `folder` at home after the block."""
        if not self.elsewhere:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="mrkd-") as parent:
            here = Path(parent) / folder.name
            here.mkdir()
            yield here
            ray.get(self.files.write.remote(folder, contents(here)))

    def bring(self, store: FeatureStore, clip_ids: Sequence[str]) -> None:
        """Have the features of these clips in the store at its path on this node.

        Raises:
            UserError: they cannot be written there.
        """
        if not self.elsewhere or not _lacking(store, clip_ids):
            return
        try:
            store.folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(store.folder.parent / "lock"):  # of all branches of the node
                if lacking := _lacking(store, clip_ids):
                    store.repair()
                    self._fetch(store, lacking)
        except OSError as error:
            here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            raise UserError(
                f"{store.folder}: the features cannot be written on node {here} "
                f"({failures.reason(error)}). Give --cache a path that every node can write to."
            ) from None

    def bring_folder(self, folder: Path) -> None:
        """Have a folder at its path on this node, whose files do not change."""
        if not self.elsewhere or folder.exists():
            return
        coming = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        unpack(ray.get(self.files.read.remote(folder)), coming)
        with suppress(OSError):  # another branch of the node was first
            coming.rename(folder)
        shutil.rmtree(coming, ignore_errors=True)

    def _fetch(self, store: FeatureStore, clip_ids: Sequence[str]) -> None:
        sent = self.files.features.options(
            num_returns="streaming", _generator_backpressure_num_objects=2
        )
        for ref in sent.remote(store, clip_ids):
            names, frames, lengths, ticks = ray.get(ref)
            parts = np.split(frames, np.cumsum(lengths)[:-1])
            store.append(
                [
                    Row(name, store.digests[name], part, int(count))
                    for name, part, count in zip(names, parts, ticks, strict=True)
                ]
            )


def _lacking(store: FeatureStore, clip_ids: Sequence[str]) -> list[str]:
    """Return clips, one of each content, of which this node's store has no features."""
    stored = store.index().entries
    by_content = {store.digests[clip_id]: clip_id for clip_id in clip_ids}
    return [clip_id for content, clip_id in by_content.items() if content not in stored]
