"""All figures of a report, section by section.

A figure is a function that draws panels from `Measured` in a module here, and its place in
`figures`. What it computes lies in `mrkd_ray.report.analysis`.
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
)
from mrkd_ray.report.figures.style import Figure, Section, look
from mrkd_ray.report.measured import Cohort, Measured

__all__ = ["Figure", "Section", "figures"]


def figures(measured: Measured) -> list[Section]:
    """Return the report's figures.

    Only Figure 2 needs the data set; where it is not there, the section's note says so.
    """

    def each(draw: Callable[[Measured, Cohort, str], Figure | None], id: str) -> tuple[Figure, ...]:
        drawn = (draw(measured, c, f"{id}-{i}") for i, c in enumerate(measured.cohorts, 1))
        return tuple(figure for figure in drawn if figure)

    def one(draw: Callable[[Measured, str], Figure | None], id: str) -> tuple[Figure, ...]:
        drawn = draw(measured, id)
        return (drawn,) if drawn else ()

    with look():
        return [
            _clip(measured),
            Section("Modes of distillation", one(modes.figure, "modes"), _modes_note(measured)),
            Section("Logits of the test clips", each(embedding.figure, "tsne")),
            Section("Learning curves", each(learning.figure, "learning")),
            Section("Agreement between branches", one(agreement.figure, "agreement")),
            Section(
                "Classes",
                each(confusion.matrices, "confusion") + each(confusion.changes, "classes"),
            ),
            Section("Calibration", each(calibration.figure, "calibration")),
            Section("Time", one(phases.figure, "time")),
        ]


def _clip(measured: Measured) -> Section:
    title = "What the networks see"
    try:
        return Section(title, (clip.figure(measured, "clip"),))
    except clip.NoClip as missing:
        data = measured.config["data"]
        return Section(title, (), f"No figure: the data set {data!r} cannot be read: {missing}")


def _modes_note(measured: Measured) -> str:
    _, cohorts = modes.find(measured)
    if len(cohorts) > 1:
        return ""
    return (
        "No figure: it takes one branch with two kinds of partners at least, of another network, "
        "another representation, or both."
    )
