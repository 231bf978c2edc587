"""`mrkd listen`: windows of a microphone that is played here."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrkd_ray.audio.decoding import Waveform
from mrkd_ray.cli import listening
from mrkd_ray.inference.classifier import Classifier
from tests.cli.test_main import mrkd, refused
from tests.inference.test_classifier import classifier  # noqa: F401  # a fixture

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 4 * RATE).astype(np.float32)


def test_each_window_is_said_when_it_has_ended(classifier: Classifier) -> None:  # noqa: F811
    given = []

    def blocks() -> Iterator[Waveform]:
        for part in np.split(NOISE, 40):
            given.append(part)
            yield part

    said = listening.heard(classifier, blocks(), RATE, window=1.5, hop=1.0)
    first = next(said)
    assert len(given) == 15  # no block more than it takes
    assert (first.start, first.end) == (0.0, 1.5)
    expected = classifier.predict(NOISE[: RATE * 3 // 2], sample_rate=RATE)
    np.testing.assert_array_equal(first.branches, expected.branches)
    assert [each.start for each in said] == [1.0, 2.0, 2.5]
    assert classifier.window == pytest.approx(1.5, abs=0.01)


def played(samples: np.ndarray | None) -> Any:
    """A sounddevice whose microphone hears these samples, and then Ctrl-C; or that has none."""
    module: Any = types.ModuleType("sounddevice")
    module.PortAudioError = RuntimeError

    def query_devices(device: object, kind: str) -> dict[str, float]:
        if samples is None:
            raise ValueError("No input device matching")
        return {"default_samplerate": float(RATE)}

    class InputStream:
        def __init__(self, rate: int, size: int, device: object, **options: Any) -> None:
            assert (rate, size) == (RATE, RATE // 10)
            self._take = options["callback"]

        def __enter__(self) -> None:
            for part in np.split(samples, 40):
                self._take(part[:, None], len(part), None, None)
            self._take(np.zeros((0, 1)), 0, None, None)

        def __exit__(self, *error: object) -> None: ...

    module.query_devices, module.InputStream = query_devices, InputStream
    return module


def test_the_microphone_gives_lines_and_ctrl_c_ends_it(
    classifier: Classifier,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = listening.segments

    def until_silence(blocks: Iterator[Waveform], *rest: Any) -> Iterator[Any]:
        def some() -> Iterator[Waveform]:
            for block in blocks:
                if not len(block):
                    raise KeyboardInterrupt
                yield block

        return real(some(), *rest)

    monkeypatch.setattr(listening, "segments", until_silence)
    monkeypatch.setitem(sys.modules, "sounddevice", played(NOISE))
    cell = classifier.branches[0].folder.parents[1]
    done = mrkd("listen", cell, "--window", "1", "--top", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.count(" %") == 1 for line in lines)


def test_where_there_is_none_one_sentence_says_so(
    classifier: Classifier,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    cell = classifier.branches[0].folder.parents[1]
    monkeypatch.setitem(sys.modules, "sounddevice", played(None))
    refused(mrkd("listen", cell), "no microphone: the system gives none to listen to")
    refused(mrkd("listen", cell, "--device", "USB"), "--device USB: the system gives none")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    refused(mrkd("listen", cell), "pip install -e '.[listen]'")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(mrkd("listen", cell), "PortAudio, which is not installed here")
