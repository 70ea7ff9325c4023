"""Errors that a person reads."""

from __future__ import annotations


class UserError(Exception):
    """Something only the user can put right.

    Args:
        what: one sentence on what was wrong, without a full stop at the end.
        hint: one sentence on what to do.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what.rstrip(".")
        self.hint = hint.rstrip(".")
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}." if self.hint else f"{self.what}."


class NodeGone(UserError):
    """A node that was removed from the cluster cannot be reached: what was left to be done there
    never will be, and nobody waits for it any more."""


class Temporary(Exception):
    """Failed now and may succeed later, unchanged: a node that is down, a lock that is held."""


class Refused(Exception):
    """This shardlord's epoch is over: another one acts. It must stop at once."""


class Deposed(Refused):
    """Another database is the lord's of this cluster now."""
