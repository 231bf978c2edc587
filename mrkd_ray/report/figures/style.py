"""One look for all figures, and the way from matplotlib to markup.

A figure is one or more panels, each an SVG of its own, so that they stand side by side on a desk
and below each other on a phone. What has no colour of its own is drawn in `INK`, which becomes the
page's text colour: the same markup serves light and dark.
"""

from __future__ import annotations

import html
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from mrkd_ray.common.arrays import Float64
from mrkd_ray.scores.comparison import Pair
from mrkd_ray.scores.intervals import bootstrap_kind

INK = "#010203"
"""Stands for the page's text colour; nothing else is drawn in it."""
INDEPENDENT, DISTILLED = "#D55E00", "#0072B2"  # Okabe and Ito: 3:1 on white and on black
"""A page may set `--alone` and `--distilled`, for example to lighter ones where it is dark."""
COLOURS = {"independent": INDEPENDENT, "distilled": DISTILLED}
PALETTE = (  # Okabe and Ito without black, then three of Tol's "bright" scheme
    "#0073B3",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55F00",
    "#B8A800",
    "#AA3377",
    "#4477AA",
    "#66CCAA",
)
GREY = "#888888"
MOST = 6  # cohorts that are drawn: with more large ones, the page would outgrow 5 MB
LETTER = 6.0  # points: of a label
WIDTH = 3.5  # inches: a panel's, 252 units in its SVG; fits a phone at its natural size
RC: Any = {  # keys are literals in matplotlib's types
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,  # a class may have a dollar in its name
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "savefig.dpi": 144,  # of what is embedded as pixels: sharp at twice a panel's natural size
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mrkd",
}


@dataclass(frozen=True)
class Panel:
    """A drawing and what it shows, for those who cannot see it."""

    drawing: Drawing
    label: str


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        id: for HTML, unique in the report.
        title: one line.
        caption: what is shown, of how many runs, and what to read from it; plain text.
        svg: markup to put into the page as it is: a `<div class="panels">` of
            `<svg role="img" aria-label="...">`, 336 px wide by nature.
    """

    id: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """Figures of one kind. `note` says what holds for all of them, or why there are none."""

    title: str
    figures: tuple[Figure, ...]
    note: str = ""


def new(height: float, **axes: Any) -> tuple[Drawing, Axes]:
    """Return an empty panel of that height in inches, and its axes."""
    drawing = Drawing(figsize=(WIDTH, height))
    return drawing, drawing.add_subplot(**axes)


def figure(
    id: str, title: str, caption: str, panels: Sequence[Panel], paired: bool = False
) -> Figure:
    """Return a figure as markup; `paired` panels stand side by side, two and two."""
    images = "".join(_svg(panel, f"{id}-{i}-") for i, panel in enumerate(panels))
    kind = "panels paired" if paired else "panels"
    return Figure(id, title, caption, f'<div class="{kind}">{images}</div>')


def _svg(panel: Panel, prefix: str) -> str:
    """Return an SVG element that scales to its place, without ids that another one has."""
    text = io.StringIO()
    _set_apart(panel.drawing)
    panel.drawing.savefig(
        text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    # What the drawing says twice; its <style> would apply to the whole page.
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # nothing refers to groups
    svg = re.sub(r'(\sid=")', rf"\1{prefix}", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{prefix}", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # the page's
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = re.sub(INK, "currentColor", svg, flags=re.IGNORECASE)
    for name, colour in (("alone", INDEPENDENT), ("distilled", DISTILLED)):
        svg = re.sub(colour, f"var(--{name}, {colour})", svg, flags=re.IGNORECASE)
    width, height = (round(inches * 96) for inches in panel.drawing.get_size_inches())
    label = html.escape(panel.label, quote=True)
    start = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', svg)
    assert start
    opening = (
        f'<svg role="img" aria-label="{label}" viewBox="{start[1]}" '
        'xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="stroke-linejoin:round;flex:1 1 {width}px;min-width:0;'
        f"max-width:min(100%,{round(1.25 * width)}px);"
        f'height:auto;aspect-ratio:{width}/{height}">'
    )
    return (opening + svg[start.end() :]).strip()


def _set_apart(drawing: Drawing) -> None:
    """Take fewer numbers along x axes until there is a letter's width between any two."""
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        locator = axes.xaxis.get_major_locator()
        for bins in range(8, 1, -1):
            if not isinstance(locator, MaxNLocator) or _least_gap(drawing, axes) >= LETTER:
                break
            locator.set_params(nbins=bins)
            drawing.draw_without_rendering()


def _least_gap(drawing: Drawing, axes: Axes) -> float:
    """Return the least distance between two labels of the x axis, in points."""
    left, right = axes.get_xlim()
    inside = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    boxes = [label.get_window_extent() for place, label in inside if left <= place <= right]
    gaps = [float(after.x0 - before.x1) for before, after in itertools.pairwise(boxes)]
    return min(gaps, default=math.inf) * 72 / drawing.dpi


def runs_in_words(panels: Collection[int]) -> str:
    """Return `one run`, `5 runs`, or `3 to 5 runs` where panels are of more and fewer."""
    fewest, most = min(panels), max(panels)
    if fewest < most:
        return f"{fewest} to {most} runs"
    return "one run" if most == 1 else f"{most} runs"


def intervals_in_words(panels: Iterable[Sequence[Pair]]) -> str:
    """Say of what kind the 95 % intervals are, and what they lack where a fold has one seed."""
    folds = [Counter(pair.distilled.fold for pair in pairs) for pairs in panels]
    seeds = [count for fold in folds for count in fold.values()]
    lacking = "; where a fold has one seed, the variation between trainings is not in them"
    kind = bootstrap_kind(several_seeds=max(seeds) > 1)
    return f"95 % intervals ({kind}{lacking * (min(seeds) == 1)})"


def look() -> Any:
    """The context in which everything is drawn."""
    return matplotlib.rc_context(RC)


def line(axes: Axes, x: Float64, runs: Float64, colour: str, dashes: str = "-") -> None:
    """Draw the mean of runs [runs, n], and their standard deviation where there are several."""
    mean = runs.mean(axis=0)
    axes.plot(x, mean, dashes, color=colour, lw=1.3, marker="." if len(x) < 30 else "", ms=3.5)
    if len(runs) > 1:
        spread = runs.std(axis=0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, name, colour) right of the axes, each beside its line, none on another."""
    bottom, top = axes.get_ylim()
    gap = 0.085 * (top - bottom)
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    heights = [ends[i][0] for i in order]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    excess = max(0.0, heights[-1] - top)
    heights = [height - excess for height in heights]
    for i, height in zip(order, heights, strict=True):
        _, name, colour = ends[i]
        axes.annotate(
            name,
            (1.02, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            color=colour,
        )


def label_points(axes: Axes, places: Mapping[str, Float64]) -> None:
    """Write names at places in the axes, moved up or down where they would lie on each other."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = 0.021 * (right - left), 0.05 * (top - bottom)  # a letter's width, a line's height
    done: list[tuple[float, float, float]] = []  # centre and half width of those that are written
    for name, (x, y) in sorted(places.items(), key=lambda item: float(item[1][1])):
        half = wide * len(name) / 2
        x = min(max(x, left + half), right - half)
        while clash := [b for a, b, w in done if abs(x - a) < half + w and abs(y - b) < high]:
            y = max(clash) + 1.01 * high
        done.append((x, y, half))
        axes.text(x, y, name, ha="center", va="center", fontsize=8)
