"""Files of pretrained weights that representations are made of: what they are and where they lie.

Nothing here loads PyTorch.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.files import replacing, write_json
from mrkd_ray.common.hashing import sha256_of
from mrkd_ray.common.reading import Damaged, read_json

FOLDER = "MRKD_WEIGHTS"
"""Environment variable: the folder of the files, in place of the user's cache."""


@dataclass(frozen=True)
class WeightsFile:
    """An official file of weights.

    Attributes:
        file: its name.
        url: of its official release.
        licence: of the weights.
        citation: what to cite.
        size: in bytes; None where it is not known.
        sha256: of its bytes; of one that is known in part only, its begin and end around `...`;
            empty where nobody here has seen it. Of these the first download is recorded.
        md5: of its bytes, where that is what its publisher gives.
        width: of EfficientAT's networks' channels.
        backbone: the digest of what models bring along (`mobilenet.digest`); empty where it is
            not known, and models bring none.
        hidden: whether that is also the hidden layer of the classifier, besides the features.
    """

    file: str
    url: str
    licence: str
    citation: str
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    width: float = 0.0
    backbone: str = ""
    hidden: bool = False

    @property
    def is_pinned(self) -> bool:
        """Whether all of its bytes are known before a download."""
        return bool(self.md5) or bool(self.sha256 and "..." not in self.sha256)

    @property
    def identity(self) -> str:
        """What is known of its bytes, for keys and errors."""
        return self.sha256 or f"md5:{self.md5}"

    def is_official(self, size: int, sha256: str, md5: str) -> bool:
        """Return whether a file of this size and these hashes is the official one."""
        begin, _, end = self.sha256.partition("...")
        same = sha256.startswith(begin) and sha256.endswith(end)
        if self.is_pinned:
            same = md5 == self.md5 if self.md5 else sha256 == self.sha256
        return same and self.size in (None, size)


_RELEASE = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"
_CITATION = (
    "Schmid, Koutini and Widmer, Efficient Large-Scale Audio Tagging via Transformer-to-CNN "
    "Knowledge Distillation, ICASSP 2023"
)
_LICENCE = "MIT, Copyright (c) 2022 Florian Schmid"

_PANNS = "https://zenodo.org/records/3987831/files"
_PANNS_CITATION = (
    "Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern "
    "Recognition, IEEE/ACM TASLP 28, 2020"
)
_PANNS_LICENCE = "see Zenodo record 3987831"

FILES = {
    "mn04": WeightsFile(
        file="mn04_as_mAP_432.pt",
        url=f"{_RELEASE}/mn04_as_mAP_432.pt",
        size=4_066_513,
        sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
        licence=_LICENCE,
        citation=_CITATION,
        width=0.4,
        backbone="a33d6a87fb2824e6141c612ad69daac0ba61320a80952da931457568a397914d",
    ),
    "mn10": WeightsFile(
        file="mn10_as_mAP_471.pt",
        url=f"{_RELEASE}/mn10_as_mAP_471.pt",
        size=19_708_753,
        sha256="0bd7dc24...8a4e",
        licence=_LICENCE,
        citation=_CITATION,
        width=1.0,
    ),
    "panns_cnn10": WeightsFile(
        file="Cnn10_mAP=0.380.pth",
        url=f"{_PANNS}/Cnn10_mAP=0.380.pth",
        md5="bfb1f1f9968938fa8ef4012b8471f5f6",
        licence=_PANNS_LICENCE,
        citation=_PANNS_CITATION,
    ),
    "panns_mobilenetv1": WeightsFile(
        file="MobileNetV1_mAP=0.389.pth",
        url=f"{_PANNS}/MobileNetV1_mAP=0.389.pth",
        md5="a419303e1c88aa1b9d2ac3811563d371",
        licence=_PANNS_LICENCE,
        citation=_PANNS_CITATION,
    ),
}
FILES |= {  # names of EfficientAT's models/mn/model.py; none was at hand here
    name: WeightsFile(
        file=f"{name}_as_mAP_{precision}.pt",
        url=f"{_RELEASE}/{name}_as_mAP_{precision}.pt",
        licence=_LICENCE,
        citation=_CITATION,
        width=int(name[2:]) / 10,
    )
    for name, precision in (
        *(("mn01", 298), ("mn02", 378), ("mn05", 443)),
        *(("mn20", 478), ("mn30", 482), ("mn40", 484)),
    )
}
FILES["mn04_context"] = replace(
    FILES["mn04"],
    backbone="5080202001b88e49bb418086a3782acfa2e8e354b16d8b77dbc482eb8e8e3f88",
    hidden=True,
)


def folder() -> Path:
    """Return the folder of the files: `MRKD_WEIGHTS`, or one in the user's cache."""
    if own := os.environ.get(FOLDER):
        return Path(own).expanduser()
    import pooch

    return Path(pooch.os_cache("mrkd_ray")) / "weights"


def there(name: str) -> bool:
    """Return whether there is a file of weights `name`, official or not."""
    return name in FILES and (folder() / FILES[name].file).is_file()


def find(name: str) -> Path:
    """Return the verified file of weights `name`.

    Raises:
        UserError: it is not there, or its bytes are others.
    """
    entry = FILES[name]
    path = folder() / entry.file
    if not path.is_file():
        raise UserError(
            f"{name}: its weights, {entry.file}, are not in "
            f"{path.parent}. Fetch them: mrkd download {name}. Or set {FOLDER} to the folder that "
            "has the file."
        )
    return _verified(path, name, path.stat().st_mtime_ns, recorded(path))


def record_of(path: Path) -> Path:
    """Return where it is recorded what was first downloaded as a file."""
    return path.with_name(f"{path.name}.json")


def recorded(path: Path) -> str:
    """Return the sha256 that is recorded of a file; empty where none is.

    Raises:
        UserError: the record is damaged.
    """
    if not record_of(path).exists():
        return ""
    try:
        return str(read_json(record_of(path), "sha256")["sha256"])
    except Damaged as error:
        raise UserError(f"{error}. Remove it and {path.name}, and fetch that again.") from None


def fetch(name: str, to: Path | None = None, sha256: str = "", file: Path | None = None) -> Path:
    """Download weights `name` from their official release, unless they are there; verified.

    Of a file that is not pinned (`WeightsFile.is_pinned`) it records what came, and refuses what
    differs from that later.

    Args:
        to: a folder; by default the one in which every command looks.
        sha256: what its bytes must have; empty where nobody says.
        file: is copied, in place of a download.

    Raises:
        UserError: they cannot be had, or other bytes came.
        OSError: `file` cannot be read.
    """
    import pooch
    import requests

    sha256 = sha256.lower()
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UserError(f"--sha256 {sha256}: it has 64 hexadecimal digits")
    entry, target = FILES[name], to or folder()
    wanted = sha256 or recorded(target / entry.file)
    if file is not None:
        _verified(file, name, file.stat().st_mtime_ns, wanted)
        with replacing(target / entry.file) as temporary:
            shutil.copyfile(file, temporary)
    known: str | None = f"sha256:{wanted}" if wanted else None
    if entry.is_pinned:
        known = f"md5:{entry.md5}" if entry.md5 else f"sha256:{entry.sha256}"
    try:
        pooch.get_logger().setLevel("ERROR")
        path = Path(pooch.retrieve(entry.url, known, entry.file, target))
    except (OSError, ValueError, requests.RequestException) as error:
        raise UserError(
            f"{name}: {entry.url} cannot be had ({error}). Download it in another way, put it into "
            f"{target} as {entry.file}, and call again."
        ) from None
    changed = path.stat().st_mtime_ns
    _verified(path, name, changed, sha256)
    found = _verified(path, name, changed, recorded(path))
    if not entry.is_pinned and not record_of(path).exists():
        what = {"sha256": sha256_of(path), "size": path.stat().st_size, "url": entry.url}
        write_json(record_of(path), what)
    return found


@functools.cache
def _verified(path: Path, name: str, changed: int, wanted_sha256: str) -> Path:
    entry, size, found = FILES[name], path.stat().st_size, sha256_of(path)
    if wanted_sha256 and found != wanted_sha256:
        raise UserError(
            f"{path}: its sha256 is {found} ({size} bytes), not {wanted_sha256}, as it was asked "
            f"for or recorded in {record_of(path).name}. Remove what is wrong of the two, and "
            "fetch it again."
        )
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if entry.md5 else ""
    if not entry.is_official(size, found, md5):
        wanted = entry.identity + (f" and {entry.size} bytes" if entry.size else "")
        raise UserError(
            f"{path}: not the official file: its sha256 is {found} (md5 {md5 or '-'}, {size} bytes)"
            f", not {wanted}. Remove it and fetch it again."
        )
    return path
