"""The `mrkd` command. Bad input ends in one message and exit code 2, never in a traceback."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mrkd_ray.cli.options import Commands, config_command
from mrkd_ray.common.errors import UserError

if TYPE_CHECKING:
    from mrkd_ray.config.schema import GridConfig

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130  # the shell's exit code after Ctrl-C


def _version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from importlib.metadata import version

        print(f"mrkd-ray {version('mrkd-ray')}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train audio classifiers on different representations that teach each other."""


PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print the configuration as YAML and stop.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on in the newest results folder of this name.")
]
GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of the grid.")]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="cpu",
        help="cpu: the file's rows with the small networks and 30 epochs; options override it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@config_command(app, "run.Preparation")
def prepare(
    values: dict[str, Any],
    representations: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="What to compute.")
    ] = "logmel64,cqt",
) -> None:
    """Check a data set and compute its representations ahead."""
    from rich.console import Console

    from mrkd_ray.config.parsing import parse
    from mrkd_ray.config.run import Preparation
    from mrkd_ray.grid.preparation import prepare_only

    config = parse(Preparation, values, "command line")
    names = [name.strip() for name in representations.split(",")]
    prepared = prepare_only(config, names, Console(stderr=True))
    for name, store in prepared.stores.items():
        clips = len(prepared.dataset.recordings)
        print(f"{name}: {clips} clips, {store.index().frames} frames in {store.folder}")


@config_command(app, "schema.TrainConfig")
def train(
    values: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file; options override its fields.")
    ] = None,
    print_config: PrintConfig = False,
    resume: Resume = False,
) -> None:
    """Train one cohort on labelled audio."""
    from mrkd_ray.config.parsing import noted, parse, read_yaml, to_yaml
    from mrkd_ray.config.schema import TrainConfig

    given = noted(read_yaml(config), str(config)) if config else {}
    source = f"{config} and command line" if config else "command line"
    parsed = parse(TrainConfig, given | values, source)
    if print_config:
        print(to_yaml(parsed), end="")
        return
    _run(parsed.as_grid(), resume)


@config_command(app, "schema.GridConfig")
def grid(
    values: dict[str, Any],
    grid: GridFile,
    scale: Scale = None,
    print_config: PrintConfig = False,
    resume: Resume = False,
) -> None:
    """Train a grid: cohorts x variants x temperatures x folds x seeds, with baselines."""
    from mrkd_ray.config.grid_files import read_grid
    from mrkd_ray.config.parsing import to_yaml

    parsed = read_grid(grid, values, scale)
    if print_config:
        print(to_yaml(parsed), end="")
        return
    _run(parsed, resume)


@config_command(app, "schema.GridConfig")
def plan(
    values: dict[str, Any],
    grid: GridFile,
    scale: Scale = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Say what a grid will take: cells, GPUs, memory, disk and time, from a short trial."""
    from dataclasses import asdict

    from rich.console import Console

    from mrkd_ray.config.grid_files import read_grid
    from mrkd_ray.plan.plan import make
    from mrkd_ray.plan.show import show

    made = make(read_grid(grid, values, scale), resume=resume)
    if as_json:
        print(json.dumps(asdict(made), indent=2))
    else:
        show(made, Console())


@config_command(app, "schema.RecommendConfig")
def recommend(
    values: dict[str, Any],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The grid file to write.")] = Path(
        "recommended.yaml"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Choose representations and networks for a data set by short probes, and write a grid."""
    from rich.console import Console

    from mrkd_ray.config.parsing import parse
    from mrkd_ray.config.schema import RecommendConfig
    from mrkd_ray.recommend.recommend import recommend as choose
    from mrkd_ray.recommend.show import show

    config = parse(RecommendConfig, values, "command line")
    with _stopped("finished probes are kept; call again to go on"):
        choice = choose(config, to, force=force)
    console = Console()
    show(choice, config.fold, config.verified_only, console)
    run = shlex.join(["mrkd", "grid", str(to)])
    console.print(f"Run it: {run}", markup=False, soft_wrap=True)


@contextmanager
def _stopped(kept: str) -> Iterator[None]:
    """Exit with one line where cells failed, or where Ctrl-C came and `kept` says what is there."""
    from mrkd_ray.grid.run import CellsFailed

    try:
        yield
    except CellsFailed as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print(f"interrupted: {kept}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _run(config: GridConfig, resume: bool) -> None:
    from rich.console import Console

    from mrkd_ray.grid.run import run

    with _stopped(
        "finished cells and the last cycle of the others are kept. Go on: the same with --resume"
    ):
        results = run(config, resume=resume)
    console = Console()
    results.show(console)
    report = shlex.join(["mrkd", "report", str(results.folder)])
    console.print(f"Report: {report}", markup=False, soft_wrap=True)
    if config.conclusion:
        console.print(f"\n{config.conclusion}", markup=False, highlight=False)


ModelPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A branch's folder, or a cell's as an ensemble.")
]


@config_command(app, "run.Data")
def evaluate(values: dict[str, Any], model: ModelPath, as_json: Json = False) -> None:
    """Score a model on labelled audio, without the clips that it was trained on."""
    from mrkd_ray.config.parsing import parse
    from mrkd_ray.config.run import Data
    from mrkd_ray.inference.evaluate import evaluate as score
    from mrkd_ray.scores import metrics

    asked = parse(Data, values, "command line")
    report = score(model, asked.data, asked.cache, skip_bad=asked.skip_bad)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    left_out = f"{report['trained_on']} that it was trained on and {report['skipped']} bad ones"
    print(f"{report['clips']} clips of {report['data']}; left out {left_out}")
    for row in report["models"]:
        figures = (f"{m.title} {100 * row[m.name]:.2f} %" for m in metrics.named(row))
        print(f"{row['model']}: {', '.join(figures)}")


@app.command()
def predict(
    model: ModelPath,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FILES...", help="Recordings, folders of them, or patterns."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to print for each file.")] = 3,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, help="Of a multi-label model: print classes from here up."),
    ] = 0.5,
    as_json: Json = False,
) -> None:
    """Classify recordings."""
    from mrkd_ray.inference.classifier import load
    from mrkd_ray.inference.inputs import recordings

    files = recordings(inputs)
    classifier = load(model)
    failed = 0
    rows = []
    for file in files:
        try:
            probabilities = classifier.predict(file)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        scores = classifier.by_class(probabilities)
        if classifier.multi_label:
            found = [label for label, score in scores.items() if score >= threshold]
            row: dict[str, Any] = {"labels": found}
        else:
            found = list(scores)[:top]
            row = {"label": found[0]}
        if as_json:
            rows.append({"file": str(file), **row, "scores": scores})
        else:
            shown = [f"{label} {100 * scores[label]:.1f} %" for label in found]
            print(f"{file}: {', '.join(shown) or f'no class from {100 * threshold:g} % up'}")
    if as_json:
        print(json.dumps(rows, indent=2))
    if failed:
        raise typer.Exit(2)


@app.command()
def export(
    model: ModelPath,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write: NAME.pt2 or NAME.onnx.")],
    seconds: Annotated[float, typer.Option(help="Length of the recordings that it takes.")],
) -> None:
    """Write a model as one program, from samples to probabilities, that runs without mrkd."""
    from mrkd_ray.inference.classifier import load
    from mrkd_ray.inference.program_export import export as write

    write(load(model), file, seconds)


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(metavar="fsdkaggle2018|tut2018|esc50", help="The data set.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for it; `--data` takes it then.")],
) -> None:
    """Download a data set from its official record.

    Archives are verified, unpacked and removed. A call that was interrupted goes on in the next
    one; where all is there, nothing is done.
    """
    from rich.console import Console

    from mrkd_ray.datasets.download.fetching import download as fetch

    try:
        fetch(name, to, Console())
    except KeyboardInterrupt:
        print("interrupted: call again to go on from here", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A grid's results folder.")],
) -> None:
    """Write a grid's report.html: tables beside the paper's, figures, what was run."""
    from rich.console import Console

    from mrkd_ray.report.page import write

    with Console(stderr=True).status("Drawing figures"):
        path = write(folder)
    print(path)


@app.command(name="list")
def list_() -> None:
    """List data set layouts, representations, networks and averages."""
    from mrkd_ray.datasets.opening import EMBEDDED, LAYOUTS
    from mrkd_ray.method.averaging import AVERAGES
    from mrkd_ray.networks.catalogue import describe
    from mrkd_ray.representations.catalogue import REPRESENTATIONS

    sections: dict[str, dict[str, str]] = {
        "datasets": {
            **{name: layout.description for name, layout in LAYOUTS.items()},
            **EMBEDDED,
        },
        "representations": {name: r.description for name, r in REPRESENTATIONS.items()},
        "networks": describe(),
        "averages": {name: rule.description for name, rule in AVERAGES.items()},
    }
    for section, entries in sections.items():
        print(section)
        width = max(map(len, entries))
        for name, description in entries.items():
            print(f"  {name:<{width}}  {description}")


def _terminated(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line, or other arguments than the process was given.

    SIGTERM, by which schedulers and spot machines end a process, is treated as Ctrl-C.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        app(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
