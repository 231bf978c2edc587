"""The one schema: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.method import PAPER, Training
from mrkd_ray.config.parsing import parse, to_yaml
from mrkd_ray.config.schema import GridConfig, RecommendConfig, TrainConfig
from mrkd_ray.config.yaml_files import read_yaml

ONE = "logmel64:vgg_small"
TWO = "logmel64:resnet_small+cqt:vgg_small"


def grid(**values: Any) -> GridConfig:
    return parse(GridConfig, {"data": "my_clips", "cohorts": [ONE], **values}, "grid.yaml")


def refusal(model: type[BaseModel], **values: Any) -> list[str]:
    """The lines of the error that these values give; the first names the file."""
    required = {"cohorts": [ONE]} if model is GridConfig else {"branches": [ONE]}
    with pytest.raises(UserError) as caught:
        parse(model, {"data": "my_clips", **required, **values}, "some/grid.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("cycles", 0, "greater than or equal to 1"),
        ("cycles", "many", "valid integer"),
        ("d", 0, "greater than or equal to 1"),
        ("b", -1, "greater than or equal to 0"),
        ("batch_size", 1, "greater than or equal to 2"),
        ("lr", 0, "greater than 0"),
        ("momentum", 1, "less than 1"),
        ("mixup", -0.1, "greater than or equal to 0"),
        ("kl_weight", math.inf, "finite number"),
        ("name", "../elsewhere", "match pattern"),
        ("name", "", "match pattern"),
        ("held_out", 0.5, "less than 0.5"),
        ("divergence", "backward", "'reverse' or 'forward'"),
        ("soft_labels", "frame", "'clip', 'window' or 'virtual'"),
        ("augment_gain", -1, "greater than or equal to 0"),
        ("augment_shift", 2, "less than or equal to 1.5"),
        ("specaugment_time", 151, "less than or equal to 150"),
        ("specaugment_bins", -1, "greater than or equal to 0"),
        ("precision", "fp16", "'auto', 'fp32' or 'bf16'"),
        ("window_memory", "disk", "'auto', 'resident' or 'streamed'"),
        ("runner", "slurm", "'ray' or 'local'"),
        ("cpus_per_branch", 0, "greater than or equal to 1"),
        ("gpus_per_branch", -1, "greater than or equal to 0"),
        ("cycles", 10**20, "less than or equal to 999999"),
        ("cycles", True, "true and false are for switches"),
        ("lr", True, "true and false are for switches"),
        ("seeds", [1, False], "true and false are for switches"),
        ("seeds", [1, 2, 1], "1 is there twice"),
        ("temperatures", [2, 2.0], "2.0 is there twice"),
        ("folds", [3, 3], "3 is there twice"),
        ("name", 151 * "x", "at most 150 characters"),
    ],
)
def test_an_error_names_file_field_value_and_what_is_expected(
    field: str, value: Any, why: str
) -> None:
    first, line = refusal(GridConfig, **{field: value})
    assert first == "some/grid.yaml: 1 problem(s) in the configuration"
    assert line.startswith(f"  {field}: ")
    assert why in line
    assert line.endswith(f"(got {value!r})")


def test_several_gpus_of_a_branch_are_whole_and_need_ray() -> None:
    assert (grid().ranks, grid(gpus_per_branch=0.5).ranks, grid(gpus_per_branch=4).ranks) == (
        1,
        1,
        4,
    )
    assert "a whole number (got 1.5)" in refusal(GridConfig, gpus_per_branch=1.5)[1]
    assert "runner: local" in refusal(GridConfig, gpus_per_branch=2, runner="local")[1]


@pytest.mark.parametrize(
    ("model", "wrong", "right"),
    [
        (GridConfig, "temprature", "temperatures"),
        (GridConfig, "seed", "seeds"),
        (TrainConfig, "temperatur", "temperature"),
        (TrainConfig, "batchsize", "batch_size"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_and_all_names(
    model: type[BaseModel], wrong: str, right: str
) -> None:
    _, line = refusal(model, **{wrong: 1})
    assert f"unknown field {wrong!r}. Did you mean {right!r}?" in line
    names = line.split("Known: ")[1].rstrip(".").split(", ")
    assert names == sorted(model.model_fields)


def test_a_variant_overrides_the_method_and_may_have_its_temperatures() -> None:
    asked = grid(
        cycles=7,
        kl_weight=3,
        temperatures="1,4",
        variants={
            "as-asked": {},
            "other": {"kl_weight": 1, "lr": "0.5", "temperatures": 2},
        },
    )
    made = asked.by_variant()
    assert list(made) == ["as-asked", "other"]
    plain, other = made.values()
    assert (plain.training, plain.temperatures) == (asked.training, (1, 4))
    assert other.training == asked.training.model_copy(update={"kl_weight": 1.0, "lr": 0.5})
    assert (other.temperatures, other.variants) == ((2,), {})
    assert grid().by_variant() == {"": grid()}


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        ({"klweight": 2}, "klweight: unknown field 'klweight'. Did you mean 'kl_weight'? Known: "),
        ({"data": "x"}, "data: unknown field 'data'."),
        ({"kl_weight": -1}, "kl_weight: Input should be greater than or equal to 0 (got -1)"),
        ({"temperatures": 0}, "temperatures.0: Input should be greater than 0 (got 0)"),
        ({"held_out": 0.1}, "held_out: one for all variants: set it beside 'variants' (got 0.1)"),
        ({"weights": "none"}, "weights: one for all variants"),
    ],
)
def test_a_wrong_variant_is_one_line_with_its_place(variant: dict[str, Any], line: str) -> None:
    (found,) = refusal(GridConfig, variants={"fine": {}, "not-fine": variant})[1:]
    assert found.startswith(f"  variants.not-fine.{line}")


def test_which_options_go_together_is_a_question_of_variant_and_grid() -> None:
    both = {"soft_labels": "clip", "d": 2}  # virtual soft labels need d: 1
    assert grid(**both, variants={"a": {"soft_labels": "virtual", "d": 1}, "b": {"d": 3}})
    lines = refusal(GridConfig, **both, variants={"a": {}, "b": {"soft_labels": "virtual"}})
    assert lines[1].startswith("  configuration: variants.b: soft_labels: virtual needs d: 1")


def test_variants_have_names_of_folders_and_differ() -> None:
    assert "match pattern" in refusal(GridConfig, variants={"../up": {}})[1]
    twins = {"one": {"kl_weight": 2}, "two": {"kl_weight": 2.0, "temperatures": "1,2"}}
    line = refusal(GridConfig, temperatures=2, variants=twins)[1]
    assert line == "  configuration: variants 'one' and 'two' are the same at T = 2"


def test_paper_sets_the_published_values_that_are_not_given() -> None:
    published = {name: PAPER[name] for name in PAPER if name in Training.model_fields}
    asked = grid(paper=True, kl_weight=2, variants={"a": {}, "b": {"paper": True, "cycles": 3}})
    assert asked.training == Training(**published | {"kl_weight": 2})
    assert asked.temperatures == (2,)
    other = asked.by_variant()["b"].training
    assert other == Training(**published | {"cycles": 3})
    train = parse(
        TrainConfig, {"data": "x", "branches": [ONE], "paper": True, "temperature": 4}, ""
    )
    assert (train.temperature, train.as_grid().temperatures) == (4, (4,))
    assert train.as_grid().training == Training(**published)
    assert "paper: Input should be a valid boolean" in refusal(GridConfig, paper="table6")[1]


def test_the_published_values_do_not_hang_on_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPER, "kl_weight", 5.0)  # as if the default were another
    assert grid().kl_weight == 1.0
    assert grid(paper=True).kl_weight == 5.0
    assert grid(paper=True, kl_weight=1).kl_weight == 1.0
    assert grid(paper=False).kl_weight == 1.0


def test_the_published_values_are_of_fields() -> None:
    for name in PAPER:
        assert name in (TrainConfig.model_fields | GridConfig.model_fields), name


@pytest.mark.parametrize(
    "value", ["logmel64", "logmel64:", ":vgg_small", "", "logmel64/vgg_small", " : "]
)
def test_a_branch_that_is_not_representation_and_network(value: str) -> None:
    _, line = refusal(TrainConfig, branches=[ONE, value])[:2]
    assert line.startswith("  branches.1: a branch is written REPRESENTATION:NETWORK, for example")
    assert f"got {value!r}" in line


def test_a_pairing_with_a_bad_branch_names_the_branch() -> None:
    _, line, *_ = refusal(GridConfig, cohorts=[ONE, "logmel64:vgg_small+cqt"])
    assert line.startswith("  cohorts.1.1: a branch is written REPRESENTATION:NETWORK")
    assert "got 'cqt'" in line


def test_pairings_are_read_in_every_notation() -> None:
    pair = (
        BranchSpec(representation="logmel64", network="resnet_small"),
        BranchSpec(representation="cqt", network="vgg_small"),
    )
    as_mapping = {"representation": "cqt", "network": "vgg_small"}
    for written in (
        TWO,
        TWO.split("+"),
        " + ".join(TWO.split("+")),
        TWO.replace(":", ": "),
        [str(pair[0]), as_mapping],
    ):
        assert grid(cohorts=[written, ONE]).cohorts[0] == pair
    assert str(pair[1]) == "cqt:vgg_small"


@pytest.mark.parametrize("value", [[], [[]]])
def test_a_grid_needs_a_branch(value: list[Any]) -> None:
    assert any("at least 1" in line for line in refusal(GridConfig, cohorts=value))


@pytest.mark.parametrize(
    ("written", "folds"),
    [
        ("all", "all"),
        ("1,2", (1, 2)),
        ("1..3", (1, 2, 3)),
        ("1,3..5", (1, 3, 4, 5)),
        ("4", (4,)),
        (4, (4,)),
        ([2, 1], (2, 1)),
    ],
)
def test_folds_as_written(written: Any, folds: Any) -> None:
    assert grid(folds=written).folds == folds


@pytest.mark.parametrize("written", ["1;2", "1,x", "a..3", "1..", "", "every"])
def test_folds_that_are_no_numbers(written: str) -> None:
    _, line = refusal(GridConfig, folds=written)
    assert line == f"  folds: numbers are written 1,2 or 0..4 (got {written!r})"


def test_numbers_of_temperatures_and_seeds() -> None:
    config = grid(temperatures="0.5,1,2", seeds="0..2")
    assert config.temperatures == (0.5, 1.0, 2.0)
    assert config.seeds == (0, 1, 2)
    assert grid(temperatures=4).temperatures == (4.0,)
    for field, bad in (
        ("temperatures", "1,0"),
        ("temperatures", "1,inf"),
        ("temperatures", "nan"),
        ("temperatures", []),
        ("seeds", "-1"),
        ("seeds", "0.5"),
    ):
        assert refusal(GridConfig, **{field: bad})[1].startswith(f"  {field}")


CHANGED: dict[str, Any] = {
    "mirror": "s3://bucket/results",
    "tensorboard": True,
    "mlflow": "sqlite:///runs.db",
    "wandb": "sounds",
    "cycles": 3,
    "b": 2,
    "d": 4,
    "batch_size": 5,
    "lr": 0.25,
    "momentum": 0.5,
    "weight_decay": 0.125,
    "ema": 0.9,
    "mixup": 0.75,
    "weights": "none",
    "soft_labels": "clip",
    "divergence": "reverse",
    "teacher_momentum": 0.5,
    "trust": True,
    "t_squared": True,
    "kl_weight": 0.1,
    "ce_weight": 0.5,
    "warm_up": 0.1,
    "average": "mean",
    "unverified_ce": 0.5,
    "unverified_kl": 2.0,
    "label_noise": 0.3,
    "label_noise_kind": "next",
    "labelled": 0.2,
    "cross_fit": "2/4",
    "held_out": 0.2,
    "early_stop": 7,
    "augment_gain": 3.0,
    "augment_shift": 0.5,
    "specaugment_time": 20,
    "specaugment_bins": 8,
    "precision": "bf16",
    "channels_last": False,
    "compile": True,
    "window_memory": "streamed",
    "data": "some/where",
    "unlabelled": Path("more/sounds"),
    "cache": Path("other/cache"),
    "output": Path("other/results"),
    "folds": (2, 4),
    "window": "whole",
    "class_weights": "balanced",
    "gce": 0.7,
    "embedding_weight": 3.0,
    "neighbours": 5,
    "split_seed": 9,
    "negatives": "background",
    "group_by": "^[a-z]",
    "skip_bad": True,
    "runner": "local",
    "address": "host:1234",
    "dashboard": False,
    "gpus_per_branch": 0.5,
    "cpus_per_branch": 3,
    "overlap": True,
    "profile": True,
    "quorum": 2,
    "name": "changed",
    "paper": True,
}
CONFIGS = {
    "train": TrainConfig(data="x", branches=(ONE, "cqt:vgg_small")),
    "grid": GridConfig(data="x", cohorts=(TWO, ONE)),
    "train, changed": TrainConfig(
        branches=(ONE, "cqt:vgg_small"), temperature=0.3, seed=5, independent=True, **CHANGED
    ),
    "grid, changed": GridConfig(
        cohorts=(TWO, ONE),
        temperatures=(0.3, 4),
        seeds=(5, 1),
        independent=False,
        reported="table6",
        variants={"one": {}, "two-2": {"kl_weight": 2.0, "temperatures": [1.0]}},
        **CHANGED,
    ),
    "train, alone": TrainConfig(
        data="x", branches=(ONE, "cqt:vgg_small"), alone=True, independent=True
    ),
    "grid, alone": GridConfig(data="x", cohorts=(TWO, ONE), alone=True),
    "grid, verified": GridConfig(
        data="x", cohorts=(TWO, ONE), verified_only=True
    ),  # excludes others
    "grid, goes on": GridConfig(data="x", cohorts=(TWO, ONE), init="/model"),  # likewise
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_yaml_that_is_written_reads_back_the_same(
    config: TrainConfig | GridConfig, tmp_path: Path
) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(to_yaml(config))
    values = read_yaml(file)
    assert set(values) == set(type(config).model_fields)  # defaults are written down too
    assert parse(type(config), values, str(file)) == config
    assert "logmel64:vgg_small" in file.read_text()  # branches as people write them


def test_the_changed_fields_are_all_fields_and_differ_from_the_defaults() -> None:
    shared = set(TrainConfig.model_fields) & set(GridConfig.model_fields)
    assert CHANGED.keys() == shared - {"independent", "alone", "verified_only", "init"}
    for model in (TrainConfig, GridConfig):
        for name, value in CHANGED.items():
            assert model.model_fields[name].default != value, name


def test_virtual_samples_need_one_epoch_of_distillation() -> None:
    asked = {"data": "x", "cohorts": [TWO], "soft_labels": "virtual", "d": 2}
    with pytest.raises(UserError, match="virtual needs d: 1"):
        parse(GridConfig, asked, "grid.yaml")


def test_branches_that_are_trained_alone_are_the_baselines() -> None:
    asked = parse(TrainConfig, {"data": "x", "branches": [ONE], "alone": True}, "train()")
    assert asked.as_grid().independent
    assert asked.as_grid().alone
    asked_for = {"data": "x", "cohorts": [TWO], "alone": True, "independent": False}
    with pytest.raises(UserError, match="alone trains the baselines only"):
        parse(GridConfig, asked_for, "grid.yaml")


@pytest.mark.parametrize("name", ["train", "train, changed", "train, alone"])
def test_train_as_grid_keeps_every_field(name: str) -> None:
    train = CONFIGS[name]
    assert isinstance(train, TrainConfig)
    whole = train.as_grid()
    assert whole.cohorts == (train.branches,)
    assert whole.temperatures == (train.temperature,)
    assert whole.seeds == (train.seed,)
    for field in set(TrainConfig.model_fields) & set(GridConfig.model_fields):
        assert getattr(whole, field) == getattr(train, field), field
    only_train = set(TrainConfig.model_fields) - set(GridConfig.model_fields)
    assert only_train == {"branches", "temperature", "seed"}


def test_a_configuration_cannot_be_changed_afterwards() -> None:
    config = grid()
    with pytest.raises(ValueError, match="frozen"):
        config.cycles = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"folds": "1.5"}, "  folds: all, or whole numbers such as 1,2 or 1..3 (got (1.5,))"),
        ({"folds": True}, "  folds: true and false are for switches, and this is none (got True)"),
        ({"seeds": "3..1"}, "  seeds: a range goes up: 0..4 (got '3..1')"),
        (
            {"cohorts": [["cqt"]]},
            "  cohorts.0.0: a branch is written REPRESENTATION:NETWORK, for example "
            "logmel64:resnet_small (got 'cqt')",
        ),
    ],
)
def test_one_mistake_is_one_line_in_the_users_terms(values: dict[str, Any], line: str) -> None:
    assert refusal(GridConfig, **values)[1:] == [line]


@pytest.mark.parametrize("name", ["trust", "unverified_ce", "unverified_kl"])
def test_what_weighs_unverified_labels_is_refused_where_none_is_trained_on(name: str) -> None:
    value = True if name == "trust" else 0.5
    lines = refusal(GridConfig, **{"verified_only": True, name: value})
    assert any(f"{name} is for clips with a label that nobody verified" in line for line in lines)
    assert grid(verified_only=True).verified_only
    assert getattr(grid(**{name: value}), name) == value


def test_fields_that_were_renamed_are_still_taken_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = {"data": "my_clips"}
    old = parse(GridConfig, {**data, "pairings": [ONE], "windows": "streamed"}, "old.yaml")
    new = {**data, "cohorts": [ONE], "window_memory": "streamed"}
    assert old == parse(GridConfig, new, "new.yaml")
    assert capsys.readouterr().err.splitlines() == [
        "note: old.yaml: pairings is called cohorts now",
        "note: old.yaml: windows is called window_memory now",
    ]
    without_a_note = GridConfig(data="my_clips", pairings=[ONE])
    assert without_a_note == GridConfig(data="my_clips", cohorts=[ONE])
    with pytest.raises(UserError, match=r"both\.yaml: pairings is called cohorts now: give one"):
        parse(GridConfig, {"pairings": [ONE], "cohorts": [ONE]}, "both.yaml")


def test_the_address_of_an_object_store_is_no_folder() -> None:
    asked = {"data": "x", "cohorts": [TWO], "output": "s3://bucket/results/", "cache": "c"}
    found = parse(GridConfig, asked, "test")
    assert found.mirror == "s3://bucket/results"
    assert found.output.parent == Path("c/outputs")
    again = parse(GridConfig, found.model_dump(), "test")
    assert (again.output, again.mirror) == (found.output, found.mirror)
    with pytest.raises(UserError, match=r"output: a folder: .* is for train, grid, distil"):
        parse(RecommendConfig, {"data": "x", "output": "s3://bucket"}, "test")
