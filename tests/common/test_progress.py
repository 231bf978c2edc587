"""Progress has figures on a terminal and says nothing elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from mrkd_ray.common.progress import Display


def shown(terminal: bool) -> str:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=terminal, width=160, no_color=True)) as display:
        display.step("A step with nothing to do")
        display.step("Checking clips")(3, 7)
        display.grid(2, 8)
        display.cycle("key", "logmel64:a+cqt:b, T 2", 3, 4, "accuracy 62.5 75.0 %")
    return out.getvalue()


def test_a_terminal_sees_steps_cells_and_figures() -> None:
    text = shown(terminal=True)
    assert "3/7" in text
    assert "3/8" in text  # a resumed cell counts from where it stands
    assert "logmel64:a+cqt:b, T 2" in text
    assert "accuracy 62.5 75.0 %" in text
    assert "nothing to do" not in text


def test_a_file_sees_nothing() -> None:
    assert shown(terminal=False).strip() == ""
