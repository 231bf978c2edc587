"""Commands of a trained model: evaluate, predict, listen, serve, export, pack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mrkd_ray.cli.options import Commands, Json, config_command, ending
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import check_files, json_text

models = typer.Typer(cls=Commands)

ModelPath = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run's folder (its best/), a cell's as an ensemble, or a branch's.",
    ),
]


@config_command(
    models,
    "run.Data",
    "mrkd evaluate results/train --data other_clips",
    "mrkd evaluate results/train --data other_clips --html scores.html",
)
def evaluate(
    values: dict[str, Any],
    model: ModelPath,
    as_json: Json = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page: classes, confusions, calibration."),
    ] = None,
) -> None:
    """Score a model on labelled audio, without the clips that it was trained on."""
    from rich.console import Console

    from mrkd_ray.cli.evaluation import show
    from mrkd_ray.config.parsing import COMMAND_LINE, parse
    from mrkd_ray.config.run import Data
    from mrkd_ray.inference.evaluate import evaluate as score

    asked = parse(Data, values, COMMAND_LINE)
    check_files(html)
    found = score(
        model, asked.data, asked.cache, skip_bad=asked.skip_bad, negatives=asked.negatives
    )
    if as_json:
        print(json_text(found.report), end="")
    else:
        show(found, Console())
    if html is not None:
        from mrkd_ray.report.evaluation_page import write

        with Console(stderr=True).status("Drawing figures"):
            write(found, model, html)
        print(f"Page: {html}", file=sys.stderr)


@models.command(
    epilog=ending(
        "mrkd predict results/train recording.wav",
        "mrkd predict results/train recordings 'more/*.flac' --format csv --output scores.csv",
        "mrkd predict results/train night.flac --window 3 --hop 1 \\\n"
        "    --format raven --output night.txt",
        "find field -name '*.flac' | mrkd predict results/train -",
        "mrkd predict results/train archive --ray --output scores",
    )
)
def predict(
    model: ModelPath,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES",
            help="Recordings, folders of them, patterns, or - for a list of paths on standard "
            "input.",
        ),
    ],
    top: Annotated[
        int, typer.Option(metavar="N", min=1, help="Classes to print for each file.")
    ] = 3,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="Least probability of what is listed. By default 0.5 of a multi-label model's "
            "classes and of events in windows, and any of a file's classes.",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.05,
            help="Look at windows of this length, and list events: what is heard from when to "
            "when. Windows that touch and agree are one event.",
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.01, help="From one window to the next. Default: --window."
        ),
    ] = None,
    smooth: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Take the mean of so many neighbouring windows for each: 3 or 5, where single "
            "windows are unsteady.",
        ),
    ] = 1,
    format: Annotated[
        str,
        typer.Option(
            metavar="text|csv|json|raven|audacity|parquet",
            help="csv, json and parquet: the probability of every class, of each file or window. "
            "raven and audacity: events, as a selection table or a label track.",
        ),
    ] = "text",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there; default: print.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Threads, or with Ray copies of the model. Default: as many as CPUs, or GPUs.",
        ),
    ] = None,
    on_ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Many recordings: a copy of the model a worker, on a Ray cluster that is started "
            "here. --output is a folder of Parquet files; the same command again goes on.",
        ),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="As --ray, on the cluster there: auto, HOST:PORT."),
    ] = None,
) -> None:
    """Classify recordings. Files that cannot be read are named; the exit code is then 1."""
    from mrkd_ray.cli.prediction import from_stdin, run, run_on_ray, windows_asked
    from mrkd_ray.inference import prediction_files, threads
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.inference.inputs import recordings

    windows = windows_asked(window, hop, smooth)
    on_ray = on_ray or address is not None
    if not on_ray:
        check_files(output)
    files = recordings(from_stdin(inputs))
    if on_ray:
        if format not in ("text", "parquet") or min_confidence is not None:
            raise UserError(
                "--ray: it writes the probability of every class as Parquet: leave --format and "
                "--min-confidence out"
            )
        if run_on_ray(model, files, windows, output, jobs, address):
            raise typer.Exit(1)
        return
    prediction_files.check(
        format,
        windows=windows is not None,
        files=len(files),
        least=min_confidence,
        output=output is not None,
    )
    threads.limit(jobs)
    classifier = Classifier.load(model)
    asked = prediction_files.Asked(
        classifier.classes,
        classifier.multi_label,
        windows is not None,
        top,
        min_confidence,
        classifier.config.get("negatives"),
    )
    if run(classifier, files, asked, windows, format, output):
        raise typer.Exit(1)


@models.command(epilog=ending("mrkd listen results/train", "mrkd listen results/train --hop 0.5"))
def listen(
    model: ModelPath,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0.05, help="What is looked at. Default: the model's window."
        ),
    ] = None,
    hop: Annotated[float, typer.Option(metavar="SECONDS", min=0.05, help="Between lines.")] = 1.0,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Classes in a line.")] = 3,
    min_confidence: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, max=1, help="Least probability of what is listed."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The microphone: a part of its name, or its number."),
    ] = None,
) -> None:
    """Classify what the microphone hears, a line a second, until Ctrl-C."""
    from datetime import datetime

    from mrkd_ray.cli.listening import heard, microphone
    from mrkd_ray.common.text import printable
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.inference.prediction_files import Asked

    classifier = Classifier.load(model)
    asked = Asked(classifier.classes, classifier.multi_label, False, top, min_confidence)
    length = window or classifier.window
    with microphone(device) as (rate, blocks):
        try:
            for found in heard(classifier, blocks, rate, length, hop):
                print(f"{datetime.now():%H:%M:%S} {printable(asked.text(found))}", flush=True)
        except KeyboardInterrupt:
            raise typer.Exit from None


@models.command(
    epilog=ending(
        "mrkd serve results/train",
        "mrkd serve birds.mrkd --host 0.0.0.0 --token-file token.txt --replicas 4",
    )
)
def serve(
    model: ModelPath,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="To listen on. 0.0.0.0: others reach it too."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="To listen on.")] = 8000,
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, help="Copies of the model, a process each.")
    ] = 1,
    gpus: Annotated[
        float,
        typer.Option(metavar="X", min=0, help="GPUs of each copy; a fraction shares a card."),
    ] = 0,
    queue: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Requests under way at once. Further ones get 503 and Retry-After.",
        ),
    ] = 64,
    max_mb: Annotated[
        float, typer.Option(metavar="X", min=0.001, help="Megabytes of a request.")
    ] = 32,
    max_seconds: Annotated[
        float, typer.Option(metavar="X", min=0.1, help="Seconds of a recording.")
    ] = 600,
    confidence: Annotated[
        float,
        typer.Option(
            metavar="X",
            min=0,
            max=1,
            help="From here up, model=cascade believes the cheapest branch.",
        ),
    ] = 0.9,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="It holds a token. Requests must bear it."),
    ] = None,
) -> None:
    """Answer requests over HTTP, with a page for a browser, until Ctrl-C."""
    from mrkd_ray.cli import serving
    from mrkd_ray.common.environment import cpus
    from mrkd_ray.serve.settings import Settings

    settings = Settings(
        model=str(model.resolve()),
        replicas=replicas,
        cpus=max(1, cpus() // replicas),
        gpus=gpus,
        queue=queue,
        max_mb=max_mb,
        max_seconds=max_seconds,
        confidence=confidence,
        token_file=str(token_file.resolve()) if token_file else None,
    )
    serving.run(settings, host, port)


@models.command(
    epilog=ending(
        "mrkd export results/train classifier.onnx",
        "mrkd export results/train small.onnx --int8 --data my_clips",
        "mrkd export results/train classifier.tflite --seconds 5",
    )
)
def export(
    model: ModelPath,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="To write: NAME.onnx, .tflite or .pt2.")
    ],
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Take recordings of this length alone. Default: of any length. .tflite needs it."
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights in 8 bits: a smaller file (ONNX).")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Clips to compare the program with the model on. Default: test clips of its run.",
        ),
    ] = None,
    cache: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the embedded data set lies.")
    ] = Path("cache"),
) -> None:
    """Write a model as one program, from samples to probabilities, that runs without mrkd."""
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.inference.export_clips import clips_for
    from mrkd_ray.inference.program_export import export as write

    check_files(file)
    classifier = Classifier.load(model, "cpu")
    clips = clips_for(classifier, model, data, cache, int8=int8)
    found = write(classifier, file, clips, seconds=seconds, int8=int8)
    print(f"{file}: {file.stat().st_size / 1e6:.2f} MB; {found.text}")


@models.command(
    epilog=ending("mrkd pack results/train birds.mrkd", "mrkd pack results/train --hub birds")
)
def pack(
    model: ModelPath,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="To write: NAME.mrkd.")
    ] = None,
    hub: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a folder for the Hugging Face hub as well."),
    ] = None,
) -> None:
    """Write a model as one file to hand on, with a model card; every command takes it."""
    import tempfile

    from mrkd_ray.inference import packing
    from mrkd_ray.inference.classifier import Classifier
    from mrkd_ray.results.best import NAME as BEST
    from mrkd_ray.results.best import read

    if file is None and hub is None:
        raise UserError("pack: give a FILE.mrkd to write, or --hub FOLDER")
    check_files(file)
    classifier = Classifier.load(model, "cpu")  # it is whole
    best = read(model.parent if model.name == BEST else model)
    known = {}
    if best:
        runs = f"{best.runs} run{'s' * (best.runs > 1)}"
        known = {f"Test clips, {runs}": best.score_text, "Size and time": best.cost_text}
    with tempfile.TemporaryDirectory() as folder:
        parts = hub or Path(folder)
        folders = [branch.folder for branch in classifier.branches]
        packing.write_folder(parts, folders, known, classifier.calibration)
        if file is not None:
            packing.pack(file, parts)
    for path in filter(None, (file, hub)):
        print(path)
