"""Classification in several threads, each of which computes on one CPU.

Small networks gain nothing from several CPUs for one clip, and lose much where others use these.
So a batch of windows is computed on one thread, whatever PyTorch is set to, and several files, or
the batches of a long one, side by side. The bits depend neither on how many there are nor on the
machine's load.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.environment import cpus
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.inputs import Source
from mrkd_ray.representations.spectra import one_thread

X = TypeVar("X")
Y = TypeVar("Y")

LARGE = 8_000_000  # bytes of a file: such ones are classified one at a time, which bounds memory
PARTS = 3  # of a long recording, side by side: 60 MB each at most
_large = threading.Lock()
_most: int | None = None


def limit(jobs: int | None) -> None:
    """Have at most so many threads from here on, in this process; None: as many as CPUs."""
    global _most
    _most = jobs


def side_by_side(
    function: Callable[[X], Y], items: Iterable[X], most: int | None = None
) -> Iterator[Y]:
    """Map in as many threads as there are CPUs, in order and only a few items ahead.

    Args:
        function: is called on one CPU.
        items: what it is called with.
        most: threads, where items are so large that more would take too much memory.
    """
    workers = min(_most or cpus(), most or cpus())
    before = torch.get_num_threads()  # from here on this thread's own, whatever others set
    pool = ThreadPoolExecutor(workers, "mrkd")
    coming: deque[Future[Y]] = deque()
    try:
        for item in items:
            coming.append(pool.submit(one_thread()(function), item))
            if len(coming) > workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what threads set is also for those that start later


def of_sources(
    function: Callable[[Source], Y], sources: Iterable[Source]
) -> Iterator[Y | UserError | OSError]:
    """Yield for each recording, in order, what the function returns or why it could not."""

    def attempt(source: Source) -> Y | UserError | OSError:
        try:
            with _large if _is_large(source) else nullcontext():
                return function(source)
        except (UserError, OSError) as error:
            return error

    return side_by_side(attempt, sources)


def _is_large(source: Source) -> bool:
    sound = source.sound
    if isinstance(sound, Path):
        return sound.stat().st_size > LARGE
    return isinstance(sound, Recording) and 4 * len(sound) > LARGE
