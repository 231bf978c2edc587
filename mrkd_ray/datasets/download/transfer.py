"""One file over HTTP: broken transfers go on where they stopped, also in the next call."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from mrkd_ray.common.errors import UserError

if TYPE_CHECKING:
    from mrkd_ray.datasets.download.archives import Archive

RETRIES = 5  # of a request that is answered 429 or 5xx, and of a transfer that brings nothing
BACKOFF = 1.0  # seconds, doubled with each retry
TIMEOUT = (10, 30)  # seconds: to connect, and without any data; Ctrl-C waits for it at most
CHUNK = 1 << 16  # bytes; what a break loses at most

_BROKEN = (
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.Timeout,
)


class Stopped(Exception):
    """The user has interrupted the download."""


def new_session() -> requests.Session:
    """Return a session that asks again, a bounded number of times, where a server is busy."""
    session = requests.Session()
    # Without this header a server may compress, and a Range would count compressed bytes.
    session.headers["Accept-Encoding"] = "identity"
    retry = Retry(
        total=RETRIES,
        connect=2,
        backoff_factor=BACKOFF,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def get(session: requests.Session, url: str, begin: int = 0) -> requests.Response:
    """Ask for a file from byte `begin` on; the body is not read yet.

    Raises:
        UserError: no connection, or any answer but 200 and 206 (or 416 where `begin` > 0).
    """
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.RequestException as error:
        cause = getattr(error.args[0], "reason", error) if error.args else error
        raise UserError(
            f"{url}: no answer ({cause}). Check the connection and call again: what is here is "
            "kept."
        ) from error
    if response.status_code in (200, 206) or (begin and response.status_code == 416):
        return response
    response.close()
    busy = response.status_code == 429 or response.status_code >= 500
    mend = (
        f"It did so after {RETRIES} retries too; call again later: what is here is kept."
        if busy
        else "Look whether the file is still there, in a browser."
    )
    raise UserError(f"{url}: answered {response.status_code} {response.reason}. {mend}")


class Transfer:
    """A downloader for pooch: it fetches into `part` and hands that over when it is complete."""

    def __init__(
        self,
        session: requests.Session,
        archive: Archive,
        part: Path,
        progress: Callable[[int], None],
        stop: threading.Event,
    ) -> None:
        """Prepare a transfer.

        Args:
            session: of `new_session`.
            archive: what to fetch.
            part: the file so far, of this call or an earlier one.
            progress: called with the number of bytes there are.
            stop: ends the transfer with `Stopped`.
        """
        self._session = session
        self._archive = archive
        self._part = part
        self._progress = progress
        self._stop = stop

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Fetch `url` into `output_file`; pooch compares the checksum then.

        Raises:
            UserError: the server's answer is final, or the transfer broke off too often.
            Stopped: by `stop`.
        """
        breaks = 0  # since the last that brought something
        while True:
            before = self._size()
            try:
                self._receive(url)
                break
            except _BROKEN as error:
                there = self._size()
                breaks = 0 if there > before else breaks + 1
                if breaks > RETRIES:
                    raise UserError(
                        f"{self._archive.name}: {url} broke off {breaks} times after {there} of "
                        f"{self._archive.size} bytes ({error}). Call again to go on from there."
                    ) from error
            if self._stop.wait(BACKOFF * 2**breaks):
                raise Stopped
        self._part.replace(output_file)

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _receive(self, url: str) -> None:
        """Receive the rest of the file, or all of it where the server does not send parts."""
        there, size = self._size(), self._archive.size
        if there == size:
            return
        if there > size:
            there = 0
        with get(self._session, url, there) as response:
            if response.status_code == 200:
                there = 0  # the server sends all of it
            elif not _goes_on(response, there):
                self._part.unlink(missing_ok=True)
                raise requests.exceptions.ConnectionError("the server has no such part")
            with self._part.open("ab" if there else "wb") as file:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    there += len(chunk)
                    if there > size:
                        file.truncate(0)
                        raise UserError(
                            f"{self._archive.name}: {url} sends more than the {size} bytes that "
                            "are published. Call again; if it stays so, get it by hand."
                        )
                    self._progress(there)
                    if self._stop.is_set():
                        raise Stopped
        if there < size:
            raise requests.exceptions.ConnectionError("the server sent too few bytes")


def _goes_on(response: requests.Response, there: int) -> bool:
    """Return whether the body is what follows the first `there` bytes."""
    span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status_code == 206 and span is not None and int(span.group(1)) == there
