"""All figures of a report, section by section.

A figure is a function that draws panels from `GridResults` in a module here, and its place in
`figures`. What it computes lies in `mrkd_ray.report.curves`.
"""

from __future__ import annotations

from collections.abc import Callable

from mrkd_ray.report.figures import (
    agreement,
    calibration,
    clip,
    confusion,
    embedding,
    learning,
    modes,
    phases,
    search,
    variants,
)
from mrkd_ray.report.figures.style import MOST, Figure, Section, look
from mrkd_ray.report.grid_results import DRAWN_TEMPERATURE, GridCohort, GridResults

__all__ = ["Figure", "Section", "figures"]

ONE_LABEL = (
    "No figure of modes, logits, agreement, classes or calibration: those are of one label a clip."
)
NO_BASELINE = "No figure: no branch was trained alone, to compare with."


def figures(results: GridResults) -> list[Section]:
    """Return the report's figures.

    Only Figure 2 needs the data set; where it is not there, the section's note says so.
    """
    cohorts = (results.cohorts or results.alone)[:MOST]
    note = _which(results)

    def each(
        draw: Callable[[GridResults, GridCohort, str], Figure | None], id: str
    ) -> tuple[Figure, ...]:
        drawn = (draw(results, cohort, f"{id}-{i}") for i, cohort in enumerate(cohorts, 1))
        return tuple(figure for figure in drawn if figure)

    def section(title: str, *figures: Figure, missing: str = NO_BASELINE) -> Section:
        return Section(title, figures, note if figures else missing)

    def one(draw: Callable[[GridResults, str], Figure | None], id: str) -> tuple[Figure, ...]:
        drawn = draw(results, id)
        return (drawn,) if drawn else ()

    with look():
        searched = Section("The search", one(search.figure, "search"))
        if results.multi_label:
            return [
                _clip(results),
                searched,
                _variants(results),
                section("Learning curves", *each(learning.figure, "learning")),
                section("Time", *one(phases.figure, "time")),
                Section("Other figures", (), ONE_LABEL),
            ]
        if not results.cohorts:  # trained alone: nothing that teaching changes
            return [
                _clip(results),
                searched,
                section("Learning curves", *each(learning.figure, "learning")),
                section("Classes", *each(confusion.matrices, "confusion")),
                section("Calibration", *each(calibration.figure, "calibration")),
                section("Time", *one(phases.figure, "time")),
            ]
        return [
            _clip(results),
            searched,
            _variants(results),
            Section("Modes of distillation", one(modes.figure, "modes")),
            section("Logits of the test clips", *each(embedding.figure, "tsne"), missing=""),
            section("Learning curves", *each(learning.figure, "learning")),
            section(
                "Agreement between branches",
                *one(agreement.figure, "agreement"),
                missing="",
            ),
            section(
                "Classes",
                *each(confusion.matrices, "confusion"),
                *each(confusion.changes, "classes"),
            ),
            section("Calibration", *each(calibration.figure, "calibration")),
            section("Time", *one(phases.figure, "time")),
        ]


def _which(results: GridResults) -> str:
    """Say which of the cohorts and temperatures are drawn."""
    said = []
    if results.cohorts and len(results.config["temperatures"]) > 1:
        said.append(
            f"Of each cohort the temperature nearest to {DRAWN_TEMPERATURE:g}: "
            "not chosen by any score."
        )
    if (cohorts := len(results.cohorts or results.alone)) > MOST:
        said.append(f"The first {MOST} of {cohorts} cohorts; table.csv has all.")
    return " ".join(said)


def _clip(results: GridResults) -> Section:
    title = "What the networks see"
    try:
        return Section(title, (clip.figure(results, "clip"),))
    except clip.NoClip as missing:
        data = results.config["data"]
        return Section(title, (), f"No figure: the data set {data!r} cannot be read: {missing}")


def _variants(results: GridResults) -> Section:
    drawn = variants.figure(results, "variants")
    missing = NO_BASELINE if len(results.config["variants"]) > 1 and not drawn else ""
    return Section("Variants of the method", drawn, missing)
