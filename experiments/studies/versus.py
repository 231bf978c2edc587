"""One variant of a grid beside another: the distilled models, paired by fold, seed and clip.

    python experiments/studies/versus.py results/trust-esc10 trust mixup
    python experiments/studies/versus.py results/controls-esc10 noise noise

Of each cohort that both variants have, at the temperature nearest to 2, over the runs that both
have finished: the main score in %, and the first variant's less the second's in points with its
95 % interval, as a grid's table has it, and its kind. With the same variant twice: of each two of
its cohorts that share a branch, the branches in common.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.report import grid_results
from mrkd_ray.results import printed_table
from mrkd_ray.scores import comparison
from mrkd_ray.scores.comparison import Model, Score


def main() -> None:
    """Print a table for each cohort."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("variant")
    parser.add_argument("other")
    asked = parser.parse_args()
    try:
        results = grid_results.read_results(asked.folder)
        one, other = (of_variant(results, name) for name in (asked.variant, asked.other))
        if asked.variant == asked.other:
            both = [
                (a, b)
                for a, b in combinations(one.values(), 2)
                if not set(a.branches).isdisjoint(b.branches)
            ]
        else:
            both = [(one[key], other[key]) for key in one if key in other]
        if not both:
            raise UserError(f"{results.folder}: there are no two cohorts to compare")
    except UserError as error:
        raise SystemExit(str(error)) from None
    for a, b in both:
        title = a.title if a.name == b.name else f"{a.title}\nless {b.title}"
        Console().print(title, table(results, a, b))


def of_variant(results: grid_results.GridResults, name: str) -> dict[str, grid_results.GridCohort]:
    """Return a variant's cohorts by their branches.

    Raises:
        UserError: no cohort of it is finished.
    """
    found = {cohort.name: cohort for cohort in results.cohorts if cohort.variant == name}
    if not found:
        names = ", ".join(dict.fromkeys(c.variant for c in results.cohorts if c.variant))
        raise UserError(
            f"{results.folder}: no finished variant {name!r}; it has {names or 'no variants'}"
        )
    return found


def table(
    results: grid_results.GridResults, one: grid_results.GridCohort, other: grid_results.GridCohort
) -> Table:
    """Return both scores of each model, and their difference."""
    metric = results.metrics[0]
    score = comparison.terms(metric)
    found = Table(metric.title, *headings(one, other), "difference [95%]", "")
    gains = []
    for name in [name for name in one.models if name in other.models]:
        pairs = comparison.pairs(results.distilled(other, name), results.distilled(one, name))
        if not pairs:
            found.add_row(name, *"---")
            continue
        gains.append(comparison.difference(pairs, score))
        found.add_row(
            name,
            percent([pair.distilled for pair in pairs], score),
            percent([pair.independent for pair in pairs], score),
            *printed_table.cells(gains[-1]),
        )
    if gains:
        found.caption = printed_table.kinds(gains)
    return found


def headings(one: grid_results.GridCohort, other: grid_results.GridCohort) -> tuple[str, str]:
    """Return what tells them apart."""
    if one.name != other.name:
        return "first, %", "second, %"
    return f"{one.variant}, %", f"{other.variant}, %"


def percent(models: list[Model], score: Score) -> str:
    """Return the mean over runs."""
    return f"{100 * np.mean([score(model).mean() for model in models]):.1f}"


if __name__ == "__main__":
    main()
