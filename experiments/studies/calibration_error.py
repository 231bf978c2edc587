"""How far confidence is from accuracy, before and after calibration: of each branch of grids.

    python experiments/studies/calibration_error.py results/a [results/b ...]

For each grid and branch: how many runs and clips, the mean over runs of the expected calibration
error (ECE) before and after, in points, in how many runs it fell, and the mean temperature. After:
each half of a run's test clips by the temperature of the other half.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from mrkd_ray.common.errors import UserError
from mrkd_ray.inference.classifier import Classifier


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("grid", nargs="+", type=Path)
    found = Table("grid", "branch", "runs", "clips", "ECE before", "after", "fell in", "T")
    for grid in parser.parse_args().grid:
        models: dict[str, list[tuple[float, float, float, int]]] = {}
        for folder in sorted(grid.glob("cells/*/branches/*")):
            try:
                known = Classifier.load(folder, "cpu").calibration
            except UserError as error:
                raise SystemExit(str(error)) from None
            if known.ece is not None:
                figures = (*known.ece, known.temperature, known.clips)
                models.setdefault(folder.name, []).append(figures)
        for name, runs in models.items():
            before, after, temperature, clips = np.array(runs).T
            errors = (f"{100 * error.mean():.1f}" for error in (before, after))
            fell = f"{(after < before).sum()} of {len(runs)}"
            row = (str(len(runs)), f"{clips.mean():.0f}", *errors, fell)
            found.add_row(grid.name, name, *row, f"{temperature.mean():.2f}")
    Console().print(found)


if __name__ == "__main__":
    main()
