"""`mrkd predict` over many recordings on a cluster: Ray Data, with a copy of the model a worker.

Results are Parquet files in a folder, written here as they come. What is in them is not classified
again: the same command goes on where it was stopped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.inference.prediction_files import parquet_schema

FILES = 16
"""Recordings that a worker is given at a time; and that are lost at most where it ends."""


@dataclass(frozen=True)
class Job:
    """What each worker does.

    Attributes:
        packed: the bytes of a packed model.
        window: seconds; None: each recording as a whole.
        hop: seconds.
        smooth: as of `spans.smoothed`.
    """

    packed: bytes
    window: float | None
    hop: float | None
    smooth: int


class Worker:
    """A copy of the model."""

    def __init__(self, job: Job) -> None:
        from mrkd_ray.inference.classifier import of_packed

        self._job = job
        self._classifier = of_packed(job.packed)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a row for each recording or window; of one that cannot be read its `error`."""
        from mrkd_ray.inference.spans import smoothed

        job = self._job
        rows: list[tuple[str, float, float, Any, str]] = []
        none = np.zeros(len(self._classifier.classes), np.float32)
        for file in map(str, batch["file"]):
            try:
                if job.window is None:
                    found = list(self._classifier.stream([file]))
                else:
                    found = list(self._classifier.stream(file, window=job.window, hop=job.hop))
                    found = smoothed(found, job.smooth) if job.smooth > 1 else found
                rows += [(file, p.start, p.end, p.probabilities, "") for p in found]
            except UserError as error:
                rows.append((file, 0.0, 0.0, none, str(error)))
        columns = zip(*rows, strict=True)
        return dict(
            zip(("file", "start", "end", "scores", "error"), map(np.array, columns), strict=True)
        )


def done(folder: Path) -> set[str]:
    """Return the recordings that results are of. Raises UserError: other files in the folder."""
    from pyarrow import parquet

    found: set[str] = set()
    for path in sorted(folder.glob("*")):
        if path.suffix != ".parquet":
            raise UserError(f"{path}: no result of mrkd predict: give an empty folder (--output)")
        found |= set(parquet.read_table(path, columns=["file"])["file"].to_pylist())
    return found


def predict(
    job: Job,
    files: Sequence[str],
    classes: Sequence[str],
    folder: Path,
    *,
    workers: int,
    gpus: float,
    on_error: Callable[[str], None],
) -> Iterator[tuple[int, float]]:
    """Classify recordings and write what is found; Ray is there.

    Args:
        files: paths that every node reads.
        classes: names of the M classes.
        folder: of the results; it is there.
        workers: copies of the model.
        gpus: of each.
        on_error: is told of each recording that cannot be classified.

    Yields:
        As files are written: recordings, and seconds of them.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = parquet_schema(classes)
    blocks = -(-len(files) // FILES)
    data = ray.data.from_items([{"file": file} for file in files], override_num_blocks=blocks)
    found = data.map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=None,  # a block
        concurrency=workers,
        num_gpus=gpus,
    )
    for batch in found.iter_batches(batch_size=None, batch_format="numpy"):
        bad = batch["error"] != ""
        for text in batch["error"][bad]:
            on_error(str(text))
        good = {name: batch[name][~bad] for name in ("file", "start", "end", "scores")}
        if len(good["file"]):
            scores = np.stack(list(good["scores"])).astype(np.float32)
            arrays = [pa.array(good[name]) for name in ("file", "start", "end")]
            table = pa.table([*arrays, *map(pa.array, scores.T)], schema=schema)
            with replacing(folder / f"part-{secrets.token_hex(8)}.parquet") as temporary:
                parquet.write_table(table, temporary)
        ends: dict[str, float] = {}
        for file, end in zip(batch["file"], batch["end"], strict=True):
            ends[str(file)] = max(float(end), ends.get(str(file), 0.0))
        yield len(ends), sum(ends.values())
