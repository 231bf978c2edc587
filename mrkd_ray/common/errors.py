"""The one error that a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: the message names the file or option, the value found and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class Busy(Exception):
    """A server has no room for a request now. Nothing was done: the same request may come again."""
