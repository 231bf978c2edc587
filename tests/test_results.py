"""The table and the tidy CSV say what the per-clip predictions say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_cell
from rich.console import Console

from mrkd_ray import cell_files, cells, results
from mrkd_ray.cells import Cell, Prepared
from mrkd_ray.files import write_json
from mrkd_ray.task import Part

CLASSES = ("a", "b", "c", "1")
TWO = ("logmel64:resnet_small", "cqt:vgg_small")
COLUMNS = [f"p_{name}" for name in CLASSES]
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
        alone = [
            cells.independent_cell(name, cell, device="cpu", content="test") for name in cell.names
        ]
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
    table = results.gather(grid[0], "g", grid[1]).table.set_index("model")
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


def test_anyone_can_recompute_the_figures_from_the_files(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    tidy = results.gather(folder, "g", made).tidy
    written = pd.read_csv(folder / "results.csv")
    assert list(written.columns) == list(tidy.columns)
    assert len(written) == 2 * (1 + 1 + 3 + 1)  # and the ensemble of those trained alone
    for row in written.to_dict("records"):
        if isinstance(row["cell"], str):
            table = predictions(folder, row["cell"])
            name = row["branch"] if isinstance(row["branch"], str) else "ensemble"
            mine = table[table["model"] == name]
        else:  # the independent ensemble: the mean of its members
            members = written[
                (written["condition"] == "independent")
                & (written["model"] == "branch")
                & (written["fold"] == row["fold"])
            ]
            assert set(members["cohort"]) == set(row["cohort"].split("+"))
            tables = [predictions(folder, key) for key in members["cell"]]
            mine = tables[0].copy()
            mine[COLUMNS] = sum(table[COLUMNS] for table in tables) / len(tables)
        guessed = np.array(CLASSES)[mine[COLUMNS].to_numpy().argmax(axis=1)]
        assert (guessed == mine["label"]).mean() == pytest.approx(row["accuracy"])


def predictions(folder: Path, key: str) -> pd.DataFrame:
    return pd.read_csv(folder / "cells" / key / "predictions.csv", dtype={"label": str})


def test_a_cell_that_is_not_finished_is_left_out(grid: tuple[Path, list[Cell]]) -> None:
    folder, made = grid
    last = [cell for cell in made if cell.temperature is not None][-1]
    (folder / "cells" / last.key / "result.json").unlink()
    table = results.gather(folder, "g", made).table
    assert (table["runs"] == 1).all()
    assert (table["paired_runs"] == 1).all()


def test_the_table_fits_80_columns_and_marks_what_excludes_zero(
    grid: tuple[Path, list[Cell]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, made = grid
    found = results.gather(folder, "g", made)
    found.table.loc[0, ["accuracy_difference_low", "accuracy_difference_high"]] = (1.0, 24.0)
    found.table.loc[1, ["accuracy_difference_low", "accuracy_difference_high"]] = (-9.0, 24.0)
    found.show(Console(width=80, no_color=True))
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if line.strip().startswith(NAMES[0]))
    assert "50.0 ± 0.0" in first
    assert first.rstrip().endswith("+12.5 [1.0, 24.0]*")
    second = next(line for line in lines if line.strip().startswith(NAMES[1]))
    assert second.rstrip().endswith("[-9.0, 24.0]")
    assert any(str(folder) in line for line in lines)


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
        replace(cell, threads=2),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 9
    assert make_cell(*TWO).key == cell.key
    assert replace(cell, windows="streamed").key == cell.key  # the same bits


def test_a_baseline_is_shared_by_cells_that_differ_in_distillation_only() -> None:
    plain, other = make_cell(*TWO), make_cell(*TWO, kl_weight=2.0, soft_labels="window")
    alone = baseline(plain)
    assert alone.key == baseline(other).key
    slower = make_cell(*TWO, lr=0.001)
    assert alone.key != baseline(slower).key


def baseline(cell: Cell) -> Cell:
    return cells.independent_cell(cell.names[0], cell, device="cpu", content="x")


def test_equal_branches_have_baselines_of_their_own() -> None:
    cell = make_cell(TWO[1], TWO[1])
    alone = [cells.independent_cell(n, cell, device="cpu", content="x") for n in cell.names]
    assert [a.names for a in alone] == [("cqt-vgg_small",), ("cqt-vgg_small-2",)]
    assert alone[0].key != alone[1].key


def test_noise_changes_a_part_of_the_labels_each_to_another_class() -> None:
    labels = {f"clip{i}": i % 5 for i in range(400)}
    noisy = cells.with_noise(labels, 5, 0.3, seed=[0, 1])
    changed = [clip for clip in labels if noisy[clip] != labels[clip]]
    assert len(changed) == 120
    shifts = np.bincount([(noisy[clip] - labels[clip]) % 5 for clip in changed], minlength=5)
    assert (shifts[1:] > 15).all()  # every other class
    backwards = dict(reversed(labels.items()))
    assert cells.with_noise(backwards, 5, 0.3, seed=[0, 1]) == noisy
    assert cells.with_noise(labels, 5, 0.3, seed=[1, 1]) != noisy
    assert cells.with_noise(labels, 5, 0.0, seed=[0, 1]) == labels


def test_noise_is_in_all_training_labels_and_in_no_test_label(prepared: Prepared) -> None:
    split = prepared.splits[0]
    held = replace(split, train=split.train[2:], held_out=split.train[:2])
    prepared = replace(prepared, splits=(held,))
    clean = cells.branch_tasks(make_cell(*TWO), prepared)
    noisy = cells.branch_tasks(make_cell(*TWO, label_noise=0.9), prepared)
    alone = cells.branch_tasks(baseline(make_cell(*TWO, label_noise=0.9)), prepared)
    assert (clean[0].train.labels != noisy[0].train.labels).sum() >= 8
    assert (clean[0].held_out.labels != noisy[0].held_out.labels).any()
    for task in (*noisy, *alone):  # one wrong label for all
        assert task.train.labels.tolist() == noisy[0].train.labels.tolist()
        assert task.test.labels.tolist() == clean[0].test.labels.tolist()


def test_tasks_say_which_labels_nobody_verified(prepared: Prepared) -> None:
    split = prepared.splits[0]
    doubtful = {split.train[1], split.train[4], split.test[0]}
    clips = tuple(replace(c, verified=c.clip_id not in doubtful) for c in prepared.dataset.clips)
    prepared = replace(prepared, dataset=replace(prepared.dataset, clips=clips))
    (task,) = cells.branch_tasks(make_cell(TWO[0]), prepared)
    assert task.train.unverified == (1, 4)
