"""Where the data, the cache and the results lie, and what a run may use.

Each command takes one of these classes, or one made of them: they are the only lists of options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from mrkd_ray.common.hashing import hash_of
from mrkd_ray.config.fields import (
    BASIC,
    Folds,
    Numbers,
    StrictModel,
    once,
    regular_expression,
)

UNGROUPED = "none"
"""As `group_by`: each clip is on its own, whatever names look like."""


class Data(StrictModel):
    """Labelled recordings."""

    data: str = Field(
        description="Your labelled recordings: a folder with one folder per class, a folder with "
        "meta.csv, a CSV file, or recordings with tables of Raven or Audacity. Or a release of "
        "FSDKaggle2018, TUT 2018 or ESC-50 (FOLDER#esc10 is its subset). To try without "
        "recordings: synthetic, or mixtures (multi-label), which are made here.",
        examples=["my_clips"],
        json_schema_extra=BASIC,
    )
    cache: Path = Field(
        Path("cache"), description="Folder for computed representations, shared by all runs."
    )
    negatives: Annotated[str | None, StringConstraints(strip_whitespace=True, min_length=1)] = (
        Field(
            None,
            description="Where events are marked in longer recordings: draw clips of what is not "
            "marked too, as many as the median class has, and call their class so.",
            examples=["background"],
        )
    )
    skip_bad: bool = Field(
        False, description="Go on without the clips that the check of the data set rejects."
    )


class Processes(StrictModel):
    """Where work is done."""

    runner: Literal["ray", "local"] = Field(
        "ray",
        description="ray: every branch is a process of its own. local: branches take turns in this "
        "process, without Ray.",
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
        0,
        ge=0,
        lt=2**31,
        description="Seed of the split into folds, where the data set gives none.",
    )
    group_by: Annotated[str | None, AfterValidator(regular_expression)] = Field(
        None,
        description="A regular expression that finds the speaker or source recording in a file's "
        "name, such as '^([^_]+)_' for anna_07.wav: its first group, else the whole match. With a "
        "'/' in it, it looks at the path. Clips of one are never both trained on and tested. "
        f"{UNGROUPED}: each clip is on its own.",
        json_schema_extra=BASIC,
    )


class Preparation(CheckedData):
    """What is computed ahead of runs."""

    unlabelled: Path | None = Field(
        None,
        description="A folder of recordings without labels, at any depth. The branches teach each "
        "other on them too.",
        json_schema_extra=BASIC,
    )
    folds: Annotated[Folds, Numbers, AfterValidator(once)] = Field(
        "all",
        description="Folds that are tested in turn: all, or numbers such as 1,2 or 1..3.",
        json_schema_extra=BASIC,
    )


class Branches(CheckedData):
    """Where branches run, and where what they make is written."""

    output: Path = Field(
        Path("results"),
        description="Folder under which results are written. Of train, grid and distil also the "
        "address of an object store, such as s3://bucket/results, which has a copy of what is "
        "finished.",
        json_schema_extra=BASIC,
    )
    gpus_per_branch: float | None = Field(
        None,
        ge=0,
        description="GPUs of one branch. A fraction shares a card; 2 or more divide each minibatch "
        "(data parallel), a process each. Default: 1 where there are enough, a share where there "
        "are fewer, 0 where there are none.",
    )
    window_memory: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="Where windows are kept. resident: all of them on the device. streamed: made "
        "batch by batch from main memory. auto: resident where memory allows. Results are the "
        "same.",
    )
    cpus_per_branch: int = Field(
        1, ge=1, description="CPU threads of one branch, or of each of its processes."
    )

    @property
    def ranks(self) -> int:
        """Processes of a branch: one for each of several GPUs."""
        return max(1, int(self.gpus_per_branch or 0))

    @model_validator(mode="after")
    def _whole_cards(self) -> Self:
        given = self.gpus_per_branch or 0.0
        if given > 1 and not given.is_integer():
            raise ValueError(f"gpus_per_branch: of more than 1 a whole number (got {given:g})")
        if given > 1 and self.runner == "local":
            raise ValueError(
                f"gpus_per_branch: {given:g} needs a process for each GPU, and runner: local has "
                "one for all: leave one of the two out"
            )
        return self

    @field_validator("output", mode="before")
    @classmethod
    def _is_a_folder(cls, output: Any) -> Any:
        if "://" in str(output):
            raise ValueError("a folder: the address of an object store is for train, grid, distil")
        return output


class Run(Branches, Preparation):
    """All that a run of cells is told besides the method."""

    overlap: bool = Field(
        False,
        description="On CPUs: a branch that waits lends its core to a slower one. Changes last "
        "bits.",
    )
    quorum: int | None = Field(
        None,
        ge=1,
        description="A cohort goes on without a branch that is lost, as long as so many are left: "
        "one that diverges, or whose process died three times. The result names what was lost. "
        "Default: all its branches, or the cell fails.",
    )
    tensorboard: bool = Field(
        False, description="Write the figures of each cycle for TensorBoard, a folder a cell."
    )
    mlflow: Annotated[str | None, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        None,
        description="Send parameters, the figures of each cycle and the tables to MLflow: a "
        "server's address, or sqlite:///FILE. It needs the extra mlflow.",
        examples=["sqlite:///mlflow.db"],
    )
    wandb: Annotated[str | None, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        None,
        description="Send them to a project of Weights & Biases; without a network where "
        "WANDB_MODE=offline is set. It needs the extra wandb.",
    )
    profile: bool = Field(
        False, description="Write a timeline of each cell, profile.json, for ui.perfetto.dev."
    )
    mirror: str | None = Field(
        None,
        description="The object store that has a copy of output. An output that is an address is "
        "read as this, with a folder of the cache as output.",
    )

    @model_validator(mode="before")
    @classmethod
    def _output_in_a_store(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "://" not in str(values.get("output")):
            return values
        store = str(values["output"]).rstrip("/")
        local = Path(values.get("cache") or "cache") / "outputs" / hash_of(store)
        return values | {"output": local, "mirror": store}
