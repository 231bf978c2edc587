"""Distilled models beside the best of several ways of training alone, from `results.csv` files.

    cd docs/results
    python ../../experiments/studies/tuned.py esc50.csv noise_logits esc50-mixup.csv mixup

Each file is followed by the variant of it that counts. The first one has the distilled models; all
have independent ones of the same branches, on the same folds and seeds. Of each model, of the best
branch and of that beside the ensemble: the accuracy in % alone, in each way, and distilled; and the
distilled one's less the best way's, in points, paired by fold and seed, with its 95 % interval
(Student's t, over runs). The best way is chosen by these very figures, which favours it.
"""

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from mrkd_ray.results.printed_table import cells, kinds
from mrkd_ray.scores.intervals import Interval, t_interval

BEST, BESIDE = "best branch", "best branch, alone: ensemble"
RUN = ["fold", "seed"]
INDEX = [*RUN, "dataset", "label_noise", "epochs", "clips"]


def main() -> None:
    """Print the table."""
    given = sys.argv[1:]
    if len(given) < 2 or len(given) % 2:
        raise SystemExit(__doc__)
    pairs = list(zip(given[::2], given[1::2], strict=True))
    ways = [read(Path(file), variant, "independent") for file, variant in pairs]
    distilled = read(Path(pairs[0][0]), pairs[0][1], "distilled")
    for (file, variant), way in zip(pairs, ways, strict=True):
        if not way.index.equals(distilled.index) or set(way) != set(distilled):
            others = f"the {', '.join(INDEX)} and models of {given[1]}"
            raise SystemExit(f"{file}: {variant} has not {others}")
    found = Table(
        "accuracy, %", *(f"alone, {name}" for _, name in pairs), "distilled", "less best", ""
    )
    branches = [name for name in distilled if name != "ensemble"]
    best, *tops = (table[table[branches].mean().idxmax()] for table in (distilled, *ways))
    gains = [
        *(add(found, str(n), [way[n] for way in ways], distilled[n]) for n in distilled),
        add(found, BEST, tops, best),
        add(found, BESIDE, [way["ensemble"] for way in ways], best),
    ]
    Console(width=120).print(found)
    folds, seeds = (distilled.index.unique(level).size for level in RUN)
    print(f"{len(distilled)} runs: {folds} folds, {seeds} seeds. {kinds(gains)}")


def read(file: Path, variant: str, condition: str) -> pd.DataFrame:
    """Return the accuracies, in [0, 1]: a row a fold and seed, a column a model."""
    if not file.is_file():
        raise SystemExit(f"{file}: no such file; give a results.csv of mrkd grid")
    table = pd.read_csv(file)
    table = table[(table["variant"] == variant) & (table["condition"] == condition)]
    if table.empty:
        raise SystemExit(f"{file}: no {condition} models of variant {variant!r}")
    names = table["branch"].where(table["model"] == "branch", "ensemble")
    named = table.assign(name=names)
    if named.duplicated(["name", *RUN]).any():
        raise SystemExit(f"{file}: {variant} has several cohorts or temperatures")
    return named.pivot(index=INDEX, columns="name", values="accuracy")


def add(table: Table, name: str, ways: list[pd.Series], distilled: pd.Series) -> Interval:
    """Add a model's row and return what it gains on the best way."""
    best = max(ways, key=lambda way: way.mean())
    means = (f"{100 * way.mean():.1f}" for way in [*ways, distilled])
    gain = t_interval((distilled - best).to_numpy())
    table.add_row(name, *means, *cells(gain))
    return gain


if __name__ == "__main__":
    main()
