"""What makes a statement fail, instead of seeing too few rows, where a table has other partitions by now.

A partition that has moved forwards. But when a table was split, `acc_3` is there with other bounds, and a
SELECT that names it by what was known before would find nothing and say so. So every condition on a partition
gets one more: that the last partition is there and no further one. It is evaluated once a statement, in a
microsecond, behind the statement's locks. An INSERT needs none: the partition's constraint refuses the row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shardman.client.routing.names import NAME
from shardman.client.routing.picture import Table, quoted

Node = dict[str, Any]

#: Whatever has a function in it that is not safe beside parallel workers is planned without them
#: (max_parallel_hazard, clauses.c), also where it is not called. So no setting has to be changed and set back.
#: In a sub-select, for a condition with something volatile in it is evaluated for each row, and so for none.
_NO_WORKERS = "(select pg_catalog.set_config('application_name', '', true))"

#: In the message of the error that it raises.
MOVED = "shardman: other partitions than before"
#: A parameter or a literal with nothing around it, with or without a cast, up to the operator.
_VALUE = re.compile(
    r"(?:\$[0-9]+|[0-9]+|'[^']*')(?:\s*::\s*[A-Za-z_][\w. ]*(?:\([0-9, ]+\))?)?\s*", re.ASCII
)
_AS_CLOSE = frozenset(
    f"AEXPR_{kind}"
    for kind in (
        *("OP_ALL", "DISTINCT", "NOT_DISTINCT", "LIKE", "ILIKE", "SIMILAR"),
        *("BETWEEN", "NOT_BETWEEN", "BETWEEN_SYM", "NOT_BETWEEN_SYM"),
    )
)


def place(condition: Node, query: bytes) -> int | None:
    """The byte in a condition before which `… and` may be written; None where there is no such place."""
    ((kind, body),) = condition.items()
    if kind == "BoolExpr" and body["boolop"] == "AND_EXPR":
        return next((p for p in (place(a, query) for a in body["args"]) if p is not None), None)
    if kind in ("NullTest", "BooleanTest") and "ColumnRef" in body["arg"]:
        return _before_column(body["arg"]["ColumnRef"], query)
    if kind != "A_Expr":
        return None
    if body["kind"] not in ("AEXPR_OP", "AEXPR_IN", "AEXPR_OP_ANY"):
        # BETWEEN, LIKE, IS DISTINCT FROM: they bind closer than AND, as those do.
        column = body.get("lexpr", {}).get("ColumnRef") if body["kind"] in _AS_CLOSE else None
        return None if column is None else _before_column(column, query)
    ((left, inner),) = body.get("lexpr", {"": {}}).items()
    if left == "TypeCast":
        named: int = inner["typeName"].get("location", -1)
        ((left, inner),) = inner["arg"].items()
        # date '2026-01-01' = day: what is written there would be between the two.
        if named < inner.get("location", -1):
            return None
    elif left == "ColumnRef":
        return _before_column(inner, query)
    if left not in ("ParamRef", "A_Const"):
        return None
    at: int | None = inner.get("location")
    if at is None or _VALUE.fullmatch(query[at : body.get("location", at)].decode()) is None:
        return None
    return at


def _before_column(column: Node, query: bytes) -> int | None:
    at: int | None = column.get("location")
    if at is None:
        return None
    rest = query[at:].decode()
    token = NAME.match(rest)
    # (id) = 7: what is written there would be in the parentheses.
    if token is None or rest[token.end() :].lstrip()[:1] in (")", ":", "["):
        return None
    return at


def guard(
    tables: Iterable[Table],
    *,
    with_parameters: bool,
    numbers: Iterable[int] = (),
    alone: bool = False,
) -> bytes:
    """What is written there.

    Args:
        numbers: partitions whose rows' tables are named themselves: they must be what the partitions have.
        alone: the statement is planned without parallel workers.
    """
    tests = []
    for table in dict.fromkeys(tables):
        last, next_ = (
            _literal(quoted(table.schema, f"{table.name}_{n}"))
            for n in (len(table.parts) - 1, len(table.parts))
        )
        tests += [
            f"pg_catalog.to_regclass({last}) is not null",
            f"pg_catalog.to_regclass({next_}) is null",
        ]
        tests += [_are_there(table, n) for n in numbers]
        # Policies are forced upon the owner by the partitions only.
        tests += [f"not pg_catalog.row_security_active({_parent(table)})"] if numbers else []
    more = _NO_WORKERS if alone else "current_user"
    text = (
        f"case when {' and '.join(tests)} then true"
        f" else pg_catalog.concat('{MOVED}', {more})::pg_catalog.bool end and "
    )
    return (text.replace("%", "%%") if with_parameters else text).encode()


def _parent(table: Table) -> str:
    return f"pg_catalog.to_regclass({_literal(quoted(table.schema, table.name))})"


def _are_there(table: Table, number: int) -> str:
    """That a table is in its partition. The statement has locked it by then, so it stays there."""
    data = f"pg_catalog.to_regclass({_literal(table.parts[number].data)})"
    return f"pg_catalog.pg_partition_root({data}) is not distinct from {_parent(table)}"


def place_at_end(text: bytes) -> int | None:
    """The byte at which a condition may be written where there is none; None where a comment may be there."""
    if b"--" in text or b"/*" in text:
        return None
    return len(text.rstrip(b"; \t\r\n"))


def as_condition(guard_: bytes) -> bytes:
    """What `guard` has made, as all of a condition."""
    return b" where " + guard_.removesuffix(b" and ")


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
