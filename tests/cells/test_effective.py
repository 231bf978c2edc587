"""Two cells with the same bits have one key: every option of `Training`, where it acts and not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mrkd_ray.cells.cell import Cell, independent_cell
from mrkd_ray.cells.effective import Circumstances, effective, idle
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.run import run_cell
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.method import DISTILLATION, SCRATCH_LR, Training
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets.splits import Splitter, make_splits
from mrkd_ray.grid.expand import expand, idle_options
from mrkd_ray.grid.network_checks import Initial
from mrkd_ray.training.local_cohort import LocalCohort
from tests.conftest import make_cell

BRANCHES = ("logmel64:vgg_small", "cqt:vgg_small")
SMALL = {"cycles": 2, "batch_size": 8, "lr": 0.02}
CLIP = {"soft_labels": "clip"}
NETWORKS = {"vgg_small": Initial("", "none")}
AT_HOME = Circumstances(  # of a cohort of `BRANCHES` on fold 1 of the small data set
    temperature=2.0,
    device="cpu",
    branches=2,
    default_lr=SCRATCH_LR,
    bins=84,
    clips=12,
    labels=(4, 4, 4),
    held_out=0,
    whole_window=200,
    all_verified=False,
    frozen=(True, False),
)


@dataclass(frozen=True)
class Option:
    """One option of `Training`.

    Attributes:
        other: a value beside the default.
        acts: the other options under which it changes a result.
        idles: pairs of options and circumstances under which it changes nothing.
        trains: whether that is also seen by training.
    """

    other: Any
    acts: Mapping[str, Any] = field(default_factory=dict)
    idles: tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...] = ()
    trains: bool = True


VERIFIED = ({}, {"all_verified": True})
OPTIONS = {
    "cycles": Option(3),
    "b": Option(1, acts=CLIP),
    "d": Option(2, acts=CLIP),
    "batch_size": Option(4),
    "lr": Option(SCRATCH_LR, acts={"lr": 0.02}, idles=(({"lr": None}, {}),)),
    "momentum": Option(0.5),
    "weight_decay": Option(0.1),
    "ema": Option(0.9),
    "mixup": Option(0.5),
    "augment_gain": Option(6.0),
    "augment_shift": Option(0.5),
    "specaugment_time": Option(60),
    "specaugment_bins": Option(20, idles=(({}, {"bins": 0}),), trains=True),
    "window": Option(1.0),
    "class_weights": Option("balanced", acts={"label_noise": 0.5}, idles=(({}, {}),)),
    "gce": Option(0.7),
    "weights": Option("file.pth", idles=(({}, {}),), trains=False),  # `content` has its digest
    "init": Option("folder", idles=(({}, {}),), trains=False),  # likewise
    "warm_up": Option(0.6, acts={"warm_up": 0.0}, idles=(({"warm_up": 0.5}, {}),)),
    "soft_labels": Option("window"),
    "divergence": Option("reverse"),
    "t_squared": Option(True, idles=(({}, {"temperature": 1.0}), ({"kl_weight": 0.0}, {}))),
    "kl_weight": Option(2.0),
    "ce_weight": Option(0.5),
    "average": Option("mean"),
    "teacher_momentum": Option(
        0.3,
        acts=CLIP | {"warm_up": 0.0},
        idles=(
            ({}, {}),
            ({"soft_labels": "window"}, {}),
            (CLIP | {"warm_up": 0.5}, {}),  # one cycle with a teacher: nothing to remember yet
            ({"trust": True, "warm_up": 0.5}, {}),
        ),
    ),
    "trust": Option(True),
    "embedding_weight": Option(
        3.0, idles=(({}, {"frozen": (False, False)}),), trains=False
    ),  # no mn04 here
    "neighbours": Option(
        5,
        acts={"trust": True},
        idles=(({"trust": True}, {"frozen": (False, False)}), ({}, {})),
        trains=False,
    ),
    "early_stop": Option(1, acts={"cycles": 4}),
    "held_out": Option(0.2, trains=False),  # of the splits: refused where nobody looks at them
    "verified_only": Option(True, idles=(VERIFIED,), trains=False),  # of the splits
    "unverified_ce": Option(0.25, idles=(VERIFIED,)),
    "unverified_kl": Option(0.25, idles=(VERIFIED,)),
    "label_noise": Option(0.5),
    "label_noise_kind": Option(
        "next",
        acts={"label_noise": 0.5},
        idles=(({}, {}), ({"label_noise": 0.5}, {"labels": (4, 4)})),
    ),
    "labelled": Option(0.5),
    "cross_fit": Option("1/2"),
    "precision": Option("fp32", acts={"precision": "bf16"}, idles=(({"precision": "auto"}, {}),)),
    "channels_last": Option(False, trains=False),  # may change last bits, or none
    "compile": Option(True, trains=False),  # likewise
}
"""Where `acts` or `idles` name the option itself, that is the value beside `other`."""

SAME = {
    "the whole clip, and its seconds": ({"window": "whole"}, {"window": 1.9955}),
    "windows that differ by less than half a frame": ({}, {"window": 1.497}),
    "more frames to hide than a window has": (
        {"window": 0.8, "specaugment_time": 80},
        {"window": 0.8, "specaugment_time": 120},
    ),
    "shifts of less than half a frame": ({}, {"augment_shift": 0.004}),
    "more bins to hide than there are": ({"specaugment_bins": 84}, {"specaugment_bins": 200}),
    "batches larger than the data": ({"batch_size": 12}, {"batch_size": 64}),
    "wrong labels of less than one clip": ({}, {"label_noise": 0.03}),
    "patience for all cycles": ({"early_stop": 2, "cycles": 3}, {"early_stop": 9, "cycles": 3}),
    "hidden labels of less than one clip": ({}, {"labelled": 0.9}),
}
"""Two ways to ask for the same bits."""


def where_it_acts() -> list[Any]:
    never = {"weights", "init"}  # in no key
    return [
        pytest.param(name, option.acts, {}, id=name)
        for name, option in OPTIONS.items()
        if name not in never
    ]


def where_it_idles() -> list[Any]:
    return [
        pytest.param(name, options, where, id=f"{name}-{i}")
        for name, option in OPTIONS.items()
        for i, (options, where) in enumerate(option.idles)
    ]


def both(name: str, options: Mapping[str, Any]) -> tuple[Training, Training]:
    shared = {**SMALL, **options}
    return Training(**shared), Training(**{**shared, name: OPTIONS[name].other})


def test_every_option_is_in_the_table() -> None:
    assert OPTIONS.keys() == Training.model_fields.keys()


@pytest.mark.parametrize(("name", "options", "where"), where_it_acts())
def test_an_option_that_acts_tells_cells_apart(
    name: str, options: Mapping[str, Any], where: Mapping[str, Any]
) -> None:
    one, other = (effective(each, replace(AT_HOME, **where)) for each in both(name, options))
    assert key(one) != key(other)


@pytest.mark.parametrize(("name", "options", "where"), where_it_idles())
def test_an_option_that_does_nothing_leaves_no_mark_in_a_key(
    name: str, options: Mapping[str, Any], where: Mapping[str, Any]
) -> None:
    one, other = both(name, options)
    assert one != other
    assert key(effective(one, replace(AT_HOME, **where))) == key(
        effective(other, replace(AT_HOME, **where))
    )


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_what_comes_to_the_same_has_one_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    made = [effective(Training(**SMALL | each), AT_HOME) for each in (one, other)]
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_what_comes_to_the_same_trains_the_same(
    one: dict[str, Any], other: dict[str, Any], prepared: Prepared, tmp_path: Path
) -> None:
    asked = [Training(**SMALL | one), Training(**SMALL | other)]
    if one.get("window") == "whole":  # a branch is told seconds
        asked[0] = effective(asked[0], AT_HOME)
    assert same_bits(*asked, prepared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "where"), where_it_acts())
def test_training_differs_where_an_option_acts(
    name: str,
    options: Mapping[str, Any],
    where: Mapping[str, Any],
    prepared: Prepared,
    tmp_path: Path,
) -> None:
    if not OPTIONS[name].trains:
        pytest.skip("what this option changes is not the training, or not for sure")
    one, other = both(name, options)
    assert not same_bits(one, other, unverified(prepared), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "where"), where_it_idles())
def test_training_is_the_same_bit_for_bit_where_an_option_does_nothing(
    name: str,
    options: Mapping[str, Any],
    where: Mapping[str, Any],
    prepared: Prepared,
    tmp_path: Path,
) -> None:
    if not OPTIONS[name].trains:
        pytest.skip("what this option changes is not the training")
    if where.get("bins") == 0:
        pytest.skip("the small data set has no raw samples: see test_augmentation")
    if "labels" in where:
        pytest.skip("the small data set has three classes")
    one, other = both(name, options)
    data = prepared if where.get("all_verified") else unverified(prepared)
    assert same_bits(one, other, data, tmp_path, where.get("temperature", 2.0))


@pytest.mark.parametrize("name", [*DISTILLATION, "b and d"])
def test_baselines_are_one_cell_whatever_distillation_does(name: str) -> None:
    if name == "b and d":
        one, other = (make(Training(**SMALL, **CLIP, b=b, d=d)) for b, d in ((0, 2), (1, 1)))
    else:
        one, other = (make(each) for each in both(name, {}))
    alone = [
        independent_cell(each.names[0], each, device="cpu", content="test") for each in (one, other)
    ]
    assert one.key != other.key
    assert alone[0].key == alone[1].key


@pytest.mark.slow
def test_how_a_cycles_epochs_are_divided_changes_no_baseline(
    prepared: Prepared, tmp_path: Path
) -> None:
    bits = []
    for b, d in ((0, 3), (1, 2), (2, 1)):
        cell = make_cell(BRANCHES[0], temperature=None, **{**SMALL, **CLIP, "b": b, "d": d})
        bits.append(run(cell, prepared, tmp_path / f"{b}{d}"))
    assert bits[0] == bits[1] == bits[2]


def test_a_seed_of_a_split_that_is_given_is_in_no_key(prepared: Prepared) -> None:
    dataset = prepared.dataset
    assert dataset.clips[0].fold is not None
    assert Splitter(seed=5).seed_that_matters(dataset) == 0
    assert Splitter(seed=5, held_out=0.2).seed_that_matters(dataset) == 5
    clips = tuple(replace(clip, fold=None) for clip in dataset.clips)
    assert Splitter(seed=5).seed_that_matters(replace(dataset, clips=clips)) == 5


def test_a_grid_says_what_changes_nothing_and_refuses_variants_that_are_the_same(
    prepared: Prepared,
) -> None:
    asked: dict[str, Any] = {"data": "x", "cohorts": ["+".join(BRANCHES)], "temperatures": "1,2"}
    asked["cycles"] = 4
    options = {"teacher_momentum": 0.5, "t_squared": True, "unverified_ce": 0.5}
    lines = idle_options(parse(GridConfig, asked | options, "test"), prepared, NETWORKS)
    assert lines == [
        "teacher_momentum: 0.5 changes nothing: it is for trust and for soft_labels: clip",
        "t_squared: True changes nothing: at T = 1 it multiplies by 1",
        "unverified_ce: 0.5 changes nothing: every label that could be trained on is verified",
    ]
    assert idle_options(parse(GridConfig, asked, "test"), prepared, NETWORKS) == []
    same = {"variants": {"plain": {}, "slow": {"teacher_momentum": 0.5}}}
    with pytest.raises(UserError, match=r"'plain' and 'slow' are the same: what they differ in"):
        expanded(prepared, **asked | same)


def test_variants_that_are_the_same_at_one_temperature_share_its_cells(prepared: Prepared) -> None:
    squared = {"plain": {}, "squared": {"t_squared": True}}
    cells = expanded(prepared, cohorts=["+".join(BRANCHES)], temperatures="1,2", variants=squared)
    keys = {(c.variant, c.temperature, c.fold): c.key for c in cells if c.temperature}
    assert keys["plain", 1.0, 1] == keys["squared", 1.0, 1]
    assert keys["plain", 2.0, 1] != keys["squared", 2.0, 1]


def test_a_branch_has_one_baseline_whatever_its_mates(prepared: Prepared) -> None:
    mixed = ["cqt:vgg_small + logmel64:vgg_small", "cqt:vgg_small + cqt:resnet101"]
    networks = NETWORKS | {"resnet101": Initial("", "imagenet", weights="imagenet")}
    for options in ({"lr": SCRATCH_LR}, {"precision": "fp32"}, {"weights": "none"}):
        cells = expanded(prepared, networks, cohorts=mixed, **options)
        alone = [c for c in cells if c.condition == "independent" and c.fold == 1]
        assert [c.cohort for c in alone].count("cqt:vgg_small") == 1
        for cell in cells:
            if cell.condition == "distilled":
                assert set(cell.baselines) <= {c.key for c in cells}
                assert len(cell.baselines) == 2


RUN: dict[str, tuple[Any, bool]] = {
    "split_seed": (5, False),  # the data set has folds
    "runner": ("local", False),
    "window_memory": ("streamed", False),
    "gpus_per_branch": (0.0, False),
    "profile": (True, False),
    "quorum": (1, False),
    "cpus_per_branch": (2, True),  # threads: the order of sums
    "overlap": (True, True),
}
"""Fields of `Run` that could be in a key, another value of each, and whether it is."""


@pytest.mark.parametrize(("name", "other", "told"), [(n, *v) for n, v in RUN.items()], ids=RUN)
def test_where_and_how_a_cell_runs_is_in_its_key_where_bits_hang_on_it(
    name: str, other: Any, told: bool, prepared: Prepared
) -> None:
    def keys(**options: Any) -> set[str]:
        cells = expanded(prepared, cohorts=["+".join(BRANCHES)], **options)
        return {cell.key for cell in cells if cell.condition == "distilled"}

    assert (keys() != keys(**{name: other})) == told


def test_one_branch_overlaps_with_nobody(prepared: Prepared) -> None:
    keys = [
        {cell.key for cell in expanded(prepared, cohorts=[BRANCHES[0]], overlap=overlap)}
        for overlap in (False, True)
    ]
    assert keys[0] == keys[1]


def test_cells_of_earlier_versions_are_known_by_their_former_names(prepared: Prepared) -> None:
    plain = expanded(prepared, cohorts=["+".join(BRANCHES)], cycles=4)
    assert all(cell.former_key == cell.key for cell in plain)  # of the defaults nothing changed
    asked = {"lr": SCRATCH_LR, "warm_up": 0.3, "weights": "none", "precision": "fp32"}
    for cell in expanded(prepared, cohorts=["+".join(BRANCHES)], cycles=4, **asked):
        assert cell.asked is not None
        before = replace(cell, training=cell.asked, asked=None)
        assert before.training.lr == SCRATCH_LR
        assert cell.former_key != cell.key


def test_reasons_are_given_for_what_was_asked_for_alone() -> None:
    assert list(idle(Training(), replace(AT_HOME, temperature=1.0, all_verified=True))) == []


def expanded(
    prepared: Prepared, networks: Mapping[str, Initial] = NETWORKS, **fields: Any
) -> list[Cell]:
    asked = {"data": "x", "batch_size": 4, "cycles": 150, **fields}
    config = parse(GridConfig, asked, "test")
    return expand(config, prepared, networks, lambda branches: 0.0)


def make(training: Training) -> Cell:
    return replace(make_cell(*BRANCHES), training=training)


def key(training: Training) -> str:
    return make(training).key


def unverified(prepared: Prepared) -> Prepared:
    """The data set with every second label verified by nobody."""
    clips = prepared.dataset.clips
    some = tuple(replace(clip, verified=i % 2 == 0) for i, clip in enumerate(clips))
    return replace(prepared, dataset=replace(prepared.dataset, clips=some))


def same_bits(
    one: Training, other: Training, prepared: Prepared, folder: Path, temperature: float = 2.0
) -> bool:
    """Train a cohort with both; return whether files and figures are the same."""
    if one.early_stop or other.early_stop:
        splits = make_splits(prepared.dataset, "all", seed=0, held_out=0.3)
        prepared = replace(prepared, splits=tuple(splits))
    cells = (
        replace(make_cell(*BRANCHES, temperature=temperature), training=training)
        for training in (one, other)
    )
    left, right = (run(cell, prepared, folder / str(i)) for i, cell in enumerate(cells))
    return left == right


def run(cell: Cell, prepared: Prepared, folder: Path) -> dict[str, str]:
    """Train a cell; return the digests of what it leaves, and its figures without times."""
    tasks = branch_tasks(cell, prepared)
    rows = [
        {n: v for n, v in row.items() if not n.startswith("seconds") and n != "peak_bytes"}
        for of_cycle in run_cell(cell, tasks, LocalCohort(tasks, folder), folder)
        for row in of_cycle
    ]
    names = [*folder.glob("branches/*/model.safetensors"), folder / "predictions.csv"]
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in names
    }
    return {**files, "figures": str(rows)}
