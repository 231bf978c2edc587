"""Who may import whom (docs/architecture.md), and what stays cheap to start."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mrkd_ray"
RAY_MODULES = {"ray_cohort", "cluster", "telemetry", "tune_trials"}


def run(code: str) -> str:
    """Run code in a fresh interpreter; return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_the_ray_layers_import_ray() -> None:
    importing = {
        path.stem
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import|from) ray\b", path.read_text(), re.MULTILINE)
    }
    assert importing == RAY_MODULES


def test_everything_else_works_where_ray_and_librosa_are_not_installed() -> None:
    modules = sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem not in {*RAY_MODULES, "__init__"}
    )
    run(
        "import sys, importlib\n"
        "sys.modules['ray'] = sys.modules['librosa'] = None\n"
        f"for name in {modules}: importlib.import_module(name)\n"
    )


def test_coordinators_and_the_command_line_never_load_torch() -> None:
    printed = run(
        "import sys, mrkd_ray.distributed.tune_trials, mrkd_ray.grid.run, mrkd_ray.cli.main\n"
        "print([name for name in ('torch', 'torchvision', 'librosa') if name in sys.modules])\n"
    )
    assert printed.strip() == "[]"


def test_help_loads_neither_ray_nor_pandas_nor_configurations() -> None:
    printed = run(
        "import sys, mrkd_ray.cli.main\n"
        "heavy = ('ray', 'pandas', 'numpy', 'torch', 'pydantic')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    assert printed.strip() == "[]"


def test_prediction_loads_nothing_slow_besides_torch() -> None:
    printed = run(
        "import sys, numpy, mrkd_ray.cli.main, mrkd_ray.inference.classifier\n"
        "from mrkd_ray.representations.catalogue import REPRESENTATIONS, compute_clip\n"
        "compute_clip(REPRESENTATIONS, numpy.ones(9000, numpy.float32))\n"
        "from mrkd_ray.networks.catalogue import build; build('vgg_small', 10)\n"
        "slow = ('ray', 'librosa', 'numba', 'scipy', 'sklearn', 'pandas', 'torchvision')\n"
        "print([name for name in slow if name in sys.modules])\n"
    )
    assert printed.strip() == "[]"
