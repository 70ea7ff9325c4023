"""What the client makes of a statement, without a server."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.numeric import Int4, Int8, IntNumeric

from shardman import names
from shardman.client.routing.analysis import analyse
from shardman.client.routing.choice import Choice, Situation, choose
from shardman.client.routing.picture import HERE, Column, Part, Picture, Table, node_of
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.values import value_hash

NAIVE = dt.datetime(2020, 1, 1)  # noqa: DTZ001
NODES = (HERE, "shardman_node_2", "shardman_node_3")


def table(name: str, columns: str, *key: Column, count: int = 12, **more: Any) -> Table:
    parts = tuple(
        Part(f'"public"."{name}_{k}"', f'"public"."{name}_{k}_data"', f"{name}_{k}", NODES[k % 3])
        for k in range(count)
    )
    return Table("public", name, tuple(columns.split()), key, parts if key else (), **more)


BIG = Column("id", "bigint", -1)
TABLES = {
    t.name: t
    for t in (
        table("acc", "id v n", BIG),
        table("ord", "acc_id no sku", Column("acc_id", "integer", -1)),
        table("word", "code v", Column("code", "character varying", 14)),
        table("two", "a b v", Column("a", "integer", -1), Column("b", "text", -1)),
        table("num", "id seq", BIG, numbered=frozenset({"seq"})),
        table("od%d T", "id", BIG),
        table("day", "d", Column("d", "date", -1)),
        table("rate", "code x", shared=True),
    )
}
PICTURE = Picture(
    {("public", n): t for n, t in TABLES.items()},
    TABLES,
    functions=frozenset({"mine", "lower"}),
    volatile=frozenset({"mine"}),
)


def read(sql: str, params: Any = None) -> Plan:
    return analyse(sql.encode(), PICTURE, with_parameters=params is not None)


def go(sql: str, params: Any = None, *, bound: str | None = None) -> Choice:
    return choose(
        read(sql, params), params, PICTURE, Situation([bound] if bound else [], pinned=False)
    )


def part(name: str, *key: Any) -> Part:
    t = TABLES[name]
    return t.parts[t.number(key, stored=False)]


STRAIGHT = [
    ("select * from acc where id = %s", (7,), "acc"),
    ("select * from acc where %s = id", (7,), "acc"),
    ("select * from acc where 7 = id", None, "acc"),
    ("select * from acc where int '7' = id", None, None),
    ("select * from acc where '7'::int = id", None, "acc"),
    ("select * from acc where id = %(k)s and v = %(k)s::text", {"k": 7}, "acc"),
    ("select * from public.acc as a where a.id = 7", None, "acc"),
    ("select * from Acc where ID = '7' or id = 8 and id = 7 for update skip locked", None, None),
    ("select * from acc where id = '7' for update of acc skip locked", None, "acc"),
    ("select * from acc where id in (7, %s)", (7,), "acc"),
    ("select * from acc where id = any(%s)", ([7, 7],), "acc"),
    ("select * from acc where id = any(%s::int[])", ([7],), "acc"),
    ("select * from acc where id = 7::numeric", None, None),
    ("select * from acc where id = 7.0", None, None),
    ("select * from acc where id = %s", (7.0,), None),
    ("select * from acc where id = %s", (True,), None),
    ("select * from acc where id = %s", (None,), None),
    ("select * from acc where id <> 7", None, None),
    ("select * from acc where not (id = 7)", None, None),
    ("select * from acc where id is not distinct from 7", None, None),
    ("select * from acc where id = -7", None, "acc-"),
    ("select count(*), lower(v) from acc where id = 7 group by 2", None, None),  # not ours: see functions
    ("select count(*), upper(v) from acc where id = 7 group by 2 order by 1 limit 3", None, "acc"),
    ("select mine(v) from acc where id = 7", None, None),
    ("select acc from acc where id = 7", None, None),
    ("select tableoid from acc where id = 7", None, None),
    ("select public.acc.id from public.acc where id = 7", None, None),
    ("select * from only acc where id = 7", None, None),
    ("select * from acc * where id = 7", None, None),
    ("select * from acc a (x) where a.x = 7", None, None),
    ("select * from acc a join ord o on o.acc_id = a.id where a.id = 7", None, "acc"),
    ("select * from acc a join ord o on o.acc_id = a.id where o.acc_id = 7", None, "acc"),
    ("select * from acc a, ord o where o.acc_id = a.id and o.acc_id = 7", None, "acc"),
    ("select * from acc a left join ord o on o.acc_id = a.id where a.id = 7", None, "acc"),
    ("select * from acc a left join ord o on o.acc_id = a.id where o.acc_id = 7", None, None),
    ("select * from acc a left join ord o on o.acc_id = a.id and a.id = 7", None, None),
    ("select * from acc a left join ord o on o.acc_id = 7 where a.id = 7", None, "acc"),
    ("select * from acc a right join ord o on o.acc_id = a.id where a.id = 7", None, None),
    ("select * from acc a full join ord o on o.acc_id = a.id where a.id = 7", None, None),
    ("select * from acc a full join acc b on true where a.id = 7 and b.id = 7", None, "acc"),
    ("select * from acc join rate using (code) where id = 7", None, "acc"),
    ("select * from acc join rate on v = rate.code where acc.id = 7", None, "acc"),
    ("select * from acc where id = 7 and exists (select from ord where acc_id = id)", None, "acc"),
    ("select * from acc where exists (select from ord where acc_id = id and acc_id = 7)", None, None),
    ("select * from acc where id = (select 7)", None, None),
    ("with a as (select * from acc where id = 7) select * from a", None, "acc"),
    ("with acc as (select 7 as id) select * from acc where id = 7", None, None),
    ("with recursive acc as (select 7 as id union select id from acc) table acc", None, None),
    ("with x as (insert into acc (id) values (7) returning *) select * from x", None, "acc"),
    ("select * from (select * from acc) a where a.id = 7", None, None),
    ("select * from (select * from acc where id = 7) a", None, "acc"),
    ("select * from acc a, lateral (select * from ord where acc_id = a.id) o where a.id = 7", None, "acc"),
    ("select * from acc a, (select * from ord where acc_id = a.id) o where a.id = 7", None, None),
    ("select * from acc where id = 7 union all select * from acc where id = 7", None, "acc"),
    ("select * from acc where id = 7 union all select * from acc", None, None),
    ("select * from acc, pg_class where id = 7", None, None),
    ("select * from acc where id = 7 and v = 'acc'::regclass::text", None, None),
    ("insert into acc values (%s, 'x', 1)", (7,), "acc"),
    ("insert into acc (v, id) values ('x', 7), ('y', 7) returning *", None, "acc"),
    ("insert into acc (v, id) values ('x', default)", None, None),
    ("insert into acc (v) values ('x')", None, None),
    ("insert into acc default values", None, None),
    ("insert into acc (id, v) select 7, v from rate", None, "acc"),
    ("insert into acc (id, v) select a.id, v from acc a where a.id = 7", None, "acc"),
    ("insert into acc (id, v) select id, v from acc", None, None),
    ("insert into acc select * from acc a where a.id = 7", None, None),
    ("insert into num (id) values (7)", None, None),
    ("insert into num (id, seq) values (7, default)", None, None),
    ("insert into num (id, seq) values (7, 1)", None, "num"),
    ("update acc set v = 'x' where id = 7", None, "acc"),
    ("update acc a set v = o.sku from ord o where o.acc_id = a.id and a.id = 7", None, "acc"),
    ("update acc set id = 8 where id = 7", None, None),
    ("update acc set (v, id) = ('x', 7) where id = 7", None, None),
    ("delete from acc using ord o where acc.id = o.acc_id and o.acc_id = 7", None, "acc"),
    ("merge into acc using rate on id = 7 when matched then delete", None, None),
    ("update rate set x = 1 where code = 'a'", None, None),
    ('select * from "od%%d T" where id = %s', (7,), "od%d T"),
    ('select * from "od%d T" where id = 7', None, "od%d T"),
    ("select * from acc /* a */ where id = 7", None, None),
    ("select * from acc where id = 7; select 1", None, None),
    ("select from where", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "params", "to"), STRAIGHT)
def test_where_it_goes(sql: str, params: Any, to: str | None) -> None:
    found = go(sql, params)
    if to is None:
        assert found.text is None
        assert found.node == HERE
        return
    wanted = part(to.rstrip("-"), -7 if to.endswith("-") else 7)
    assert found.text is not None, found.reason
    assert wanted.plain in found.parts
    assert found.node == wanted.node


@pytest.mark.parametrize(
    ("source", "on", "when", "straight"),
    [
        ("(values (7, 'x')) s (i, v)", "acc.id = s.i", "matched then delete", True),
        (
            "(select 7 as i) s",
            "s.i = acc.id and v = 'x'",
            "not matched then insert (id) values (s.i)",
            True,
        ),
        ("(values (7)) s", "acc.id = s.column1", "matched then update set v = upper('x')", True),
        ("(values (7)) s (i)", "acc.id = s.i", "matched then update set id = 8", False),
        ("(values (7)) s (i)", "acc.id = s.i", "not matched then insert (id) values (8)", False),
        ("(values (7)) s (i)", "acc.id = s.i", "not matched by source then delete", False),
        ("(values (7)) s (i)", "acc.id > s.i", "matched then delete", False),
        ("(values (7)) s (i)", "acc.id = s.i or true", "matched then delete", False),
        ("(values (7), (8)) s (i)", "acc.id = s.i", "matched then delete", False),
        ("rate", "acc.id = 7", "matched then delete", False),
    ],
)
def test_merge(source: str, on: str, when: str, straight: bool) -> None:
    found = go(f"merge into acc using {source} on {on} when {when}")
    assert (found.text is not None) == straight, found.reason
    if found.text is not None:
        name = part("acc", 7).data
        assert found.text.decode().startswith(f'merge into {name} as "acc" using {source} on case')


def test_merge_that_takes_the_next_number() -> None:
    source = "(values (7)) s (i) on num.id = s.i"
    found = go(f"merge into num using {source} when not matched then insert (id) values (s.i)")
    assert found.text is None
    assert "sequence" in found.reason


def test_the_text_is_the_same_but_for_the_name() -> None:
    sent = go("select \"ä\", acc.v from acc where id = %s and v like '%%x'", (7,)).text
    assert sent is not None
    name = part("acc", 7).name
    plain = re.sub(rb"case when .*? end and ", b"", sent).decode()
    assert plain == f'select "ä", acc.v from {name} as "acc" where id = %s and v like \'%%x\''
    assert sent.count(b"to_regclass") == 2


@pytest.mark.parametrize(
    ("condition", "there"),
    [
        ("id = 7", "where case"),
        ("(id = 7)", "where (case"),
        ("((v = 'x' and acc.id = 7))", "where ((case"),
        ("v = 'x' and id = 7", "where case"),
        ("(v) = 'x' and id = 7", "(v) = 'x' and case"),
        ("not n = 1 and %s = id", "not n = 1 and case"),
        ("v like 'x' and n between 1 and 2 and id in (7)", "where case"),
        ("v is null and id = 7", "where case"),
        ("(v) like 'x' and n not between 1 and 2 and id = 7", "'x' and case"),
        ("v || 'x' is not null and (n) between 1 and 2 and id = 7", "1 and 2 and case"),
        ("(id) = 7", None),
        ("7 = id", "where case"),
        ("'7'::int = id", "where case"),
        ("int '7' = id", None),
        ("(7) = id", None),
    ],
)
def test_where_the_guard_is_written(condition: str, there: str | None) -> None:
    sent = go(f"select * from acc where {condition}", (7,) if "%s" in condition else None).text
    assert (sent is None) == (there is None)
    if sent is not None and there is not None:
        assert there in sent.decode()


def test_a_name_with_a_sign_for_placeholders() -> None:
    sent = go('delete from "od%%d T" where id = %s', (7,)).text
    assert sent is not None
    assert sent.decode().replace("%%", "").count("%") == 1


def test_a_target_of_a_conflict_needs_the_rows_own_table() -> None:
    upsert = "insert into acc (id) values (7) on conflict {} returning acc.id"
    update = "(id) do update set v = excluded.v || acc.v"
    assert f'{part("acc", 7).data} as "acc"' in (go(upsert.format(update)).text or b"").decode()
    assert f"{part('acc', 7).name} " in (go(upsert.format("do nothing")).text or b"").decode()
    assert go(upsert.format("on constraint acc_pkey do nothing")).text is None
    assert go(upsert.format("(id) do update set id = 8")).text is None


def test_keys_of_several_columns() -> None:
    found = go("select * from two where b = %s and a = %s", ("x", 1))
    assert found.parts == (part("two", 1, "x").plain,)
    assert go("select * from two where a = 1").text is None


def test_values_that_would_be_changed_on_their_way_in() -> None:
    assert go("insert into word (code) values (%s)", ("x" * 10,)).text is not None
    assert go("insert into word (code) values (%s)", ("x" * 9 + "   ",)).text is None
    assert go("select * from word where code = %s", ("x" * 9 + "   ",)).text is not None


def test_several_partitions() -> None:
    one, other = 7, next(i for i in range(99) if part("acc", i) != part("acc", 7))
    for sql in ("select * from acc where id in (%s, %s)", "insert into acc values (%s), (%s)"):
        found = go(sql, (one, other))
        assert found.text is None
        assert not found.single


def test_a_transaction_that_takes_in_no_others_stays_on_its_node() -> None:
    owner = part("acc", 7).node
    other = next(n for n in NODES if n not in (owner, HERE))
    sql = "select * from acc where id = 7"
    assert go(sql, bound=owner).text is not None
    assert (go(sql, bound=other).node, go(sql, bound=other).text) == (other, None)
    assert go("select count(*) from acc", bound=other).node == other
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="here=True"):
        go("select * from pg_class", bound=other)


@pytest.mark.parametrize(
    ("sql", "pins"),
    [
        ("set search_path = x", "session"),
        ("set local work_mem = '1MB'", "transaction"),
        ("set transaction isolation level serializable", ""),
        ("create temp table acc (id int)", "session"),
        ("create table pg_temp.acc (id int)", "session"),
        ("select 1 as id into temp acc", "session"),
        ("create table x (id int)", ""),
        ("select set_config('a.b', '1', false)", "session"),
        ("select (select mine(1))", "session"),
        ("do $$ begin end $$", "session"),
        ("select nextval('x')", ""),
        ("select 1; select 2", ""),
        ("set local work_mem = '1MB'; select 1", "transaction"),
        ("select 1; select mine(1)", "session"),
        ("select 1; create temp table x (id int)", "session"),
        ("select set_config('a.b', '1', true)", "transaction"),
        ("select set_config('a.b', '1', true), set_config('a.b', '1', false)", "session"),
        ("copy acc from stdin", ""),
        ("truncate acc", ""),
    ],
)
def test_what_makes_another_session_of_it(sql: str, pins: str) -> None:
    plan = read(sql)
    assert (plan.scope, plan.pins) == (Scope.HERE, pins)


@pytest.mark.parametrize(
    ("value", "type_", "clear"),
    [
        (2**63, "bigint", False),
        ("0x7", "bigint", False),
        ("007", "bigint", True),
        (NAIVE, "timestamp with time zone", False),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "timestamp with time zone", True),
        (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "timestamp without time zone", False),
        (NAIVE, "date", False),
        ("2020-02-30", "date", False),
        (uuid.UUID(int=1), "uuid", True),
        (str(uuid.UUID(int=1)).upper(), "uuid", True),
        ("{" + str(uuid.UUID(int=1)) + "}", "uuid", False),
        ("\ud800", "text", False),
        (b"x", "text", False),
        (1, "numeric", True),
        (1.0, "numeric", False),
        # As Django sends whole numbers, whatever the column is.
        (Int8(7), "bigint", True),
        (Int8(7), "smallint", True),
        (Int4(7), "bigint", True),
        (Int8(2**31), "integer", True),
        (Int8(2**63), "bigint", False),
        (IntNumeric(7), "bigint", False),
    ],
)
def test_only_what_is_certain_has_a_hash(value: Any, type_: str, clear: bool) -> None:
    try:
        value_hash(value, type_, -1, stored=False)
        told = True
    except Exception:
        told = False
    assert told == clear


def test_servers_of_one_node_are_one_node() -> None:
    """With a session for each a transaction would wait for itself there."""
    assert node_of(names.fresh_server(3, 5)) == node_of(names.node_server(3)) == "shardman_node_3"
    assert node_of("somebody's") == "somebody's"
