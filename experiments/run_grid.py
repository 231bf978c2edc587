"""Run a grid: cohorts x variants x temperatures x folds x seeds, with their baselines.

    python experiments/run_grid.py                        # the demo, on embedded data
    python experiments/run_grid.py --data my_clips        # experiments/grids/small.yaml, on yours
    python experiments/run_grid.py esc10 --data FOLDER    # experiments/grids/esc10.yaml
    python experiments/run_grid.py table6                 # the paper's Table VI, on GPUs
    python experiments/run_grid.py table6 --scale cpu --data FOLDER  # its rows, small, on any data
    python experiments/run_grid.py my_grid.yaml --resume  # go on where it stopped

It is `mrkd grid` with a default and with the names of the grids beside it; `mrkd grid --help`
lists the options.
"""

import sys
from pathlib import Path

from mrkd_ray.cli.main import main

GRIDS = Path(__file__).parent / "grids"


def arguments(given: list[str]) -> list[str]:
    """Return the arguments of `mrkd grid`: a name becomes its file, none becomes the demo's.

    The demo makes labels wrong: other data, of no named grid, get the one that leaves them.
    """
    if not given or given[0].startswith("-"):
        own = any(word.partition("=")[0] == "--data" for word in given)
        return [str(GRIDS / ("small.yaml" if own else "demo.yaml")), *given]
    named = {path.stem: str(path) for path in sorted(GRIDS.glob("*.yaml"))}
    if given[0] not in named and not Path(given[0]).exists():
        known = ", ".join(named)
        print(f"error: no grid {given[0]!r}: give a YAML file or one of {known}", file=sys.stderr)
        sys.exit(2)
    return [named.get(given[0], given[0]), *given[1:]]


if __name__ == "__main__":
    main(["grid", *arguments(sys.argv[1:])])
