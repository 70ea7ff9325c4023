"""Sizes and times as a person reads them."""

from __future__ import annotations

from datetime import datetime, timedelta


def size(count: int | None) -> str | None:
    """A number of bytes, as PostgreSQL would round it."""
    if count is None:
        return None
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1024:
            return (
                f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
            )
        amount /= 1024
    return f"{amount:.1f} TB"


def span(time: timedelta | None) -> str | None:
    """A length of time, as precise as it is short."""
    if time is None:
        return None
    seconds = time.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def moment(when: datetime | None) -> str | None:
    """A point in time, in this machine's time zone."""
    return None if when is None else f"{when.astimezone():%Y-%m-%d %H:%M:%S}"
