"""All figures of a report, section by section.

A figure is a function that draws panels from `Measured` in a module here, and its place in
`figures`. What it computes lies in `mrkd_ray.report.analysis`.
"""

from __future__ import annotations

from mrkd_ray.report.figures import learning
from mrkd_ray.report.figures.style import Figure, Section, look
from mrkd_ray.report.measured import Measured

__all__ = ["Figure", "Section", "figures"]


def figures(measured: Measured) -> list[Section]:
    """Return the report's figures.

    Only Figure 2 needs the data set; where it is not there, the section's note says so.
    """
    with look():
        cohorts = list(enumerate(measured.cohorts, 1))
        return [
            Section(
                "Learning curves",
                tuple(learning.figure(measured, c, f"learning-{i}") for i, c in cohorts),
            )
        ]
