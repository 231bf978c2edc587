import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from numpy.typing import NDArray

from mrkd_ray.audio import decoding
from mrkd_ray.common.arrays import Float32
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.parallel_map import X, Y
from mrkd_ray.common.reading import Damaged
from mrkd_ray.datasets.base import Clip, Dataset
from mrkd_ray.datasets.checking.scan import digest
from mrkd_ray.features import extraction, normalisation
from mrkd_ray.features.extraction import extract
from mrkd_ray.features.normalisation import STD_FLOOR, statistics
from mrkd_ray.features.store import Bank, FeatureStore
from mrkd_ray.representations import catalogue as representations
from mrkd_ray.representations import filters
from mrkd_ray.representations.catalogue import compute_clip

LENGTHS = {"a.wav": 5000, "b.wav": 1, "c.wav": 22050, "d.wav": 3000, "e.wav": 12345}


def write(path: Path, samples: int, seed: int) -> None:
    waveform = np.random.default_rng(seed).normal(scale=0.1, size=samples)
    soundfile.write(path, waveform, decoding.SAMPLE_RATE)


def dataset_of(root: Path) -> Dataset:
    paths = sorted(root.glob("*.wav"))
    clips = tuple(Clip(clip_id=path.name, path=path, labels=("x",)) for path in paths)
    return Dataset(name="tiny", root=root, clips=clips)


def digests_of(dataset: Dataset) -> dict[str, str]:
    return {c.clip_id: digest(c.path) for c in dataset.clips}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five clips of different lengths."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for seed, (name, samples) in enumerate(LENGTHS.items()):
        write(folder / name, samples, seed)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files decoded so far."""
    names: list[str] = []
    load = decoding.load_or_stream

    def counting(
        path: Path, stretch: decoding.Stretch | None
    ) -> decoding.Recording | decoding.LongRecording:
        names.append(path.name)
        return load(path, stretch)

    monkeypatch.setattr(decoding, "load_or_stream", counting)
    return names


def run(
    root: Path, names: Sequence[str] = ("logmel64",), cache: str = "cache", **options: Any
) -> dict[str, FeatureStore]:
    dataset = dataset_of(root)
    digests = digests_of(dataset)
    stores = {name: FeatureStore(root.parent / cache, dataset, name, digests) for name in names}
    extract(dataset, digests, stores, **options)
    return stores


def clip_frames(bank: Bank, i: int) -> Float32:
    return bank.frames[bank.offsets[i] : bank.offsets[i] + bank.lengths[i]]


def test_bank_holds_each_clip_in_the_order_asked_for(root: Path) -> None:
    stores = run(root, ("logmel64", "cqt"))
    order = ["d.wav", "b.wav", "c.wav", "b.wav"]
    for name, store in stores.items():
        bank = store.bank(order)
        assert bank.offsets.dtype == bank.lengths.dtype == np.int64
        assert bank.lengths.tolist() == [1 + LENGTHS[clip_id] // 220 for clip_id in order]
        for i, clip_id in enumerate(order):
            expected = compute_clip([name], decoding.load(root / clip_id))[name]
            assert np.array_equal(clip_frames(bank, i), expected)
    assert stores["cqt"].bins == stores["cqt"].bank([]).frames.shape[1] == 84
    assert len(stores["cqt"].bank([]).lengths) == 0


def test_a_long_recording_goes_by_a_file_that_is_gone_afterwards(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(root, ("logmel64", "cqt"))
    monkeypatch.setattr(decoding, "LONG", 0.5)
    left = root.parent / "parts" / "features" / dataset_of(root).cache_name / ".1f-cqt.parts"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of one that was killed")
    for name, store in run(root, ("logmel64", "cqt"), "parts").items():
        bank, whole = store.bank(sorted(LENGTHS)), expected[name].bank(sorted(LENGTHS))
        for i in range(len(LENGTHS)):
            np.testing.assert_allclose(clip_frames(bank, i), clip_frames(whole, i), atol=1e-3)
        assert not list(store.folder.parent.rglob("*.parts"))


@pytest.mark.filterwarnings("error")
def test_bank_is_mapped_and_writing_to_it_leaves_the_disk_alone(root: Path) -> None:
    store = run(root)["logmel64"]
    frames = store.bank(["a.wav"]).frames
    assert isinstance(frames, np.memmap)
    torch.from_numpy(frames).fill_(7.0)  # warns where the array is read-only
    assert not (store.bank(["a.wav"]).frames == 7.0).any()


def test_missing_clip_is_named(root: Path) -> None:
    store = run(root)["logmel64"]
    with pytest.raises(UserError, match=r"logmel64 is stored for 1 of 2 clips.*'z\.wav'"):
        store.bank(["a.wav", "z.wav"])


def test_each_file_is_decoded_once_for_all_representations_and_only_if_needed(
    root: Path, decoded: list[str]
) -> None:
    run(root, ("logmel64", "mfcc"))
    assert sorted(decoded) == sorted(LENGTHS)
    decoded.clear()
    run(root, ("mfcc", "logmel64"), map_=None)  # everything is there: nothing to map
    assert decoded == []
    stores = run(root, ("mfcc", "logmel128"))
    assert sorted(decoded) == sorted(LENGTHS)
    assert len(stores["mfcc"].index().entries) == len(LENGTHS)
    assert stores["mfcc"].index().frames == stores["logmel128"].index().frames


def test_stored_by_content_changed_is_computed_again_renamed_and_copied_not(
    root: Path, decoded: list[str]
) -> None:
    before = np.array(clip_frames(run(root)["logmel64"].bank(["a.wav"]), 0))
    decoded.clear()

    (root / "a.wav").rename(root / "renamed.wav")
    (root / "copy.wav").write_bytes((root / "c.wav").read_bytes())
    write(root / "d.wav", 4000, seed=99)
    store = run(root)["logmel64"]

    assert decoded == ["d.wav"]
    bank = store.bank(["renamed.wav", "copy.wav", "c.wav", "d.wav"])
    assert np.array_equal(clip_frames(bank, 0), before)
    assert bank.offsets[1] == bank.offsets[2]
    assert bank.lengths[3] == 1 + 4000 // 220


def test_two_new_clips_with_the_same_bytes_share_one_entry(root: Path, decoded: list[str]) -> None:
    (root / "copy.wav").write_bytes((root / "c.wav").read_bytes())
    assert len(run(root)["logmel64"].index().entries) == len(LENGTHS)
    assert len(decoded) == len(LENGTHS)


def test_another_front_end_has_a_folder_of_its_own(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = run(root)["logmel64"]
    monkeypatch.setattr(representations, "FRONTEND", 99)
    new = run(root)["logmel64"]
    assert len(decoded) == 2 * len(LENGTHS)
    assert old.folder != new.folder
    meta = json.loads((new.folder / "meta.json").read_text())
    assert (meta["version"], meta["bins"]) == (new.version, 64)
    assert meta["constants"] == {"mel-64": filters.digest("mel-64")}
    assert meta["params"]["hop"] == 220


def test_data_sets_of_the_same_name_elsewhere_do_not_mix(root: Path) -> None:
    here = run(root)["logmel64"]
    there = root.parent / "other"
    there.mkdir()
    write(there / "a.wav", 1000, seed=5)
    assert run(there)["logmel64"].folder.parent != here.folder.parent


class Killed(BaseException):
    pass


def test_what_was_stored_before_a_kill_is_not_computed_again(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 2)

    def killed_after_one(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
        yield function(items[0])
        raise Killed

    with pytest.raises(Killed):
        run(root, map_=killed_after_one)
    assert decoded == ["a.wav", "b.wav"]
    run(root)
    assert sorted(decoded) == sorted(LENGTHS)


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index[:-9],  # in mid-line
        lambda index: index[:-1],  # without its end
        lambda index: index.replace(b'"offset": 139', b'"offset": 39'),
        lambda index: index[: index.rindex(b"{")] + b"[]\n",
    ],
)
def test_torn_last_line_and_stray_frames_are_cut_off_and_only_that_clip_computed(
    root: Path, decoded: list[str], damage: Callable[[bytes], bytes]
) -> None:
    store = run(root)["logmel64"]
    whole = {c: np.array(clip_frames(store.bank([c]), 0)) for c in LENGTHS}
    decoded.clear()
    index = store.folder / "index.jsonl"
    before = index.read_bytes()
    index.write_bytes(damage(before))
    assert index.read_bytes() != before
    with (store.folder / "frames.f32").open("ab") as file:
        file.write(b"garbage")

    with pytest.raises(UserError, match=r"e\.wav"):
        store.bank(list(LENGTHS))
    store = run(root)["logmel64"]

    assert decoded == ["e.wav"]
    assert index.read_bytes() == before
    bank = store.bank(list(LENGTHS))
    for i, clip_id in enumerate(LENGTHS):
        assert np.array_equal(clip_frames(bank, i), whole[clip_id])
    frames = sum(1 + samples // 220 for samples in LENGTHS.values())
    assert (store.folder / "frames.f32").stat().st_size == frames * 64 * 4


def test_lost_frames_are_computed_again(root: Path, decoded: list[str]) -> None:
    store = run(root)["logmel64"]
    decoded.clear()
    path = store.folder / "frames.f32"
    path.write_bytes(path.read_bytes()[:-1])
    store = run(root)["logmel64"]
    assert decoded == ["e.wav"]
    expected = compute_clip(["logmel64"], decoding.load(root / "e.wav"))["logmel64"]
    assert np.array_equal(clip_frames(store.bank(["e.wav"]), 0), expected)


def test_second_writer_waits_and_then_finds_everything(
    root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    second_waits = threading.Event()

    class Lock(FileLock):
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is second:
                second_waits.set()
            return super().acquire(*args, **kwargs)

    def slow_map(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
        second.start()
        assert second_waits.wait(20), "the second writer did not ask for the lock"
        return map(function, items)

    found: dict[str, FeatureStore] = {}
    second = threading.Thread(target=lambda: found.update(run(root)))
    monkeypatch.setattr(extraction, "FileLock", Lock)
    run(root, map_=slow_map)
    second.join(20)
    assert sorted(decoded) == sorted(LENGTHS)
    assert len(found["logmel64"].bank(list(LENGTHS)).lengths) == len(LENGTHS)


def test_results_in_any_order_from_other_processes_give_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(root, ("logmel64", "mfcc"))
    monkeypatch.setattr(extraction, "CHUNK", 1)

    def backwards(function: Callable[[X], Y], items: Sequence[X]) -> Iterator[Y]:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield from pool.map(function, items[::-1])

    other = run(root, ("logmel64", "mfcc"), cache="c2", map_=backwards)
    for name in plain:
        a, b = plain[name].bank(list(LENGTHS)), other[name].bank(list(LENGTHS))
        assert not np.array_equal(a.offsets, b.offsets)
        for i in range(len(LENGTHS)):
            assert np.array_equal(clip_frames(a, i), clip_frames(b, i))
        left, right = statistics(a), statistics(b)
        assert np.array_equal(left.mean, right.mean)
        assert np.array_equal(left.std, right.std)


def test_progress_counts_clips(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 2)
    seen: list[tuple[int, int]] = []
    run(root, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    run(root, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 4


def test_bad_clip_is_named_and_the_good_ones_of_its_chunk_are_kept(
    root: Path, decoded: list[str]
) -> None:
    (root / "c.wav").write_text("this is text")
    with pytest.raises(UserError, match=r"clip 'c\.wav'.*--skip-bad"):
        run(root)
    decoded.clear()
    write(root / "c.wav", 2000, seed=1)
    run(root)
    assert decoded == ["c.wav"]


def test_unknown_representation_is_refused_before_any_work(root: Path, decoded: list[str]) -> None:
    with pytest.raises(UserError, match="unknown representation 'logmel'"):
        run(root, ("cqt", "logmel"))
    assert decoded == []
    assert not (root.parent / "cache").exists()


def bank_of(clips: Sequence[Float32]) -> Bank:
    lengths = np.array([len(clip) for clip in clips], np.int64)
    return Bank(np.concatenate(clips), np.cumsum(lengths) - lengths, lengths)


@pytest.mark.parametrize("block", [normalisation.BLOCK, 50])
def test_statistics_equal_those_of_all_frames_with_librosas_deltas(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalisation, "BLOCK", block)
    rng = np.random.default_rng(0)
    # A spread from wide to one that single precision would lose beside a mean of -90.
    spread = np.array([15, 5, 1, 0.1, 0.01])
    clips = [rng.normal(-90, spread, size=(n, 5)).astype(np.float32) for n in (1, 3, 40, 300)]
    together = np.concatenate(
        [
            np.stack(
                [
                    clip.T,
                    librosa.feature.delta(clip.T, order=1, mode="nearest"),
                    librosa.feature.delta(clip.T, order=2, mode="nearest"),
                ]
            )
            for clip in [clip.astype(np.float64) for clip in clips]
        ],
        axis=-1,
    )
    result = statistics(bank_of(clips))
    assert result.mean.dtype == result.std.dtype == np.float32
    assert np.allclose(result.mean, together.mean(axis=-1), rtol=1e-6, atol=1e-6)
    assert np.allclose(result.std, together.std(axis=-1), rtol=1e-6)


def test_statistics_are_of_the_clips_asked_for_only(root: Path) -> None:
    store = run(root)["logmel64"]
    part = store.bank(["e.wav", "a.wav"])
    alone = bank_of([np.array(clip_frames(part, 0)), np.array(clip_frames(part, 1))])
    assert np.array_equal(statistics(part).mean, statistics(alone).mean)
    assert np.array_equal(statistics(part).std, statistics(alone).std)


def test_one_scale_is_the_statistics_of_all_bins_together() -> None:
    rng = np.random.default_rng(0)
    clip = rng.normal([1, 5, 3], [0.1, 2, 7], (80, 3)).astype(np.float32)
    found = statistics(bank_of([clip]), one_scale=True)
    assert found.mean.shape == found.std.shape == (3, 3)
    assert np.array_equal(found.std, np.tile(found.std[:, :1], 3))
    np.testing.assert_allclose(found.mean[0], clip.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.std[0], clip.std(), rtol=1e-5)


def test_std_of_a_constant_bin_is_floored() -> None:
    result = statistics(bank_of([np.full((50, 2), -100.0, np.float32)]))
    assert np.array_equal(result.std, np.full((3, 2), STD_FLOOR, np.float32))
    assert result.mean[0].tolist() == [-100.0, -100.0]


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no frames"):
        statistics(Bank(np.zeros((0, 2), np.float32), np.zeros(0, int), np.zeros(0, int)))


# Damage ------------------------------------------------------------------------------------------


def change_frames(store: FeatureStore, change: Callable[[NDArray[np.float32]], None]) -> None:
    """Write to the frames of a store behind its back."""
    path = store.folder / "frames.f32"
    frames = np.fromfile(path, "<f4").reshape(-1, store.bins)
    change(frames)
    frames.tofile(path)


def zeros(frames: NDArray[np.float32]) -> None:
    frames[:3] = 0


def one_bit(frames: NDArray[np.float32]) -> None:
    frames.view(np.uint32)[5, 7] ^= 1


@pytest.mark.parametrize("change", [zeros, one_bit])
def test_frames_that_are_not_those_stored_are_named_and_computed_again(
    change: Callable[[NDArray[np.float32]], None], root: Path, decoded: list[str]
) -> None:
    store = run(root)["logmel64"]
    clips = sorted(LENGTHS)
    before = [clip_frames(store.bank(clips), i).copy() for i in range(len(clips))]
    change_frames(store, change)
    with pytest.raises(Damaged, match=r"frames\.f32: damaged: the frames of 1 clips, such as 'a"):
        store.bank(clips)
    store.bank(clips[1:])  # the others are good
    decoded.clear()
    store = run(root)["logmel64"]
    assert decoded == ["a.wav"]
    for i, frames in enumerate(before):
        np.testing.assert_array_equal(clip_frames(store.bank(clips), i), frames)
    decoded.clear()
    run(root)
    assert decoded == []


def test_an_index_without_sums_is_read_as_before(root: Path, decoded: list[str]) -> None:
    store = run(root)["logmel64"]
    index = store.folder / "index.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    assert all(len(line.pop("sha256")) == 64 for line in lines)
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    decoded.clear()
    assert run(root)["logmel64"].bank(sorted(LENGTHS)).lengths.sum() > 0
    assert decoded == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"digest": "x", "offset": 0, "frames": -3}',
        b'{"digest": "x", "offset": 0, "frames": 1e999}',
        b'{"digest": "x", "offset": true, "frames": 1}',
        b'{"digest": 3, "offset": 0, "frames": 1}',
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_a_damaged_line_ends_the_index(line: bytes, root: Path) -> None:
    store = run(root)["logmel64"]
    index = store.folder / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    assert len(store.index().entries) == 2
    run(root)
    assert len(store.index().entries) == len(LENGTHS)


@pytest.mark.parametrize("when", ["before it is decoded", "after it was hashed"])
def test_a_clip_that_is_swapped_after_the_check_is_not_stored_under_its_digest(
    when: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = dataset_of(root)
    digests = digests_of(dataset)
    swapped = root / "c.wav"
    load = decoding.load_or_stream

    def other(path: Path, stretch: None) -> decoding.Recording | decoding.LongRecording:
        if path == swapped and when == "after it was hashed":
            write(swapped, LENGTHS["c.wav"], seed=77)
        return load(path, stretch)

    if when == "before it is decoded":
        write(swapped, LENGTHS["c.wav"], seed=77)
    monkeypatch.setattr(decoding, "load_or_stream", other)
    store = FeatureStore(root.parent / "cache", dataset, "logmel64", digests)
    with pytest.raises(UserError, match=r"'c\.wav' cannot be used: it was written to since"):
        extract(dataset, digests, {"logmel64": store})
    assert digests["c.wav"] not in store.index().entries


def test_features_that_are_not_finite_are_not_stored(root: Path) -> None:
    samples = np.full(4000, 0.1, np.float32)
    samples[100] = 1e25
    soundfile.write(root / "b.wav", samples, decoding.SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"'b\.wav' cannot be used: its logmel64 is not finite"):
        run(root)


def test_statistics_that_are_not_finite_are_refused(root: Path) -> None:
    store = run(root)["logmel64"]
    index = store.folder / "index.jsonl"
    index.write_text(re.sub(r', "sha256": "\w+"', "", index.read_text()))  # of an older version
    change_frames(store, lambda frames: frames[2].fill(np.nan))
    with pytest.raises(UserError, match="not finite"):
        statistics(store.bank(sorted(LENGTHS)))


def test_one_that_waits_for_another_run_says_so(root: Path) -> None:
    store = run(root, ("logmel64",))["logmel64"]
    folder = store.folder.parent
    told: list[str] = []
    begun, over = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(folder / "lock"):
            begun.set()
            over.wait(60)

    @contextmanager
    def waiting(what: str) -> Iterator[None]:
        told.append(what)
        over.set()
        yield

    threading.Thread(target=other).start()
    assert begun.wait(60)

    run(root, ("cqt",), waiting=waiting)
    assert told == [f"Waiting for another run that computes features in {folder}"]
    run(root, ("mfcc",), waiting=waiting)
    assert len(told) == 1


@pytest.mark.parametrize("name", ["index.jsonl", "frames.f32"])
def test_a_pipe_in_a_files_place_is_not_waited_for(
    name: str, root: Path, decoded: list[str]
) -> None:
    store = run(root)["logmel64"]
    (store.folder / name).unlink()
    os.mkfifo(store.folder / name)
    decoded.clear()
    assert run(root)["logmel64"].bank(sorted(LENGTHS)).lengths.sum() > 0
    assert len(decoded) == len(LENGTHS)
