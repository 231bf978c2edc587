"""What a choice says of itself: on the terminal, as tables, as a grid file."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from rich.console import Console

from mrkd_ray.config.fields import BranchSpec
from mrkd_ray.config.grid_files import read_grid
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import RecommendConfig
from mrkd_ray.recommend.choice import Choice, Probed, choose
from mrkd_ray.recommend.costs import Cost, front
from mrkd_ray.recommend.show import drawing, grid_file, show, tables

CLIPS = 100


def made(*wrong: range, margin: float = 10) -> Choice:
    """A choice among candidates that are wrong on these clips of 100."""
    labels = np.arange(CLIPS) % 2
    scores = np.full((len(wrong), CLIPS, 2), 0.2, np.float32)
    for own, p in zip(wrong, scores, strict=True):
        said = np.where(np.isin(np.arange(CLIPS), own), 1 - labels, labels)
        p[np.arange(CLIPS), said] = 0.8
    names = ("logmel64", "cqt", "mfcc")
    candidates = [BranchSpec(representation=n, network="vgg_small") for n in names[: len(wrong)]]
    probed = Probed(
        candidates=tuple(candidates),
        clip_ids=tuple(f"clip{i}" for i in range(CLIPS)),
        classes=("even", "odd"),
        labels=labels,
        probabilities=scores,
        parts=4,
    )
    return choose(probed, 2, margin)


def printed(choice: Choice) -> str:
    console = Console(file=io.StringIO(), width=80)
    show(choice, 1, False, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def cost(milliseconds: float) -> Cost:
    return Cost(
        multiplications=27_000_000,
        parameters=530_000,
        trained=19_000,
        milliseconds=milliseconds,
        seconds=5.0,
        processor="x",
    )


def test_what_each_candidate_brings_at_what_cost() -> None:
    choice = made(range(20), range(30), range(10))
    probed = replace(choice.probed, costs=(cost(9.0), cost(30.0), cost(12.0)))
    assert front(probed.costs, list(probed.accuracy)) == [0, 2]
    choice = replace(choice, probed=probed)
    text = " ".join(printed(choice).split())
    assert "5 s on one core: logmel64:vgg_small is the cheapest (80.0 %; 9.0 ms, 27.0 M" in text
    assert "mfcc:vgg_small brings +10.0 points (12.0 ms" in text
    assert "The other one costs more and is no better." in text
    assert "9.0 27.0 M 530 k 19 k" in text
    rows = pd.read_csv(io.StringIO(tables(choice)["probes.csv"]))
    assert rows["milliseconds"].tolist() == [9, 30, 12]
    (svg,) = drawing(choice).values()
    assert "logmel64:vgg_small" in svg
    assert "cqt:vgg_small" not in svg
    assert ">10<" in svg
    assert "math" not in svg  # numbers, not the source of formulas
    assert not drawing(made(range(20), range(30)))


def test_candidates_pairs_and_how_sure_the_choice_is() -> None:
    text = printed(made(range(10), range(5, 15), range(80, 90)))
    sentence = " ".join(text.split())
    assert "logmel64:vgg_small 90.0 ± 3.0" in sentence
    assert sentence.count("chosen") == 2
    assert "100 clips decide: 4 parts of the training clips of fold 1" in sentence
    assert "of the other 2 cohorts are not told apart from it" in sentence
    assert "few (unlabelled: FOLDER) branches gain by teaching each other" in sentence
    assert max(map(len, text.splitlines())) <= 80


def test_the_matrix_has_disagreement_above_and_correlation_below() -> None:
    """Two candidates of 90 % that share 5 of their 10 errors: on 10 clips one of them is right."""
    lines = [line.split() for line in printed(made(range(10), range(5, 15))).splitlines()]
    assert ["1", "10"] in lines
    assert ["2", "0.44"] in lines  # (85 * 5 - 5 * 5) / (90 * 10)


def test_one_cohort_is_not_called_the_best_of_many() -> None:
    text = " ".join(printed(made(range(10), range(5, 15), range(60))).split())
    assert "too weak" in text
    assert "not told apart" not in text
    assert "best of many" not in text


def test_tables_have_all_candidates_and_all_pairs() -> None:
    found = {name: pd.read_csv(io.StringIO(text)) for name, text in tables(_three()).items()}
    probes, pairs, cohorts = (found[f"{name}.csv"] for name in ("probes", "pairs", "cohorts"))
    assert list(probes["accuracy"]) == pytest.approx([0.9, 0.9, 0.4])
    assert list(probes["admitted"]) == [True, True, False]
    assert len(pairs) == 3
    first = pairs.iloc[0]
    assert (first["first"], first["second"]) == ("logmel64:vgg_small", "cqt:vgg_small")
    assert first["disagreement"] == pytest.approx(0.1)
    assert list(cohorts["cohort"]) == ["logmel64:vgg_small+cqt:vgg_small"]


def test_the_grid_file_is_read_as_any_other(tmp_path: Path) -> None:
    file = tmp_path / "recommended.yaml"
    asked = {"data": "my clips", "fold": 3, "mixup": 0.3, "cycles": 2, "parts": 2, "split_seed": 5}
    file.write_text(grid_file(_three(), parse(RecommendConfig, asked, "test")))
    config = read_grid(file, {})
    assert [str(branch) for branch in config.cohorts[0]] == ["logmel64:vgg_small", "cqt:vgg_small"]
    assert (config.data, config.folds, config.mixup, config.split_seed) == (
        "my clips",
        (3,),
        0.3,
        5,
    )
    assert config.name == "recommended"
    assert set(yaml.safe_load(file.read_text())) == {
        *("data", "folds", "mixup", "split_seed", "cohorts")
    }
    assert "# 100 clips decide" in file.read_text()


def with_wrong_labels(wrong: int, classes: int = 10) -> Choice:
    """Two candidates that are right on 200 clips, of which the last have a wrong label."""
    true = np.arange(200) % classes
    labels = np.where(np.arange(200) >= 200 - wrong, (true + 1) % classes, true)
    # The class behind the true one is the least probable.
    ranks = (np.arange(classes) - true[:, None]) % classes
    scores = (np.where(ranks == 0, 2.0 * classes, ranks) + 1).astype(np.float32)
    scores **= np.linspace(1, 1.5, 200, dtype=np.float32)[:, None]  # the surer, the later
    scores /= scores.sum(axis=1, keepdims=True)
    names = ("logmel64", "cqt")
    probed = Probed(
        candidates=tuple(BranchSpec(representation=n, network="vgg_small") for n in names),
        clip_ids=tuple(f"clip{i}" for i in range(200)),
        classes=tuple("abcdefghij"[:classes]),
        labels=labels,
        probabilities=np.stack([scores, scores]),
        parts=4,
    )
    return choose(probed, 2, 10)


def test_a_label_that_is_improbable_yet_second_is_not_doubted() -> None:
    """Of a clip that networks are sure of, and wrong."""
    whole = with_wrong_labels(20).probed
    scores = whole.probabilities.copy()
    scores[:, 0] = [0.0005, *[0.0001] * 8, 0.9987]
    found = pd.read_csv(
        io.StringIO(tables(choose(replace(whole, probabilities=scores), 2, 10))["labels.csv"])
    )
    assert found["probability"].idxmin() == 20
    assert (found["clip_id"][20], found["likeliest"][20]) == ("clip0", "j")


def part_of(choice: Choice, places: NDArray[np.int64]) -> Choice:
    """The same candidates, of which fewer clips decide."""
    whole = choice.probed
    probed = replace(
        whole,
        clip_ids=tuple(whole.clip_ids[i] for i in places),
        labels=whole.labels[places],
        probabilities=whole.probabilities[:, places],
    )
    return choose(probed, 2, 10)


@pytest.mark.parametrize(
    ("wrong", "classes", "said", "trusts"),
    [
        (0, 10, "about 0 ± 0 % look wrong.", False),
        (5, 10, "That is next to none", False),  # 4.5 %
        (20, 10, "about 18 ± 4 % look wrong.", True),
        (20, 10, "ensemble: 20 of 200 labels; labels.csv", True),
        (20, 10, "distil, with trust: true", True),
        (120, 10, "cannot be told: the probes are underfit", False),
        (20, 4, "cannot be told: there are fewer than 5 classes", False),
    ],
)
def test_the_advice_hangs_on_how_many_labels_look_wrong(
    wrong: int, classes: int, said: str, trusts: bool
) -> None:
    choice = with_wrong_labels(wrong, classes)
    assert said in " ".join(printed(choice).split())
    assert (
        yaml.safe_load(grid_file(choice, RecommendConfig(data="x"))).get("trust", False) is trusts
    )


def with_places(*counts: int) -> Choice:
    """Two candidates alike, of 10 classes, to which the labels of so many clips have each place."""
    places = np.repeat(np.arange(10), counts)
    labels = np.arange(len(places)) % 10
    falling = np.linspace(0.19, 0.01, 10, dtype=np.float32)
    scores = falling[(np.arange(10) - labels[:, None] + places[:, None]) % 10]
    probed = Probed(
        candidates=tuple(BranchSpec(representation=n, network="vgg_small") for n in ("a", "b")),
        clip_ids=tuple(f"clip{i}" for i in range(len(places))),
        classes=tuple("abcdefghij"),
        labels=labels,
        probabilities=np.stack([scores, scores]),
        parts=4,
    )
    return choose(probed, 2, 10)


def test_underfit_probes_give_no_verdict_and_the_sentence_says_so() -> None:
    """As measured on ESC-10, whose labels are right: docs/explanation/recommend.md."""
    choice = with_places(94, 63, 35, 32, 13, 11, 27, 25, 17, 3)
    assert choice.wrong_share > 0.4
    text = " ".join(printed(choice).split())
    assert "the probes are underfit. Their ensemble is right on 29 % of the clips" in text
    assert "more --cycles" in text
    assert "look wrong" not in text
    written = grid_file(choice, RecommendConfig(data="x"))
    assert "trust" not in yaml.safe_load(written)
    assert "the probes are underfit" in " ".join(written.replace("# ", "").split())


def test_as_few_right_answers_are_a_verdict_where_wrong_labels_are_the_reason() -> None:
    """As measured there after 20 cycles, with 30 % wrong labels, on three parts of four."""
    choice = with_places(144, 17, 14, 9, 11, 8, 8, 7, 7, 15)
    text = " ".join(printed(choice).split())
    assert "about 34 ± 5 % look wrong" in text
    assert yaml.safe_load(grid_file(choice, RecommendConfig(data="x")))["trust"] is True


def test_a_share_that_is_not_told_from_none_is_taken_as_none() -> None:
    few = part_of(with_wrong_labels(20), np.arange(142, 182))  # 2 of 40
    assert few.wrong_share == pytest.approx(0.09)
    assert few.wrong_share_error == pytest.approx(0.063, abs=0.001)
    assert "trust" not in yaml.safe_load(grid_file(few, RecommendConfig(data="x")))


def test_labels_that_nobody_verified_are_not_judged() -> None:
    whole = with_wrong_labels(20)
    some = replace(whole, probed=replace(whole.probed, all_verified=False))
    text = " ".join(printed(some).split())
    assert "cannot be told: those that nobody verified took no part" in text
    assert "trust" not in yaml.safe_load(grid_file(some, RecommendConfig(data="x")))


def test_verified_labels_are_not_doubted_in_the_grid() -> None:
    asked = parse(RecommendConfig, {"data": "x", "verified_only": True}, "test")
    assert "trust" not in yaml.safe_load(grid_file(with_wrong_labels(20), asked))


def test_labels_that_look_wrong_come_first_in_their_table() -> None:
    found = pd.read_csv(io.StringIO(tables(with_wrong_labels(20))["labels.csv"]))
    assert len(found) == 200
    assert list(found["doubted"]) == [True] * 20 + [False] * 180
    assert list(found["clip_id"][:20]) == [f"clip{i}" for i in range(199, 179, -1)]
    last = found[found["clip_id"] == "clip0"].iloc[0]  # the least sure of its label
    assert last["clip_id"] == found["clip_id"][20]
    assert (last["label"], last["likeliest"]) == ("a", "a")
    assert last["probability"] == pytest.approx(21 / (21 + sum(range(2, 11))))
    first = found.iloc[0]
    assert (first["label"], first["likeliest"]) == ("a", "j")
    own, likeliest = 2**1.5, 21**1.5
    total = likeliest + sum(n**1.5 for n in range(2, 11))
    assert first["probability"] == pytest.approx(own / total)
    assert first["probability_likeliest"] == pytest.approx(likeliest / total)


def _three() -> Choice:
    return made(range(10), range(5, 15), range(60))


def test_who_took_part_in_the_first_part_alone_is_shown_with_what_it_costs() -> None:
    choice = made(range(10), range(5, 15))
    weak = replace(
        choice.probed,
        candidates=(BranchSpec(representation="mfcc", network="vgg_small"),),
        labels=choice.probed.labels[:25],
        probabilities=1 - choice.probed.probabilities[:1, :25],  # wrong where the first is right
        costs=(cost(1.0),),
    )
    probed = replace(choice.probed, costs=(cost(3.0), cost(2.0)), left_out=weak)
    choice = replace(choice, probed=probed)
    text = " ".join(printed(choice).split())
    assert "mfcc:vgg_small 40.0 ± 10.0 1.055 too weak on the first part" in text
    assert "mfcc:vgg_small: tried on the first part alone" in text
    assert "mfcc:vgg_small is the cheapest (40.0 %" in text
    rows = pd.read_csv(io.StringIO(tables(choice)["probes.csv"]))
    assert rows["candidate"].tolist()[2] == "mfcc:vgg_small"
    assert rows["clips"].tolist() == [100, 100, 25]
    assert rows["admitted"].tolist() == [True, True, False]
    assert rows["milliseconds"].tolist() == [3.0, 2.0, 1.0]
    (svg,) = drawing(choice).values()
    assert "mfcc" in svg
    assert "# mfcc:vgg_small: tried on" in grid_file(choice, RecommendConfig(data="x"))
