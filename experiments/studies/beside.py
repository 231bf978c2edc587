"""One trained model beside another, of any two grids: paired by fold, seed and clip.

    python experiments/studies/beside.py results/a noise distilled mn04_context-linear \
        results/b noise independent mn04-linear [--folds 2..5]

Each is a folder, a variant (`-` where the grid has none), a condition and a branch. Of the runs
that both have: the main score of both in %, and the first one's less the second's in points with
its 95 % interval, as a grid's table has it.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.report import grid_results
from mrkd_ray.results import printed_table
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import Runs


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", nargs=8, metavar="FOLDER VARIANT CONDITION BRANCH")
    parser.add_argument("--folds", type=int, nargs="+", help="Only these. Default: all.")
    asked = parser.parse_args()
    try:
        one, other = (runs_of(*asked.model[i : i + 4]) for i in (0, 4))
    except UserError as error:
        raise SystemExit(str(error)) from None
    pairs = [
        pair
        for pair in comparison.pairs(other, one)
        if asked.folds is None or pair.distilled.fold in asked.folds
    ]
    if not pairs:
        raise SystemExit("They have no fold and seed in common.")
    metric = metrics.of(pairs[0].distilled.labels)[0]
    score = comparison.terms(metric)
    gain = comparison.difference(pairs, score)
    means = [
        100 * np.mean([score(model).mean() for model in models])
        for models in zip(*((p.distilled, p.independent) for p in pairs), strict=True)
    ]
    found = Table(metric.title, "first, %", "second, %", "difference [95%]", "")
    names = " less ".join(" ".join(asked.model[i + 1 : i + 4]) for i in (0, 4))
    found.add_row(names, *(f"{mean:.1f}" for mean in means), *printed_table.cells(gain))
    found.caption = printed_table.kinds([gain])
    Console().print(found)
    folds, seeds = (sorted({getattr(p.distilled, of) for p in pairs}) for of in ("fold", "seed"))
    print(f"{len(pairs)} runs: folds {folds}, seeds {seeds}.")


def runs_of(folder: str, variant: str, condition: str, branch: str) -> Runs:
    """Return a model's runs by (fold, seed).

    Raises:
        UserError: there are none.
    """
    results = grid_results.read_results(Path(folder))
    variant = "" if variant == "-" else variant
    for cohort in (*results.cohorts, *results.alone):
        of = results.distilled if condition == "distilled" else results.independent
        if cohort.variant == variant and branch in cohort.models and (found := of(cohort, branch)):
            return found
    raise UserError(f"{folder}: no finished {condition} {branch} of variant {variant!r}")


if __name__ == "__main__":
    main()
