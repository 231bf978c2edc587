"""From a data set to a grid file; the probes are real ones, and small."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from mrkd_ray.common.errors import UserError
from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.config.method import Learning
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import RecommendConfig
from mrkd_ray.datasets.opening import Dataset, open_dataset
from mrkd_ray.grid import run as grid
from mrkd_ray.grid.workers import Start
from mrkd_ray.recommend import probes
from mrkd_ray.recommend.probes import parts_of
from mrkd_ray.recommend.recommend import candidates_of, recommend
from mrkd_ray.recommend.show import show
from mrkd_ray.representations import pretrained
from mrkd_ray.representations.catalogue import REPRESENTATIONS
from tests.conftest import FAST

QUIET = Console(quiet=True)


def config(clips: Path, folder: Path, **fields: Any) -> RecommendConfig:
    values = {
        **{name: value for name, value in FAST.items() if name in Learning.model_fields},
        "cycles": 3,
        "data": str(clips),
        "cache": folder / "cache",
        "output": folder / "results",
        "representations": "logmel64,cqt",
        "networks": "vgg_small",
        "parts": 2,
        "runner": "local",
    }
    return parse(RecommendConfig, values | fields, "test")


@pytest.fixture
def dataset(clips: Path, tmp_path: Path) -> Dataset:
    return open_dataset(clips, tmp_path)


def with_folds(dataset: Dataset, folds: int) -> Dataset:
    clips = enumerate(dataset.clips)
    return replace(
        dataset, clips=tuple(replace(c, fold=1 + i // 3 % folds, split=None) for i, c in clips)
    )


def test_other_folds_decide_in_turn(dataset: Dataset, clips: Path, tmp_path: Path) -> None:
    four = with_folds(dataset, 4)
    of_fold = {f: {c.clip_id for c in four.clips if c.fold == f} for f in range(1, 5)}
    parts, _ = parts_of(four, config(clips, tmp_path, fold=3, parts=4))
    assert [part.fold for part in parts] == [1, 2, 4]
    for part in parts:
        assert set(part.test) == of_fold[part.fold]
        assert not part.held_out
        everything = {clip.clip_id for clip in four.clips}
        assert set(part.train) == everything - of_fold[part.fold] - of_fold[3]
    assert len(parts_of(four, config(clips, tmp_path, fold=3, parts=2))[0]) == 2


@pytest.mark.parametrize("given", ["two folds", "a split"])
def test_a_lone_training_side_is_divided(
    dataset: Dataset, clips: Path, tmp_path: Path, given: str
) -> None:
    if given == "a split":
        sides = ("train", "test")
        few = tuple(
            replace(clip, fold=None, split=sides[(clip.fold or 0) - 1]) for clip in dataset.clips
        )
        dataset = replace(dataset, clips=few)
        judged = {clip.clip_id for clip in few if clip.split == "test"}
    else:
        judged = {clip.clip_id for clip in dataset.clips if clip.fold == 1}
    parts, _ = parts_of(dataset, config(clips, tmp_path, parts=20))
    assert len(parts) > 1
    deciding = [clip_id for part in parts for clip_id in part.test]
    assert len(deciding) == len(set(deciding)) == len(dataset.clips) - len(judged)
    for part in parts:
        used = {*part.train, *part.test}
        assert not set(part.train) & set(part.test)
        assert used == {clip.clip_id for clip in dataset.clips} - judged


def test_only_verified_labels_decide(dataset: Dataset, clips: Path, tmp_path: Path) -> None:
    doubtful = replace(
        dataset,
        clips=tuple(replace(c, verified=i % 2 == 0) for i, c in enumerate(dataset.clips)),
    )
    parts, _ = parts_of(doubtful, config(clips, tmp_path))
    assert all(doubtful.by_id[clip_id].verified for part in parts for clip_id in part.test)
    assert any(not doubtful.by_id[clip_id].verified for clip_id in parts[0].train)
    strict, _ = parts_of(doubtful, config(clips, tmp_path, verified_only=True))
    assert all(doubtful.by_id[clip_id].verified for clip_id in strict[0].train)
    none = replace(dataset, clips=tuple(replace(c, verified=False) for c in dataset.clips))
    with pytest.raises(UserError, match="verified"):
        parts_of(none, config(clips, tmp_path))


def test_candidates_are_what_small_networks_see_unless_some_are_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = candidates_of(config(clips, tmp_path, representations=None, networks=None))
    others = {"waveform", "logmel_mn", "fused", *pretrained.FILES}
    assert {branch.representation for branch in every} == set(REPRESENTATIONS) - others
    assert {branch.network for branch in every} == {"resnet_small", "vgg_small"}
    # Embeddings are tried with heads, and first, where their weights are.
    monkeypatch.setenv(pretrained.FOLDER, str(tmp_path))
    (tmp_path / pretrained.FILES["mn04"].file).touch()
    more = candidates_of(config(clips, tmp_path, representations=None, networks=None))
    heads = ["mn04:linear", "mn04:mlp", "mn04_context:linear", "mn04_context:mlp"]
    assert list(map(str, more)) == [*heads, *map(str, every)]
    besides = ["mfcc:resnet18", "cqt:resnet18"]
    named = candidates_of(
        config(clips, tmp_path, networks="vgg_small, resnet18,vgg_small", branches=besides)
    )
    assert list(map(str, named)) == [
        *("logmel64:vgg_small", "logmel64:resnet18"),
        *("cqt:vgg_small", "cqt:resnet18"),
        "mfcc:resnet18",
    ]


@pytest.mark.slow
def test_from_clips_to_a_grid_that_runs(
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = config(clips, tmp_path, mixup=0.4, representations="mfcc,logmel64,cqt")
    file = tmp_path / "recommended.yaml"
    (weak,) = (each for each in candidates_of(asked) if each.representation == "mfcc")
    monkeypatch.setattr(probes, "too_weak", lambda first, size, margin: {weak})
    choice = recommend(asked, file, console=QUIET)
    assert len(choice.probed.labels) == 6  # two of the four parts of fold 2
    (results,) = (tmp_path / "results").iterdir()
    rows = {name: _rows(results / f"{name}.csv") for name in ("probes", "pairs", "cohorts")}
    probed = [(row["candidate"], row["clips"]) for row in rows["probes"]]
    assert probed == [("logmel64:vgg_small", "6"), ("cqt:vgg_small", "6"), ("mfcc:vgg_small", "3")]
    assert len(list(results.glob("cells/*mfcc*"))) == 1  # it is in the first part only
    assert len(rows["pairs"]) == len(rows["cohorts"]) == 1
    assert rows["cohorts"][0]["cohort"] == "logmel64:vgg_small+cqt:vgg_small"
    labels = {clip.clip_id: clip.label for clip in open_dataset(clips, tmp_path).clips}
    names = np.array(choice.probed.classes)
    assert [labels[name] for name in choice.probed.clip_ids] == list(names[choice.probed.labels])
    assert choice.probed.all_verified
    judged = _rows(results / "labels.csv")
    assert {row["clip_id"] for row in judged} == set(choice.probed.clip_ids)
    for row in judged:  # as the probes' own files have it
        assert row["label"] == labels[row["clip_id"]]
        said = [
            float(line[f"p_{row['label']}"])
            for path in results.glob("cells/*/predictions.csv")
            if "mfcc" not in path.parent.name
            for line in _rows(path)
            if line["clip_id"] == row["clip_id"]
        ]
        assert float(row["probability"]) == pytest.approx(np.mean(said), abs=1e-5)
    show(choice, asked.fold, asked.verified_only, Console())
    assert "6 clips decide" in capsys.readouterr().out

    text = file.read_text()
    assert "# 6 clips decide" in text
    written = yaml.safe_load(text)
    assert written["folds"] == [1]
    assert written["mixup"] == 0.4
    assert "cycles" not in written
    ran = grid.run(read_grid(file, {"cycles": 2}), console=QUIET)
    assert set(ran.tidy["fold"]) == {1}
    assert set(ran.tidy["cell"]) - {""}  # and none of a probe's, whose test clips are others
    assert not {path.name for path in (results / "cells").iterdir()} & set(ran.tidy["cell"])

    made = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/result.json")}
    shown = Console(record=True, quiet=True)
    with pytest.raises(UserError, match="--force"):
        recommend(asked, file, console=shown)

    def started(self: Start) -> None:
        raise AssertionError("a cluster, for probes that are all finished")

    monkeypatch.setattr(Start, "begin", started)
    monkeypatch.setattr(Start, "here", True)  # though another test has imported Ray
    ray = asked.model_copy(update={"runner": "ray"})
    again = recommend(ray, file, force=True, console=shown)
    assert again.cohorts[0].members == choice.cohorts[0].members
    assert again.cohorts[0].log_loss == choice.cohorts[0].log_loss
    assert made == {path: path.stat().st_mtime_ns for path in results.glob("cells/*/result.json")}

    environment = results / "environment.json"
    environment.write_text(environment.read_text().replace('"torch": "', '"torch": "0.'))
    monkeypatch.setattr("mrkd_ray.recommend.recommend._in_time", lambda *given: given[:2])
    monkeypatch.setattr(
        "mrkd_ray.recommend.recommend.run_cells", lambda *given: [("a probe", "lost")]
    )
    with pytest.raises(grid.CellsFailed, match=r"1 of 3 probes .*\n.*lost\n.*/recommend-2\."):
        recommend(asked, file, force=True, console=QUIET)  # probes of another PyTorch do not count


@pytest.mark.slow
def test_who_is_hopeless_in_few_epochs_has_no_whole_probe_and_is_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(clips, tmp_path, cycles=5, parts=1, representations="mfcc,logmel64,cqt")
    (poor,) = (each for each in candidates_of(asked) if each.representation == "mfcc")
    monkeypatch.setattr(probes, "hopeless", lambda tried, size, margin: {poor})
    monkeypatch.setattr(probes, "FEWEST_CLIPS", 3)
    choice = recommend(asked, tmp_path / "to.yaml", console=QUIET)
    assert str(poor) not in map(str, choice.probed.candidates)
    (results,) = (tmp_path / "results").iterdir()
    cycles = Counter(
        (next(iter(json.loads(path.read_text())["branches"])), path.parent.name in _short(results))
        for path in results.glob("cells/*/result.json")
    )
    assert cycles == Counter(
        {(f"{name}-vgg_small", short): 1 for name in ("cqt", "logmel64") for short in (True, False)}
        | {("mfcc-vgg_small", True): 1}
    )
    last = _rows(results / "probes.csv")[-1]
    assert (last["candidate"], last["admitted"], last["clips"]) == (str(poor), "False", "3")
    assert f"# {poor}: tried for a fifth of the epochs" in (tmp_path / "to.yaml").read_text()
    made = {path: path.stat().st_mtime_ns for path in results.glob("cells/*/result.json")}
    recommend(asked, tmp_path / "to.yaml", force=True, console=QUIET)
    assert made == {path: path.stat().st_mtime_ns for path in results.glob("cells/*/result.json")}


def _short(results: Path) -> set[str]:
    """The cells of one cycle."""
    rows = {path.parent.name: _rows(path) for path in results.glob("cells/*/history.csv")}
    return {name for name, own in rows.items() if len({row["cycle"] for row in own}) == 1}


@pytest.mark.parametrize(("field", "told"), [("fold", True), ("split", True), (None, False)])
def test_the_seed_of_parts_is_told_where_the_data_say_folds_but_not_the_parts(
    dataset: Dataset, clips: Path, tmp_path: Path, field: str | None, told: bool
) -> None:
    assert dataset.clips[0].fold is not None  # two of them: the training side is one fold
    sides = {1: "train", 2: "test"}
    changed = tuple(
        replace(clip, fold=None, split=sides[clip.fold or 1] if field == "split" else None)
        for clip in dataset.clips
    )
    data = dataset if field == "fold" else replace(dataset, clips=changed)
    for seed in (0, 5):
        _, drawn = parts_of(data, config(clips, tmp_path, split_seed=seed))
        assert drawn == (seed if told else 0)  # else the data set's content has it already


@pytest.mark.slow
def test_too_little_time_is_said_before_training(clips: Path, tmp_path: Path) -> None:
    asked = config(clips, tmp_path, minutes=1e-4)
    with pytest.raises(UserError, match=r"minutes: .* take about"):
        recommend(asked, tmp_path / "recommended.yaml", console=QUIET)
    assert not (tmp_path / "results").exists()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
