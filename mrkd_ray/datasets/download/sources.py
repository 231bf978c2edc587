"""Where the named data sets come from, whom to cite, and under which licence they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import quote

import requests

from mrkd_ray.common.errors import UserError
from mrkd_ray.common.registry import Registry
from mrkd_ray.datasets.download.archives import Archive
from mrkd_ray.datasets.download.transfer import get

ZENODO = "https://zenodo.org/api/records/"
ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set comes from."""

    citation: str
    licence: str
    page: str
    """What people look at; the files of a record lie below it."""
    unpacked: int
    """Bytes that it takes unpacked, at most; no archive of it may unpack to more."""
    record: str | None = None
    """Address of the record, in Zenodo's JSON: names, sizes and checksums of all files."""
    archives: tuple[Archive, ...] = ()
    """Where there is no record."""
    strip: bool = False
    """Whether all lies in one folder whose name says nothing: its content is unpacked instead."""


SOURCES: Registry[Source] = Registry("data set to download")
SOURCES.add(
    "fsdkaggle2018",
    Source(
        citation="E. Fonseca, M. Plakal, F. Font, D. P. W. Ellis, X. Favory, J. Pons, X. Serra: "
        "General-purpose Tagging of Freesound Audio with AudioSet Labels: Task Description, "
        "Dataset, and Baseline. DCASE 2018 Workshop.",
        licence="CC BY or CC0, clip by clip: see the column license of FSDKaggle2018.meta/*.csv",
        page="https://zenodo.org/records/2552860",
        unpacked=9_000_000_000,
        record=f"{ZENODO}2552860",
    ),
)
SOURCES.add(
    "tut2018",
    Source(
        citation="A. Mesaros, T. Heittola, T. Virtanen: A multi-device dataset for urban acoustic "
        "scene classification. DCASE 2018 Workshop.",
        licence="Tampere University of Technology's own, for non-commercial use only: see the "
        "licence file of the release",
        page="https://zenodo.org/records/1228142",
        unpacked=26_000_000_000,  # 8,640 clips of 10 s, 48 kHz, two channels, 24 bit: 24.9 GB
        record=f"{ZENODO}1228142",
    ),
)
SOURCES.add(
    "esc50",
    Source(
        citation="K. J. Piczak: ESC: Dataset for Environmental Sound Classification. ACM "
        "Multimedia 2015.",
        licence="CC BY-NC 3.0, the subset ESC-10 CC BY 3.0; each clip's author: see LICENSE",
        page="https://github.com/karolpiczak/ESC-50",
        unpacked=1_200_000_000,  # 2,000 clips of 5 s, 44.1 kHz, 16 bit: 0.88 GB
        # GitHub publishes no checksum of archives. This one is what others, independently, found
        # for this commit (the last one); a mismatch can also mean that GitHub packs anew.
        archives=(
            Archive(
                name="ESC-50.zip",
                url=f"https://github.com/karolpiczak/ESC-50/archive/{ESC50_COMMIT}.zip",
                size=645_832_161,
                checksum="sha256:661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
            ),
        ),
        strip=True,
    ),
)


def archives(source: Source, session: requests.Session) -> tuple[Archive, ...]:
    """Return the archives of a source, with the checksums that its record publishes.

    Raises:
        UserError: the record cannot be had, or is not what Zenodo's records are.
    """
    if source.record is None:
        return source.archives
    with get(session, source.record) as response:
        try:
            found = tuple(
                Archive(
                    name=file["key"],
                    # Not the record's own links: they answer no Range (zenodo/zenodo#2593).
                    url=f"{source.page}/files/{quote(file['key'])}",
                    size=int(file["size"]),
                    checksum=file["checksum"],
                )
                for file in response.json()["files"]
                if file["key"].endswith(".zip")
            )
        except (ValueError, KeyError, TypeError, requests.RequestException) as error:
            raise _odd(source, f"{type(error).__name__}: {error}") from error
    if not found:
        raise _odd(source, "it lists no .zip file")
    for archive in found:
        if archive.name != PurePath(archive.name).name or "\\" in archive.name:
            raise _odd(source, f"the file name {archive.name!r}")
        if not archive.checksum.startswith(("md5:", "sha256:")):
            raise _odd(source, f"the checksum {archive.checksum!r} of {archive.name}")
    return found


def _odd(source: Source, what: str) -> UserError:
    return UserError(
        f"{source.record}: not a record as expected ({what}). Get the files from {source.page} "
        "by hand and unpack them."
    )
