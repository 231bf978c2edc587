from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.method import Training
from mrkd_ray.datasets.base import Annotated, Clip, Dataset
from mrkd_ray.datasets.checking.scan import scan
from mrkd_ray.datasets.events import SHORTEST, clip_id, in_windows, together, with_negatives
from mrkd_ray.features.extraction import extract
from mrkd_ray.features.store import FeatureStore

Marks = list[tuple[str, float, float, str]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 20 s, twice; the last 10 s of the second one are silent."""
    folder = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        sound = rng.uniform(-0.5, 0.5, 20 * 8000)
        sound[80_000:] *= name == "a.wav"
        soundfile.write(folder / name, sound, 8000)
    return folder


def dataset_of(root: Path, marks: Marks, *, multi_label: bool = False) -> Dataset:
    clips = tuple(
        Clip(
            clip_id=clip_id(name, start, end),
            path=root / name,
            labels=tuple(label.split(",")),
            group=name,
            stretch=(start, end),
        )
        for name, start, end, label in marks
    )
    annotated = tuple(Annotated(name, root / name, 20.0) for name in ("a.wav", "b.wav"))
    return Dataset(name="d", root=root, clips=clips, annotated=annotated, multi_label=multi_label)


def test_the_shortest_clip_is_the_default_window() -> None:
    assert Training.model_fields["window"].default == SHORTEST


def test_an_event_stands_in_the_middle_of_its_window(root: Path) -> None:
    marks = [("a.wav", 5.0, 5.5, "x"), ("a.wav", 0.0, 0.0, "x"), ("b.wav", 19.0, 19.8, "y")]
    dataset = dataset_of(root, [*marks, ("b.wav", 2.0, 6.0, "y")])
    stretches = [clip.stretch for clip in in_windows(dataset, 3.0).clips]
    assert stretches == [(3.75, 6.75), (0.0, 3.0), (17.0, 20.0), (2.0, 6.0)]
    assert in_windows(dataset, 30.0).clips[0].stretch == (0.0, 20.0)
    assert [clip.clip_id for clip in in_windows(dataset).clips] == list(dataset.by_id)


def test_events_of_other_labels_in_a_window_are_labels_where_there_may_be_several(
    root: Path,
) -> None:
    marks = [
        ("a.wav", 5.0, 5.4, "x"),
        ("a.wav", 5.6, 5.8, "y"),
        ("a.wav", 3.0, 18.0, "rain"),
        ("b.wav", 5.0, 5.2, "x"),
    ]
    several = in_windows(dataset_of(root, marks, multi_label=True), 1.5)
    assert [clip.label for clip in several.clips] == ["rain,x,y", "rain,x,y", "rain", "x"]
    one = in_windows(dataset_of(root, marks), 1.5)
    assert [clip.label for clip in one.clips] == ["x", "y", "rain", "x"]
    assert "another label within the same 1.5 s (2): a.wav@5-5.4, a.wav@5.6-5.8" in one.notes[0]


def test_events_sound_together_where_one_is_mostly_in_the_other(root: Path) -> None:
    marks = [
        ("a.wav", 3.0, 5.0, "x"),
        ("a.wav", 4.9, 6.9, "y"),  # touches the first
        ("a.wav", 6.0, 6.0, "z"),  # a moment
        ("b.wav", 6.0, 6.0, "z"),
        ("a.wav", 3.5, 4.0, "x"),  # the same label
    ]
    pairs = together(dataset_of(root, marks).clips)
    assert [(a.clip_id, b.clip_id) for a, b in pairs] == [("a.wav@4.9-6.9", "a.wav@6-6")]


def test_clips_of_one_file_have_the_features_of_files_that_hold_only_them(
    root: Path, tmp_path: Path
) -> None:
    marks = [("a.wav", 3.0, 5.0, "x"), ("a.wav", 7.0, 7.3, "y"), ("b.wav", 3.0, 5.0, "x")]
    dataset = in_windows(dataset_of(root, marks))
    scans = scan(dataset, tmp_path, map)
    assert len({each.digest for each in scans.values()}) == 3
    cut = []
    for i, clip in enumerate(dataset.clips):
        assert clip.stretch
        start, end = (round(time * 8000) for time in clip.stretch)
        samples, _ = soundfile.read(clip.path, dtype="int16")
        soundfile.write(tmp_path / f"{i}.wav", samples[start:end], 8000)
        cut.append(Clip(clip_id=clip.clip_id, path=tmp_path / f"{i}.wav", labels=clip.labels))
    files = Dataset(name="cut", root=tmp_path, clips=tuple(cut))
    banks = []
    for each in (dataset, files):
        found = scan(each, tmp_path, map)
        digests = {clip_id: found[clip_id].digest for clip_id in found}
        store = FeatureStore(tmp_path, each, "logmel64", digests)
        extract(each, digests, {"logmel64": store})
        banks.append(store.bank(list(each.by_id)))
    assert banks[0].lengths.tolist() == banks[1].lengths.tolist()
    for i, n in enumerate(banks[0].lengths):
        rows = [bank.frames[bank.offsets[i] : bank.offsets[i] + n] for bank in banks]
        np.testing.assert_array_equal(*rows)


def test_scans_are_made_again_where_the_window_is_another(root: Path, tmp_path: Path) -> None:
    dataset = dataset_of(root, [("a.wav", 3.0, 3.1, "x")])
    seconds = [
        scan(in_windows(dataset, window), tmp_path, map)["a.wav@3-3.1"].seconds
        for window in (1.5, 3.0)
    ]
    assert seconds == [1.5, 3.0]


MANY: Marks = [("a.wav", float(i), i + 0.5, "x") for i in (3, 10, 17)]
MANY += [("b.wav", float(i), i + 0.5, "y") for i in (2, 5, 8)]


def test_negatives_lie_where_nothing_is_marked_and_are_as_many_as_the_median_class(
    root: Path,
) -> None:
    dataset = with_negatives(in_windows(dataset_of(root, MANY)), "background")
    drawn = [clip for clip in dataset.clips if clip.label == "background"]
    assert len(drawn) == 3
    for clip in drawn:
        assert clip.stretch
        start, end = clip.stretch
        assert end - start == pytest.approx(1.5)
        assert clip.group == clip.path.name
        for other in dataset.clips:
            assert other.stretch
            same = other.path == clip.path and other is not clip
            assert not same or other.stretch[1] <= start or other.stretch[0] >= end
    assert dataset.notes == ("background: 3 clips of 1.5 s of what is not marked.",)
    again = with_negatives(in_windows(dataset_of(root, MANY)), "background")
    assert again.clips == dataset.clips


def test_silence_is_no_negative_and_fewer_are_said(root: Path) -> None:
    dataset = dataset_of(root, [("b.wav", i / 2, i / 2, "x") for i in range(20)])
    quiet = Annotated("b.wav", root / "b.wav", 20.0)
    dataset = Dataset(name="d", root=root, clips=dataset.clips, annotated=(quiet,))
    found = with_negatives(in_windows(dataset, 1.0), "background", 1.0)
    assert len(found.clips) == 20
    assert (
        "background: 0 clips of 1 s of what is not marked (the median class has 20)"
        in (found.notes[-1])
    )


def test_negatives_need_marked_events_a_name_of_their_own_and_room(root: Path) -> None:
    whole = Dataset(
        name="d", root=root, clips=(Clip(clip_id="a", path=root / "a.wav", labels=("x",)),)
    )
    with pytest.raises(UserError, match="has no marked events"):
        with_negatives(whole, "background")
    with pytest.raises(UserError, match="'x': a class of that name is there"):
        with_negatives(in_windows(dataset_of(root, MANY)), "x")
    full: Marks = [("a.wav", 0.0, 20.0, "x"), ("b.wav", 0.0, 20.0, "x")]
    with pytest.raises(UserError, match=r"no 1\.5 s of the 2 recordings"):
        with_negatives(in_windows(dataset_of(root, full)), "background")
