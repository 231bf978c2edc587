"""What a branch's process does where the run's folders are on another node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.distributed import home as home_module
from mrkd_ray.distributed.home import FilesActor, Home
from mrkd_ray.features.store import FeatureStore


class Handle:
    """Calls the actor's methods in this process, and counts the parts that were sent."""

    def __init__(self, sees: FeatureStore | None = None) -> None:
        self._actor, self._sees, self.parts = FilesActor(), sees, 0

    @property
    def features(self) -> Any:
        def remote(store: FeatureStore, clip_ids: Sequence[str]) -> Iterator[Any]:
            for part in self._actor.features(self._sees or store, clip_ids):
                self.parts += 1
                yield part

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote))

    @property
    def read(self) -> Any:
        return SimpleNamespace(remote=self._actor.read)

    @property
    def write(self) -> Any:
        return SimpleNamespace(remote=self._actor.write)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is on node `there`; what was asked of an actor is what it returned."""
    context = SimpleNamespace(get_node_id=lambda: "there")
    found = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.9")
    stand_in = SimpleNamespace(
        get=lambda value: value, get_runtime_context=lambda: context, util=found
    )
    monkeypatch.setattr(home_module, "ray", stand_in)


def moved(prepared: Prepared, name: str, cache: Path) -> FeatureStore:
    """The same store in the cache of another node."""
    return FeatureStore(cache, prepared.dataset, name, prepared.digests)


@pytest.mark.parametrize("part_bytes", [1, 100_000, home_module.PART_BYTES])
def test_features_are_sent_once_and_are_the_same(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(home_module, "PART_BYTES", part_bytes)
    here, there = prepared.stores["cqt"], moved(prepared, "cqt", tmp_path)
    handle = Handle(here)
    home = Home("home", handle)
    clip_ids = [clip.clip_id for clip in prepared.dataset.clips]
    home.bring(there, clip_ids[:10])
    home.bring(there, clip_ids[5:])  # what is there is not sent again
    sent = handle.parts
    home.bring(there, clip_ids)
    assert handle.parts == sent
    assert len(there.index().entries) == len(clip_ids)
    if part_bytes == 1:
        assert sent == len(clip_ids)  # a clip is never cut
    one, other = here.bank(clip_ids), there.bank(clip_ids)
    assert one.ticks is not None
    assert other.ticks is not None
    np.testing.assert_array_equal(one.ticks, other.ticks)
    for i in range(len(clip_ids)):
        a, b = (x.frames[x.offsets[i] : x.offsets[i] + x.lengths[i]] for x in (one, other))
        np.testing.assert_array_equal(a, b)


def test_nothing_is_sent_where_the_cache_is_shared(prepared: Prepared) -> None:
    handle = Handle()
    Home("home", handle).bring(prepared.stores["cqt"], [prepared.dataset.clips[0].clip_id])
    assert handle.parts == 0


def test_a_cache_that_cannot_be_written_there_is_one_sentence(
    prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    store = moved(prepared, "cqt", tmp_path / "file")
    clip_id = prepared.dataset.clips[0].clip_id
    with pytest.raises(UserError, match=r"on node 10\.0\.0\.9 \(.*not a directory.*--cache"):
        Home("home", Handle(prepared.stores["cqt"])).bring(store, [clip_id])


def test_files_are_written_at_home_and_read_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "cycle-000003"
    home = Home("home", Handle())
    with home.writing(folder) as here:
        assert here != folder
        (here / "deep").mkdir()
        (here / "a.bin").write_bytes(b"123")
        (here / "deep" / "empty").touch()
        assert not folder.exists()
    assert (folder / "a.bin").read_bytes() == b"123"
    assert (folder / "deep" / "empty").read_bytes() == b""
    with home.reading(folder, "a.bin", "none") as here:
        assert here.name == folder.name  # which says of which cycle it is
        assert [path.name for path in here.iterdir()] == ["a.bin"]
    assert not here.exists()


def test_a_folder_that_is_not_there_is_brought_whole(
    tmp_path: Path,
) -> None:
    there = tmp_path / "home" / "model"
    there.mkdir(parents=True)
    (there / "deep").mkdir()
    (there / "deep" / "a.bin").write_bytes(b"123")
    here = tmp_path / "node" / "model"
    actor = FilesActor()
    read = SimpleNamespace(remote=lambda folder: actor.read(there))
    home = Home("home", SimpleNamespace(read=read))
    home.bring_folder(here)
    (there / "deep" / "a.bin").write_bytes(b"4")
    home.bring_folder(here)  # what is there is not sent again
    assert (here / "deep" / "a.bin").read_bytes() == b"123"
    assert [path.name for path in here.parent.iterdir()] == ["model"]


def test_nothing_is_handed_over_where_writing_failed(tmp_path: Path) -> None:
    def write() -> None:
        with Home("home", Handle()).writing(tmp_path / "x") as here:
            (here / "half").touch()
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        write()
    assert not (tmp_path / "x").exists()


def test_at_home_folders_are_used_as_they_are(tmp_path: Path) -> None:
    home = Home("there", Handle())
    with home.reading(tmp_path, "x") as read, home.writing(tmp_path) as written:
        assert read == written == tmp_path
