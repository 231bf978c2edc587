"""A page at `/`: one HTML document with its style and its script in it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from mrkd_ray.report.templates import template


class Page:
    """A page and what it may do: it asks its own server, and nobody else.

    Args:
        name: of its files: `NAME.html.j2` and `NAME.js`.
        given: what its template needs.

    Attributes:
        html: the document.
        headers: those that it is sent with.
    """

    def __init__(self, name: str, **given: object) -> None:
        files = resources.files("mrkd_ray.serve")
        script = files.joinpath(f"{name}.js").read_text(encoding="utf-8")
        html = template(f"{name}.html.j2", "mrkd_ray.serve")
        self.html = html.render(script=script, **given)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        self.headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
                "img-src data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Permissions-Policy": "microphone=(self)",
            "Cache-Control": "no-cache",
        }
