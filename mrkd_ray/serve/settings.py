"""What a server is told: the arguments of `mrkd serve`, and those of a file for `serve deploy`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mrkd_ray.common.errors import UserError

SHORTEST_TOKEN = 16
"""Characters: shorter ones can be guessed."""


class Settings(BaseModel):
    """Everything that a server is told, but for its address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """Path of a model, as `Classifier.load` takes it."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model, a process each."""
    cpus: int = Field(default=1, ge=1)
    """CPUs of each copy: jobs that wait are done on so many threads."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of each copy; a fraction shares a card."""
    queue: int = Field(default=64, ge=1)
    """Requests that may wait or be worked on at once: further ones are told to come again."""
    max_mb: float = Field(default=32.0, gt=0)
    """Megabytes of a request."""
    max_seconds: float = Field(default=600.0, gt=0)
    """Seconds of a recording."""
    confidence: float = Field(default=0.9, ge=0, le=1)
    """From this probability up, `cascade` believes the cheapest branch."""
    token_file: str | None = None
    """A file that holds the token which requests must bear."""

    def token(self) -> str | None:
        """Return the token that requests must bear, None where they need none.

        Raises:
            UserError: the file cannot be read, or what is in it is too short.
        """
        if self.token_file is None:
            return None
        try:
            found = Path(self.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"token file {self.token_file}: not readable: {error}") from None
        if len(found) < SHORTEST_TOKEN or not found.isascii() or not found.isprintable():
            raise UserError(
                f"token file {self.token_file}: a token has at least {SHORTEST_TOKEN} printable "
                "ASCII characters: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        return found
