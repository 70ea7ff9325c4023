"""Exit codes of the program; docs/cli.md explains them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the program has to say to a script."""

    OK = 0
    FAILED = 1
    """A mistake of the user's, or the command failed or was cancelled: see the message."""
    USAGE = 2
    """Options or arguments were wrong; nothing was done."""
    UNHEALTHY = 3
    """`status` or `check` found something wrong, or `doctor` more than notes."""
    TIMEOUT = 4
    """--timeout was over; the command goes on."""
    INTERRUPTED = 130
    """Ctrl-C; whether the command goes on is said."""


EPILOG = (
    "Exit codes: 0 all is well; 1 an error, or the command failed or was cancelled; 2 wrong usage; "
    "3 status, check or doctor found something wrong; 4 --timeout was over; 130 interrupted."
)
