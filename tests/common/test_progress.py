"""Progress has figures on a terminal of any width, and lines elsewhere."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from mrkd_ray.common.progress import Display, say

TITLE = "T 2: logmel64:resnet_small+cqt:vgg_small, fold 1, seed 0"
FIGURES = "accuracy 62.5 75.0 %"


def shown(terminal: bool, width: int = 160) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, no_color=True)
    with Display(console) as display:
        with display.waiting("Starting PyTorch"):
            display.line()
        display.step("A step with nothing to do")
        display.step("Checking clips")(3, 7)
        display.grid(2, 8, begun=2)
        display.cycle("key", TITLE, 3, 4, FIGURES, begun=2)
        if not terminal:
            display.line()
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_a_terminal_sees_steps_cells_and_figures_in_one_line_each(width: int) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", shown(True, width)).replace("\r", "\n")
    assert max(map(len, text.splitlines())) <= width
    lines = [line for line in reversed(text.splitlines()) if line.strip()]  # the newest first
    grid = next(line for line in lines if line.startswith("2 cells"))
    cell = next(line for line in lines if line.startswith("  T 2: "))
    waiting = next(line for line in lines if "Starting PyTorch" in line)
    assert "0/" not in waiting  # nobody knows of how many
    assert lines.index(cell) < lines.index(waiting)
    assert any("Checking clips" in line and "3/7" in line for line in lines)
    assert "3/8" in grid  # a resumed cell counts from where it stands
    assert "3/4" in cell
    assert (FIGURES if width > 60 else "62.5 75.0") in cell
    assert TITLE[: max(8, width // 4)] in cell
    assert "nothing to do" not in text


def test_a_file_gets_lines_with_the_time_left() -> None:
    waiting, line = shown(terminal=False).splitlines()
    assert re.fullmatch(r"\d\d:\d\d Starting PyTorch", waiting)
    assert re.fullmatch(
        rf"\d\d:\d\d cell 1/2 {re.escape(TITLE)}: cycle 3/4  {FIGURES}  \d+ s left of all", line
    )  # of 8 cycles 2 were there, 1 took the time, 5 are left


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sentence_is_broken_between_words_on_a_terminal_only(terminal: bool) -> None:
    out = io.StringIO()
    say(Console(file=out, force_terminal=terminal, width=20, no_color=True), "word " * 10 + "end")
    lines = out.getvalue().splitlines()
    assert len(lines) == (3 if terminal else 1)
    assert {word for line in lines for word in line.split()} == {"word", "end"}


def test_a_grid_whose_first_cycle_is_not_there_has_a_line() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=False, width=160)) as display:
        display.grid(3, 90)
        display.line()
    assert out.getvalue().endswith("cell 1/3 is starting\n")


def test_lines_come_by_themselves_and_end_with_the_display() -> None:
    written = threading.Event()

    class Output(io.StringIO):
        def write(self, text: str) -> int:
            written.set()
            return super().write(text)

    out = Output()
    with Display(Console(file=out, force_terminal=False, width=160), every=0.01) as display:
        display.step("Checking clips")(3, 7)
        assert written.wait(30)
    assert "Checking clips 3/7" in out.getvalue()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_cycles_that_a_cell_did_not_need_are_not_waited_for() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=False, width=160)) as display:
        display.grid(2, 80)
        display.cycle("one", "one", 10, 40, FIGURES)
        display.end("one")  # it stopped early
        display.cycle("two", "two", 40, 40, FIGURES)
        display.line()
    assert "cycle 40/40" in out.getvalue()
    assert out.getvalue().rstrip().endswith("  0 s left of all")


def test_a_second_grid_counts_its_own_cells() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=160)) as display:
        display.grid(1, 3)  # `mrkd recommend` measures shortened cells first
        display.cycle("short", TITLE, 3, 3, FIGURES)
        display.end("short")
        display.grid(2, 40)
        display.cycle("key", TITLE, 1, 20, FIGURES)
        display.line()
    assert "cell 1/2 T 2: " in out.getvalue()


def test_a_step_that_is_done_is_not_repeated() -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=False)) as display:
        show = display.step("Checking clips")
        show(7, 7)
        display.line()
    assert out.getvalue() == ""
