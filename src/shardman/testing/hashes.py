"""The partition hash as Python computes it against the server's, on many values of each type.

python -m shardman.testing.hashes DSN [VALUES]      # of each type; a million by default
"""

from __future__ import annotations

import random
import struct
import sys
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from shardman.model.partition_hash import HASHERS

_BATCH = 50_000
_SEED = 8816678312871386365
_LETTERS = "abcxyzABC 0189 _-äöüßéñ漢字🐘\t\n'\"\\%"


def _text(r: random.Random) -> str:
    return "".join(r.choices(_LETTERS, k=r.randrange(40)))


def _int(bits: int) -> Callable[[random.Random], int]:
    return lambda r: r.getrandbits(r.randint(1, bits - 1)) * r.choice((1, -1)) - r.randint(0, 1)


def _numeric(r: random.Random) -> Decimal:
    if r.random() < 0.01:
        return Decimal(r.choice(("NaN", "Infinity", "-Infinity", "0", "-0.000")))
    digits = tuple(r.choices(range(10), weights=(9, *(1,) * 9), k=r.randint(1, 40)))
    return Decimal((r.randint(0, 1), digits, r.randint(-30, 30)))


def _float(r: random.Random) -> float:
    if r.random() < 0.5:
        return float(r.choice((0.0, -0.0, float("nan"), float("inf"), r.uniform(-1e6, 1e6))))
    return float(struct.unpack("<d", r.randbytes(8))[0])


def _moment(r: random.Random) -> datetime:
    first = datetime(1, 1, 2)  # noqa: DTZ001
    return first + timedelta(days=r.randrange(3652000), microseconds=r.randrange(86400 * 10**6))


#: What is put into a column of each type.
VALUES: dict[str, Callable[[random.Random], Any]] = {
    "smallint": _int(15),
    "integer": _int(31),
    "bigint": _int(63),
    "boolean": lambda r: r.random() < 0.5,
    "text": _text,
    "character varying": _text,
    "character": lambda r: _text(r) or "x",
    "bytea": lambda r: r.randbytes(r.randrange(60)),
    "uuid": lambda r: uuid.UUID(int=r.getrandbits(128)),
    "date": lambda r: date(1, 1, 1) + timedelta(days=r.randrange(3652059)),
    "timestamp without time zone": _moment,
    "timestamp with time zone": lambda r: _moment(r).replace(tzinfo=UTC),
    "numeric": _numeric,
    "real": lambda r: float(struct.unpack("<f", struct.pack("<f", r.uniform(-1e6, 1e6)))[0]),
    "double precision": _float,
}


def differing(conn: psycopg.Connection[Any], type_: str, values: Sequence[Any]) -> list[Any]:
    """Those values whose hash the server sees otherwise."""
    # character without a length would be one of them; bpchar keeps what it is given.
    cast = sql.SQL("bpchar" if type_ == "character" else type_)
    query = sql.SQL(
        "select hash_record_extended(row(v::{0}), {1}::bigint) from unnest(%s::text[]) as v"
    ).format(cast, sql.Literal(_SEED))
    texts = [_as_text(v) for v in values]
    theirs = [h & 0xFFFFFFFFFFFFFFFF for (h,) in conn.execute(query, (texts,))]
    ours = map(HASHERS[type_], values)
    return [v for v, a, b in zip(values, ours, theirs, strict=True) if a != b]


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value.isoformat() if isinstance(value, date) else str(value)


def main() -> None:
    """Prints one line a type; ends with 1 where one value differs."""
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    wrong = 0
    with psycopg.connect(sys.argv[1], autocommit=True) as conn:
        for type_, make in VALUES.items():
            r = random.Random(type_)
            found: list[Any] = []
            for begin in range(0, wanted, _BATCH):
                count = min(_BATCH, wanted - begin)
                found += differing(conn, type_, [make(r) for _ in range(count)])
            wrong += len(found)
            print(f"{type_:30}{wanted:>12} values, {len(found)} differ {found[:3] or ''}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
