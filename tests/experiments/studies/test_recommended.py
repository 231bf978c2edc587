"""What `experiments/studies/recommended.py` prints of the test clips that each is right on."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.studies import recommended
from tests.experiments.studies.printed import figures, rows


def test_a_difference_is_printed_with_its_mark_and_the_kind_of_its_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    right, wrong = np.ones(50), np.zeros(50)
    half = np.arange(50) % 2
    hits = {("independent", "a"): [np.array([wrong, right])]}
    hits["distilled", "a"] = [np.array([half, 1 - half])]
    recommended.show(hits)
    text = capsys.readouterr().out
    assert "95 % intervals: bootstrap over clips, paired; ns" in text
    found = rows(text)
    assert figures(found["independent"]) == [0, 100, 100, 100, 100]
    assert figures(found["distilled"])[:3] == [50, 50, 0]
    assert [found[name][-1].strip() for name in ("independent", "distilled")] == ["", "ns"]
