"""`mrkd predict`: what is said of each recording, and how it is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_text
from mrkd_ray.common.text import printable
from mrkd_ray.inference import prediction_files as files_of
from mrkd_ray.inference.spans import Span, events

if TYPE_CHECKING:
    from mrkd_ray.inference.classifier import Classifier


@dataclass(frozen=True)
class Asked:
    """What is to be said; times in seconds."""

    format: Literal["text", "csv", "raven", "audacity", "json"]
    window: float | None
    hop: float | None
    top: int
    threshold: float

    @classmethod
    def checked(
        cls,
        *,
        format: str,
        as_json: bool,
        window: float | None,
        hop: float | None,
        top: int,
        threshold: float,
        files: int,
    ) -> Asked:
        """Return it. Raises UserError where options do not go together."""
        if as_json and format != "text":
            raise UserError(f"--json and --format {format}: give one of them")
        if hop is not None and window is None:
            raise UserError("--hop: it is the way from one window to the next: give --window too")
        kind = files_of.checked(format, window=window, files=files)
        return cls("json" if as_json else kind, window, hop, top, threshold)


class _Heard:
    """Shows how many seconds of all recordings are classified."""

    def __init__(self, files: list[Path], show: Callable[[int, int], None]) -> None:
        self._lengths = {file: _seconds(file) for file in files}
        self._show, self._before = show, 0.0

    def up_to(self, seconds: float) -> None:
        """Of the current recording."""
        total = sum(self._lengths.values())
        self._show(int(min(self._before + seconds, total)), int(total))

    def end(self, file: Path) -> None:
        """Go on to the next one."""
        self._before += self._lengths[file]


def _seconds(file: Path) -> float:
    """Return the length that the header tells; 0 where there is none."""
    import soundfile

    try:
        return float(soundfile.info(str(file)).duration)
    except (soundfile.SoundFileError, OSError):
        return 0.0


def run(classifier: Classifier, files: list[Path], asked: Asked, output: Path | None) -> int:
    """Classify files and say what was found; return how many could not be classified."""
    from rich.console import Console

    from mrkd_ray.common.progress import Display

    failed: list[UserError] = []

    def on_error(error: UserError) -> None:
        print(f"error: {printable(error)}", file=sys.stderr)
        failed.append(error)

    out = sys.stdout  # the display stands in for it
    watched = out.isatty() and asked.format != "json" and output is None  # it shows how far it is
    console = Console(stderr=True, quiet=True, force_terminal=False) if watched else None
    parts = []
    with Display(console or Console(stderr=True)) as display:
        shown = display.step("Classifying" if asked.window is None else "Classifying, seconds")
        heard = _Heard(files, shown) if asked.window is not None else None
        for part, done in _said(classifier, files, asked, on_error, heard):
            if heard is None:
                shown(done + len(failed), len(files))
            if output is None:
                out.write(part)
                out.flush()
            else:
                parts.append(part)
    if output is not None:
        write_text(output, "".join(parts))
    return len(failed)


def _said(
    classifier: Classifier,
    files: list[Path],
    asked: Asked,
    on_error: Callable[[UserError], None],
    heard: _Heard | None,
) -> Iterator[tuple[str, int]]:
    """Yield text as it is written, and how many files it is of."""
    windows = asked.window is not None
    if asked.format == "csv":
        yield files_of.csv_header(classifier.classes, window=windows), 0
    elif asked.format == "raven":
        yield files_of.raven_header(), 0
    elif asked.format == "json":
        yield "[", 0
    selections = done = 0
    for file, spans in _spans(classifier, files, asked, on_error, heard):
        done += 1
        if asked.format == "csv":
            yield files_of.csv_rows(file, spans, window=windows), done
        elif asked.format == "json":
            rows = [_row(classifier, file, span, asked) for span in spans]
            text = ",\n".join(json.dumps(row, indent=2, allow_nan=False) for row in rows)
            yield (",\n" if done > 1 else "\n") + text, done
        elif not windows:
            yield f"{_line(classifier, file, spans[0], asked)}\n", done
        else:
            every = events(
                spans, classifier.classes, asked.threshold, multi_label=classifier.multi_label
            )
            nothing = classifier.config.get("negatives")  # the class of what was not marked
            found = [event for event in every if event.label != nothing]
            if asked.format == "raven":
                yield files_of.raven_rows(file, found, selections + 1), done
                selections += len(found)
            elif asked.format == "audacity":
                yield files_of.audacity_rows(found), done
            else:
                lines = [
                    printable(
                        f"{file} {e.start:.1f}-{e.end:.1f} s: {e.label} {100 * e.confidence:.1f} %"
                    )
                    for e in found
                ]
                none = printable(f"{file}: no class from {100 * asked.threshold:g} % up")
                yield "\n".join(lines or [none]) + "\n", done
    if asked.format == "json":
        yield "\n]\n", done


def _spans(
    classifier: Classifier,
    files: list[Path],
    asked: Asked,
    on_error: Callable[[UserError], None],
    heard: _Heard | None,
) -> Iterator[tuple[Path, list[Span]]]:
    """Yield each file with its windows; without windows with one span, whose times say nothing."""
    import numpy as np

    if asked.window is None or heard is None:
        for file, scores in classifier.predict_all(files, on_error=on_error):
            found = np.array([scores[name] for name in classifier.classes], np.float32)
            yield file, [Span(0.0, 0.0, found)]
        return
    for file in files:
        spans = []
        try:
            for span in classifier.predict_windows(file, asked.window, asked.hop):
                spans.append(span)
                heard.up_to(span.end)
        except UserError as error:
            on_error(error)
        else:
            yield file, spans
        heard.end(file)


def _found(classifier: Classifier, scores: dict[str, float], asked: Asked) -> list[str]:
    """Return the classes that are named."""
    if classifier.multi_label:
        return [label for label, score in scores.items() if score >= asked.threshold]
    return list(scores)[: asked.top]


def _row(classifier: Classifier, file: Path, span: Span, asked: Asked) -> dict[str, Any]:
    scores = classifier.by_class(span.probabilities)
    found = _found(classifier, scores, asked)
    times = {} if asked.window is None else {"start": span.start, "end": span.end}
    labels = {"labels": found} if classifier.multi_label else {"label": found[0]}
    return {"file": str(file), **times, **labels, "scores": scores}


def _line(classifier: Classifier, file: Path, span: Span, asked: Asked) -> str:
    scores = classifier.by_class(span.probabilities)
    shown = [f"{name} {100 * scores[name]:.1f} %" for name in _found(classifier, scores, asked)]
    none = f"no class from {100 * asked.threshold:g} % up"
    return printable(f"{file}: {', '.join(shown) or none}")
