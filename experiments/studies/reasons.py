"""Why distillation helped or did not: what the teacher knew, and how alike the branches became.

    python experiments/studies/reasons.py results/claim-esc50

Of each cohort of a grid, over the runs that all of its branches have in both conditions: the
expected calibration error of each branch; between branches their agreement, the correlation of
their errors and the similarity of their logits (`logit_space.cka`); and the entropy of the soft
labels' averages in nats, in the first and the last cycle with a teacher (before what is remembered
of earlier ones).
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.report import grid_results
from mrkd_ray.report.curves import agreements
from mrkd_ray.scores import calibration, diversity, logit_space, metrics
from mrkd_ray.scores.comparison import Model


def main() -> None:
    """Print a table for each cohort."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    try:
        results = grid_results.read_results(parser.parse_args().folder)
        if results.multi_label:
            raise UserError(f"{results.folder}: these figures are of one label a clip")
    except UserError as error:
        raise SystemExit(str(error)) from None
    for cohort in results.cohorts:
        Console().print(cohort.title, table(results, cohort))


def table(results: grid_results.GridResults, cohort: grid_results.GridCohort) -> Table:
    """Return what is known about one cohort."""
    models = results.branches(cohort)
    found = Table("", *models)
    for i, name in enumerate(cohort.branches):
        errors = (100 * calibration.pooled(branches[i]).ece for branches in models.values())
        found.add_row(f"{name}: calibration error, %", *(f"{error:.1f}" for error in errors))
    if len(cohort.branches) > 1:
        agreement = agreements(results, cohort)
        found.add_row(
            "agreement on test clips, %",
            *(f"{100 * agreement[kind][:, -1].mean():.1f}" for kind in models),
        )
        for text, measure in MEASURES.items():
            found.add_row(
                text, *(f"{between(branches, measure):.2f}" for branches in models.values())
            )
    first, last = entropies(results, [model for of in models["distilled"] for model in of])
    blank = [""] * (len(models) - 1)
    found.add_row("teacher's entropy, first and last cycle", *blank, f"{first:.2f}, {last:.2f}")
    return found


def correlation(first: Model, second: Model) -> float:
    """Return the correlation coefficient of being right."""
    return diversity.correlation(
        *(metrics.hits(m.probabilities, m.labels) for m in (first, second))
    )


MEASURES = {
    "correlation of their errors": correlation,
    "similarity of their logits": logit_space.cka,
}


def between(branches: Sequence[Sequence[Model]], measure: Callable[[Model, Model], float]) -> float:
    """Return the mean over pairs of branches and runs."""
    runs = zip(*branches, strict=True)
    return float(np.mean([measure(*pair) for run in runs for pair in combinations(run, 2)]))


def entropies(results: grid_results.GridResults, models: Sequence[Model]) -> tuple[float, float]:
    """Return the means over runs after the first and the last cycle with a teacher."""
    found = []
    for model in models:
        history = results.history(model.cell)
        rows = history.loc[history["branch"] == model.name, "teacher_entropy"].dropna()
        found.append((rows.iloc[0], rows.iloc[-1]))
    first, last = np.mean(found, axis=0)
    return float(first), float(last)


if __name__ == "__main__":
    main()
