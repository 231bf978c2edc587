"""Which cells a grid has, and what it refuses before any work."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from mrkd_ray.cells.cell import Cell
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.common.errors import UserError
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.expand import check_names, expand
from mrkd_ray.grid.network_checks import Initial
from mrkd_ray.grid.opening import open_grid
from mrkd_ray.grid.shown import figures_text

FIRST, SECOND = "logmel64:resnet_small", "cqt:vgg_small"


def config(**fields: object) -> GridConfig:
    asked = {"data": "x", "cohorts": [f"{FIRST}+{SECOND}"], "cycles": 2, **fields}
    return parse(GridConfig, asked, "test")


NETWORKS = {name: Initial("", "") for name in ("resnet_small", "vgg_small")}


def expanded(asked: GridConfig, prepared: Prepared) -> list[Cell]:
    return expand(asked, prepared, NETWORKS, lambda branches: 0.0)


def test_a_grid_is_pairings_x_temperatures_x_folds_x_seeds(prepared: Prepared) -> None:
    asked = config(
        cohorts=[f"{FIRST}+{SECOND}", f"{FIRST}+{FIRST}"], temperatures="1,4", seeds="0..2"
    )
    made = expanded(asked, prepared)
    distilled = [cell for cell in made if cell.condition == "distilled"]
    assert len(distilled) == 2 * 2 * 2 * 3
    assert len({cell.key for cell in made}) == len(made)
    alone = [(c.names[0], c.fold, c.seed) for c in made if c.condition == "independent"]
    names = ("logmel64-resnet_small", "logmel64-resnet_small-2", "cqt-vgg_small")
    assert sorted(alone) == sorted(
        (name, fold, seed) for name in names for fold in (1, 2) for seed in (0, 1, 2)
    )
    assert not [c for c in expanded(config(independent=False), prepared) if not c.temperature]


def test_variants_multiply_the_grid_and_share_the_baselines_that_are_the_same(
    prepared: Prepared,
) -> None:
    variants = {"plain": {}, "strong": {"kl_weight": 2}, "mixed": {"mixup": 1, "temperatures": 4}}
    made = expanded(config(variants=variants, temperatures="1,2", seeds="0,1"), prepared)
    assert len({cell.key for cell in made}) == len(made)
    counts = Counter((cell.condition, cell.variant, cell.training.mixup) for cell in made)
    assert counts == {
        ("independent", "", 0.0): 2 * 2 * 2,  # branches x folds x seeds
        ("independent", "", 1.0): 2 * 2 * 2,
        ("distilled", "plain", 0.0): 2 * 2 * 2,  # temperatures x folds x seeds
        ("distilled", "strong", 0.0): 2 * 2 * 2,
        ("distilled", "mixed", 1.0): 2 * 2,
    }
    assert {c.temperature for c in made if c.variant == "mixed"} == {4}
    plain = expanded(config(temperatures="1,2", seeds="0,1"), prepared)
    renamed = {"other" + name: fields for name, fields in variants.items()}
    again = expanded(config(variants=renamed, temperatures="1,2", seeds="0,1"), prepared)
    assert {cell.key for cell in plain} < {cell.key for cell in made}
    assert [cell.key for cell in again] == [cell.key for cell in made]


def test_what_is_finished_of_a_grid_compares_its_variants(prepared: Prepared) -> None:
    made = expanded(config(variants={"one": {}, "two": {"kl_weight": 2}}, seeds="0..2"), prepared)
    distilled = [cell.variant for cell in made if cell.condition == "distilled"]
    assert distilled == ["one", "two"] * 2 * 3


def test_new_data_is_a_new_cell_and_another_pairing_in_the_grid_is_not(prepared: Prepared) -> None:
    keys = {cell.key for cell in expanded(config(), prepared)}
    wider = expanded(config(cohorts=[f"{FIRST}+{SECOND}", SECOND]), prepared)
    assert keys < {cell.key for cell in wider}
    changed = expanded(config(), replace(prepared, content="other bytes"))
    assert not keys & {cell.key for cell in changed}


def test_weights_of_other_bytes_and_a_gpu_are_other_cells(prepared: Prepared) -> None:
    keys = {cell.key for cell in expanded(config(), prepared)}
    files = NETWORKS | {"vgg_small": Initial("", "other bytes")}
    changed = expand(config(), prepared, files, lambda branches: 0.0)
    assert len(keys & {cell.key for cell in changed}) == 2  # the other branch's baselines
    gpu = expand(config(), prepared, NETWORKS, lambda branches: 0.5)
    assert not keys & {cell.key for cell in gpu}


def test_unlabelled_clips_are_other_cells_and_their_number_is_that_of_baselines(
    prepared: Prepared, with_sounds: Prepared
) -> None:
    def keys(prepared: Prepared, condition: str) -> set[str]:
        return {c.key for c in expanded(config(), prepared) if c.condition == condition}

    dataset = with_sounds.dataset
    one, *others = dataset.unlabelled
    fewer = replace(with_sounds, dataset=replace(dataset, unlabelled=tuple(others)))
    changed = replace(with_sounds, digests={**with_sounds.digests, one.clip_id: "other"})
    cases = (prepared, fewer, with_sounds)
    for condition in ("distilled", "independent"):
        assert len(set.union(*(keys(case, condition) for case in cases))) == 3 * len(
            keys(prepared, condition)
        )
    assert keys(changed, "independent") == keys(with_sounds, "independent")  # shared
    assert not keys(changed, "distilled") & keys(with_sounds, "distilled")


def test_branches_that_overlap_have_the_threads_of_the_cohort_on_cpus_only(
    prepared: Prepared,
) -> None:
    asked = config(overlap=True, cpus_per_branch=2)
    plain = config(cpus_per_branch=2)
    made = expanded(asked, prepared)
    assert {(c.condition, c.threads, c.cpus) for c in made} == {
        ("independent", 2, 2),
        ("distilled", 4, 2),
    }
    shared = {cell.key for cell in made} & {cell.key for cell in expanded(plain, prepared)}
    assert {key.split("_")[0] for key in shared} == {"independent"}  # other bits, other cells
    on_gpus = [expand(c, prepared, NETWORKS, lambda branches: 1.0) for c in (asked, plain)]
    assert on_gpus[0] == on_gpus[1]


def test_cells_of_the_same_branches_follow_each_other(prepared: Prepared) -> None:
    made = expanded(
        config(cohorts=[f"{FIRST}+{SECOND}", f"{SECOND}+{SECOND}"], seeds="0,1"), prepared
    )
    changes = sum(a.names != b.names for a, b in pairwise(made))
    assert changes == len({cell.names for cell in made}) - 1


def test_names_are_checked_before_anything_else() -> None:
    with pytest.raises(UserError, match="'cqt'"):
        grid.run(config(cohorts=["cqtt:vgg_small"], data="nowhere"), console=Console(quiet=True))
    with pytest.raises(UserError, match=r"unknown average 'median'.*leave_one_out"):
        check_names(config(average="median"))
    with pytest.raises(UserError, match="held_out"):
        check_names(config(average="weighted"))
    check_names(config(average="weighted", held_out=0.1))
    with pytest.raises(UserError, match="held_out"):
        check_names(config(variants={"one": {}, "two": {"average": "weighted"}}))
    with pytest.raises(UserError, match=r"early_stop .* set held_out, for example --held-out 0\.1"):
        check_names(config(variants={"one": {}, "two": {"early_stop": 5}}))
    check_names(config(early_stop=5, held_out=0.1))
    with pytest.raises(UserError, match="only early_stop and average: weighted look at them"):
        check_names(config(held_out=0.1))


def test_alone_has_the_baselines_only_and_knows_the_cohorts(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    fields = {"data": str(clips), "cache": cache, "output": tmp_path, "runner": "local"}
    whole, alone = (config(**fields, alone=each, trust=each) for each in (False, True))
    said = io.StringIO()
    with open_grid(whole, Console(quiet=True)) as opened:
        baselines = [cell.key for cell in opened.cells if cell.condition == "independent"]
        assert not opened.untaught
    with open_grid(alone, Console(file=said, width=200)) as opened:
        assert [cell.key for cell in opened.cells] == baselines
        assert {cell.condition for cell in opened.untaught} == {"distilled"}
        assert {key for cell in opened.untaught for key in cell.baselines} == set(baselines)
    assert "note: trust: True changes nothing: nothing is distilled" in said.getvalue()
    assert "teacher_momentum" not in said.getvalue()  # it was not given


ROWS = [
    {
        "cycle": 2,
        "branch": "a",
        "windows": "resident, 1.5 MiB",
        "accuracy": 0.625,
        "loss_ce": 1.5,
    },
    {
        "cycle": 2,
        "branch": "b",
        "windows": "streamed, 9.0 MiB",
        "accuracy": 0.75,
        "loss_distil_ce": 0.25,
        "loss_ce": 9.0,
    },
]


def test_progress_shows_accuracy_loss_and_where_windows_lie() -> None:
    text = figures_text(ROWS)  # a branch that is taught shows its loss under the teacher
    assert text == "accuracy 62.5 75.0 %  loss 1.50 0.25  windows streamed"
