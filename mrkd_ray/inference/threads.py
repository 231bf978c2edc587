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

from mrkd_ray.common.environment import cpus
from mrkd_ray.common.errors import UserError
from mrkd_ray.representations.spectra import one_thread

X = TypeVar("X")
Y = TypeVar("Y")

LARGE = 8_000_000  # bytes of a file: such ones are classified one at a time, which bounds memory
_large = threading.Lock()


def side_by_side(function: Callable[[X], Y], items: Iterable[X]) -> Iterator[Y]:
    """Map in as many threads as there are CPUs, in order and only a few items ahead."""
    workers = cpus()
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


def of_files(
    function: Callable[[X], Y], items: Iterable[X], file_of: Callable[[X], Path]
) -> Iterator[Y | UserError | OSError]:
    """Yield for each item, in order, what the function returns or why it could not.

    Args:
        function: classifies one.
        items: files, or what is in one.
        file_of: the file of an item.
    """

    def attempt(item: X) -> Y | UserError | OSError:
        try:
            with _large if file_of(item).stat().st_size > LARGE else nullcontext():
                return function(item)
        except (UserError, OSError) as error:
            return error

    return side_by_side(attempt, items)
