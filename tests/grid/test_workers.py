"""When a cluster is started, what waits for it, and how it ends; without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.run import Processes
from mrkd_ray.grid import workers as workers_module
from mrkd_ray.grid.workers import to_join, workers_of


@dataclass
class Fake:
    """A cluster that is there when `up` is set; what became of it."""

    up: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    given: list[Any] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    ended: bool = False
    files: Any = ()
    lines: tuple[str, ...] = ("one", "two")

    @contextmanager
    def connect(self, *args: object, **options: object) -> Iterator[Fake]:
        self.given.append((args, options))
        assert self.up.wait(60)
        if self.error:
            raise self.error
        thread = threading.current_thread()
        try:
            yield self
        finally:
            assert thread.is_alive()  # with it the processes that it has started would be killed
            self.ended = True

    def ray_map(self, function: Any, items: list[int], gpus: float, files: Any) -> Iterator[Any]:
        self.there += items
        self.files = files
        return map(function, items)

    def gpus_per_branch(self, branches: int) -> float:
        return 1 / branches


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    cluster = pytest.importorskip("mrkd_ray.distributed.cluster")
    made = Fake()
    monkeypatch.setattr(cluster, "connect", made.connect)
    monkeypatch.setattr(cluster, "ray_map", made.ray_map)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return made


def ignore(line: str) -> None: ...


def test_a_cluster_is_not_started_where_nothing_needs_it(fake: Fake) -> None:
    with workers_of(Processes(), ignore) as workers:
        assert list(workers.map_from_here(str, [])) == []
        assert list(workers.map_from_here(str, [1, 2])) == ["1", "2"]
    assert fake.given == []


def test_it_is_started_once_and_told_of_once_and_ended(fake: Fake) -> None:
    told: list[str] = []
    asked = Processes(address="host:1", dashboard=False)
    with workers_of(asked, told.append, min_cpus=3) as workers:
        workers.begin()
        assert told == []
        fake.up.set()
        assert workers.gpus(4) == 0.25
        assert list(workers.map(str, [1])) == ["1"]
        assert not fake.ended
    assert fake.given == [(("host:1", 3), {"source": "--address", "dashboard": False})]
    assert (told, fake.there, fake.ended) == (["one", "two"], [1], True)


def test_files_are_needed_where_data_is_read_and_not_where_a_gpu_is_asked(fake: Fake) -> None:
    fake.up.set()
    with workers_of(Processes(), ignore, files=[Path("a.wav")]) as workers:
        list(workers.map(str, [1]))
        assert fake.files == [Path("a.wav")]
        list(workers.map(str, [1], gpus=0.5))
        assert fake.files == ()


def test_items_are_mapped_here_until_it_is_there(fake: Fake) -> None:
    def double(item: int) -> int:
        if item == 2:
            fake.up.set()
            workers.cluster  # noqa: B018  # waits for it
        return 2 * item

    with workers_of(Processes(), ignore) as workers:
        workers.begin()
        assert list(workers.map_from_here(double, [1, 2, 3, 4])) == [2, 4, 6, 8]
    assert fake.there == [3, 4]


def test_much_work_starts_a_cluster_for_the_rest(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.up.set()
    monkeypatch.setattr(workers_module, "WORTH", 0.0)
    with workers_of(Processes(), ignore) as workers:
        done = workers.map_from_here(str, range(9))
        assert [next(done), next(done)] == ["0", "1"]  # the first tells nothing: it imports
        assert fake.given == []
        assert sorted(done) == [str(i) for i in range(2, 9)]
    assert len(fake.given) == 1
    assert fake.ended


def test_an_error_of_its_start_comes_where_it_is_waited_for(fake: Fake) -> None:
    fake.error = UserError("no Ray cluster answers")
    with workers_of(Processes(), ignore) as workers:
        workers.begin()
        fake.up.set()
        with pytest.raises(UserError, match="no Ray cluster answers"):
            workers.map(str, [1])


def test_an_interrupted_start_is_waited_for_and_ended(fake: Fake) -> None:
    def interrupted() -> None:
        with workers_of(Processes(), ignore) as workers:
            workers.begin()
            threading.Timer(0.1, fake.up.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert fake.ended


def test_a_given_share_of_gpus_and_this_process_wait_for_nothing(fake: Fake) -> None:
    with workers_of(Processes(), ignore, gpus_per_branch=0.5) as workers:
        assert workers.gpus(2) == 0.5
    with workers_of(Processes(runner="local"), ignore) as workers:
        workers.begin()
        assert (workers.gpus(2), workers.cluster, workers.here) == (0.0, None, False)
    assert fake.given == []


@pytest.mark.parametrize(
    ("option", "variable", "found"),
    [
        (None, None, (None, "RAY_ADDRESS")),
        (None, "", (None, "RAY_ADDRESS")),
        (None, "local", (None, "RAY_ADDRESS")),
        (None, "host:1", ("host:1", "RAY_ADDRESS")),
        ("host:2", "host:1", ("host:2", "--address")),
        ("local", "host:1", (None, "--address")),
        ("auto", None, ("auto", "--address")),
    ],
)
def test_ray_address_is_honoured_where_no_address_is_given(
    option: str | None,
    variable: str | None,
    found: tuple[str | None, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert to_join(Processes(address=option)) == found
