"""How many cycles a grid has that does not say it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.common import environment
from mrkd_ray.common.files import write_text
from mrkd_ray.config.method import CPU_CYCLES, GPU_CYCLES, PAPER
from mrkd_ray.config.parsing import parse, to_yaml
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid.opening import open_grid


class Place:
    """A data set, and where its grid's results lie."""

    def __init__(self, clips: Path, cache: Path, output: Path) -> None:
        self.output = output
        self.fields = {"data": str(clips), "cache": cache, "output": output, "runner": "local"}
        self.fields |= {"cohorts": ["logmel64:vgg_small"], "folds": [1]}

    def opened(self, *, resume: bool = False, **fields: object) -> tuple[set[int], set[str], str]:
        """Cycles and keys of the cells, and what was told of them; its folder is as of a run."""
        console = Console(file=(told := io.StringIO()), width=200)
        with open_grid(
            parse(GridConfig, {**self.fields, **fields}, "test"), console, resume=resume
        ) as grid:
            self.asked = grid.config
            keys = {cell.key for cell in grid.cells}
            notes = [line for line in told.getvalue().splitlines() if "cycles" in line]
            return {cell.training.cycles for cell in grid.cells}, keys, "\n".join(notes)

    def ran(self, name: str, **fields: object) -> set[str]:
        """Leave behind what a run leaves that was stopped early."""
        _, keys, _ = self.opened(**fields)
        for key in keys:
            (self.output / name / "cells" / key).mkdir(parents=True)
        write_text(self.output / name / "grid.yaml", to_yaml(self.asked))
        return keys


@pytest.fixture
def place(clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(environment, "local_device", lambda: "cpu")
    return Place(clips, cache, tmp_path)


def test_cycles_that_are_given_are_kept(place: Place) -> None:
    assert place.opened(cycles=7)[::2] == ({7}, "")
    assert place.opened(paper=True)[::2] == ({PAPER["cycles"]}, "")


def test_the_default_is_that_of_the_device_and_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycles, keys, told = place.opened()
    assert cycles == {CPU_CYCLES}
    assert told == f"note: {CPU_CYCLES} cycles: the default without a GPU; --cycles changes it"
    assert place.asked.cycles == CPU_CYCLES  # which grid.yaml says
    assert keys == place.opened(cycles=CPU_CYCLES)[1]
    variants = {"plain": {}, "short": {"cycles": 9}}
    assert place.opened(variants=variants)[0] == {9, CPU_CYCLES}
    monkeypatch.setattr(environment, "local_device", lambda: "cuda")
    assert place.opened()[::2] == (
        {GPU_CYCLES},
        f"note: {GPU_CYCLES} cycles: the default with a GPU; --cycles changes it",
    )


def test_a_run_that_goes_on_has_the_cycles_that_it_was_begun_with(place: Place) -> None:
    old = place.ran("grid", cycles=GPU_CYCLES)  # as earlier versions wrote the default
    _, keys, told = place.opened(resume=True)
    assert keys == old
    assert told.startswith("note: 150 cycles, as in")
    assert place.opened()[1] != old
    assert place.opened(resume=True, cycles=9)[0] == {9}
    new = place.ran("grid-2", cycles=9)
    assert place.opened(resume=True)[1] == new  # the newest
    shutil.rmtree(place.output / "grid-2" / "cells")
    assert place.opened(resume=True)[1] == old  # that has a cell of it
    assert place.opened(resume=True, temperatures=4, mixup=1)[0] == {CPU_CYCLES}  # none has
