"""Figures show what was measured, in any grid, and their markup stands alone on any background."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing

from mrkd_ray.report.curves import Curves, learning_curves
from mrkd_ray.report.figures import (
    NO_BASELINE,
    Section,
    agreement,
    calibration,
    clip,
    confusion,
    embedding,
    figures,
    learning,
    modes,
    phases,
    style,
    variants,
)
from mrkd_ray.report.grid_results import GridResults, read_results
from mrkd_ray.scores import calibration as scores_calibration
from mrkd_ray.scores import classes as scores_classes
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.intervals import Interval
from tests.report.fakes import fake_embed, fake_grid

DISTILLED_ALONE = (
    *("Learning curves", "Agreement between branches", "Classes", "Calibration", "Time"),
)
PAIRING = "logmel64:resnet_small+cqt:vgg_small"
KIND = "bootstrap over clips"
FIGURE3 = (
    "logmel64:vgg_small+logmel64:resnet_small",
    "logmel64:resnet_small+cqt:resnet_small",
    "logmel64:resnet_small+cqt:vgg_small",
)


@pytest.fixture(autouse=True)
def _look() -> Iterator[None]:
    with style.look():
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("grids") / "small"
    return read_results(fake_grid(folder, pairings=(PAIRING,), temperatures=(1, 2), folds=(1, 2)))


@pytest.fixture(scope="module")
def sections(small: GridResults) -> list[Section]:
    with style.look():
        return figures(small)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    """50 classes, three branches, the partners of Figure 3, one run."""
    folder = tmp_path_factory.mktemp("grids") / "many"
    return read_results(
        fake_grid(
            folder,
            pairings=(*FIGURE3, "logmel64:resnet_small+cqt:vgg_small+mfcc:vgg_small"),
            temperatures=(2,),
            folds=(1,),
            classes=50,
            clips=100,
            reported="figure3",
        )
    )


def svgs(markup: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(markup).iter() if e.tag.endswith("}svg")]


def words(drawing: Drawing) -> list[str]:
    (axes,) = drawing.axes
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("ends", [(0, 8), (-0.05, 0.04), (0, 123456), (-104, 60)])
def test_numbers_below_a_panel_stand_apart(ends: tuple[float, float]) -> None:
    with style.look():
        drawing, axes = style.new(2.0, xlabel="points")
        axes.set_xlim(ends)
        axes.set_yticks(range(3), ["logmel64-resnet_small"] * 3)
        style.figure("one", "Title", "Caption", [style.Panel(drawing, "label")])
        drawing.draw_without_rendering()
    labels = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    boxes = [text.get_window_extent() for x, text in labels if ends[0] <= x <= ends[1]]
    assert len(boxes) >= 2
    gaps = [after.x0 - before.x1 for before, after in pairwise(boxes)]
    assert min(gaps) * 72 / drawing.dpi >= style.LETTER


def test_every_figure_is_small_stands_alone_and_is_the_same_each_time(
    small: GridResults, sections: list[Section]
) -> None:
    assert sections == figures(small)
    drawn = [figure for section in sections for figure in section.figures]
    ids = [figure.id for figure in drawn]
    assert ids == [
        *("tsne-1", "learning-1", "agreement", "confusion-1", "classes-1", "calibration-1", "time")
    ]
    used: list[str] = []
    for figure in drawn:
        assert len(figure.svg) < 200_000, figure.id
        assert not re.search(style.INK, figure.svg, re.IGNORECASE), figure.id
        assert "currentColor" in figure.svg
        assert not re.search(r"#000000|black|<style|<script|http(?!://www\.w3\.org)", figure.svg)
        for svg in svgs(figure.svg):
            assert svg.get("role") == "img"
            assert svg.get("aria-label")
            used += [e.attrib["id"] for e in svg.iter() if "id" in e.attrib]
        targets = re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", figure.svg)
        assert set(targets) <= set(used)
        assert "font-family" not in figure.svg
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", figure.svg)]
        assert min(sizes) >= 8, figure.id  # units of 4/3 px at a panel's natural size
    assert len(used) == len(set(used))


def test_a_note_says_what_was_chosen_and_what_is_missing(
    sections: list[Section], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "embed", fake_embed)
    notes = {section.title: section.note for section in sections}
    assert "'nowhere'" in notes["What the networks see"]
    assert notes["Modes of distillation"] == ""  # one kind of partner: no such section
    assert "nearest to 2" in notes["Learning curves"]
    assert notes["Variants of the method"] == ""  # the grid has none: no such section
    fields = {"independent": False, "variants": {"one": {}, "two": {"kl_weight": 2}}}
    alone = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), **fields)
    for section in figures(read_results(alone)):
        if section.title in DISTILLED_ALONE:
            assert section.figures
        else:
            assert section.figures == ()
            assert section.note in ("", NO_BASELINE) or "'nowhere'" in section.note
    one = fake_grid(tmp_path / "one", pairings=("cqt:vgg_small",), temperatures=(2,))
    notes = {
        section.title: section.note for section in figures(read_results(one)) if not section.figures
    }
    assert notes["Agreement between branches"] == ""  # every cohort has one branch
    assert not any("alone, to compare" in note for note in notes.values())


def test_bars_for_each_mode_with_what_the_paper_reports(many: GridResults) -> None:
    branch, cohorts = modes.find(many)
    assert branch == ("logmel64", "resnet_small")
    assert {which: cohort.name for which, (cohort, _) in cohorts.items()} == dict(
        zip(("DN", "DR", "D-RN"), FIGURE3, strict=True)
    )
    reported = modes.reported(branch, cohorts, "figure3")
    assert [reported[k]["accuracy"] for k in ("baseline", *modes.KINDS)] == [
        *(88.01, 89.18, 89.63, 90.6)
    ]
    assert [reported[k]["mAP@3"] for k in ("baseline", *modes.KINDS)] == [
        *(91.06, 92.61, 92.72, 93.16)
    ]
    pairs = {which: many.pairs(cohort, name) for which, (cohort, name) in cohorts.items()}
    bars = {
        which: comparison.mean([p.distilled for p in ps], comparison.terms(metrics.SINGLE_LABEL[0]))
        for which, ps in pairs.items()
    }
    drawing = modes.draw("accuracy", bars, {"DN": 89.18})
    (axes,) = drawing.axes
    rows = many.tidy[(many.tidy["branch"] == "logmel64-resnet_small")]
    expected = [
        100 * rows.loc[rows["cohort"] == cohort.name, "accuracy"].item()
        for cohort, _ in cohorts.values()
    ]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)
    marks = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert marks == [89.18]
    assert modes.figure(many, "modes") is not None


def test_the_gains_of_variants(tmp_path: Path) -> None:
    names = {"one": {}, "two": {"kl_weight": 2}, "three": {"kl_weight": 3, "temperatures": [1, 4]}}
    pairings = ("logmel64:resnet_small+cqt:vgg_small", "cqt:vgg_small")
    results = read_results(
        fake_grid(tmp_path, pairings=pairings, temperatures=(2,), variants=names)
    )
    first, second = variants.figure(results, "variants")
    assert (
        first.svg.count('role="img"') == 5
    )  # branches, ensemble, best branch, and it less the ensemble
    assert second.svg.count('role="img"') == 1
    for name in ("one, T = 2", "two, T = 2", "three, T = 1", "three, T = 4"):
        assert f">{name}<" in first.svg
    rows = results.table[results.table["model"] == "ensemble"]
    (axes,) = variants.draw("ensemble", rows, "accuracy_difference").axes
    means = [line.get_xdata()[0] for line in axes.lines[2::2]]
    ends = [list(line.get_xdata()) for line in axes.lines[1::2]]
    assert means == rows["accuracy_difference"].tolist()
    assert ends == rows[["accuracy_difference_low", "accuracy_difference_high"]].values.tolist()
    assert "a bootstrap over clips;" in first.caption
    ends = {"accuracy_difference_low": [0.04, 0.06, -9, -9], "accuracy_difference_high": 9.0}
    (axes,) = variants.draw("ensemble", rows.assign(**ends), "accuracy_difference").axes
    fills = [line.get_mfc() for line in axes.lines[2::2]]
    assert fills == ["none", style.DISTILLED, "none", "none"]  # the first one is printed as 0.0
    one = replace(results, table=results.table[results.table["variant"] == "one"])
    assert variants.figure(one, "variants") == ()


@pytest.mark.parametrize(
    ("branch", "partner", "key", "beside"),
    [
        ("logmel64:resnet_small", "cqt:vgg_small", "figure3", True),
        ("logmel64:resnet101", "cqt:vgg19", "table6", True),
        ("logmel64:resnet18", "cqt:vgg_small", "figure3", False),  # the paper has no ResNet18
        ("logmel64:resnet_small", "cqt:resnet18", "figure3", False),
        ("logmel64:resnet_small", "cqt:vgg_small", "table7", False),  # of another data set
    ],
)
def test_a_diamond_is_of_the_papers_own_pairing_and_data_set(
    branch: str, partner: str, key: str, beside: bool, tmp_path: Path
) -> None:
    pairings = (f"{branch}+{partner}", f"{branch}+mfcc:{branch.split(':')[1]}")
    results = read_results(fake_grid(tmp_path, pairings=pairings, temperatures=(2,), reported=key))
    found, cohorts = modes.find(results)
    assert ("D-RN" in modes.reported(found, cohorts, key)) is beside


@pytest.mark.parametrize(
    ("partner", "expected"),
    [
        (("cqt", "r"), "DR"),
        (("logmel64", "v"), "DN"),
        (("cqt", "v"), "D-RN"),
        (("logmel64", "r"), None),
    ],
)
def test_the_mode_is_what_the_partner_differs_in(
    partner: modes.Branch, expected: str | None
) -> None:
    assert modes.kind(("logmel64", "r"), partner) == expected


def test_tsne_has_one_start_one_seed_and_one_frame(small: GridResults) -> None:
    (cohort,) = small.cohorts
    pair = small.pairs(cohort, cohort.branches[0])[0]
    same, twin = embedding.embed(pair.independent.probabilities, pair.independent.probabilities)
    assert np.array_equal(same, twin)
    independent, distilled = embedding.draw(pair, small.classes)
    (a,), (b,) = independent.drawing.axes, distilled.drawing.axes
    assert a.get_xlim() == b.get_xlim()
    assert a.get_ylim() == b.get_ylim()
    for axes in (a, b):
        (points,) = (c for c in axes.collections if isinstance(c, PathCollection))
        assert len(points.get_offsets()) == 30
        left, right = axes.get_xlim()
        assert all(left < x < right for x, _ in np.asarray(points.get_offsets()))
        assert sorted(text.get_text() for text in axes.texts) == list(small.classes)


def test_of_many_classes_the_most_frequent_have_colours_and_names(many: GridResults) -> None:
    cohort = many.cohorts[0]
    panel = embedding.draw(many.pairs(cohort, cohort.branches[0])[0], many.classes)[0]
    (axes,) = panel.drawing.axes
    (points,) = (c for c in axes.collections if isinstance(c, PathCollection))
    colours = [to_hex(colour) for colour in np.asarray(points.get_facecolors())]
    assert len(set(colours)) == 1 + embedding.SHOWN
    assert colours.count(style.GREY) == 2 * (50 - embedding.SHOWN)
    assert len(axes.texts) == embedding.SHOWN


def test_names_do_not_lie_on_each_other() -> None:
    drawing, axes = style.new(3.0)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    style.label_points(axes, {f"class {i}": np.array([0.5, 0.5]) for i in range(6)})
    heights = sorted(text.get_position()[1] for text in axes.texts)
    assert min(np.diff(heights)) >= 0.05
    assert drawing.axes == [axes]


def test_learning_curves_have_the_phases_of_each_cycle(small: GridResults) -> None:
    (cohort,) = small.cohorts
    pairs = small.pairs(cohort, cohort.branches[0])
    both = {
        "distilled": learning_curves(small, [p.distilled for p in pairs]),
        "independent": learning_curves(small, [p.independent for p in pairs]),
    }
    (axes,) = learning.losses("a", both, first=0.5).axes
    assert [(p.get_x(), p.get_width()) for p in axes.patches] == [
        (0.5, 0.5),
        (1.5, 0.5),
        (2.5, 0.5),
    ]
    independent, zigzag, kl = axes.lines
    assert independent.get_ydata().tolist() == [2.0, 1.0, 2 / 3]
    assert zigzag.get_xdata().tolist() == [0.5, 1, 1.5, 2, 2.5, 3]
    assert zigzag.get_ydata().tolist() == [2.0, 0.8, 1.0, 0.8, 2 / 3, 0.8]
    assert kl.get_ydata().tolist() == [0.2] * 3
    assert len(axes.collections) == 3  # a band each: two runs
    (axes,) = learning.scores("a", both, 0.5, "accuracy").axes
    assert sorted(words(axes.figure)) == ["distilled", "independent"]


def test_of_many_cycles_the_ends_of_the_two_phases_are_two_lines() -> None:
    n = learning.MARKED + 1
    runs = np.ones((1, n))
    curves = Curves(2 * runs, 1.5 * runs, 0.5 * runs, runs)
    (axes,) = learning.losses("a", {"distilled": curves}, first=0.5).axes
    after_training, after_distillation, _ = axes.lines
    assert after_training.get_xdata().tolist() == [i + 0.5 for i in range(n)]
    assert set(after_training.get_ydata()) == {2.0}
    assert after_distillation.get_xdata().tolist() == [i + 1 for i in range(n)]
    assert set(after_distillation.get_ydata()) == {1.5}
    assert {"L_ce after training", "L_ce after distillation"} <= set(words(axes.figure))


def test_cycles_without_a_teacher_are_not_shaded() -> None:
    kl = np.array([[np.nan, np.nan, 0.5, 0.5]])
    curves = Curves(kl, np.ones((1, 4)), kl, np.ones((1, 4)))
    for drawing in (
        learning.losses("a", {"distilled": curves}, first=0),
        learning.scores("a", {"distilled": curves}, 0, "accuracy"),
    ):
        assert sorted(patch.get_x() for patch in drawing.axes[0].patches) == [2, 3]


def test_an_interval_of_one_seed_is_not_said_to_be_over_seeds(
    small: GridResults, tmp_path: Path
) -> None:
    several = fake_grid(tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), seeds=(0, 1))
    for results, seeds in ((small, False), (read_results(several), True)):
        (cohort,) = results.cohorts
        for draw in (embedding.figure, confusion.changes):
            figure = draw(results, cohort, "a")
            assert figure is not None
            assert ("(bootstrap over clips and seeds)" in figure.caption) is seeds
            assert ("between trainings is not" in figure.caption) is not seeds


def test_a_label_is_taken_as_it_is() -> None:
    drawing, _ = style.new(1.0)
    figure = style.figure("a", "A", "", [style.Panel(drawing, r"clip \1 of C:\new\g<0>")])
    (svg,) = svgs(figure.svg)
    assert svg.get("aria-label") == r"clip \1 of C:\new\g<0>"


def test_runs_are_counted_for_each_panel() -> None:
    assert [style.runs_in_words(n) for n in ([1], [5, 5], [3, 5])] == [
        *("one run", "5 runs", "3 to 5 runs")
    ]


def test_a_matrix_of_many_classes_has_those_that_are_confused(many: GridResults) -> None:
    matrix = np.eye(50)
    matrix[7, 7], matrix[7, 31] = 0.4, 0.6
    assert {7, 31} <= set(confusion.most_confused(matrix))
    assert len(confusion.most_confused(matrix)) == confusion.MOST
    drawing = confusion.draw("a", np.array([[0.25, 0.75], [0.0, 1.0]]), ["a", "b"], "distilled")
    assert words(drawing) == ["25", "75", "100"]
    cohort = many.cohorts[0]
    figure = confusion.matrices(many, cohort, "confusion")
    assert figure is not None
    assert len(svgs(figure.svg)) == 2 * len(cohort.models)
    assert "10 of 50 classes" in figure.caption


def test_changes_within_noise_are_hollow(many: GridResults) -> None:
    change = scores_classes.ClassChange
    found = [
        change("better", 10, 5, 0.5, Interval(20, 10, 30, KIND)),
        change("noise", 10, 5, 0.5, Interval(-10, -30, 10, KIND)),
        change("few clips", 1, 1, 0.5, Interval(-100, -100, -100, KIND)),
    ]
    (axes,) = confusion.draw_changes("a", found).axes
    fills = {line.get_ydata()[0]: line.get_mfc() for line in axes.lines if line.get_marker() == "o"}
    assert fills == {2: style.DISTILLED, 1: "none", 0: "none"}
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["few clips", "noise", "better"]
    figure = confusion.changes(many, many.cohorts[0], "classes")
    assert figure is not None
    assert "10 largest gains and losses of 50 classes" in figure.caption
    assert "Of 50 classes without any change about 2 would be filled" in figure.caption
    assert "at least 5" in figure.caption


def test_reliability_shows_each_bin_that_has_clips(small: GridResults) -> None:
    (cohort,) = small.cohorts
    pairs = small.pairs(cohort, "ensemble")
    found = scores_calibration.pooled([pair.distilled for pair in pairs])
    after = replace(found, ece=0.05)
    drawing = calibration.draw("a", {"distilled": found}, {"distilled": after})
    (axes,) = drawing.axes
    (points,) = (c for c in axes.collections if isinstance(c, PathCollection))
    assert len(points.get_offsets()) == (found.clips > 0).sum()
    assert words(drawing) == [f"distilled: ECE {100 * found.ece:.1f} → 5.0"]


def test_agreement_and_time_have_a_panel_for_each_cohort(many: GridResults) -> None:
    for figure in (agreement.figure(many, "a"), phases.figure(many, "t")):
        assert figure is not None
        assert len(svgs(figure.svg)) == 4


def test_bars_of_time_add_up_to_the_phases(small: GridResults) -> None:
    (cohort,) = small.cohorts
    bars = phases.bars(small, cohort)
    assert [name.split("\n")[1] for name, _, _ in bars] == ["independent", "distilled"] * 2
    (axes,) = phases.draw(cohort, bars).axes
    ends = {}
    for patch in axes.patches:
        y = round(patch.get_y() + patch.get_height() / 2)
        ends[y] = max(ends.get(y, 0.0), patch.get_x() + patch.get_width())
    assert ends == pytest.approx({3: 3.6, 2: 8.1, 1: 3.6, 0: 8.1})
    assert [line.get_xdata()[0] for line in axes.lines] == [9.0] * 4


def test_a_clip_is_drawn_with_its_representations_where_the_data_is(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    folder = fake_grid(
        tmp_path / "g", pairings=(PAIRING,), temperatures=(2,), data=str(clips), cache=str(cache)
    )
    figure = clip.figure(read_results(folder), "clip")
    labels = [svg.get("aria-label") or "" for svg in svgs(figure.svg)]
    assert [label.split(" of ")[0] for label in labels] == ["waveform", "logmel64", "cqt"]
    assert "00.wav" in figure.caption
    (axes,) = clip.draw("a", np.zeros((100, 64), np.float32), 2.0, (-1, 1)).axes
    assert axes.images[0].get_extent() == [0, 2.0, 0, 64]


def test_loudness_does_not_take_all_colours() -> None:
    array = np.tile(np.array([-600, 1, 2], np.float32), (10, 1))
    assert clip.colour_span(array, np.array([1, 0, 0], np.float32)) == (1, 2)
    assert clip.colour_span(array, np.ones(3, np.float32))[0] < -500


def test_a_report_makes_no_data(tmp_path: Path) -> None:
    folder = fake_grid(
        tmp_path / "g",
        pairings=(PAIRING,),
        temperatures=(2,),
        data="synthetic",
        cache=str(tmp_path / "cache"),
    )
    with pytest.raises(clip.NoClip, match="cache"):
        clip.figure(read_results(folder), "clip")
    assert not (tmp_path / "cache").exists()
