"""Which recordings are meant by files, folders and patterns."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.text import printable
from mrkd_ray.datasets.audio_files import is_audio, no_recordings, unread, visible_files


def recordings(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the files that are meant, each once, in order.

    Args:
        inputs: files, taken as they are; folders, of which all recordings at any depth are taken,
            by name, with a note on the other files; and patterns with `*`, `?` or `[` (`**` for
            any depth) where no such file is.

    Raises:
        UserError: names each of them that is nothing of these.
    """
    found: dict[Path, None] = {}
    wrong = []
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_file():
            own = [path]
        elif path.is_dir():
            files = list(visible_files(path))
            own = list(filter(is_audio, files))
            for note in unread(files, path) if own else ():
                print(printable(f"note: {given}: {note}"), file=sys.stderr)
        else:
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
            own = [match for match in matches if match.is_file()]
        if not own:
            why = no_recordings(path) if path.is_dir() else "no such file"
            wrong.append(f"{given}: {why}")
        found |= dict.fromkeys(own)
    if wrong:
        raise UserError("\n".join(wrong))
    return list(found)
