"""Is the cohort that `mrkd recommend` chooses better than the default cohort?

    python experiments/studies/recommended.py --data ../shared/data/esc10

For each fold the cohort is chosen on the training side. Then it and the default cohort are trained
with equal budgets, and judged by the fold's test clips, which took no part in the choice. Both are
judged by their ensemble, and by the member whose probes were the more accurate. Interrupted, it
goes on where it stopped with the next call. Each fold has a folder of its own under `--output`, so
several can run at once (`--folds 1`, `--folds 2`), and a last call shows them together.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from mrkd_ray.cells.cell import named
from mrkd_ray.config.parsing import parse
from mrkd_ray.config.schema import GridConfig, RecommendConfig
from mrkd_ray.grid import run as grid
from mrkd_ray.recommend.recommend import recommend
from mrkd_ray.report import grid_results
from mrkd_ray.results import printed_table
from mrkd_ray.scores import intervals, metrics

DEFAULT = "logmel64:resnet_small + cqt:vgg_small"  # of the commands in README
CYCLES = 30  # of one epoch each


def main() -> None:
    """Run what lacks, fold by fold, and print a table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--folds", default="1,2,3,4,5")
    parser.add_argument("--output", default="results", type=Path)
    parser.add_argument("--runner", default="ray")
    asked = parser.parse_args()
    shared = {"data": asked.data, "runner": asked.runner}
    scores: dict[tuple[str, str], list[np.ndarray]] = {}  # [2, clips] a fold: default, chosen
    for fold in map(int, asked.folds.split(",")):
        output = asked.output / f"recommended-fold{fold}"
        found = one_fold(fold, {**shared, "output": output})
        for row, hits in found.items():
            scores.setdefault(row, []).append(hits)
        show(scores)


def one_fold(fold: int, shared: dict[str, object]) -> dict[tuple[str, str], np.ndarray]:
    """Return which test clips each is right on, [2, clips], by condition and model."""
    config = parse(RecommendConfig, {**shared, "fold": fold}, "recommend")
    file = config.output / "recommended.yaml"
    choice = recommend(config, file, force=True)
    accuracy = dict(zip(map(str, choice.probed.candidates), choice.probed.accuracy, strict=True))
    chosen = " + ".join(str(choice.probed.candidates[i]) for i in choice.cohorts[0].members)
    values = {"name": "both", "folds": [fold], "cycles": CYCLES, "cohorts": [DEFAULT, chosen]}
    folder = grid.run(parse(GridConfig, {**shared, **values}, "both"), resume=True).folder
    print(f"fold {fold}: {chosen}")
    results = grid_results.read_results(folder)
    cohorts = {cohort.name: cohort for cohort in results.cohorts}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for pairing in (DEFAULT, chosen):
        cohort = cohorts[pairing.replace(" ", "")]
        specs = named(cohort.name)
        best = max(cohort.branches, key=lambda branch: accuracy[specs[branch]])
        for shown, model in (("better branch", best), ("ensemble", "ensemble")):
            for condition in ("independent", "distilled"):
                (run,) = getattr(results, condition)(cohort, model).values()
                hits = metrics.hits(run.probabilities, run.labels)
                found.setdefault((condition, shown), []).append(hits)
    return {row: np.array(both) for row, both in found.items()}


def show(scores: dict[tuple[str, str], list[np.ndarray]]) -> None:
    """Print means over clips in percent, and the paired difference with its 95% interval."""
    from rich.table import Table

    folds = len(next(iter(scores.values())))
    table = Table("", "model", "default", "recommended", "difference [95%]", "")
    differences = []
    for (condition, model), hits in scores.items():
        default, chosen = 100 * np.concatenate(hits, axis=1).mean(axis=1)
        differences.append(intervals.paired_bootstrap([fold[1:] - fold[:1] for fold in hits]))
        row = (condition, model, f"{default:.1f}", f"{chosen:.1f}")
        table.add_row(*row, *printed_table.cells(differences[-1]))
    console = Console()
    console.print(table)
    clips = sum(fold.shape[1] for fold in next(iter(scores.values())))
    console.print(f"Accuracy, % of the {clips} test clips of {folds} fold(s); one seed.")
    console.print(printed_table.kinds(differences))


if __name__ == "__main__":
    main()
