"""A hash over values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def hash_of(*values: Any) -> str:
    """Return 16 hex digits over values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
