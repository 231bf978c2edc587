"""The page at `/`: one HTML document with its style and its script in it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from mrkd_ray.report.templates import template


class Page:
    """The page and what it may do: it asks its own server, and nobody else.

    Args:
        needs_token: whether it has to ask for a token before it can do anything.

    Attributes:
        html: the document.
        headers: those that it is sent with.
    """

    def __init__(self, needs_token: bool) -> None:
        files = resources.files("mrkd_ray.serve")
        script = files.joinpath("serve.js").read_text(encoding="utf-8")
        html = template("serve.html.j2", "mrkd_ray.serve")
        self.html = html.render(needs_token=needs_token, script=script)
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
