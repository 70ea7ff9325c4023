"""How a database hashes and sorts text: it must be alike on all nodes, which merge what others have sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import LiteralString

from shardman.pg.connection import Connection

# The column's name changed with 17.
_RULES: LiteralString = """
select jsonb_build_object('encoding', pg_encoding_to_char(encoding),
                          'collation', datcollate,
                          'character classification', datctype,
                          'locale provider', datlocprovider,
                          'locale', coalesce(to_jsonb(d) -> 'datlocale', to_jsonb(d) -> 'daticulocale')),
       pg_database_collation_actual_version(oid), datcollversion
  from pg_database d where datname = current_database()
"""


@dataclass(frozen=True)
class TextRules:
    """Of one database.

    Args:
        rules: by what they are about.
        library: the version of the library that sorts; None where it has none.
        recorded: that with which the database's indexes were made.
    """

    rules: Mapping[str, str | None]
    library: str | None
    recorded: str | None

    def differences(self, other: TextRules) -> Iterator[tuple[str, str | None, str | None]]:
        """What is not as in another database: what it is about, here, there."""
        for what, there in other.rules.items():
            if _spelled_alike(self.rules[what]) != _spelled_alike(there):
                yield what, self.rules[what], there


def _spelled_alike(locale: str | None) -> str | None:
    """en_US.UTF-8 and en_US.utf8 are one."""
    return locale and locale.lower().replace("-", "")


async def text_rules(conn: Connection) -> TextRules:
    """The rules of the session's database."""
    row = await (await conn.execute(_RULES)).fetchone()
    assert row is not None
    return TextRules(*row)
