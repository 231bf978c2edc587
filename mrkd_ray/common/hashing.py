"""Hashes over values and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mrkd_ray.common.reading import opened


def hash_of(*values: Any) -> str:
    """Return 16 hex digits over values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def sha256_of(file: Path) -> str:
    """Return the sha256 of a regular file's bytes in hex. Raises OSError."""
    with opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
