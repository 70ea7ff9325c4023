"""DDL and writes at random, about what there is at that moment.

What gives the two different rows by its nature, volatile defaults and numbers of sequences, is in columns of
types of its own (`schema.twins.OWN`), of which only is compared whether there is a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from schema.shapes import Shape, Table

T = TypeVar("T")
Maker = Callable[[Random, Shape, Table], str]

CHECKS = ("able", '"Is so"')
UNIQUES = ("sole", '"Only one"')
NAMES = ("renamed", '"Other name"', "acc", "item", "country")
NEW = ("extra", '"Odd one"', "note", "more")
#: type → values of it, as they are written.
VALUES: dict[str, tuple[str, ...]] = {
    "integer": ("0", "1", "7", "-3", "40", "null"),
    "bigint": ("0", "1", "7", "5000000000", "null"),
    "numeric(8,2)": ("0", "1.50", "-7.25", "null"),
    "numeric": ("0", "1.5", "123456789.125", "null"),
    "text": ("''", "'a'", "'it''s'", "'Größe; x'", "null"),
    "character varying(20)": ("''", "'a'", "'it''s'", "null"),
    "character varying(40)": ("''", "'b'", "null"),
    "date": ("'2024-02-29'", "'1999-12-31'", "null"),
    "boolean": ("true", "false", "null"),
    "integer[]": ("'{1,2}'", "'{}'", "null"),
    "mood": ("'well'", "'ill'", "null"),
    "uuid": ("gen_random_uuid()", "null"),
}
ADDED = (
    "integer",
    "text",
    "numeric(8,2)",
    "date",
    "boolean",
    "integer[]",
    "character varying(20)",
    "mood",
    "uuid",
)
#: To which types columns of one are changed: some need no new rows, some cannot be.
RETYPED = {
    "integer": ("bigint", "numeric", "text", "date"),
    "bigint": ("integer", "numeric"),
    "character varying(20)": ("text", "character varying(40)", "integer"),
    "character varying(40)": ("text", "character varying(20)"),
    "text": ("character varying(40)", "character varying(20)"),
    "numeric(8,2)": ("numeric", "integer"),
    "numeric": ("numeric(8,2)", "text"),
    "mood": ("text",),
    "uuid": ("uuid",),
    "smallint": ("smallint",),
}


def one(rng: Random, of: Sequence[T], otherwise: T | None = None) -> T:
    """One of these; where there are none, one that fails everywhere alike."""
    if not of:
        assert otherwise is not None
        return otherwise
    return rng.choice(list(of))


def some(rng: Random, of: Sequence[T], least: int = 1, most: int = 2) -> list[T]:
    return rng.sample(list(of), min(len(of), rng.randint(least, most)))


def literal(rng: Random, kind: str) -> str:
    return one(rng, VALUES.get(kind, ("null",)))


def value(rng: Random, kind: str) -> str:
    """One that is not null."""
    return one(rng, [v for v in VALUES.get(kind, ()) if v != "null"], "null")


def column(rng: Random, table: Table) -> str:
    """Seldom one by which rows are distributed."""
    return one(rng, table.others * 4 + list(table.keys), "missing")


# -- actions of ALTER TABLE -----------------------------------------------------------------------


def add_column(rng: Random, shape: Shape, table: Table) -> str:
    kind = one(rng, ADDED)
    default = f" default {value(rng, kind)}"
    rest = one(rng, ("", "", default, f" not null{default}", " not null"))
    if kind == "integer" and rng.randint(0, 5) == 0:
        rest = one(
            rng, (" check (CHECKED > -100)", " generated always as (1 + 1) stored", " unique")
        )
    maybe = one(rng, ("", "", "if not exists "))
    name = one(rng, NEW)
    return f"add column {maybe}{name} {kind}{rest.replace('CHECKED', name)}"


def drop_column(rng: Random, shape: Shape, table: Table) -> str:
    return f"drop column {one(rng, ('', 'if exists '))}{column(rng, table)}{one(rng, ('', '', ' cascade'))}"


def alter_type(rng: Random, shape: Shape, table: Table) -> str:
    name = column(rng, table)
    return f"alter {name} type {one(rng, RETYPED.get(table.columns.get(name, ''), ('text',)))}"


def alter_default(rng: Random, shape: Shape, table: Table) -> str:
    name = column(rng, table)
    kind = table.columns.get(name, "integer")
    return f"alter column {name} " + one(rng, (f"set default {literal(rng, kind)}", "drop default"))


def alter_null(rng: Random, shape: Shape, table: Table) -> str:
    return f"alter {column(rng, table)} {one(rng, ('set not null', 'drop not null'))}"


def alter_column(rng: Random, shape: Shape, table: Table) -> str:
    what = one(
        rng,
        (
            "set statistics 50",
            "set statistics -1",
            "set storage external",
            "set storage main",
            "set (n_distinct = -0.5)",
            "reset (n_distinct)",
            "drop expression",
        ),
    )
    return f"alter column {column(rng, table)} {what}"


def add_check(rng: Random, shape: Shape, table: Table) -> str:
    name = column(rng, table)
    condition = one(
        rng, (f"{name} is not null", f"({name})::text <> 'a'", f"{name} is distinct from null")
    )
    named = one(rng, ("", f"constraint {one(rng, CHECKS)} "))
    return f"add {named}check ({condition}){one(rng, ('', '', ' not valid'))}"


def add_unique(rng: Random, shape: Shape, table: Table) -> str:
    columns = list(dict.fromkeys([*table.keys, column(rng, table)]))
    if rng.randint(0, 7) == 0:
        columns = columns[-1:]
    named = one(rng, ("", f"constraint {one(rng, UNIQUES)} "))
    return f"add {named}{one(rng, ('unique', 'unique', 'primary key'))} ({', '.join(columns)})"


def add_reference(rng: Random, shape: Shape, table: Table) -> str:
    country = shape.tables.get("country", table)
    columns = [c for c, kind in table.columns.items() if kind in ("text", "character varying(20)")]
    action = one(rng, ("", " on delete cascade", " on delete set null", " on update cascade"))
    key = f"foreign key ({one(rng, columns, 'missing')}) references {country.name}"
    return f"add constraint lies_in {key}{action}"


def drop_constraint(rng: Random, shape: Shape, table: Table) -> str:
    return f"drop constraint {one(rng, ('', 'if exists '))}{one(rng, list(table.constraints), 'missing')}"


def validate(rng: Random, shape: Shape, table: Table) -> str:
    return f"validate constraint {one(rng, [n for n, k in table.constraints.items() if k == 'c'], 'missing')}"


def row_security(rng: Random, shape: Shape, table: Table) -> str:
    return one(
        rng,
        ("enable row level security", "disable row level security", "no force row level security"),
    )


def triggers(rng: Random, shape: Shape, table: Table) -> str:
    return f"{one(rng, ('disable', 'enable'))} trigger {one(rng, ('counted', 'user'))}"


def trigger(rng: Random, shape: Shape, table: Table) -> str:
    """One that does nothing: what matters is whether it is made, and where."""
    name = one(rng, ("counted", "quiet"))
    how = one(rng, ("before insert", "after insert or update", "after delete"))
    each = one(rng, ("row", "statement"))
    return one(
        rng,
        (
            f"create trigger {name} {how} on {table.name} for each {each} execute function nothing()",
            f"drop trigger {name} on {table.name}",
            f"drop trigger if exists {name} on {table.name}",
            f"alter trigger {name} on {table.name} rename to quiet",
        ),
    )


def sequence(rng: Random, shape: Shape, table: Table) -> str:
    """That of a table's numbers, which may be gone."""
    name = f"{shape.schema}.acc_n_seq"
    what = ("increment by 2", "cache 5", "restart", "maxvalue 30000", "cycle", "owned by none")
    return f"alter sequence {one(rng, ('', 'if exists '))}{name} {one(rng, what)}"


ACTIONS: tuple[Maker, ...] = (
    *(add_column,) * 4,
    *(drop_column,) * 2,
    *(alter_type,) * 2,
    *(alter_default,) * 2,
    *(alter_null,) * 2,
    alter_column,
    *(add_check,) * 2,
    *(add_unique,) * 2,
    add_reference,
    *(drop_constraint,) * 2,
    validate,
)
#: Those that stand alone more often than not.
ALONE: tuple[Maker, ...] = (row_security, triggers)


def alter_table(rng: Random, shape: Shape, table: Table) -> str:
    first = one(rng, ACTIONS + ALONE)
    actions = [first(rng, shape, table)]
    if first not in ALONE and rng.randint(0, 3) == 0:
        actions.append(one(rng, ACTIONS)(rng, shape, table))
    return f"alter table {one(rng, ('', 'if exists '))}{table.name} {', '.join(actions)}"


def rename(rng: Random, shape: Shape, table: Table) -> str:
    new = one(rng, NEW)
    constraint = one(rng, list(table.constraints), "missing")
    what = one(
        rng, (f"rename {column(rng, table)} to {new}", f"rename constraint {constraint} to {new}")
    )
    return f"alter table {table.name} {what}"


# -- other statements about a table -------------------------------------------------------------


def create_index(rng: Random, shape: Shape, table: Table) -> str:
    columns = some(rng, list(table.columns))
    unique = "unique " if rng.randint(0, 4) == 0 else ""
    if unique and rng.choice((True, False)):
        columns = list(dict.fromkeys([*table.keys, *columns]))
    name = one(rng, ("", "by_it ", '"By it" ', "if not exists by_it "))
    how = one(rng, ("", "", " desc", " desc nulls last"))
    tail = one(rng, ("", "", f" include ({columns[-1]})", f" where {columns[0]} is not null"))
    return f"create {unique}index {name}on {table.name} ({', '.join(columns)}{how}){tail}"


def index_on_expression(rng: Random, shape: Shape, table: Table) -> str:
    return f"create index on {table.name} ((coalesce({column(rng, table)}::text, 'none')))"


def change_index(rng: Random, shape: Shape, table: Table) -> str:
    name = one(rng, table.indexes + tuple(table.constraints), "missing")
    renamed = f"alter index {name} rename to by_{rng.randint(1, 4)}"
    return one(rng, (f"drop index {name}", f"drop index if exists {name}", renamed))


def statistics(rng: Random, shape: Shape, table: Table) -> str:
    """Extended ones. Unnamed they are from 16 on."""
    name = one(rng, ("", "both ", '"Both of it" ', "if not exists both "))
    kinds = one(rng, ("", "", "(ndistinct) ", "(dependencies, mcv) "))
    columns = some(rng, list(table.columns), most=3)
    there = one(rng, table.statistics, "missing")
    made = f"create statistics {name}{kinds}on {', '.join(columns)} from {table.name}"
    said = one(rng, ("'so'", "null"))
    expression = f"create statistics {name}on (coalesce({columns[0]}::text, '')) from {table.name}"
    return one(
        rng,
        (
            *(made,) * 3,
            expression,
            f"drop statistics {one(rng, ('', 'if exists '))}{there}",
            f"alter statistics {there} rename to both_{rng.randint(1, 4)}",
            f"alter statistics {there} set statistics {one(rng, ('50', '-1'))}",
            f"alter statistics {there} set schema {one(rng, (shape.schema, shape.other_schema))}",
            f"comment on statistics {there} is {said}",
        ),
    )


def comment(rng: Random, shape: Shape, table: Table) -> str:
    said = one(rng, ("'so'", "'it''s; so'", "E'two\\nlines'", "null"))
    what = one(
        rng,
        (
            f"table {table.name}",
            f"column {table.name}.{column(rng, table)}",
            f"constraint {one(rng, list(table.constraints), 'missing')} on {table.name}",
            f"index {one(rng, table.indexes, 'missing')}",
            f"policy {one(rng, table.policies, 'missing')} on {table.name}",
        ),
    )
    return f"comment on {what} is {said}"


def policy(rng: Random, shape: Shape, table: Table) -> str:
    name = one(rng, ("own", '"All of it"'))
    there = one(rng, table.policies, "missing")
    condition = one(rng, ("true", f"{column(rng, table)} is not null", "current_user = 'bob'"))
    return one(
        rng,
        (
            f"create policy {name} on {table.name} using ({condition})",
            f"create policy {name} on {table.name} for insert to reader with check ({condition})",
            f"create policy {name} on {table.name} as restrictive for select using ({condition})",
            f"alter policy {there} on {table.name} using ({condition})",
            f"alter policy {there} on {table.name} rename to {name}",
            f"drop policy {there} on {table.name}",
        ),
    )


def rights(rng: Random, shape: Shape, table: Table) -> str:
    right = one(
        rng,
        ("select", "insert, update", "all", f"select ({column(rng, table)})", "truncate"),
    )
    role = one(rng, ("reader", "public"))
    what = f"{right} on {one(rng, (table.name, f'table {table.name}'))}"
    given = f"grant {what} to {role}"
    return one(rng, (given, f"revoke {what} from {role}", f"{given} with grant option"))


def truncate(rng: Random, shape: Shape, table: Table) -> str:
    return f"truncate {one(rng, (table.name, ', '.join(t.name for t in shape.tables.values())))}"


def refused(rng: Random, shape: Shape, table: Table) -> str:
    """What weak-sides.md says that there is none of."""
    return one(
        rng,
        (
            f"create rule quiet as on delete to {table.name} do instead nothing",
            f"create index concurrently on {table.name} ({table.keys[0]})",
            f"do $$ begin alter table {table.name} add column by_do int; perform 1; end $$",
        ),
    )


# -- what is in no table --------------------------------------------------------------------------


def view(rng: Random, shape: Shape, table: Table) -> str:
    name = one(rng, ("seen", '"Seen too"'))
    there = one(rng, shape.views, "missing")
    query = f"select {', '.join(some(rng, list(table.columns), most=3))} from {table.name}"
    return one(
        rng,
        (
            f"create view {name} as {query}",
            f"create or replace view {name} as {query} where {table.keys[0]} is not null",
            f"drop view {there}",
            f"alter view {there} rename to {name}",
            f"comment on view {there} is 'seen'",
            f"grant select on {there} to reader",
        ),
    )


def function(rng: Random, shape: Shape, table: Table) -> str:
    body = one(rng, ("select 1", "select 2 -- ; two"))
    return one(
        rng,
        (
            f"create or replace function f(x int) returns int language sql as $$ {body} $$",
            f"create function f(x int) returns int language sql as $${body}$$",
            "drop function if exists f(int)",
            "comment on function f(int) is 'f'",
            "alter function f(int) strict",
            "revoke all on function f(int) from public",
        ),
    )


def kind(rng: Random, shape: Shape, table: Table) -> str:
    label = one(rng, shape.labels, "missing")
    return one(
        rng,
        (
            f"alter type mood add value {one(rng, ('', 'if not exists '))}'l{rng.randint(1, 3)}'",
            f"alter type mood add value 'm{rng.randint(1, 3)}' before '{label}'",
            f"alter type mood rename value '{label}' to 'r{rng.randint(1, 3)}'",
            "create domain positive as int check (value > 0)",
            "drop domain if exists positive",
            "comment on type mood is 'm'",
        ),
    )


# -- rows -----------------------------------------------------------------------------------------


def row(rng: Random, table: Table) -> tuple[list[str], list[str]]:
    """Columns and values of a row, which may break what there is."""
    chosen = {c: kind for c, kind in table.columns.items() if kind in VALUES}
    left_out = rng.choice([None, *[c for c in chosen if c not in table.keys]])
    names = [c for c in chosen if c != left_out]
    values = [
        f"'c{rng.randint(0, 6)}'"
        if kind == "text" and rng.choice((True, False))
        else str(rng.randint(1, 60))
        if name in table.keys
        else literal(rng, kind)
        for name, kind in chosen.items()
        if name != left_out
    ]
    return names, values


def insert(rng: Random, shape: Shape, table: Table) -> str:
    names, values = row(rng, table)
    return f"insert into {table.name} ({', '.join(names)}) values ({', '.join(values)})"


def update(rng: Random, shape: Shape, table: Table) -> str:
    name = one(rng, table.others, "missing")
    new = literal(rng, table.columns.get(name, ""))
    return f"update {table.name} set {name} = {new}{where(rng, table)}"


def delete(rng: Random, shape: Shape, table: Table) -> str:
    return f"delete from {table.name}{where(rng, table)}"


def where(rng: Random, table: Table) -> str:
    name = column(rng, table)
    return f" where {name} " + one(rng, ("is null", f"= {value(rng, table.columns.get(name, ''))}"))


ABOUT: tuple[Maker, ...] = (
    *(alter_table,) * 10,
    *(rename,) * 2,
    *(create_index,) * 2,
    index_on_expression,
    *(change_index,) * 2,
    *(statistics,) * 2,
    *(comment,) * 2,
    *(policy,) * 2,
    *(rights,) * 2,
    view,
    function,
    kind,
    trigger,
    sequence,
    *(insert,) * 4,
    *(update,) * 2,
    delete,
    truncate,
    refused,
)


def statement(rng: Random, shape: Shape) -> str:
    """One statement about one of the tables, or what stands beside them."""
    table = shape.tables[one(rng, sorted(shape.tables))]
    return one(rng, ABOUT)(rng, shape, table)


def new_name(rng: Random, shape: Shape) -> str:
    """A table gets another name or schema."""
    table = shape.tables[one(rng, sorted(shape.tables))]
    what = one(
        rng,
        (
            f"rename to {one(rng, NAMES)}",
            f"set schema {one(rng, (shape.schema, shape.other_schema))}",
        ),
    )
    return f"alter table {table.name} {what}"
