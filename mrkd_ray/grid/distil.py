"""From finished cells to a student: `mrkd distil`."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mrkd_ray.cells import teachers as frozen_teachers
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.reading import Damaged
from mrkd_ray.config.grid_files import read_written
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import DistilConfig, GridConfig
from mrkd_ray.grid.run import run
from mrkd_ray.inference.model_folder import read_config
from mrkd_ray.results.gather import Results
from mrkd_ray.training.branch_task import FrozenTeacher

PYTHON = "distil()"

OF_THE_DATA = ("data", "skip_bad", "split_seed", "group_by")
"""Fields of the teachers' `grid.yaml` that are the student's too where it does not say others."""
OF_THE_LABELS = ("window", "verified_only", "label_noise", "label_noise_kind", "labelled")
"""And what the teachers' models were trained with."""


def distil(config: DistilConfig | None = None, *, resume: bool = False, **fields: Any) -> Results:
    """Train a student under trained branches: the fields of `DistilConfig`, or that object.

    Example:
        `distil(teachers="results/train/cells/independent_*", student="logmel64:vgg_small")`

    Raises:
        UserError: bad input, before any training.
        CellsFailed: some students did not finish; the finished ones are kept.
        Stopped: Ctrl-C; says how far they are.
        TypeError: both an object and keywords.
    """
    if config is not None and fields:
        raise TypeError(f"distil() takes a configuration or fields, not both: {', '.join(fields)}")
    asked = as_grid(config or parse(DistilConfig, fields, PYTHON))
    return run(asked, resume=resume, console=Console(stderr=True))


def as_grid(config: DistilConfig) -> GridConfig:
    """Return the grid of one student; what it does not say of data and labels is its teachers'.

    Raises:
        UserError: teachers are no finished cells, or do not agree on their data.
    """
    found = frozen_teachers.find(config.teachers)
    theirs = [_trained_with(teacher) for teacher in found]
    given: dict[str, Any] = {}
    for name in (*OF_THE_DATA, *OF_THE_LABELS):
        if name in config.model_fields_set:
            continue
        values = [made_with[name] for made_with in theirs if name in made_with]
        if any(value != values[0] for value in values):
            raise UserError(
                f"{name}: teachers were trained with {values[0]!r} and with "
                f"{next(value for value in values if value != values[0])!r}: give those of one kind"
            )
        given |= {name: values[0]} if values else {}
    if not given.get("data", config.data):
        raise UserError(
            f"data: missing. {found[0].folder.parents[3] / 'grid.yaml'} is gone, which said what "
            "the teachers were trained on: say it with --data"
        )
    drawn = {name: given[name] for name in ("label_noise", "labelled") if name in given}
    seeds = {made_with.get("seed", config.seed) for made_with in theirs}
    is_drawn = drawn.get("label_noise", 0) > 0 or drawn.get("labelled", 1) < 1
    if is_drawn and (other := seeds - {config.seed}):
        raise UserError(
            f"seed: it draws which labels are wrong or hidden, and the student's is {config.seed}, "
            f"a teacher's {min(other)}: give teachers of one seed, and --seed"
        )
    own = {name: getattr(config, name) for name in DistilConfig.model_fields}
    student, temperature, seed = (own.pop(name) for name in ("student", "temperature", "seed"))
    folds = {teacher.fold for teacher in found}
    if config.folds == "all":
        own["folds"] = tuple(sorted(folds))
    return parse(
        GridConfig,
        {
            **own,
            **given,
            "cohorts": [[str(student)]],
            "temperatures": [temperature],
            "seeds": [seed],
            "b": 0,
            "d": 1,
            "warm_up": 0.0,
            "soft_labels": "window" if any(each.cross_fit for each in found) else "virtual",
            "divergence": "forward",
            "t_squared": True,
            "average": "logits",
        },
        PYTHON,
    )


def _trained_with(teacher: FrozenTeacher) -> dict[str, Any]:
    """Return the options of a teacher's data and labels."""
    cell = teacher.folder.parents[1]
    try:
        written = read_written(cell.parents[1] / "grid.yaml")
    except Damaged:  # it was moved: the student says where the data lie
        written = {}
    config = read_config(teacher.folder)
    training = config.get("training", {})
    made_with = {name: written[name] for name in OF_THE_DATA if name in written}
    made_with |= {"seed": config["seed"]} if "seed" in config else {}
    return made_with | {name: training[name] for name in OF_THE_LABELS if name in training}
