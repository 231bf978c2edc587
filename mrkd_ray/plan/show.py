"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from mrkd_ray.common.progress import say
from mrkd_ray.common.text import time_text
from mrkd_ray.plan.plan import Plan


def show(plan: Plan, console: Console) -> None:
    """Print a plan for people, within 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    facts = Table(title=escape(f"{plan.grid} on {plan.data}"), show_header=False, box=None)
    facts.title_justify, facts.title_style = "left", "bold"
    facts.add_column(min_width=16)
    facts.add_column()
    for name, value in _facts(plan):
        facts.add_row(name, value)
    console.print(facts)
    if not plan.kinds:
        return
    shown = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("cells of a kind", min_width=30)
    for heading in ("cells", "at once", "GPUs", "a branch", "a cell"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for kind in plan.kinds:
        shown.add_row(
            ", ".join([f"{kind.condition} {kind.cohort.replace('+', ' + ')}", *kind.variants]),
            str(kind.cells),
            str(kind.at_once),
            f"{kind.gpus * (kind.cohort.count('+') + 1):g}",
            decimal(kind.memory),
            time_text(kind.seconds),
        )
    console.print()
    console.print(shown)
    streamed = any(kind.window_memory == "streamed" for kind in plan.kinds)
    caption = "GPUs: of a cell. A branch: memory of its process, or on its card"
    caption += "; windows are streamed where it lacks. " if streamed else ". "
    console.print(caption + "A cell: its time once processes are there.", style="dim")
    for warning in plan.warnings:
        say(console, f"warning: {warning}")


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    clips = f"{plan.clips} clips" + f" and {plan.unlabelled} unlabelled" * bool(plan.unlabelled)
    yield "data", f"{clips}, {plan.classes} classes, {plan.folds} fold(s)"
    finished = plan.distilled + plan.independent - plan.left
    cells_ = f"{plan.distilled} distilled, {plan.independent} independent"
    yield "cells", cells_ + (f"; {finished} of them are finished" if finished else "")
    if plan.compared:
        saved = plan.compared - plan.independent
        shared = f"{plan.compared} comparisons share {plan.independent} trainings"
        yield "baselines", f"{shared}: {saved} are saved" if saved else shared
    where = f"{plan.cpus:g} CPUs and {plan.gpus:g} GPUs on {plan.nodes} node(s)"
    if plan.left:
        yield "workers", where if plan.nodes else "this process"
    lacking = f"{decimal(plan.features_missing)} to compute; {decimal(plan.cache_free)} free"
    yield "features", f"{decimal(plan.features)}, of them {lacking}"
    labels = f"{decimal(plan.soft_labels)} soft labels; {decimal(plan.output_free)} free"
    yield "results", f"{decimal(plan.results)}, of them {labels}"
    yield "checkpoints", f"{decimal(plan.checkpoints)} more while cells run"
    parts = {
        "start": plan.startup_seconds,
        "features": plan.features_seconds,
        "training": plan.training_seconds,
    }
    spent = ", ".join(f"{name} {time_text(seconds)}" for name, seconds in parts.items())
    yield "will take about", f"{time_text(plan.seconds)}: {spent}"
    yield "this plan took", time_text(plan.plan_seconds)
