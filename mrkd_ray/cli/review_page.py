"""`mrkd review --page`: clips to listen to, one after the other, in a browser on this machine."""

from __future__ import annotations

import io
import json
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mrkd_ray.audio import decoding
from mrkd_ray.cli import review as of_run
from mrkd_ray.cli.review import ANSWER, LEAVE_OUT, Data
from mrkd_ray.cli.serving import check_installed
from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import write_text
from mrkd_ray.common.text import from_cell, to_cell
from mrkd_ray.datasets.base import Clip

if TYPE_CHECKING:
    from rich.console import Console

    from mrkd_ray.serve.review import ReviewClip, ReviewList

HOST = "127.0.0.1"


class RunReview:
    """The clips of a run to listen to: a `serve.review.Review`.

    Both files are written whole at every answer, so nothing is lost when anything ends.

    Args:
        results: the run's folder.
        answers: the list with its answers: gone on with where it is there, else made.
        to: the data set with the answers, for `--data`.
        count: clips of a new list.

    Raises:
        UserError: as `review.review`, `answers` is no such list, or `to` is there and not of it.
    """

    def __init__(self, results: Path, answers: Path, to: Path, count: int) -> None:
        self._results, self._file, self._to = results, answers, to
        self._data: Data = of_run.data_of(results)
        self._lock = threading.Lock()
        if answers.exists():
            lines = of_run.rows_of(answers)
            self._answers = of_run.given_answers(answers, lines, self._data)
            self._rows = [row for _, row in lines]
        else:
            self._answers = {}
            self._rows, _ = of_run.listed(results, self._data, count)
        if not self._answers:
            of_run.check_new(to)
        self._clips: list[Clip] = []
        self._shown: list[ReviewClip] = []
        for place, row in enumerate(self._rows):
            try:
                clip = self._data.trained.by_id[from_cell(row["clip_id"])]
                self._shown.append(_shown(clip, row))
            except (KeyError, ValueError):
                raise UserError(
                    f"{answers} row {place + 2}: not as `mrkd review` wrote it for this run. Give "
                    "another name, and a new list is made."
                ) from None
            self._clips.append(clip)
        self._written = self._content()
        if not answers.exists():
            self._write_list()

    def listed(self) -> ReviewList:
        """Return the clips and the answers so far."""
        from mrkd_ray.serve.review import ReviewList

        given = self._answers
        return ReviewList(
            run=self._results.name,
            answers=str(self._file),
            data=str(self._to),
            classes=list(self._data.trained.classes),
            multi_label=self._data.trained.multi_label,
            clips=[
                shown.model_copy(update={"answer": list(given[i]) if i in given else None})
                for i, shown in zip((c.clip_id for c in self._clips), self._shown, strict=True)
            ],
        )

    def sound(self, place: int) -> Path | bytes:
        """Return a clip as WAV, which every browser plays; of more than two minutes its file.

        Raises:
            UserError: it cannot be read.
        """
        import soundfile

        clip = self._clips[place]
        try:
            found = decoding.load_or_stream(clip.path, clip.stretch)
        except (decoding.AudioError, OSError) as error:
            raise UserError(f"it cannot be read: {error}") from None
        if not isinstance(found, decoding.Recording):
            return clip.path
        file = io.BytesIO()
        samples = found.at(found.sample_rate)
        soundfile.write(file, samples, found.sample_rate, "PCM_16", format="WAV")
        return file.getvalue()

    def answer(self, place: int, labels: list[str] | None) -> None:
        """Keep the answer to a clip: in the list, then in the data set.

        Raises:
            UserError: it is no class, or the list was changed by another program.
        """
        clip, dataset = self._clips[place], self._data.trained
        for label in labels or ():
            if label not in dataset.classes:
                raise UserError(f"{label!r} is no class")
        if labels is not None and len(labels) > 1 and not dataset.multi_label:
            raise UserError("a clip has one label here")
        with self._lock:
            if self._content() != self._written:
                raise UserError(
                    f"{self._file} was changed by another program since. Start `mrkd review` anew: "
                    "it goes on from there."
                )
            if labels is None:
                self._answers.pop(clip.clip_id, None)
                cell = ""
            else:
                self._answers[clip.clip_id] = tuple(sorted(set(labels)))
                cell = self._cell(labels)
            for each, row in zip(self._clips, self._rows, strict=True):
                if each is clip:
                    row[ANSWER] = cell
            self._write_list()
            of_run.write_data(self._data, self._answers, self._to)

    def _cell(self, labels: list[str]) -> str:
        if not labels:
            return LEAVE_OUT
        if self._data.trained.multi_label:
            return json.dumps(sorted(set(labels)), ensure_ascii=False)
        return to_cell(labels[0])

    def _content(self) -> bytes | None:
        return self._file.read_bytes() if self._file.exists() else None

    def _write_list(self) -> None:
        write_text(self._file, of_run.as_csv(self._rows))
        self._written = self._content()


def _shown(clip: Clip, row: Mapping[str, str]) -> ReviewClip:
    from mrkd_ray.serve.review import ReviewClip

    return ReviewClip(
        name=clip.clip_id,
        labels=list(clip.labels),
        answer=None,
        reason=row["reason"],
        probability=float(row["probability"]),
        likeliest=from_cell(row["likeliest"]),
        probability_likeliest=float(row["probability_likeliest"]),
        disagreement=float(row["disagreement"]),
    )


def run(results: Path, answers: Path, to: Path, count: int, port: int, console: Console) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: something is missing, or as `RunReview`.
    """
    check_installed("mrkd review --page")
    from mrkd_ray.serve.listening import listening, serve_until_told, url
    from mrkd_ray.serve.review import make_review_app

    with listening(HOST, port) as bound:
        app = make_review_app(
            RunReview(results, answers, to, count), token := secrets.token_hex(16)
        )
        console.print(
            f"{url(bound)}/#{token}  until Ctrl-C",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        serve_until_told(app, bound)
