"""Values of Python as values of a column of the key: which hash they have there, or that nobody can tell here.

Told is only what is beyond doubt: a value whose meaning would depend on the session, be rounded, or be compared
as another type is left to the server.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

from psycopg.types.numeric import Int2, Int4, Int8

from shardman.model.partition_hash import HASHERS

_INTEGERS = ("smallint", "integer", "bigint")
INTEGER_TYPES = (int, Int2, Int4, Int8)
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_INT8 = 1 << 63


class Unclear(Exception):
    """The hash of a value cannot be told; the argument says why."""


def _integer(value: Any) -> int | None:
    if type(value) in INTEGER_TYPES:
        # psycopg has types that say as which the server is to take a value; Django gives nothing else.
        return int(value) if -_INT8 <= value < _INT8 else None
    if type(value) is str and _NUMBER.fullmatch(value):
        return int(value)
    return None


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def _uuid(value: Any) -> uuid.UUID | None:
    if type(value) is str and _UUID.fullmatch(value):
        return uuid.UUID(value)
    return value if type(value) is uuid.UUID else None


def _date(value: Any) -> dt.date | None:
    if type(value) is str and _DATE.fullmatch(value):
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            return None
    return value if type(value) is dt.date else None


def _naive(value: Any) -> dt.datetime | None:
    return value if type(value) is dt.datetime and value.tzinfo is None else None


def _aware(value: Any) -> dt.datetime | None:
    return value if type(value) is dt.datetime and value.utcoffset() is not None else None


def _numeric(value: Any) -> Decimal | int | None:
    return value if type(value) in (int, Decimal) else None


def _exactly(type_: type) -> Callable[[Any], Any]:
    return lambda value: value if type(value) is type_ else None


#: What may be a key.
KEY_TYPES = (*INTEGER_TYPES, str, bool, bytes, float, Decimal, uuid.UUID, dt.date, dt.datetime)

#: What a value is in a column of a type; None when it is not certain.
_MEANINGS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_INTEGERS, _integer),
    "text": _text,
    "character varying": _text,
    "character": _text,
    "uuid": _uuid,
    "date": _date,
    "timestamp without time zone": _naive,
    "timestamp with time zone": _aware,
    "numeric": _numeric,
    "boolean": _exactly(bool),
    "bytea": _exactly(bytes),
    "real": _exactly(float),
    "double precision": _exactly(float),
}

#: Columns of one family that are equal have the same hash.
_FAMILIES = {**dict.fromkeys(_INTEGERS, "integers"), "character varying": "text"}

#: As casts write them.
TYPE_NAMES = {
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "text": "text",
    "varchar": "character varying",
    "uuid": "uuid",
    "date": "date",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "numeric": "numeric",
    "bool": "boolean",
    "bytea": "bytea",
    "float8": "double precision",
}


def family(type_: str) -> str:
    """Types of one family can be compared by their hashes."""
    return _FAMILIES.get(type_, type_)


def is_known(type_: str) -> bool:
    """Whether values of the type can be hashed here."""
    return type_ in HASHERS


@lru_cache(maxsize=20_000, typed=True)
def value_hash(value: Any, type_: str, length: int, *, stored: bool) -> int:
    """The hash that a value has in a column.

    Args:
        value: a parameter, or a literal.
        type_: the column's, one that `is_known`.
        length: its type modifier, -1 where it has none.
        stored: it is written, not compared: what would be cut or rounded is another value then.

    Raises:
        Unclear: nobody can tell.
    """
    meaning = _MEANINGS[type_](value)
    if meaning is None or (stored and not _fits(meaning, type_, length)):
        raise Unclear(f"a value of the type {type(value).__name__} for a key of the type {type_}")
    try:
        return HASHERS[type_](meaning)
    except (ValueError, OverflowError):
        raise Unclear(f"a value that is no {type_}") from None


def _fits(value: Any, type_: str, length: int) -> bool:
    if type_ == "real":
        return False
    if length == -1:
        return True
    # A length has four bytes before it.
    return type_ in ("character varying", "character") and len(value) <= length - 4
