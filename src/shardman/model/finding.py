"""Something that must not be, as `shardman status` and `shardman check` list it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that must not be.

    Args:
        subject: what it is about, e.g. ``node 2`` or ``acc_3``.
        what: what is wrong, without a full stop.
        hint: what to do about it.
    """

    subject: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}" + (f" ({self.hint})" if self.hint else "")
