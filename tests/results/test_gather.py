"""The table and the tidy CSV say what the per-clip predictions say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from mrkd_ray.cells import files as cell_files
from mrkd_ray.cells.cell import Cell, independent_cell, with_baselines
from mrkd_ray.cells.prepared import Prepared
from mrkd_ray.cells.tasks import branch_tasks
from mrkd_ray.common.files import write_json
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig
from mrkd_ray.datasets import label_experiments
from mrkd_ray.grid.run import run
from mrkd_ray.results.gather import gather
from mrkd_ray.scores.intervals import paired_bootstrap
from mrkd_ray.training.branch_task import Part
from tests.conftest import FAST, make_cell

CLASSES = ("a", "b", "c", "1")
TWO = ("logmel64:resnet_small", "cqt:vgg_small")
NAMES = ("logmel64-resnet_small", "cqt-vgg_small")


def fake(folder: Path, cell: Cell, clips: list[str], right: dict[str, list[bool]]) -> None:
    """Write a finished cell whose models hit the clips as told (second place where not)."""
    labels = np.arange(len(clips)) % len(CLASSES)
    scores = {}
    for model, hits in right.items():
        p = np.full((len(clips), len(CLASSES)), 0.1, np.float32)
        p[np.arange(len(clips)), labels] = 0.5
        for i, hit in enumerate(hits):
            if not hit:
                p[i, (labels[i] + 1) % len(CLASSES)] = 0.6
        scores[model] = p
    part = Part(clip_ids=tuple(clips), labels=labels)
    cell_folder = folder / "cells" / cell.key
    cell_files.write_predictions(cell_folder, part, CLASSES, scores)
    models = [
        {"model": m, "accuracy": float(np.mean(h)), "map3": float(np.mean(np.where(h, 1, 0.5)))}
        for m, h in right.items()
    ]
    write_json(
        cell_folder / "result.json",
        {"dataset": "fake", "epochs": 4, "clips": len(clips), "seconds": 1.0, "models": models},
    )


@pytest.fixture
def grid(tmp_path: Path) -> tuple[Path, list[Cell]]:
    """Two folds: the first branch gains a clip in each, the second loses one in fold 1."""
    made: list[Cell] = []
    for fold in (1, 2):
        clips = [f"{fold}-{i}" for i in range(8)]
        cell = make_cell(*TWO, fold=fold)
        alone = [independent_cell(name, cell, device="cpu", content="test") for name in cell.names]
        cell = with_baselines(cell, alone)
        half = [True] * 4 + [False] * 4
        fake(tmp_path, alone[0], clips, {NAMES[0]: half})
        fake(tmp_path, alone[1], clips, {NAMES[1]: half})
        gained, lost = (
            [True] * 5 + [False] * 3,
            [True] * (5 - 2 * (fold == 1)) + [False] * (3 + 2 * (fold == 1)),
        )
        fake(tmp_path, cell, clips, {NAMES[0]: gained, NAMES[1]: lost, "ensemble": gained})
        made += [*alone, cell]
    return tmp_path, made


def test_means_deviations_and_differences(grid: tuple[Path, list[Cell]]) -> None:
    table = gather(grid[0], "g", grid[1]).table.set_index("model")
    first = table.loc[NAMES[0]]
    assert first["accuracy_independent"] == pytest.approx(50.0)
    assert first["accuracy_distilled"] == pytest.approx(62.5)
    assert first["accuracy_difference"] == pytest.approx(12.5)
    assert first["accuracy_difference_low"] <= 12.5 <= first["accuracy_difference_high"]
    assert first["map3_difference"] == pytest.approx(6.25)  # second place counts half
    assert table.loc[NAMES[1], "accuracy_distilled"] == pytest.approx((37.5 + 62.5) / 2)
    assert table.loc[NAMES[1], "accuracy_distilled_sd"] == pytest.approx(
        np.std([37.5, 62.5], ddof=1)
    )
    assert table.loc["ensemble", "accuracy_independent"] == pytest.approx(50.0)
    assert (table["runs"] == 2).all()
    assert (table["paired_runs"] == 2).all()


def test_every_difference_has_its_mark_behind_its_interval(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    table = gather(folder, "g", made).table
    columns = list(pd.read_csv(folder / "table.csv").columns)
    for name in ("accuracy", "map3"):
        for difference in (f"{name}_difference", f"{name}_ensemble_difference"):
            place = columns.index(difference)
            ends = [f"{difference}{part}" for part in ("_low", "_high", "_mark")]
            assert columns[place + 1 : place + 4] == ends
            low, high, mark = (table[end] for end in ends)
            assert (
                mark == ["ns" if a <= 0 <= b else "higher" for a, b in zip(low, high, strict=True)]
            ).all()
    for cell in made:
        if cell.temperature is None:
            (folder / "cells" / cell.key / "result.json").unlink()
    assert (gather(folder, "g", made).table["accuracy_difference_mark"] == "").all()


def test_epochs_are_those_that_were_spent(tmp_path: Path) -> None:
    made: list[Cell] = []
    spent = {"distilled": 3, NAMES[0]: 1, NAMES[1]: 2}  # in the first run; one more in the second
    for fold in (1, 2):
        cell = make_cell(*TWO, fold=fold, early_stop=1)
        alone = [baseline(cell, name) for name in NAMES]
        for each in (*alone, cell):
            fake(tmp_path, each, ["x"], {name: [True] for name in each.names})
            path = tmp_path / "cells" / each.key / "result.json"
            epochs = spent["distilled" if each is cell else each.names[0]] + 2 * (fold - 1)
            write_json(path, json.loads(path.read_text()) | {"epochs": epochs})
        made += [*alone, with_baselines(cell, alone)]
    found = gather(tmp_path, "g", made)
    table = found.table.set_index("model")
    assert table["epochs"].tolist() == [4] * len(table)
    assert table["epochs_at_most"].tolist() == [4] * len(table)
    assert table["epochs_independent"][list(NAMES)].tolist() == [2, 3]
    assert sorted(found.tidy["epochs"].unique()) == [1, 2, 3, 4, 5]


def test_anyone_can_recompute_the_figures_from_the_files(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    tidy = gather(folder, "g", made).tidy
    written = pd.read_csv(folder / "results.csv")
    assert list(written.columns) == list(tidy.columns)
    assert len(written) == 2 * (1 + 1 + 3 + 1)  # and the ensemble of those trained alone
    recompute(folder)


def test_a_table_over_folds_and_seeds(tmp_path: Path) -> None:
    made: list[Cell] = []
    for fold, clips in ((1, 8), (2, 4)):
        for seed in (0, 1, 2):
            cell = make_cell(TWO[0], fold=fold, seed=seed)
            alone = baseline(cell)
            cell = with_baselines(cell, [alone])
            names = [f"{fold}-{i}" for i in range(clips)]
            before = [i < 2 for i in range(clips)]
            after = [i < 2 + seed for i in range(clips)]  # gains as many clips as its seed says
            fake(tmp_path, alone, names, {NAMES[0]: before})
            fake(tmp_path, cell, names, {NAMES[0]: after})
            made += [alone, cell]
    found = gather(tmp_path, "g", made)
    (row,) = found.table.to_dict("records")
    assert (row["runs"], row["folds"], row["seeds"], row["epochs"]) == (6, 2, 3, 4)
    distilled = [25.0, 37.5, 50.0, 50.0, 75.0, 100.0]
    assert row["accuracy_independent"] == pytest.approx((25 + 50) / 2)
    assert row["accuracy_distilled"] == pytest.approx(np.mean(distilled))
    assert row["accuracy_distilled_sd"] == pytest.approx(np.std(distilled, ddof=1))
    assert row["accuracy_difference"] == pytest.approx(100 * 2 / 12)  # clip by clip, over seeds
    assert row["accuracy_difference_low"] < 100 * 2 / 12 < row["accuracy_difference_high"]
    recompute(tmp_path)


@pytest.mark.slow
def test_anyone_can_recompute_the_figures_of_a_real_grid(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    fields = {
        **FAST,
        "cycles": 1,
        "cohorts": ["logmel64:vgg_small+cqt:vgg_small", "cqt:vgg_small+cqt:vgg_small"],
        "temperatures": "1,4",
        "variants": {"plain": {}, "other": {"cycles": 2, "temperatures": 2}},
        "seeds": "0..1",
        "data": str(clips),
        "cache": cache,
        "output": tmp_path,
        "runner": "local",
    }
    made = run(parse(GridConfig, fields, "test"), console=Console(quiet=True))
    assert len(made.table) == (2 + 1) * 2 * 4
    assert (made.table[["runs", "paired_runs"]] == 4).all(axis=None)
    assert len(made.tidy) == 4 * (2 * (3 + 2) + (2 + 1) * 2 * 3)
    recompute(made.folder)


def recompute(folder: Path) -> None:
    """Every figure of results.csv and table.csv, from results.csv and the predictions alone."""
    tidy = pd.read_csv(folder / "results.csv", keep_default_na=False)
    alone = tidy[(tidy["condition"] == "independent") & (tidy["model"] == "branch")]
    scored: dict[tuple[object, ...], pd.DataFrame] = {}
    for row in tidy.to_dict("records"):
        if row["cell"]:
            mine = predictions(folder, row["cell"], row["branch"] or "ensemble")
        else:  # the independent ensemble: the mean of its cohort's branches that were trained alone
            names = set(tidy["branch"][tidy["cohort"] == row["cohort"]]) - {""}
            same = alone[(alone["fold"] == row["fold"]) & (alone["seed"] == row["seed"])]
            same = same[same["branch"].isin(names) & (same["variant"] == row["variant"])]
            assert set(same["branch"]) == names
            members = [predictions(folder, r["cell"], r["branch"]) for _, r in same.iterrows()]
            mine = sum(members) / len(members)
            assert row["seconds"] == pytest.approx(same["seconds"].sum())
        ranks = mine.rank(axis=1, ascending=False, method="first")
        rank = pd.Series([ranks.loc[clip, f"p_{clip[1]}"] for clip in mine.index], mine.index)
        figures = pd.DataFrame({"accuracy": rank == 1, "map3": (1 / rank).where(rank <= 3, 0)})
        assert len(mine) == row["clips"]
        for name in figures:
            assert figures[name].mean() == pytest.approx(row[name], abs=1e-12)
        what = (row["condition"], row["variant"], row["cohort"], row["temperature"], row["branch"])
        scored[*what, row["fold"], row["seed"]] = 100 * figures.astype(float)
    for row in pd.read_csv(folder / "table.csv", keep_default_na=False).to_dict("records"):
        compare_again(row, scored)


def compare_again(row: dict[str, Any], scored: dict[tuple[Any, ...], pd.DataFrame]) -> None:
    before: dict[str, dict[Any, pd.DataFrame]] = {}  # by branch, "" for the ensemble
    after: dict[str, dict[Any, pd.DataFrame]] = {}
    for (condition, variant, cohort, temperature, name, *key), figures in scored.items():
        if variant != row["variant"]:
            continue
        if condition == "distilled":
            if (cohort, float(temperature)) == (row["cohort"], row["temperature"]):
                after.setdefault(name, {})[*key] = figures
        elif name or cohort == row["cohort"]:
            before.setdefault(name, {})[*key] = figures
    ensemble = before.get("")
    if row["model"] == "best branch":
        for found in (before, after):
            names = ("accuracy", "map3")  # the second one decides between equal ones
            means = {
                n: [np.mean([f[name].mean() for f in found[n].values()]).round(9) for name in names]
                for n in after
            }
            del means[""]
            found["best branch"] = found[max(means, key=lambda name: means[name])]
    model = "" if row["model"] == "ensemble" else row["model"]
    assert row["runs"] == row["paired_runs"] == len(after[model])
    for name in ("accuracy", "map3"):
        compared(row, name, "independent", "difference", before[model], after[model])
        means = [figures[name].mean() for figures in after[model].values()]
        assert row[f"{name}_distilled"] == pytest.approx(np.mean(means))
        if ensemble is None:
            assert row[f"{name}_ensemble_difference"] == ""
        else:
            names = ("ensemble_independent", "ensemble_difference")
            compared(row, name, *names, ensemble, after[model])


def compared(
    row: dict[str, Any],
    name: str,
    first: str,
    difference: str,
    before: dict[Any, pd.DataFrame],
    after: dict[Any, pd.DataFrame],
) -> None:
    """The columns of one comparison, from the figures of each run."""
    assert set(before) == set(after)
    means = [figures[name].mean() for figures in before.values()]
    assert float(row[f"{name}_{first}"]) == pytest.approx(np.mean(means))
    assert float(row[f"{name}_{first}_sd"]) == pytest.approx(np.std(means, ddof=1))
    folds: dict[int, list[Any]] = {}
    for key in sorted(after):
        pd.testing.assert_index_equal(after[key].index, before[key].index)
        folds.setdefault(key[0], []).append(after[key][name] - before[key][name])
    clips = pd.concat([sum(seeds) / len(seeds) for seeds in folds.values()])
    again = paired_bootstrap([np.array(seeds) / 100 for seeds in folds.values()])
    for part, value in (("", clips.mean()), ("_low", again.low), ("_high", again.high)):
        assert float(row[f"{name}_{difference}{part}"]) == pytest.approx(value)
    assert row[f"{name}_{difference}_mark"] == again.mark


def predictions(folder: Path, key: str, model: str) -> pd.DataFrame:
    table = pd.read_csv(folder / "cells" / key / "predictions.csv", dtype={"label": str})
    mine = table[table["model"] == model].set_index(["clip_id", "label"])
    return mine.drop(columns="model").astype(np.float32).astype(float)


def test_a_cell_that_is_not_finished_is_left_out(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    last = [cell for cell in made if cell.temperature is not None][-1]
    (folder / "cells" / last.key / "result.json").unlink()
    table = gather(folder, "g", made).table
    assert (table["runs"] == 1).all()
    assert (table["paired_runs"] == 1).all()


def test_runs_are_those_that_the_columns_hold(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    lone = next(c for c in made if c.temperature is None and c.names[0] == NAMES[0] and c.fold == 2)
    (folder / "cells" / lone.key / "result.json").unlink()
    table = gather(folder, "g", made).table.set_index("model")
    one = dict.fromkeys((NAMES[0], "ensemble", "best branch"), 1)
    assert table["runs"].to_dict() == {**one, NAMES[1]: 2}
    assert table.loc[NAMES[0], "folds"] == 1


def test_unequal_budgets_are_not_compared(tmp_path: Path) -> None:
    # Not even with a result of another budget in the same folder, which --resume left there.
    longer, asked = (baseline(make_cell(*TWO, cycles=c)) for c in (3, 2))
    fake(tmp_path, longer, ["a", "b"], {NAMES[0]: [True, True]})
    fake(tmp_path, make_cell(*TWO), ["a", "b"], {NAMES[0]: [True] * 2, NAMES[1]: [True] * 2})
    cohort = with_baselines(make_cell(*TWO), [asked])
    for wanted in ([asked, cohort], [longer, cohort]):
        table = gather(tmp_path, "g", wanted).table
        assert not table["paired_runs"].any()
        assert table["accuracy_independent"].isna().all()


def test_each_variant_is_compared_with_its_own_control(tmp_path: Path) -> None:
    """Those that differ in distillation share one; the one with stronger mixup has its own."""
    clips = [f"1-{i}" for i in range(10)]
    alone = {0.2: 4, 0.9: 6}  # mixup -> clips that the baseline hits
    variants = {"plain": (0.2, 1.0, 5), "strong": (0.2, 2.0, 6), "mixed": (0.9, 1.0, 7)}
    wanted: dict[str, Cell] = {}
    for variant, (mixup, weight, hits) in variants.items():
        cell = make_cell(TWO[0], mixup=mixup, kl_weight=weight)
        own = baseline(cell)
        cell = with_baselines(replace(cell, variant=variant), [own])
        for made, right in (own, alone[mixup]), (cell, hits):
            fake(tmp_path, made, clips, {NAMES[0]: [i < right for i in range(10)]})
            wanted[made.key] = made
    assert len(wanted) == 2 + 3
    made = gather(tmp_path, "g", list(wanted.values()))
    table = made.table.set_index("variant")
    assert table["accuracy_independent"].to_dict() == {"plain": 40, "strong": 40, "mixed": 60}
    assert table["accuracy_difference"].to_dict() == {"plain": 10, "strong": 20, "mixed": 10}
    means = made.tidy.groupby(["variant", "condition"])["accuracy"].mean()
    assert means.loc["strong"].to_dict() == {"distilled": 0.6, "independent": 0.4}
    assert made.tidy["cell"].nunique() == 5  # a shared baseline has a row for each variant


def test_the_best_branch_and_the_ensemble_beside_a_single_branch(
    grid: tuple[Path, list[Cell]],
) -> None:
    folder, made = grid
    for cell in made:  # alone the second is best, distilled the first
        if cell.temperature is None and cell.names[0] == NAMES[1]:
            fake(folder, cell, [f"{cell.fold}-{i}" for i in range(8)], {NAMES[1]: [True] * 5})
    table = gather(folder, "g", made).table.set_index("model")
    first, best = table.loc[NAMES[0]], table.loc["best branch"]
    assert best["accuracy_independent"] == table.loc[NAMES[1], "accuracy_independent"]
    assert best["accuracy_distilled"] == first["accuracy_distilled"]
    gap = best["accuracy_distilled"] - best["accuracy_independent"]
    assert best["accuracy_difference"] == pytest.approx(gap)
    ensemble = table.loc["ensemble", "accuracy_independent"]
    assert (table["accuracy_ensemble_independent"] == ensemble).all()
    assert first["accuracy_ensemble_difference"] == first["accuracy_distilled"] - ensemble
    recompute(folder)


def test_of_equally_accurate_branches_the_one_with_the_higher_map3_is_best(
    tmp_path: Path,
) -> None:
    clips = [f"1-{i}" for i in range(8)]
    cell = make_cell(*TWO)
    hits = [True] * 4 + [False] * 4
    fake(tmp_path, cell, clips, {NAMES[0]: hits, NAMES[1]: hits, "ensemble": hits})
    path = tmp_path / "cells" / cell.key / "predictions.csv"
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):  # the first branch has what it misses not even among three
        if line.startswith(NAMES[0]) and line.count("0.1") == 2:
            lines[i] = line.replace("0.1", "0.55").replace("0.5,", "0.05,")
    path.write_text("\n".join(lines) + "\n")
    table = gather(tmp_path, "g", [cell]).table.set_index("model")
    assert (table["accuracy_distilled"] == 50).all()
    assert table.loc[NAMES[0], "map3_distilled"] < table.loc[NAMES[1], "map3_distilled"] == 75
    assert table.loc["best branch", "map3_distilled"] == 75


def test_cohorts_that_are_not_distilled_have_rows_of_those_trained_alone(
    grid: tuple[Path, list[Cell]],
) -> None:
    folder, made = grid
    before = gather(folder, "g", made)
    for cell in made:
        if cell.temperature is not None:
            (folder / "cells" / cell.key / "result.json").unlink()
    after = gather(folder, "g", made)
    assert list(after.table["model"]) == list(before.table["model"])
    assert list(after.table.columns) == list(before.table.columns)
    assert after.table["temperature"].isna().all()
    assert after.table["accuracy_distilled"].isna().all()
    assert (after.table["runs"] == 2).all()
    for name in ("accuracy_independent", "map3_independent", "accuracy_independent_sd"):
        assert after.table[name].tolist() == before.table[name].tolist()
    ensembles = [t[(t["cell"] == "")]["accuracy"].tolist() for t in (before.tidy, after.tidy)]
    assert ensembles[0] == ensembles[1]
    assert len(ensembles[0]) == 2


def test_a_single_branch_that_is_not_distilled_has_a_row(tmp_path: Path) -> None:
    cell = make_cell(TWO[0])
    alone = baseline(cell)
    fake(tmp_path, alone, ["1-0", "1-1"], {NAMES[0]: [True, False]})
    found = gather(tmp_path, "g", [alone, with_baselines(cell, [alone])])
    assert found.table["model"].tolist() == [NAMES[0]]
    assert found.table["accuracy_independent"].tolist() == [50.0]


def test_runs_of_other_test_clips_are_not_paired(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    fake(folder, made[0], [f"1-{i}" for i in range(1, 9)], {NAMES[0]: [True] * 8})
    with pytest.raises(ValueError, match="fold 1"):
        gather(folder, "g", made)


def test_the_key_of_a_cell_changes_with_all_that_changes_its_result() -> None:
    cell = make_cell(*TWO)
    others = [
        make_cell(*TWO, seed=1),
        make_cell(*TWO, fold=2),
        make_cell(*TWO, temperature=4.0),
        make_cell(*TWO[::-1]),
        make_cell(*TWO, lr=0.01),
        replace(cell, content="other clips"),
        replace(cell, device="cuda"),
        replace(cell, cpus=2),
    ]
    assert replace(cell, variant="renamed").key == cell.key
    assert len({cell.key, *(other.key for other in others)}) == 9
    assert make_cell(*TWO).key == cell.key
    assert replace(cell, window_memory="streamed").key == cell.key  # the same bits


def test_a_baseline_is_shared_by_cells_that_differ_in_distillation_only() -> None:
    plain, other = make_cell(*TWO), make_cell(*TWO, kl_weight=2.0, soft_labels="window")
    alone = baseline(plain)
    assert alone.key == baseline(other).key
    slower = make_cell(*TWO, lr=0.001)
    assert alone.key != baseline(slower).key


def baseline(cell: Cell, name: str = "") -> Cell:
    return independent_cell(name or cell.names[0], cell, device="cpu", content="x")


def test_equal_branches_have_baselines_of_their_own() -> None:
    cell = make_cell(TWO[1], TWO[1])
    alone = [independent_cell(n, cell, device="cpu", content="x") for n in cell.names]
    assert [a.names for a in alone] == [("cqt-vgg_small",), ("cqt-vgg_small-2",)]
    assert alone[0].key != alone[1].key


def test_noise_changes_a_part_of_the_labels_each_to_another_class() -> None:
    labels = {f"clip{i}": i % 5 for i in range(400)}
    noisy = label_experiments.with_noise(labels, 5, 0.3, seed=[0, 1])
    changed = [clip for clip in labels if noisy[clip] != labels[clip]]
    assert len(changed) == 120
    shifts = np.bincount([(noisy[clip] - labels[clip]) % 5 for clip in changed], minlength=5)
    assert (shifts[1:] > 15).all()  # every other class
    backwards = dict(reversed(labels.items()))
    assert label_experiments.with_noise(backwards, 5, 0.3, seed=[0, 1]) == noisy
    assert label_experiments.with_noise(labels, 5, 0.3, seed=[1, 1]) != noisy
    assert label_experiments.with_noise(labels, 5, 0.0, seed=[0, 1]) == labels
    mistaken = label_experiments.with_noise(labels, 5, 0.3, [0, 1], "next")
    assert {clip for clip in labels if mistaken[clip] != labels[clip]} == set(changed)
    assert all(mistaken[clip] == (labels[clip] + 1) % 5 for clip in changed)
    two = {clip: label % 2 for clip, label in labels.items()}
    both = [label_experiments.with_noise(two, 2, 0.3, [0, 1], kind) for kind in ("any", "next")]
    assert both[0] == both[1]


def test_noise_is_in_all_training_labels_and_in_no_test_label(prepared: Prepared) -> None:
    split = prepared.splits[0]
    held = replace(split, train=split.train[2:], held_out=split.train[:2])
    prepared = replace(prepared, splits=(held,))
    clean = branch_tasks(make_cell(*TWO), prepared)
    noisy = branch_tasks(make_cell(*TWO, label_noise=0.9), prepared)
    alone = branch_tasks(baseline(make_cell(*TWO, label_noise=0.9)), prepared)
    assert (clean[0].train.labels != noisy[0].train.labels).sum() >= 8
    assert (clean[0].held_out.labels != noisy[0].held_out.labels).any()
    for task in (*noisy, *alone):  # one wrong label for all
        assert task.train.labels.tolist() == noisy[0].train.labels.tolist()
        assert task.test.labels.tolist() == clean[0].test.labels.tolist()


def test_a_part_of_each_class_keeps_its_label() -> None:
    labels = {f"clip{i}": "abcd"[min(i % 5, 3)] for i in range(400)} | {"only": "e"}
    kept = label_experiments.keep_labels(labels, 0.2, seed=[0, 1])
    count = Counter(labels[clip] for clip in kept)
    assert count == {"a": 16, "b": 16, "c": 16, "d": 32, "e": 1}
    backwards = dict(reversed(labels.items()))
    assert label_experiments.keep_labels(backwards, 0.2, seed=[0, 1]) == kept
    assert label_experiments.keep_labels(labels, 0.2, seed=[1, 1]) != kept
    assert kept < label_experiments.keep_labels(labels, 0.5, seed=[0, 1])
    assert label_experiments.keep_labels(labels, 1.0, seed=[0, 1]) == set(labels)


def test_the_same_clips_keep_their_label_whatever_else(with_sounds: Prepared) -> None:
    (split, _), test = with_sounds.splits, with_sounds.splits[0].test
    cell = make_cell(*TWO, labelled=0.25)
    noisy = make_cell(*TWO, labelled=0.25, label_noise=0.9, mixup=0.0, cycles=1)
    plain, *others = (
        task
        for each in (cell, noisy, baseline(cell), baseline(noisy))
        for task in branch_tasks(each, with_sounds)
    )
    assert len(plain.train.clip_ids) == 3  # one a class
    assert set(plain.train.labels.tolist()) == {0, 1, 2}
    for task in others:
        assert task.train.clip_ids == plain.train.clip_ids
        assert task.more_windows == plain.more_windows == 9 + 5
    assert set(plain.train.clip_ids).union(plain.unlabelled[:9]) == set(split.train)
    assert plain.taught == plain.train.clip_ids + plain.unlabelled
    assert {task.unlabelled for task in others} == {plain.unlabelled, ()}  # a baseline's
    assert not set(plain.taught) & set(test)
    assert plain.test.clip_ids == test
    other_fold = branch_tasks(replace(cell, fold=2), with_sounds)[0]
    assert set(other_fold.unlabelled[9:]) == set(plain.unlabelled[9:])
    assert not set(other_fold.taught) & set(other_fold.test.clip_ids)


def test_tasks_say_which_labels_nobody_verified(prepared: Prepared) -> None:
    split = prepared.splits[0]
    doubtful = {split.train[1], split.train[4], split.test[0]}
    clips = tuple(replace(c, verified=c.clip_id not in doubtful) for c in prepared.dataset.clips)
    prepared = replace(prepared, dataset=replace(prepared.dataset, clips=clips))
    (task,) = branch_tasks(make_cell(TWO[0]), prepared)
    assert task.train.unverified == (1, 4)
