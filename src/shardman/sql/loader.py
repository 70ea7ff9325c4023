"""SQL beside the Python: named queries out of ``queries/*.sql``.

A file holds queries, each behind a line ``-- name: some_name``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def queries(subject: str) -> dict[str, LiteralString]:
    """The queries of one subject by their names.

    Args:
        subject: the file's name without ``.sql``.

    Raises:
        FileNotFoundError: there is no such file.
    """
    text = files("shardman.sql").joinpath("queries", f"{subject}.sql").read_text("utf-8")
    parts = _NAME.split(text)
    # The text is part of the package, as trustworthy as a literal in the code.
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {name: cast(LiteralString, body.strip()) for name, body in pairs}
