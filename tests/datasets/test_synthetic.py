import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mrkd_ray.datasets import synthetic
from mrkd_ray.datasets.opening import open_dataset
from mrkd_ray.datasets.synthetic import make_clip, make_mixtures, make_synthetic


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, clips_per_class=10)
    return root


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "meta.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_seed_decides_every_byte(root: Path, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "again", clips_per_class=10)
    make_synthetic(tmp_path / "other", clips_per_class=10, seed=1)
    again, other = contents(tmp_path / "again"), contents(tmp_path / "other")
    assert contents(root) == again
    assert again.keys() == other.keys()
    assert [name for name in again if again[name] == other[name]] == ["meta.csv"]


def test_clips_do_not_depend_on_each_other(root: Path, tmp_path: Path) -> None:
    make_synthetic(tmp_path / "few", clips_per_class=2)
    few, all_ = contents(tmp_path / "few"), contents(root)
    assert len(few) == 2 * len(synthetic.SOUNDS) + 1
    assert all(few[name] == all_[name] for name in few if name != "meta.csv")
    assert len(set(all_.values())) == len(all_)


def test_meta_lists_the_clips_in_balanced_folds(root: Path) -> None:
    assert list(rows(root)[0]) == ["filename", "label", "fold"]
    assert {row["filename"] for row in rows(root)} == {p.name for p in (root / "audio").iterdir()}
    assert len({row["label"] for row in rows(root)}) == len(synthetic.SOUNDS) >= 12
    counts = Counter((row["label"], row["fold"]) for row in rows(root))
    assert set(counts.values()) == {2}
    assert {fold for _, fold in counts} == {"1", "2", "3", "4", "5"}


def test_clips_are_sound(root: Path) -> None:
    lengths, peaks = [], []
    for path in (root / "audio").iterdir():
        assert soundfile.info(path).subtype == "PCM_16"
        wave, rate = soundfile.read(path)
        assert (rate, wave.ndim) == (22_050, 1)
        assert np.isfinite(wave).all()
        lengths.append(len(wave) / rate)
        peaks.append(np.abs(wave).max())
        assert (np.abs(wave) > 0).mean() > 0.9, "noise all through, so no silence to learn from"
    assert 1.2 <= min(lengths) < 1.4
    assert 2.3 < max(lengths) <= 2.5
    assert 0.02 < min(peaks) < 0.1, "random level"
    assert 0.5 < max(peaks) < 0.75, "never clipped"


def clean(monkeypatch: pytest.MonkeyPatch, label: str, number: int) -> np.ndarray:
    """A clip almost without background noise and as long as its event."""
    monkeypatch.setattr(synthetic, "SNR_DB", (60.0, 60.0))
    monkeypatch.setattr(synthetic, "SECONDS", (1.5, 1.5))
    monkeypatch.setattr(synthetic, "EVENT_SECONDS", (1.5, 1.5))
    return make_clip(label, np.random.default_rng([7, number]))


def centroid(wave: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float((np.fft.rfftfreq(len(wave), 1 / 22_050) * power).sum() / power.sum())


def peak_hertz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 17))
    return float(spectrum.argmax() / (1 << 17) * 22_050)


def strongest_rate(wave: np.ndarray) -> float:
    """The frequency in Hz at which the level swings most."""
    level = np.sqrt(np.convolve(wave**2, np.ones(441) / 441, "valid"))[::220]
    spectrum = np.abs(np.fft.rfft((level - level.mean()) * np.hanning(len(level)), 4096))
    return float(spectrum.argmax() / 4096 * 22_050 / 220)


@pytest.mark.parametrize("number", range(5))
def test_classes_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    sounds = {label: clean(monkeypatch, label, number) for label in synthetic.SOUNDS}
    quarter = len(sounds["glide_up"]) // 4
    for label, sign in (("glide_up", 1), ("glide_down", -1)):
        change = peak_hertz(sounds[label][-quarter:]) / peak_hertz(sounds[label][:quarter])
        assert 0.5 < sign * 12 * np.log2(change) < 6.5
    assert 2.5 < strongest_rate(sounds["tremolo_slow"]) < 6.5
    assert 7.5 < strongest_rate(sounds["tremolo_fast"]) < 13.5
    assert 3500 < centroid(sounds["hiss_low"]) < centroid(sounds["hiss_high"]) < 10_000
    for label, even in (("tone_hollow", False), ("tone_reedy", True)):
        pitch = peak_hertz(sounds[label])
        spectrum = np.abs(np.fft.rfft(sounds[label] * np.hanning(len(sounds[label])), 1 << 17))
        at = [spectrum[round(k * pitch / 22_050 * (1 << 17))] for k in (1, 2)]
        assert bool(at[1] > 0.2 * at[0]) is even


def test_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(path: Path, *_: object, **__: object) -> None:
        written.append(path)
        if len(written) == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", write)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "synthetic", clips_per_class=10)
    assert len(written) == 15
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, seen = tmp_path / "new" / "synthetic", []
    write = soundfile.write

    def spy(path: Path, *args: object, **kwargs: object) -> None:
        seen.append(root.exists())
        write(path, *args, **kwargs)

    monkeypatch.setattr(soundfile, "write", spy)
    make_synthetic(root, clips_per_class=1)
    assert seen == [False] * len(synthetic.SOUNDS)
    assert [path.name for path in root.parent.iterdir()] == ["synthetic"]


def test_another_process_may_be_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "synthetic"
    write = soundfile.write

    def slow(path: Path, *args: object, **kwargs: object) -> None:
        write(path, *args, **kwargs)
        if not root.exists():
            root.mkdir()
            (root / "meta.csv").write_text("the other's")

    monkeypatch.setattr(soundfile, "write", slow)
    make_synthetic(root, clips_per_class=1)
    assert contents(tmp_path) == {"synthetic/meta.csv": b"the other's"}


def test_never_overwrites(root: Path) -> None:
    before = contents(root)
    with pytest.raises(FileExistsError):
        make_synthetic(root, clips_per_class=1)
    assert contents(root) == before


def test_mixtures_hold_one_to_three_sounds_and_say_which(tmp_path: Path) -> None:
    make_mixtures(tmp_path / "one", clips=60)
    make_mixtures(tmp_path / "again", clips=60)
    assert contents(tmp_path / "one") == contents(tmp_path / "again")
    dataset = open_dataset(tmp_path / "one", tmp_path)
    assert dataset.multi_label
    assert dataset.classes == tuple(sorted(synthetic.SOUNDS))
    assert set(Counter(len(clip.labels) for clip in dataset.clips)) == {1, 2, 3}
    assert {clip.fold for clip in dataset.clips} == {1, 2, 3, 4, 5}
    for clip in dataset.clips:
        wave = soundfile.read(clip.path)[0]
        assert synthetic.PEAK_DBFS[0] - 0.1 <= 20 * np.log10(np.abs(wave).max()) <= -2.9


def test_all_sounds_of_a_mixture_are_heard() -> None:
    rng = np.random.default_rng(0)
    sounds = ["hiss_low", "tone_reedy"]
    one = synthetic.make_mixture(sounds, np.random.default_rng(0))
    parts = [make_clip(label, rng) for label in sounds]
    assert len(one) == max(map(len, parts))
    shares = [abs(np.corrcoef(one[: len(part)], part)[0, 1]) for part in parts]
    assert min(shares) > 0.25
