"""Where the data, the cache and the results lie, and what a run may use.

Each command takes one of these classes, or one made of them: they are the only lists of options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mrkd_ray.config.fields import Folds, Numbers, StrictModel


class Data(StrictModel):
    """Labelled recordings."""

    data: str = Field(
        "synthetic",
        description="A folder with one folder per class, a CSV file, a folder with meta.csv, a "
        "release of FSDKaggle2018, TUT 2018 or ESC-50 (FOLDER#esc10: its subset), or one "
        "that is made: 'synthetic' or 'mixtures' (multi-label).",
    )
    cache: Path = Field(
        Path("cache"), description="Folder for computed representations; shared by all runs."
    )
    skip_bad: bool = Field(
        False, description="Go on without the clips that the check of the data set rejects."
    )


class Processes(StrictModel):
    """Where work is done."""

    runner: Literal["ray", "local"] = Field(
        "ray", description="ray: branches as actors; local: one after the other in this process."
    )
    address: str | None = Field(
        None,
        description="Address of a running Ray cluster (auto, or HOST:PORT); local: start one here. "
        "Default: what the variable RAY_ADDRESS holds, else local.",
    )
    dashboard: bool = Field(
        True, description="Start Ray's dashboard too, where Ray is started here."
    )


class CheckedData(Processes, Data):
    """A data set that is checked and split on these processes."""

    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the split where the data set gives none."
    )


class Preparation(CheckedData):
    """What is computed ahead of runs."""

    unlabelled: Path | None = Field(
        None,
        description="A folder of recordings without labels, at any depth: their soft labels join "
        "the distillation epochs.",
    )
    folds: Annotated[Folds, Numbers] = Field(
        "all", description="Test folds, cross-validated: all, or numbers such as 1,2 or 1..3."
    )


class Branches(CheckedData):
    """Where branches run, and where what they make is written."""

    output: Path = Field(Path("results"), description="Folder under which results are written.")
    gpus_per_branch: float | None = Field(
        None,
        ge=0,
        description="GPUs of one branch actor; fractions share a card. "
        "Default: 1 where the cluster has enough, a share where it has fewer, 0 where none.",
    )
    window_memory: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="resident: keep all windows' channels on the device; streamed: make each batch "
        "from frames in main memory; auto: resident where memory allows. The same results.",
    )
    cpus_per_branch: int = Field(1, ge=1, description="CPU threads of one branch actor.")


class Run(Branches, Preparation):
    """All that a run of cells is told besides the method."""

    overlap: bool = Field(
        False,
        description="On CPUs: branches compute with the threads of the whole cohort, so that one "
        "that waits leaves its core to a slower one. Changes last bits.",
    )
    profile: bool = Field(
        False, description="Write a timeline of each cell, profile.json, for ui.perfetto.dev."
    )
