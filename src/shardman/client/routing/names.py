"""Names of tables as they are written."""

from __future__ import annotations

import re

#: A name, with or without a schema.
NAME = re.compile(
    r'("(?:[^"]|"")+"|[A-Za-z_\u0080-\U0010ffff][\w$]*)'
    r'(?:\s*\.\s*("(?:[^"]|"")+"|[A-Za-z_\u0080-\U0010ffff][\w$]*))?'
)


def plain(name: str) -> str:
    """A name as the catalogs have it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else _folded(name)


def _folded(name: str) -> str:
    # PostgreSQL folds ASCII alone where the encoding has several bytes.
    return "".join(c.lower() if c.isascii() else c for c in name)
