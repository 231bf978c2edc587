"""The `mrkd` command. Bad input ends in one message and exit code 2, never in a traceback."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from mrkd_ray.cli.model_commands import models
from mrkd_ray.cli.options import Commands, Json, config_command, ending
from mrkd_ray.common import failures
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import from_here, json_text
from mrkd_ray.common.text import printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console

    from mrkd_ray.config.run import CheckedData
    from mrkd_ray.config.schema import GridConfig

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130  # the shell's exit code after Ctrl-C
PATIENCE = 25.0  # seconds from SIGTERM to the end: spot machines and Slurm kill after 30
DEBUG = "--debug"
BUG = "This is a bug of mrkd-ray: please report it, with the lines above."


def _version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from importlib.metadata import version

        print(f"mrkd-ray {version('mrkd-ray')}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[  # `main` takes it, wherever it stands
        bool,
        typer.Option(DEBUG, metavar="", help="Show an error's traceback, with any command."),
    ] = False,
) -> None:
    """Train audio classifiers on different representations that teach each other."""


PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", metavar="", help="Print the configuration as YAML and stop."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", metavar="", help="Go on in the newest results folder of this name."),
]
GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of the grid.")]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="cpu",
        help="cpu: the file's rows with small networks and 30 epochs. Options override it.",
    ),
]


@config_command(
    app,
    "run.Preparation",
    "mrkd prepare --data my_clips --representations logmel64,cqt",
)
def prepare(
    values: dict[str, Any],
    representations: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="What to compute.")
    ] = "logmel64,cqt",
) -> None:
    """Check a data set and compute its representations ahead."""
    from rich.console import Console

    from mrkd_ray.config.parsing import COMMAND_LINE, parse
    from mrkd_ray.config.run import Preparation
    from mrkd_ray.grid.preparation import prepare_only

    config = parse(Preparation, values, COMMAND_LINE)
    names = [name.strip() for name in representations.split(",")]
    prepared = prepare_only(config, names, Console(stderr=True))
    for name, store in prepared.stores.items():
        clips = len(prepared.dataset.recordings)
        print(f"{name}: {clips} clips, {store.index().frames} frames in {store.folder}")


@config_command(
    app,
    "schema.TrainConfig",
    "mrkd train --data my_clips --folds 1",
    "mrkd train --data my_clips --folds 1 \\\n"
    "    --branch logmel64:resnet_small --branch cqt:vgg_small",
    "mrkd train --config my_training.yaml --resume",
)
def train(
    values: dict[str, Any],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of options. Those given here win."),
    ] = None,
    print_config: PrintConfig = False,
    resume: Resume = False,
) -> None:
    """Train one cohort on labelled audio."""
    from mrkd_ray.config.parsing import COMMAND_LINE, noted, parse, to_yaml
    from mrkd_ray.config.schema import TrainConfig
    from mrkd_ray.config.yaml_files import read_yaml
    from mrkd_ray.grid.default_branches import with_branches

    given = noted(read_yaml(config), str(config)) if config else {}
    source = f"{config} and command line" if config else COMMAND_LINE
    parsed = with_branches(parse(TrainConfig, given | values, source), _note)
    if print_config:
        print(to_yaml(parsed), end="")
        return
    _run(parsed.as_grid(), resume)


@config_command(
    app,
    "schema.GridConfig",
    "mrkd grid my_grid.yaml --data my_clips --seeds 0..4",
    "mrkd grid my_grid.yaml --data my_clips --seeds 0..4 --resume",
)
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

    parsed: GridConfig = read_grid(grid, values, scale)
    if print_config:
        print(to_yaml(parsed), end="")
        return
    _run(parsed, resume)


@config_command(
    app,
    "search.SearchConfig",
    "mrkd search my_grid.yaml --data my_clips --samples 20",
    "mrkd search my_grid.yaml --data my_clips --samples 40 --searcher optuna --resume",
)
def search(
    values: dict[str, Any],
    grid: GridFile,
    print_config: PrintConfig = False,
    resume: Resume = False,
) -> None:
    """Try samples of cohorts and options on one fold, and confirm the best on the others."""
    from rich.console import Console

    from mrkd_ray.config.grid_files import read_grid
    from mrkd_ray.config.parsing import to_yaml
    from mrkd_ray.config.search import SearchConfig
    from mrkd_ray.grid.search import run

    parsed: SearchConfig = read_grid(grid, values, model=SearchConfig)
    if print_config:
        print(to_yaml(parsed), end="")
        return
    with _stopped("Continue: the same command with --resume."):
        found = run(_grouped(parsed), resume=resume)
    found.show(Console())


@config_command(
    app,
    "schema.DistilConfig",
    "mrkd distil results/train/cells/independent_* --student logmel64:vgg_small",
    "mrkd distil results/train/cells/distilled_*_fold1_* --student logmel64:vgg_small \\\n"
    "    --unlabelled recordings --resume",
)
def distil(
    values: dict[str, Any],
    teachers: Annotated[
        list[str],
        typer.Argument(
            metavar="CELL...",
            help="Folders of finished cells. Their branches teach together; in each fold those "
            "that tested it.",
        ),
    ],
    print_config: PrintConfig = False,
    resume: Resume = False,
) -> None:
    """Train a student under branches that are trained already, which learn no more."""
    from mrkd_ray.config.parsing import COMMAND_LINE, parse, to_yaml
    from mrkd_ray.config.schema import DistilConfig
    from mrkd_ray.grid.distil import as_grid

    asked = as_grid(parse(DistilConfig, values | {"teachers": teachers}, COMMAND_LINE))
    if print_config:
        print(to_yaml(asked), end="")
        return
    _run(asked, resume)


@config_command(app, "schema.GridConfig", "mrkd plan my_grid.yaml --data my_clips --seeds 0..4")
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

    # What a cluster's nodes report is printed by Ray: not among the JSON.
    aside: AbstractContextManager[Any] = redirect_stdout(sys.stderr) if as_json else nullcontext()
    with aside:
        made = make(_grouped(read_grid(grid, values, scale)), resume=resume)
    if as_json:
        print(json_text(asdict(made)), end="")
    else:
        show(made, Console())


@config_command(
    app,
    "schema.RecommendConfig",
    "mrkd recommend --data my_clips --minutes 30",
    "mrkd grid recommended.yaml",
)
def recommend(
    values: dict[str, Any],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The grid file to write.")] = Path(
        "recommended.yaml"
    ),
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Choose representations and networks for a data set by short probes, and write a grid."""
    from rich.console import Console

    from mrkd_ray.config.parsing import COMMAND_LINE, parse
    from mrkd_ray.config.schema import RecommendConfig
    from mrkd_ray.recommend.recommend import recommend as choose
    from mrkd_ray.recommend.show import show

    config = _grouped(parse(RecommendConfig, values, COMMAND_LINE))
    with _stopped("Finished probes are kept. Continue: the same command."):
        choice = choose(config, to, force=force)
    console = Console()
    show(choice, config.fold, config.verified_only, console)
    run = shlex.join([_program(), "grid", str(to)])
    console.print(f"Run it: {run}", markup=False, soft_wrap=True)


def _note(line: str) -> None:
    from rich.console import Console

    from mrkd_ray.common.progress import say

    say(Console(stderr=True), f"note: {line}")


C = TypeVar("C", bound="CheckedData")


def _grouped(config: C) -> C:
    """Return the configuration, on a terminal with an answer to whether names tell groups."""
    if config.group_by is not None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return config
    from rich.console import Console

    from mrkd_ray.common.progress import say
    from mrkd_ray.datasets.name_groups import guess
    from mrkd_ray.datasets.opening import EMBEDDED, open_dataset

    if config.data in EMBEDDED:
        return config
    dataset = open_dataset(config.data, config.cache)
    found = guess(dataset)
    if found is None or dataset.gives_sides:
        return config
    option = shlex.join(["--group-by", found.pattern])
    console = Console(stderr=True, highlight=False)
    for line in (
        f"{config.data}: {found.sentence}, for example {' and '.join(found.example)}.",
        "Do clips that share it come from one speaker or one source recording? Then a test on some "
        "of them after training on others is too easy.",
        f"  y: each of the {found.groups} groups is trained on or tested, as a whole ({option})",
        "  N: every clip stands for itself (--group-by none)",
    ):
        say(console, line)
    answer = typer.confirm("Keep them together?", err=True)
    return config.model_copy(update={"group_by": found.pattern if answer else "none"})


@contextmanager
def _stopped(kept: str) -> Iterator[None]:
    """Exit with one line where cells failed, or where Ctrl-C came: how far it was, then `kept`.

    The exit code of failed cells is 2, as of bad input, where the machine is to blame.
    """
    from rich.console import Console

    from mrkd_ray.common.progress import say
    from mrkd_ray.grid.run import CellsFailed

    try:
        yield
    except CellsFailed as error:
        if error.results and len(error.results.table):
            error.results.show(Console())
        print(f"error: {printable_lines(error)}", file=sys.stderr)
        raise typer.Exit(2 if error.of_the_machine else 1) from None
    except KeyboardInterrupt as stopped:
        say(Console(stderr=True), f"{str(stopped) or 'Stopped.'} {kept}")
        raise typer.Exit(INTERRUPTED) from None


def _run(config: GridConfig, resume: bool) -> None:
    from rich.console import Console

    from mrkd_ray.grid.run import run

    config = config if config.teachers else _grouped(config)  # which were trained on groups
    with _stopped("Continue: the same command with --resume."):
        results = run(config, resume=resume)
    console = Console()
    results.show(console)
    if config.conclusion:
        console.print(f"\n{config.conclusion}\n", markup=False, highlight=False)
    report = shlex.join([_program(), "report", str(from_here(results.folder))])
    console.print(f"Report: {report}", markup=False, soft_wrap=True)
    if results.best and results.best.bytes is not None:
        _print_use(results.best_folder, console)


def _program() -> str:
    """Return how this command is called from here: by its path where the shell finds no `mrkd`."""
    beside = Path(sys.executable).with_name("mrkd")
    return "mrkd" if shutil.which("mrkd") or not beside.exists() else str(from_here(beside))


def _print_use(best: Path, console: Console) -> None:
    use = shlex.join([_program(), "predict", str(from_here(best)), "FILE"])
    console.print(f"Use it: {use}", markup=False, soft_wrap=True)


app.add_typer(models)


@app.command()
def download(
    name: Annotated[
        str,
        typer.Argument(
            metavar="fsdkaggle2018|tut2018|esc50|mn01 to mn40|panns_cnn10|...",
            help="The data set, or the pretrained weights: also those of any network of "
            "torchvision or timm from ImageNet, for REPRESENTATION@NETWORK.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for it. --data takes a data set's then. Weights lie where every command "
            "finds them by default.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Of pretrained weights: they are in this file already, and are not downloaded.",
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="Of pretrained weights: what the file must have. Without it, what first comes of "
            "a file that mrkd does not know is recorded, and later downloads must be the same.",
        ),
    ] = None,
) -> None:
    """Download a data set, or pretrained weights, from the official record.

    Archives are verified, unpacked and removed. A call that was interrupted goes on in the next
    one; where all is there, nothing is done.
    """
    from rich.console import Console

    from mrkd_ray.datasets.download.fetching import download as fetch
    from mrkd_ray.datasets.download.sources import SOURCES
    from mrkd_ray.representations import pretrained

    if name in pretrained.FILES:
        entry = pretrained.FILES[name]
        print(f"{name}: {entry.file}. Licence: {entry.licence}.\nCite: {entry.citation}.")
        path = pretrained.fetch(name, to, sha256 or "", file)
        if not entry.is_pinned and not sha256:
            print(
                f"note: mrkd does not know this file's sha256. What came has "
                f"{pretrained.recorded(path)}, which is recorded in {path.name}.json. Other bytes "
                "are refused from now on. --sha256 says what they must have."
            )
        print(path)
        return
    if sha256:
        raise UserError(f"--sha256: of pretrained weights from AudioSet; {name} are none: leave it")
    if name not in SOURCES:
        from mrkd_ray.networks.freezing import can_freeze, freeze

        if can_freeze(name):
            print(f"{name}: trained on ImageNet. Licence and citation: its library's page of it.")
            print(freeze(name, file, to))
            return
    if file is not None:
        raise UserError(f"--file: of pretrained weights; {name} is none of these: leave it")
    if to is None:
        raise UserError(f"--to: give a folder for the data set: --to data/{name}")
    try:
        fetch(name, to, Console())
    except KeyboardInterrupt:
        print("interrupted: call again to go on from here", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run's results folder.")],
) -> None:
    """Write a run's report.html: the model to use, tables, figures, and what was run."""
    from rich.console import Console

    from mrkd_ray.report.page import write

    with Console(stderr=True).status("Drawing figures"):
        path = write(folder)
    print(path)


@app.command(epilog=ending("mrkd status results/my_clips"))
def status(
    folder: Annotated[Path, typer.Argument(metavar="RESULTS", help="A run's results folder.")],
    as_json: Json = False,
) -> None:
    """Say how far a run is: while it goes on, from any machine that sees its folder, or after."""
    from rich.console import Console

    from mrkd_ray.grid import status as of_run

    found = of_run.read(folder)
    if as_json:
        print(json_text(of_run.as_json(found)), end="")
    else:
        of_run.show(found, Console())


@app.command(
    epilog=ending("mrkd compare results/my_clips", "mrkd compare results/my_clips --choose size")
)
def compare(
    folder: Annotated[Path, typer.Argument(metavar="RESULTS", help="A run's results folder.")],
    by: Annotated[
        str | None,
        typer.Option(
            "--choose",
            metavar="accuracy|latency|size",
            help="Point best/ at: the most accurate model (of equal ones the higher mAP@3, then "
            "the smaller); or the fastest, or the smallest, of those that are not significantly "
            "less accurate than that one. Without it best/ stays.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List a run's models by accuracy, size and time for a clip, and choose the one in best/."""
    from rich.console import Console

    from mrkd_ray.results import compare as models

    with Console(stderr=True).status("Measuring"):
        found = models.compare(folder, by)
    if as_json:
        print(json_text(models.as_json(found)), end="")
        return
    console = Console()
    models.show(found, console)
    _print_use(found.best_folder, console)


@app.command(
    epilog=ending(
        "mrkd review results/my_clips --to review.csv",
        "mrkd review results/my_clips --answers review.csv --to mended.csv",
        "mrkd review results/my_clips --page",
    )
)
def review(
    folder: Annotated[Path, typer.Argument(metavar="RESULTS", help="A run's results folder.")],
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The CSV file to write. Default: review.csv; of answers mended.csv.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Clips to list.")] = 50,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The list, its column answer filled in: write the run's data with these labels, "
            "as a CSV file that --data takes.",
        ),
    ] = None,
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Listen and answer in a browser on this machine. The list (--answers, default "
            "review.csv) and the data (--to) are written at every answer. A list that is there is "
            "gone on with.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Of --page. 0: a free one.")
    ] = 8001,
) -> None:
    """List the clips to listen to next: doubted labels, disagreement, uncertainty."""
    from rich.console import Console

    from mrkd_ray.cli import review as of_run

    listed, mended = Path("review.csv"), Path("mended.csv")
    if page:
        from mrkd_ray.cli import review_page

        review_page.run(folder, answers or listed, to or mended, count, port, Console())
    elif answers is None:
        of_run.review(folder, to or listed, count, Console())
    else:
        of_run.mend(folder, answers, to or mended, Console())


@app.command(
    epilog=ending(
        "mrkd clean",
        "mrkd clean cache --unused-days 30",
        "mrkd clean cache --unused-days 30 --yes",
    )
)
def clean(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND",
            help="What to remove, one or several. cache: representations, checks of data sets "
            "and made data sets; the next run makes them again. checkpoints: of cells that are "
            "not finished, which then begin anew. ray: logs of Ray that runs left.",
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the cache.")] = Path(
        "cache"
    ),
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of all results.")] = Path(
        "results"
    ),
    unused_days: Annotated[
        float,
        typer.Option(
            metavar="N", min=0, help="Only what nobody has read or written for so many days."
        ),
    ] = 0,
    yes: Annotated[
        bool, typer.Option("--yes", metavar="", help="Remove it; without, it is only listed.")
    ] = False,
) -> None:
    """Say what lies where and how big it is, and remove what is asked for.

    Finished cells, models and predictions are never removed, nor what a running process uses.
    """
    from rich.console import Console

    from mrkd_ray.common.registry import unknown
    from mrkd_ray.grid import leftovers

    for kind in kinds or []:
        if kind not in leftovers.KINDS:
            raise unknown("kind", kind, leftovers.KINDS)
    if yes and not kinds:
        raise UserError(f"--yes: say what to remove: {', '.join(leftovers.KINDS)}")
    found = [
        each
        for each in leftovers.find(cache, output)
        if each.unused_days >= unused_days and (not kinds or each.kind in kinds)
    ]
    leftovers.show(found, kinds or leftovers.KINDS, Console())
    if yes:
        left = leftovers.remove(found, output)
        for path, why in left.items():
            print(printable(f"left {path}: {why}"))
        print(f"removed {len(found) - len(left)} of {len(found)}")
    elif found:
        print("Nothing is removed without --yes and the kind: cache, checkpoints or ray.")


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
    """Stop as Ctrl-C does; and after `PATIENCE` whatever it waits for, before it is killed."""
    ending = threading.Timer(PATIENCE, os._exit, [INTERRUPTED])
    ending.daemon = True
    ending.start()
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line, or other arguments than the process was given.

    SIGTERM, by which schedulers and spot machines end a process, is treated as Ctrl-C.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is written in ASCII
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else arguments
    try:
        app([word for word in words if word != DEBUG])
    except Exception as error:
        found = _sentence(error)
        if found is None or DEBUG in words:
            traceback.print_exc()
        if found is None:
            print(BUG, file=sys.stderr)
            sys.exit(1)
        print(f"error: {printable_lines(found)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _sentence(error: Exception) -> str | None:
    """Return what to tell people of an error, None where it is a bug."""
    if "ray" not in sys.modules:
        return failures.sentence(error)
    from mrkd_ray.distributed.failures import sentence

    return sentence(error)
