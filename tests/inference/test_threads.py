"""Files side by side: the same answers in order, and PyTorch as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mrkd_ray.audio.decoding import Recording
from mrkd_ray.common.errors import UserError
from mrkd_ray.inference import threads
from mrkd_ray.inference.inputs import Source, recording_of
from mrkd_ray.inference.threads import limit, of_sources, side_by_side


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch set to 3 threads, on a machine of 4 CPUs."""
    monkeypatch.setattr(threads, "cpus", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_answers_come_in_order_from_several_threads_on_one_cpu_each() -> None:
    met = threading.Barrier(4)

    def work(item: int) -> tuple[int, int, str]:
        met.wait(timeout=60)  # only if all four are there
        return item, torch.get_num_threads(), threading.current_thread().name

    found = list(side_by_side(work, range(4)))
    assert [item for item, _, _ in found] == [0, 1, 2, 3]
    assert {count for _, count, _ in found} == {1}
    assert len({name for _, _, name in found}) == 4


def test_pytorchs_threads_stay_as_they_are_set_while_and_after() -> None:
    """Also those of threads that start later, though the second found it set to 1 and ends last."""
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def items() -> Iterator[str]:
        yield "first"
        first_is_in.wait(timeout=60)
        yield "second"

    def work(item: str) -> None:
        if item == "first":
            first_is_in.set()
            second_is_in.wait(timeout=60)
        else:
            second_is_in.set()
            first_is_out.wait(timeout=60)

    seen = []
    for _ in side_by_side(work, items()):
        first_is_out.set()
        seen.append(torch.get_num_threads())
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (seen, later) == ([3, 3], [3])


def test_items_are_taken_a_few_at_a_time() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    found = side_by_side(abs, items())
    next(found)
    assert len(taken) <= 6
    found.close()  # type: ignore[attr-defined]
    assert len(taken) <= 6


def test_an_error_comes_in_the_place_of_its_file(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "bad", "gone", "z")]
    for file in (files[0], files[1], files[3]):
        file.touch()

    def work(source: Source) -> str:
        if source.name == "bad":
            raise UserError("no sound")
        return source.name

    a, bad, gone, z = of_sources(work, [Source(file.name, file) for file in files])
    assert (a, z) == ("a", "z")
    assert isinstance(bad, UserError)
    assert isinstance(gone, FileNotFoundError)


def test_large_files_are_worked_on_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LARGE", 10)
    for size in (10, 11):
        (tmp_path / str(size)).write_bytes(bytes(size))

    def locked(sound: Path | Recording) -> list[object]:
        return list(of_sources(lambda _: threads._large.locked(), [Source("a", sound)]))

    assert locked(tmp_path / "10") == [False]
    assert locked(tmp_path / "11") == [True]
    assert locked(recording_of(np.zeros(2), 8000)) == [False]  # 8 bytes
    assert locked(recording_of(np.zeros(3), 8000)) == [True]


def test_as_many_threads_as_are_asked_for() -> None:
    limit(2)
    try:
        names = set(side_by_side(lambda _: threading.current_thread().name, range(40)))
    finally:
        limit(None)
    assert len(names) <= 2
