"""Statements at random: well typed, without errors at run time, with answers that leave nothing open.

Left out is what is known to differ from one server and said in docs/weak-sides.md (ON CONFLICT with a
target, changing the key, TABLESAMPLE, ctid, reading in a statement what it writes to), and what one
server may answer in several ways: a LIMIT without a total order, sums of floating point, aggregates
that depend on the order of their input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

#: Kinds of values, and columns of each kind by table.
TABLES: dict[str, dict[str, str]] = {
    "acc": {
        "id": "int",
        "grp": "int",
        "name": "text",
        "amount": "num",
        "active": "bool",
        "made": "time",
        "note": "text",
        "doubled": "int",
    },
    "item": {
        "acc_id": "int",
        "no": "int",
        "sku": "text",
        "qty": "int",
        "price": "num",
        "bought": "date",
    },
    "ev": {"kind": "text", "n": "int", "day": "date"},
    "person": {"name": "text", "email": "text", "born": "date"},
}
#: What tells the rows of a table apart; tables without a key are never cut by LIMIT.
KEYS = {"acc": ("id",), "item": ("acc_id", "no")}

LITERALS = {
    "int": ("0", "1", "2", "5", "7", "17", "42", "90", "119", "-3", "null::int"),
    "num": ("0", "0.99", "10.50", "100", "33.25", "-1.5", "null::numeric"),
    # With their type: where nothing else says it, a literal of unknown type is an error.
    "text": (
        "''::text",
        "'name 3'::text",
        "'sku7'::text",
        "'kind 2'::text",
        "'P4'::text",
        "'Größe 42'::text",
        "'it''s %%'::text",
        "null::text",
    ),
    "bool": ("true", "false", "null::bool"),
    "date": ("date '2024-01-20'", "date '2024-02-05'", "date '1980-01-01'", "null::date"),
    "time": ("timestamptz '2024-01-10 12:00+00'", "timestamptz '2024-01-20 00:00+01'"),
}
COMPARE = st.sampled_from(("=", "<>", "<", "<=", ">", ">=", "is distinct from"))


class Column(NamedTuple):
    """A column that an expression may use."""

    sql: str
    kind: str


@dataclass(frozen=True)
class Query:
    """A SELECT, whether its ORDER BY is total, and what its columns are."""

    sql: str
    ordered: bool
    kinds: tuple[str, ...] = ()


def columns_of(table: str, alias: str) -> list[Column]:
    return [Column(f"{alias}.{name}", kind) for name, kind in TABLES[table].items()]


# -- expressions ----------------------------------------------------------------------------------


def leaf(kind: str, columns: Sequence[Column]) -> SearchStrategy[str]:
    """A column of this kind, or a literal."""
    fitting = [column.sql for column in columns if column.kind == kind]
    literal = st.sampled_from(LITERALS[kind])
    return st.one_of(st.sampled_from(fitting), literal) if fitting else literal


@st.composite
def value(draw: DrawFn, kind: str, columns: Sequence[Column], depth: int = 2) -> str:
    """An expression of this kind. Numbers stay small: nothing overflows, nothing divides by zero."""
    if depth == 0 or draw(st.integers(0, 2)) == 0:
        return draw(leaf(kind, columns))

    def sub(of: str) -> str:
        return draw(value(of, columns, depth - 1))

    shapes = {
        "int": (
            lambda: f"({sub('int')} + {sub('int')})",
            lambda: f"({sub('int')} - {sub('int')})",
            lambda: f"mod({sub('int')}, 7)",
            lambda: f"length({sub('text')})",
            lambda: f"coalesce({sub('int')}, {sub('int')})",
            lambda: f"extract(day from {sub('date')})::int",
            lambda: f"case when {sub('bool')} then {sub('int')} else {sub('int')} end",
        ),
        "num": (
            lambda: f"({sub('num')} + {sub('int')})",
            lambda: f"({sub('num')} * 3)",
            lambda: f"round({sub('num')} / 4.0, 2)",
            lambda: f"nullif({sub('num')}, {sub('num')})",
            lambda: f"greatest({sub('num')}, {sub('num')})",
        ),
        "text": (
            lambda: f"upper({sub('text')})",
            lambda: f"({sub('text')} || '-' || {sub('text')})",
            lambda: f"substr({sub('text')}, 2, 3)",
            lambda: f"coalesce({sub('text')}, 'none')",
            lambda: f"({sub('int')})::text",
        ),
        "bool": (
            lambda: f"({draw(condition(columns, depth - 1))})",
            lambda: f"coalesce({sub('bool')}, false)",
        ),
        "date": (
            lambda: f"({sub('date')} + 3)",
            lambda: f"least({sub('date')}, {sub('date')})",
        ),
        "time": (lambda: f"({sub('time')} + interval '90 minutes')",),
    }[kind]
    return draw(st.sampled_from(shapes))()


@st.composite
def condition(draw: DrawFn, columns: Sequence[Column], depth: int = 2) -> str:
    """A boolean expression, often one that can be pushed down or prunes partitions."""
    if depth > 0 and draw(st.integers(0, 3)) == 0:
        parts = draw(st.lists(condition(columns, depth - 1), min_size=2, max_size=3))
        joined = draw(st.sampled_from((" and ", " or "))).join(parts)
        return draw(st.sampled_from(("({})", "not ({})"))).format(joined)
    kind = draw(st.sampled_from(("int", "int", "text", "num", "date", "bool")))
    left = draw(value(kind, columns, min(depth, 1)))
    right = draw(value(kind, columns, min(depth, 1)))
    shapes = [f"{left} {draw(COMPARE)} {right}", f"{left} is null", f"{left} is not null"]
    if kind == "int":
        shapes += [
            f"{left} in ({', '.join(draw(st.lists(leaf('int', []), min_size=1, max_size=4)))})",
            f"{left} between {right} and {right} + 20",
            f"{left} = any ('{{3,5,42,77}}'::int[])",
        ]
    if kind == "text":
        shapes += [f"{left} like 'n%%'", f"{left} ilike '%%E%%'", f"{left} ~ '[0-4]$'"]
    return draw(st.sampled_from(shapes))


# -- queries --------------------------------------------------------------------------------------


@st.composite
def single(draw: DrawFn) -> Query:
    """Some of the columns of one table; a LIMIT only where the order is total."""
    table = draw(st.sampled_from(sorted(TABLES)))
    columns = columns_of(table, "a")
    kinds = draw(st.lists(st.sampled_from(sorted(LITERALS)), min_size=1, max_size=3))
    shown = [draw(value(kind, columns)) for kind in kinds]
    distinct = draw(st.booleans()) and draw(st.booleans())
    sql = f"from {table} a" + draw(where(columns))
    if distinct or table not in KEYS:
        return Query(
            f"select {'distinct ' if distinct else ''}{', '.join(shown)} {sql}", False, tuple(kinds)
        )
    key = [f"a.{name}" for name in KEYS[table]]
    order = [f"{draw(st.sampled_from([c.sql for c in columns]))} {draw(direction)}", *key]
    sql = f"select {', '.join(key + shown)} {sql} order by {', '.join(order)}{draw(limit)}"
    return Query(sql, True, ("int",) * len(key) + tuple(kinds))


direction = st.sampled_from(("", "desc", "nulls first", "desc nulls last"))
limit = st.sampled_from(("", "", " limit 5", " limit 10 offset 3", " fetch first 1 row only"))


@st.composite
def where(draw: DrawFn, columns: Sequence[Column], written: str = "") -> str:
    """Nothing, a condition, or a sub-select, but not of a table that the statement writes to."""
    if draw(st.integers(0, 4)) == 0:
        return ""
    found = draw(condition(columns))
    if draw(st.integers(0, 3)) == 0:
        found += draw(st.sampled_from((" and ", " or "))) + draw(sub_select(columns, written))
    return f" where {found}"


@st.composite
def sub_select(draw: DrawFn, columns: Sequence[Column], written: str = "") -> str:
    """IN, EXISTS, NOT EXISTS or a comparison; correlated or not."""
    table = draw(st.sampled_from([name for name in sorted(TABLES) if name != written]))
    inner = columns_of(table, "s")
    kind = draw(st.sampled_from(("int", "text")))
    left = draw(leaf(kind, columns))
    right = draw(leaf(kind, inner))
    uncorrelated = draw(condition(inner, 1))
    return draw(
        st.sampled_from(
            (
                f"{left} in (select {right} from {table} s where {uncorrelated})",
                f"exists (select 1 from {table} s where {left} = {right} and {uncorrelated})",
                f"not exists (select from {table} s where {right} = {left})",
                f"{left} = (select max({right}) from {table} s where {uncorrelated})",
                f"{left} <= any (select {right} from {table} s where {uncorrelated})",
            )
        )
    )


JOINS = ("join", "left join", "right join", "full join")


@st.composite
def joined(draw: DrawFn) -> Query:
    """Two tables: joined on their key, or across."""
    kind = draw(st.sampled_from(JOINS))
    one, other, on = draw(
        st.sampled_from(
            (
                ("acc", "item", "a.id = b.acc_id"),
                ("acc", "item", "a.grp = b.no"),
                ("acc", "acc", "a.id = b.grp"),
                ("item", "ev", "a.qty = b.n"),
                ("person", "acc", "a.born = b.made::date"),
                ("item", "item", "a.acc_id = b.acc_id and a.no = b.no"),
            )
        )
    )
    columns = columns_of(one, "a") + columns_of(other, "b")
    # More than an equality would make a FULL JOIN impossible.
    extra = f" and {draw(condition(columns, 1))}" if kind != "full join" else ""
    kinds = draw(st.lists(st.sampled_from(sorted(LITERALS)), min_size=1, max_size=3))
    shown = ", ".join(draw(value(k, columns, 1)) for k in kinds)
    sql = f"select {shown} from {one} a {kind} {other} b on {on}{extra}{draw(where(columns))}"
    return Query(sql, False, tuple(kinds))


AGGREGATES = (
    ("count(*)", "int"),
    ("count({int})", "int"),
    ("count(distinct {text})", "int"),
    ("sum({int})", "int"),
    ("sum({num})", "num"),
    ("round(avg({num}), 6)", "num"),
    ("min({text})", "text"),
    ("max({date})", "date"),
    ("bool_or({bool})", "bool"),
    ("count(*) filter (where {bool})", "int"),
    ("string_agg({text}, ',' order by {text})", "text"),
    ("array_agg(distinct {int})::text", "text"),
)


@st.composite
def aggregate(draw: DrawFn, columns: Sequence[Column]) -> Column:
    shape, kind = draw(st.sampled_from(AGGREGATES))
    arguments = {k: draw(leaf(k, columns)) for k in LITERALS if "{" + k + "}" in shape}
    return Column(shape.format(**arguments), kind)


@st.composite
def grouped(draw: DrawFn) -> Query:
    """GROUP BY the key or anything else, sets of groups, HAVING; or no group at all."""
    table = draw(st.sampled_from(sorted(TABLES)))
    columns = columns_of(table, "a")
    aggregates = draw(st.lists(aggregate(columns), min_size=1, max_size=3))
    shown = ", ".join(a.sql for a in aggregates)
    kinds = tuple(a.kind for a in aggregates)
    tail = f"from {table} a{draw(where(columns))}"
    by = draw(st.lists(st.sampled_from(columns), max_size=2, unique=True))
    if not by:
        return Query(f"select {shown} {tail}", True, kinds)
    names = ", ".join(column.sql for column in by)
    shape = draw(st.sampled_from(("{}", "{}", "rollup ({})", "cube ({})")))
    having = draw(st.sampled_from(("", "", " having count(*) > 1", " having min(1) = 1")))
    sql = f"select {names}, {shown} {tail} group by {shape.format(names)}{having}"
    return Query(sql, False, (*(column.kind for column in by), *kinds))


WINDOWS = (
    "row_number() over (order by {key})",
    "rank() over (partition by {any} order by {key})",
    "sum({int}) over (partition by {any})",
    "lag({text}) over (partition by {any} order by {key})",
    "count(*) over (order by {key} rows between 2 preceding and current row)",
    "max({num}) over w",
)


@st.composite
def windowed(draw: DrawFn) -> Query:
    """Window functions whose order is total."""
    table = draw(st.sampled_from(sorted(KEYS)))
    columns = columns_of(table, "a")
    key = ", ".join(f"a.{name}" for name in KEYS[table])
    any_ = draw(st.sampled_from(columns)).sql
    shapes = draw(st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=2))
    leaves = {kind: draw(leaf(kind, columns)) for kind in ("int", "text", "num")}
    shown = ", ".join(shape.format(key=key, any=any_, **leaves) for shape in shapes)
    sql = f"select {key}, {shown} from {table} a{draw(where(columns))}"
    return Query(f"{sql} window w as (partition by {any_} order by {key}) order by {key}", True)


@st.composite
def combined(draw: DrawFn) -> Query:
    """UNION, INTERSECT, EXCEPT of two tables."""
    kinds = draw(st.lists(st.sampled_from(("int", "text", "num")), min_size=1, max_size=2))
    halves = []
    for alias in ("a", "b"):
        table = draw(st.sampled_from(sorted(TABLES)))
        columns = columns_of(table, alias)
        shown = ", ".join(draw(value(kind, columns, 1)) for kind in kinds)
        halves.append(f"select {shown} from {table} {alias}{draw(where(columns))}")
    words = ("union", "union all", "intersect", "except", "intersect all", "except all")
    return Query(f" {draw(st.sampled_from(words))} ".join(halves), False, tuple(kinds))


@st.composite
def nested(draw: DrawFn) -> Query:
    """A query inside another: CTE (both ways), FROM, LATERAL, recursive."""
    inner = draw(st.one_of(single(), joined(), grouped(), combined()))
    names = [f"c{i}" for i in range(len(inner.kinds))]
    columns = [Column(f"q.{n}", kind) for n, kind in zip(names, inner.kinds, strict=True)]
    shown = ", ".join(c.sql for c in draw(st.lists(st.sampled_from(columns), min_size=1)))
    given_names = f"({', '.join(names)})"
    tail = f"{draw(where(columns))}"
    lateral = draw(leaf("int", columns))
    return Query(
        draw(
            st.sampled_from(
                (
                    f"with q {given_names} as ({inner.sql}) select {shown} from q{tail}",
                    f"with q {given_names} as materialized ({inner.sql}) select {shown} from q{tail}",
                    f"select {shown} from ({inner.sql}) as q {given_names}{tail}",
                    (
                        f"select {shown}, l.n from ({inner.sql}) as q {given_names} cross join lateral"
                        f" (select count(*) from item i where i.acc_id = {lateral}) as l (n){tail}"
                    ),
                    (
                        f"with recursive q {given_names} as ({inner.sql}), r (i) as (select 1 union all"
                        f" select i + 1 from r where i < 4)"
                        f" select {shown}, r.i from q, r{tail}"
                    ),
                )
            )
        ),
        False,
    )


def queries() -> SearchStrategy[Query]:
    """Any of them."""
    return st.one_of(single(), joined(), grouped(), windowed(), combined(), nested())


# -- writes ---------------------------------------------------------------------------------------

#: Columns that statements may change; the key is none of them (docs/weak-sides.md).
CHANGEABLE = {
    "acc": {"grp": "int", "name": "text", "amount": "num", "active": "bool", "note": "text"},
    "item": {"sku": "text", "price": "num", "bought": "date"},
    "ev": {"n": "int", "day": "date"},
    "person": {"email": "text", "born": "date"},
}


@st.composite
def returning(draw: DrawFn, table: str, alias: str) -> str:
    if draw(st.booleans()):
        return ""
    columns = columns_of(table, alias)
    shown = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=3))
    return " returning " + ", ".join(column.sql for column in shown)


@st.composite
def insert(draw: DrawFn) -> str:
    """VALUES or a SELECT; some violate a key or a constraint, some must not."""
    table = draw(st.sampled_from(sorted(TABLES)))
    names = [n for n in TABLES[table] if n != "doubled"]
    given_ = [n for n in names if n in KEYS.get(table, ()) or draw(st.booleans())] or names
    conflict = draw(st.sampled_from(("", "", " on conflict do nothing")))
    if draw(st.integers(0, 3)) == 0 and table in KEYS:
        source = "item" if table == "acc" else "acc"
        columns = columns_of(source, "s")
        key = "s.id" if source == "acc" else "(s.acc_id * 10 + s.no)"
        shown = [
            (f"{key} + 1000" if n == KEYS[table][0] else draw(value(kind, columns, 1)))
            for n, kind in TABLES[table].items()
            if n in given_
        ]
        body = f"select {', '.join(shown)} from {source} s{draw(where(columns, table))}"
    else:
        rows = [
            ", ".join(
                (
                    str(draw(st.integers(100, 140)))
                    if n in KEYS.get(table, ())
                    else draw(st.sampled_from((*LITERALS[TABLES[table][n]], "default")))
                )
                for n in given_
            )
            for _ in range(draw(st.integers(1, 4)))
        ]
        body = "values " + ", ".join(f"({row})" for row in rows)
    listed = ", ".join(given_)
    return f"insert into {table} ({listed}) {body}{conflict}{draw(returning(table, table))}"


@st.composite
def update(draw: DrawFn) -> str:
    """One row, some, all; with expressions, sub-selects, FROM another table."""
    table = draw(st.sampled_from(sorted(TABLES)))
    columns = columns_of(table, "a")
    changed = draw(
        st.lists(st.sampled_from(sorted(CHANGEABLE[table])), min_size=1, max_size=2, unique=True)
    )
    other = ""
    condition_ = draw(where(columns, table))
    if table == "item" and draw(st.booleans()):
        # A row of item has one account: which value it gets is not left open.
        other, known = " from acc b", columns + columns_of("acc", "b")
        found = f" and ({condition_.removeprefix(' where ')})" if condition_ else ""
        condition_ = f" where b.id = a.acc_id{found}"
    else:
        known = columns
    sets = ", ".join(
        f"{name} = " + draw(st.one_of(value(kind, known, 1), st.just("default")))
        for name, kind in ((n, CHANGEABLE[table][n]) for n in changed)
    )
    return f"update {table} a set {sets}{other}{condition_}{draw(returning(table, 'a'))}"


@st.composite
def delete(draw: DrawFn) -> str:
    """Some rows; at times by a look at another table."""
    table = draw(st.sampled_from(sorted(TABLES)))
    columns = columns_of(table, "a")
    if table == "item" and draw(st.booleans()):
        both = columns + columns_of("acc", "b")
        sql = f"delete from item a using acc b where b.id = a.acc_id and {draw(condition(both))}"
    else:
        sql = f"delete from {table} a{draw(where(columns, table))}"
    return sql + draw(returning(table, "a"))


@st.composite
def with_write(draw: DrawFn) -> str:
    """A statement that writes inside a CTE and reads what it wrote."""
    account = draw(st.integers(1, 130))
    return draw(
        st.sampled_from(
            (
                (
                    f"with gone as (delete from item where acc_id = {account} returning *)"
                    f" select count(*), sum(qty) from gone"
                ),
                (
                    f"with new as (insert into ev (kind, n) select name, id from acc where id < {account}"
                    f" returning kind, n) select kind, sum(n) from new group by kind"
                ),
                (
                    f"with up as (update acc set amount = coalesce(amount, 0) + 1 where grp = {account} % 7"
                    f" returning id, amount) select up.id, up.amount, item.sku from up join item on acc_id = id"
                ),
            )
        )
    )


def writes() -> SearchStrategy[str]:
    """Any of them; TRUNCATE now and then."""
    truncate = st.sampled_from(("truncate ev", "truncate item, person"))
    return st.one_of(insert(), insert(), update(), update(), delete(), with_write(), truncate)


def mend(statement: str) -> str:
    """The statement for an execution without parameters: psycopg reads %% only with them."""
    return statement.replace("%%", "%")
