"""What each seed alone would have shown: distilled less independent, seed by seed.

    mrkd grid experiments/grids/demo.yaml --seeds 1..10
    python experiments/studies/by_seed.py results/demo

Of each cohort and score, over the folds that it has: the difference in points of every model in
every seed, with the 95 % interval that a grid of this one seed prints; and over all seeds.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.report.grid_results import GridCohort, GridResults, read_results
from mrkd_ray.results.printed_table import kinds
from mrkd_ray.scores import comparison, metrics
from mrkd_ray.scores.comparison import Pair, Score
from mrkd_ray.scores.intervals import Interval


def main() -> None:
    """Print a table for each cohort and score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    try:
        results = read_results(parser.parse_args().folder)
    except UserError as error:
        raise SystemExit(str(error)) from None
    for cohort in results.cohorts:
        for metric in metrics.shown(results.table):
            title = f"{cohort.title}, {metric.title}"
            Console().print(title, table(results, cohort, comparison.terms(metric)))


def table(results: GridResults, cohort: GridCohort, score: Score) -> Table:
    """Return a row a seed, and one of all; a column a model."""
    pairs = {name: results.pairs(cohort, name) for name in cohort.models}
    seeds = sorted({pair.distilled.seed for of_model in pairs.values() for pair in of_model})
    found = Table("seed", *pairs)
    gains = []
    for seed in [*seeds, None]:
        row = [
            gain([p for p in of_model if seed in (None, p.distilled.seed)], score)
            for of_model in pairs.values()
        ]
        gains += [interval for interval in row if interval]
        found.add_row("all" if seed is None else str(seed), *map(text, row))
    found.caption = kinds(gains)
    return found


def gain(pairs: list[Pair], score: Score) -> Interval | None:
    """Return the difference; None of no runs."""
    return comparison.difference(pairs, score) if pairs else None


def text(interval: Interval | None) -> str:
    """Return a cell of the table."""
    if interval is None:
        return "-"
    mark = " ns" if interval.mark == "ns" else ""
    return f"{interval.mean_text} {interval.ends_text}{mark}"


if __name__ == "__main__":
    main()
