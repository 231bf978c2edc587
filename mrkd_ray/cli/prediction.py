"""`mrkd predict`: classify recordings, write what is said of them, show how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing
from mrkd_ray.common.text import printable
from mrkd_ray.inference.prediction import Prediction
from mrkd_ray.inference.prediction_files import FORMATS, Asked, write_parquet
from mrkd_ray.inference.spans import smoothed
from mrkd_ray.scores.ensemble import mean_probabilities

if TYPE_CHECKING:
    from rich.console import Console

    from mrkd_ray.common.progress import Show
    from mrkd_ray.inference.classifier import Classifier, OnError


@dataclass(frozen=True)
class Windows:
    """How to look at recordings: seconds of a window, from one to the next, and `--smooth`."""

    length: float
    hop: float
    smooth: int


def windows_asked(window: float | None, hop: float | None, smooth: int) -> Windows | None:
    """Return the windows that are asked for. Raises UserError where options lack `--window`."""
    if window is None:
        for name, given in (("--hop", hop is not None), ("--smooth", smooth > 1)):
            if given:
                raise UserError(f"{name}: it is of windows: give --window too")
        return None
    if smooth % 2 == 0:
        raise UserError(
            f"--smooth {smooth}: a window and as many on both sides: an odd number, such as 3"
        )
    return Windows(window, hop or window, smooth)


def from_stdin(inputs: Sequence[str]) -> list[str]:
    """Return the inputs, with the lines of standard input in the place of `-`."""
    found: list[str] = []
    for each in inputs:
        lines = [line.rstrip("\r\n") for line in sys.stdin] if each == "-" else [each]
        found += [line for line in lines if line]
    if not found:
        raise UserError("-: there is no line on standard input: a recording's path in each")
    return found


@dataclass
class _Progress:
    """Files, hours of audio, and how many times faster than it is played."""

    files: int
    lengths: dict[Path, float] | None  # in seconds, where the bar is of seconds
    show: Show
    done: int = 0
    seconds: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def at(self, seconds: float) -> None:
        """Show that so much of the current recording is done."""
        heard = self.seconds + seconds
        if self.lengths is None:
            self.show(self.done, self.files, self.text(heard))
        else:
            total = sum(self.lengths.values())
            self.show(int(min(heard, total)), int(total), f"{self.done} of {self.text(heard)}")

    def end(self, seconds: float) -> None:
        """Go on to the next recording."""
        self.done += 1
        self.seconds += seconds
        self.at(0.0)

    def text(self, heard: float) -> str:
        """For people, of so many seconds."""
        pace = heard / max(time.monotonic() - self.since, 1e-9)
        files = f"{self.files} file{'s' * (self.files > 1)}"
        return f"{files}, {heard / 3600:.2f} h of audio, {pace:.3g} x real time"


def run(
    classifier: Classifier,
    files: list[Path],
    asked: Asked,
    windows: Windows | None,
    format: str,
    output: Path | None,
) -> int:
    """Classify files and write what was found; return how many could not be classified."""
    from rich.console import Console

    from mrkd_ray.common.progress import Display, say

    failed: list[UserError] = []

    def on_error(error: UserError) -> None:
        print(f"error: {printable(error)}", file=sys.stderr)
        failed.append(error)

    out = sys.stdout  # the display stands in for it
    watched = out.isatty() and format != "json" and output is None  # it shows how far it is
    console: Console = Console(stderr=True)
    quiet = Console(stderr=True, quiet=True, force_terminal=False) if watched else console
    with Display(quiet) as display:
        lengths = {file: _seconds(file) for file in files} if windows else None
        title = "Classifying, seconds" if windows else "Classifying"
        progress = _Progress(len(files), lengths, display.step(title))

        def recordings() -> Iterator[list[Prediction]]:
            if windows is None:
                return _whole(classifier, files, progress, on_error)
            return _in_windows(classifier, files, windows, progress, on_error)

        if output is None:
            for part in FORMATS[format](recordings(), asked):
                out.write(part)
                out.flush()
        else:
            with replacing(output) as temporary:
                if format == "parquet":
                    write_parquet(recordings(), asked, temporary)
                else:
                    with temporary.open("w", encoding="utf-8") as file:
                        file.writelines(FORMATS[format](recordings(), asked))
    if output is not None:
        say(console, f"{output}: {progress.text(progress.seconds)}")
    return len(failed)


def run_on_ray(
    model: Path,
    files: list[Path],
    windows: Windows | None,
    output: Path | None,
    copies: int | None,
    address: str | None,
) -> int:
    """Classify files on a cluster into a folder; return how many could not be classified.

    Raises:
        UserError: no folder was given, there is something else in it, or no cluster answers.
    """
    from rich.console import Console

    from mrkd_ray.common.progress import Display, say
    from mrkd_ray.distributed import batch_prediction
    from mrkd_ray.distributed.cluster import connect
    from mrkd_ray.inference.classifier import Classifier

    if output is None or output.is_file():
        raise UserError("--ray: its results are a folder of Parquet files: give --output FOLDER")
    output.mkdir(parents=True, exist_ok=True)
    classifier = Classifier.load(model, "cpu")
    ready = batch_prediction.done(output)
    wanted = [name for name in map(str, (file.absolute() for file in files)) if name not in ready]
    console, failed = Console(stderr=True), 0
    if len(wanted) < len(files):
        say(console, f"{output}: {len(files) - len(wanted)} of {len(files)} are there already")
    if not wanted:
        return 0

    def on_error(text: str) -> None:
        nonlocal failed
        failed += 1
        print(f"error: {printable(text)}", file=sys.stderr)

    length, hop = (windows.length, windows.hop) if windows else (None, None)
    job = batch_prediction.Job(classifier.packed(), length, hop, windows.smooth if windows else 1)
    with connect(address, 1) as cluster, Display(console) as display:
        for line in cluster.lines:
            say(console, line)
        progress = _Progress(len(wanted), None, display.step("Classifying"))
        workers = copies or int(cluster.gpus or cluster.cpus)
        parts = batch_prediction.predict(
            job,
            wanted,
            classifier.classes,
            output,
            workers=max(1, min(workers, len(wanted))),
            gpus=min(1.0, cluster.gpus),
            on_error=on_error,
        )
        for count, seconds in parts:
            progress.done += count - 1
            progress.end(seconds)
    say(console, f"{output}: {progress.text(progress.seconds)}")
    return failed


def _whole(
    classifier: Classifier, files: list[Path], progress: _Progress, on_error: OnError
) -> Iterator[list[Prediction]]:
    """Yield the prediction of each recording."""

    def told(error: UserError) -> None:
        on_error(error)
        progress.end(0.0)

    for found in classifier.stream(files, on_error=told):
        yield [found]
        progress.end(found.end)


def _in_windows(
    classifier: Classifier,
    files: list[Path],
    windows: Windows,
    progress: _Progress,
    on_error: OnError,
) -> Iterator[list[Prediction]]:
    """Yield the windows of each recording: of each the mean of the branches alone is kept."""
    for file in files:
        found, end = [], 0.0
        try:
            for each in classifier.stream(file, window=windows.length, hop=windows.hop):
                mean = mean_probabilities(each.branches).astype(np.float32)
                found.append(replace(each, branches=mean[None]))
                end = each.end
                progress.at(end)
        except UserError as error:
            on_error(error)
        else:
            yield smoothed(found, windows.smooth) if windows.smooth > 1 else found
        progress.end(end)


def _seconds(file: Path) -> float:
    """Return the length that the header tells; 0 where there is none."""
    import soundfile

    try:
        return float(soundfile.info(str(file)).duration)
    except (soundfile.SoundFileError, OSError):
        return 0.0
