"""Questions to all partitions: each node answers for its own, and the answer is that of one server."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import IsolationLevel
from psycopg.rows import dict_row

import shardman
from shardman.client.asking import sharing_a_machine
from shardman.client.routing.picture import HERE
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

MADE = """
create table acc (id bigint primary key, grp int, small smallint, name varchar(20), note text,
                  amount numeric(12, 2), active bool, made timestamptz, day date, weight float8, marks int[],
                  odd text collate "C", mood public.mood default 'ok')
"""
OTHERS = """
create table mark (acc_id bigint, n int, v numeric, primary key (acc_id, n));
create table "Kind%" (grp int primary key, label text)
"""
ROWS = """
insert into acc select i, nullif(i % 7, 3), i % 5, 'Name ' || i % 11, nullif('ä%' || i % 4, 'ä%2'),
       (i * 37 % 1000) / 4.0, nullif(i % 3, 1) = 0, timestamptz '2024-01-01 12:00+00' + i * interval '7 hours',
       date '2024-01-01' + i % 40, i / 3.0, array[i, i], 'o' || i % 3
  from generate_series(1, 400) i;
insert into mark select i * 2, n, i % 13 / 4.0 from generate_series(1, 250) i, generate_series(1, 1 + i % 3) n;
insert into "Kind%" select i, 'kind ' || i % 3 from generate_series(0, 5) i
"""


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    cluster.sql(1, "create type mood as enum ('sad', 'ok')")
    cluster.sql(1, MADE)  # type: ignore[arg-type]
    cluster.sql(1, OTHERS)  # type: ignore[arg-type]
    for each in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.create_hash_partitions(1, 'mark', 'acc_id', 6, colocate_with => 'acc')",
        """select shardman.create_shared_table('"Kind%"', 1)""",
    ):
        done = cluster.cmd(each)
        assert done.status == "success", done
    cluster.sql(1, ROWS)  # type: ignore[arg-type]
    cluster.sql(
        1,
        "set shardman.ddl = 'here'; create schema plain; set search_path = plain;"
        + MADE
        + ";"
        + OTHERS
        + ";"
        + ROWS,
    )  # type: ignore[arg-type]
    for node in (1, 2, 3):
        eventually(
            "the routes", lambda node=node: cluster.value(node, "select count(*) from acc") == 400
        )
    return cluster


@pytest.fixture(scope="module")
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(nodes.dsn(2), autocommit=True, options="-c timezone=Asia/Tokyo") as db:
        yield db


@pytest.fixture(scope="module")
def plain(nodes: Cluster) -> Iterator[psycopg.Connection[Any]]:
    dsn = psycopg.conninfo.make_conninfo(
        nodes.dsn(1), options="-c search_path=plain -c timezone=Asia/Tokyo"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


SPLIT = [
    ("select count(*) from acc", None),
    (
        "select count(note), count(*) + 1, sum(grp), sum(id), sum(amount), avg(amount) as mean from acc",
        None,
    ),
    (
        "select avg(grp), avg(small), avg(id), min(name), max(note), min(made), max(day) from acc",
        None,
    ),
    (
        "select bool_and(active), bool_or(active), every(active), min(weight), max(weight) from acc",
        None,
    ),
    ("select sum(grp), avg(id), count(*), min(name), bool_or(active) from acc where false", None),
    ("select grp, count(*) from acc group by grp order by grp nulls first", None),
    (
        "select grp g, sum(amount * 3 - id) s from acc a group by g having count(*) > %s order by 2 desc, g",
        (50,),
    ),
    (
        "select name, avg(amount) filter (where a.active and note like 'ä%%') from acc a group by 1 order by 1",
        (),
    ),
    (
        "select upper(name) || '%%', small + 1 as s, max(id) from acc group by upper(name), s order by 3",
        (),
    ),
    ("select upper(name) || '%', max(id) from acc group by upper(name) order by 2", None),
    (
        "select date_trunc('day', made), count(*) from acc group by 1 order by 1 limit 5 offset 3",
        None,
    ),
    ("select * from (values (1)) v", None),
    (
        "select id, name as n from acc order by amount desc, id limit %(n)s offset %(m)s",
        {"n": 7, "m": 2},
    ),
    (
        "select id, amount from acc where note = %s and id > 9 order by grp desc nulls last, id limit 3",
        ("ä%1",),
    ),
    ("select id, id % 4 from acc order by id limit 10", None),
    ("select distinct name, active from acc order by name, active limit 5", None),
    ("select distinct grp from acc", None),
    ("select count(*) from acc having count(*) > 1000", None),
    ("select id, name, grp from acc where id = any(%s) order by grp desc, id", (list(range(60)),)),
    ("select id, upper(note) as n from acc where id in (1, 2, 3, 4, 5, 6, 7) order by n, id", None),
    ("select count(distinct grp), count(*), sum(amount), avg(id) from acc", None),
    ("select count(distinct grp), count(id) from acc where false", None),
    (
        (
            "select small, count(distinct name) filter (where active), count(distinct grp), max(day) from acc"
            " group by small having count(distinct note) > 1 order by 1"
        ),
        None,
    ),
    (
        "select grp, count(distinct grp), count(distinct upper(name) || %s) from acc group by 1",
        ("x",),
    ),
    (
        (
            "select variance(grp), var_pop(id), var_samp(small), stddev(amount), stddev_pop(amount - grp),"
            " stddev_samp(amount / 3) filter (where active) from acc"
        ),
        None,
    ),
    (
        "select id % 90, variance(amount), stddev(amount), var_pop(grp), stddev_pop(1) from acc group by 1",
        None,
    ),
    ("select stddev(id), var_pop(id), stddev_pop(amount) from acc where id in (1, 2, 9, 11)", None),
    ("select stddev(id), var_pop(id), stddev_pop(amount) from acc where false", None),
    (
        "select stddev(amount * 'NaN'::numeric), stddev(amount * 1e30), stddev(id * 1e-30) from acc",
        None,
    ),
    ("select var_pop(amount / 7 + 'Infinity'::numeric), stddev_pop(-amount / 1e9) from acc", None),
    (
        (
            "select grp, name::varchar(6) as short, sum(amount::numeric(5, 1)), count(*) from acc"
            " where day < date '2024-03-01' - interval '20' day"
            " and made > timestamptz '2024-01-01' + interval '1' month"
            " and name <> 'Name 3'::char(9) group by 1, 2 order by 1, 2"
        ),
        None,
    ),
    (
        (
            "select sum(id), interval '1 year 3 days' year, cast('7:08' as interval minute),"
            " interval '9' second from acc where made < '2025-01-01'::timestamptz - interval '300' hour"
        ),
        None,
    ),
    (
        (
            "select grp, string_agg(note, ', ' order by id desc), count(*),"
            " array_agg(id order by amount, id) filter (where active) from acc group by 1 order by 1"
        ),
        None,
    ),
    (
        (
            "select string_agg(distinct name, '|' order by name desc), count(distinct grp), sum(amount),"
            " stddev(small), array_agg(upper(note) order by id) from acc"
        ),
        None,
    ),
    (
        "select grp, array_agg(day order by day), avg(id) from acc group by 1 having max(id) > %s order by 3",
        (100,),
    ),
    ("select count(*), sum(id) from acc where id = any(%s)", (list(range(60)),)),
    ("select sum(id), max(note) from acc where id in (%s, %s, 5, 6, 7, 8, 9)", (3, 4)),
    (
        "select case when active then 'yes' end, count(*) from acc group by active order by 2, 1",
        None,
    ),
    (
        "select coalesce(grp, 0), nullif(small, 2), count(*) from acc group by 1, 2 order by 3, 1, 2",
        None,
    ),
]
JOINED = [
    "select count(*), sum(m.v), avg(a.grp) from acc a join mark m on a.id = m.acc_id",
    "select count(*) from acc a join acc b on a.id = b.id",
    (
        'select k.label, count(*), sum(v) from acc, mark m, "Kind%" k'
        " where id = acc_id and k.grp = acc.grp and amount > 40 group by label order by 1"
    ),
    (
        "select a.id, count(m.n) filter (where m.v > 1) from acc a left join mark m on acc_id = a.id and n < 3"
        " group by id order by 2 desc, 1 limit 9"
    ),
    'select label, count(*), min(acc.name) from acc left join "Kind%" k using (grp) group by label order by 1',
    'select grp, count(*) from "Kind%" join acc using (grp) group by grp order by grp',
    (
        "select a.grp, max(m.v + b.small) from mark m join (acc a join acc b on a.id = b.id) on b.id = m.acc_id"
        " group by 1 order by 1"
    ),
    "select a.name, m.v, m.* from acc a join mark m on m.acc_id = a.id order by m.v desc, a.id, m.n limit 7",
    'select * from mark m join "Kind%" k on k.grp = m.n order by acc_id, n limit 3 offset 2',
    "select distinct m.n, a.active from acc a, mark m where m.acc_id = a.id order by 1, 2",
    "select count(*) from acc a join mark m on a.id = m.acc_id where a.id in (1, 2, 3, 4, 5, 6, 7, 8)",
    'select sum(a.id) from acc a join "Kind%" k on k.grp > a.grp',
    """select count(*), sum(id) from acc where grp in (select grp from "Kind%" where label like 'kind 1%')""",
    'select count(*) from acc join mark on id = acc_id and grp not in (select grp from "Kind%" where grp > 3)',
    (
        'select name, count(*) from acc where exists (select 1 from "Kind%") and small >'
        ' (select min(grp) from "Kind%") group by name order by 1'
    ),
    'select a.id, (select max(label) from "Kind%") as top from acc a order by id limit 5',
    'select grp in (select grp from "Kind%" where grp < 2) as k, count(*) from acc group by 1 order by 1, 2',
    "select a.grp, array_agg(m.n order by m.n) from acc a join mark m on a.id = m.acc_id group by 1 order by 1",
    (
        "select count(b.id), count(m.n) from acc a"
        " left join (acc b left join mark m on acc_id = b.id) on a.id = b.id where a.grp > 1"
    ),
    'select count(*) from ("Kind%" k join acc a on a.small = k.grp) left join mark m on a.id = m.acc_id',
]
DERIVED = [
    "select count(*), sum(n) from acc join (select acc_id as i, n from mark where v > 1) m on i = id",
    (
        "select a.name, m.c, m.s from acc a join (select acc_id, count(*) c, sum(n) s from mark group by acc_id"
        " having count(*) > 1) m on m.acc_id = a.id order by a.id limit 5"
    ),
    (
        "select sum(top), max(c) from acc a left join (select acc_id, max(v) filter (where n < 3) as top,"
        " count(distinct n) c from mark x where x.v > 0.5 group by x.acc_id) m on m.acc_id = a.id"
    ),
    (
        "with m as (select distinct acc_id, n > 1 as big from mark) select grp, count(*) from acc"
        " join m on id = acc_id group by grp order by grp"
    ),
    (
        'select label, count(*) from acc join (select grp, max(label) as label from "Kind%" group by grp) k'
        " using (grp) group by label order by 1"
    ),
    "with m as (select acc_id, n from mark) select count(*) from m x join m y on x.acc_id = y.acc_id",
]
NESTED = [
    "select count(*) from (select id, grp from acc where grp > 2) s",
    "select count(*) from (select * from acc order by name) s where s.small < 3 and id > 5",
    (
        "select g, sum(n), count(*) filter (where big) from (select grp g, amount * 2 n, id > 9 big from acc) s"
        " group by g order by g"
    ),
    "select upper as u, count(*) as id from (select upper(name), id from acc) s group by u order by 2, 1",
    "select id + 1, g from (select id, grp as g from (select * from acc where active) b) c order by 1 limit 6",
    "select * from (select id, name as n from acc) s order by n desc, id limit 4",
    "select s.*, id as other from (select id from acc) s order by other limit 4",
    "select count(distinct grp) from (select id, grp from acc where amount > 50) s",
    "select count(*) from (select distinct grp from acc) s",
    'select count(*) from (select distinct acc.grp as "col%%1", upper(name) from acc) subquery',
    "select count(*) from (select grp, count(*) as n from acc group by 1 having count(*) > 3) s",
    "select n, count(*) from (select grp, count(*) as n from acc group by grp) s group by n order by n desc",
    (
        "select max(n), min(grp), sum(n), avg(n + 1), avg(m) from"
        " (select grp, count(*) as n, sum(amount) as m from acc group by grp) s where s.n > %s"
    ),
    "select distinct n %% 2 as odd from (select grp, count(*) as n from acc group by grp) s order by odd",
    "select count(*) from (select id, name from acc order by id limit 10) s where name like 'Name 1%%'",
    "select sum(id), bool_or(id > 3), max(grp) from (select id, grp from acc order by id limit 7) s",
    "select x + 1 as y from (select count(*) as x from acc) s where x > 5",
    "select grp, n from (select grp, count(*) n from acc group by 1) s order by n desc, grp limit 2 offset 1",
    "select count(*) from (select id from acc where id in (1, 2, 3, 4, 5, 6, 7, 8)) s",
    "with s as (select id, grp from acc where grp > 2) select count(*), max(id) from s",
    (
        "with a as (select id, grp from acc), b as (select grp, count(*) n from a group by grp)"
        " select count(*) from b where n > 3"
    ),
    "with acc as (select id, small from acc where id > 7) select count(*), sum(small) from acc",
    "with s as materialized (select distinct note from acc) select count(*), count(note) from s",
    (
        'with k as (select grp, label from "Kind%%" where grp < 4) select label, count(*) from acc'
        " join k using (grp) group by label order by 1"
    ),
    (
        'select count(*), max(l) from acc a left join (select distinct grp as g, label as l from "Kind%%" x'
        " where x.label like 'kind%%') k on k.g = a.grp"
    ),
    (
        "with k as (select grp from \"Kind%%\" where label = 'kind 1') select count(*) from acc"
        " where grp in (select k.grp from k)"
    ),
    "select count(*) from (select a.id, m.n from acc a join mark m on a.id = m.acc_id where v > 1) s",
]
NOT_JOINED = [
    "select count(*) from acc a join mark m on a.grp = m.n",
    "select count(*) from acc a, mark m where a.id = m.acc_id or a.grp = m.n",
    "select count(*) from acc a left join mark m on a.grp = m.n where m.n is null",
    'select count(*), count(id) from "Kind%" k left join acc a on a.grp = k.grp',
    'select count(*), count(id) from acc a right join "Kind%" k on a.grp = k.grp',
    "select count(*), count(a.id) from acc a full join mark m on m.acc_id = a.id",
    "select count(*) from acc a left join mark m on m.acc_id = a.id left join acc b on b.id = m.n",
    "select count(*) from acc a left join (mark m join mark o on m.n = o.n) on m.acc_id = a.id",
    "select count(*) from acc a join mark m on a.id = m.acc_id + 0",
    "select count(*) from acc a cross join mark m",
    'select count(*) from acc a natural join "Kind%" k',
    'select count(*) from "Kind%" k join "Kind%" l using (grp)',
    "select count(*) from acc join mark m on id = acc_id and exists (select 1 from mark)",
]
WHOLE = [
    "select sum(weight) from acc",
    "select avg(weight + 1) from acc",
    "select sum(distinct grp) from acc",
    "select count(string_agg) from (select string_agg(name, ',') from acc) s",
    "with recursive r as (select grp from acc) select count(*) from r",
    "with r as (select grp from acc), s as (select nothing from acc) select count(*) from r",
    "with r as (select grp from acc) select count(*) from r a join r b on a.grp = b.grp",
    "with r as (with acc as (select id from mark) select 1 from acc) select count(*) from r",
    "select k, count(*) from (select 2 as k, grp from acc) s group by k",
    "select count(k) from (select null as k, grp from acc) s",
    "select count(nothing) from (select id from acc) s",
    "select count(small) from (select id from acc) s",
    "select count(nothing) from (select distinct id from acc) s",
    "select count(s) from (select distinct id from acc) s",
    "select sum(w) from (select distinct weight w from acc) s",
    "select sum(c) from (select grp, max(weight) c from acc group by grp) s",
    "select c from (select grp, count(*) c from acc group by grp) s order by row_number() over (order by c)",
    "select * from (select id, grp from acc order by id) s limit 1",
    "select count(*) from (select distinct grp from acc) s, mark",
    "select count(*) from (select distinct grp from acc union select 1) s",
    "select count(*) from (select id from acc for update) s",
    "select count(*) from acc join (select n as id from mark) m on m.id = acc.id",
    "select count(*) from acc a join (select n, count(*) c from mark group by n) m on m.n = a.id",
    "select count(*) from acc a join (select distinct n from mark) m on m.n = a.id",
    "select count(*) from acc a join (select a.id from acc a join mark on a.id = acc_id) m on m.id = a.id",
    "select max(w) from mark join (select id, sum(weight) w from acc group by id) s on id = acc_id",
    "select count(*) from acc a join (select acc_id, n from mark limit 5) m on m.acc_id = a.id",
    "select sum(c) from acc a join (select acc_id, sum(n + 1) c from mark group by acc_id) m on acc_id = id",
    'select count(*) from acc join (select grp + 1 as g from "Kind%") k on g = acc.grp',
    "select count(array_agg) from (select array_agg(name order by grp) from acc) s",
    "select array_agg(amount order by amount) from acc",
    "select string_agg(name, note order by name) from acc where id = 0",
    'select count(*) from acc a where exists (select 1 from "Kind%" k where k.grp = a.grp)',
    'select count(*) from acc where grp = any (select grp from "Kind%")',
    'select count(*) from acc where grp in (select grp from "Kind%" order by grp limit 1)',
    "select min(marks) from acc",
    "select min(odd) from acc",
    "select count(mood) from acc where mood = 'ok'",
    "select odd, count(*) from acc group by odd",
    "select count(*) from acc where made < now()",
    "select count(*) from acc where made < 'now'",
    "select count(*) from acc where day < current_date",
    "select id, row_number() over (order by id) from acc order by id limit 3",
    "select count(*) from acc where id in (select id from acc)",
    "select count(*) from acc tablesample system (100)",
    "select id, count(*) from acc group by rollup (id)",
    "select id from acc order by id fetch first 2 rows with ties",
    "select count(acc) from acc",
    'select name collate "C" from acc order by 1 limit 3',
    "select id from acc order by id limit 1 + 1",
    "select id from acc",
    "select generate_series(1, grp) from acc order by 1 limit 3",
]


def answer(conn: Any, text: str, params: Any, *, ordered: bool) -> Any:
    try:
        cur = conn.execute(text, params)
    except psycopg.Error as error:
        return error.sqlstate
    rows = [tuple(map(repr, row)) for row in cur.fetchall()]
    columns = [(c.name, c.type_code) for c in cur.description]
    return columns, rows if ordered else sorted(rows), cur.rowcount


@pytest.mark.parametrize(("text", "params"), SPLIT)
def test_answers_in_parts(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str, params: Any
) -> None:
    ordered = "order by" in text
    assert answer(db, text, params, ordered=ordered) == answer(plain, text, params, ordered=ordered)
    if " from acc" in text:
        route = db.explain_route(text, params)
        assert len(route.asked) > 1, route
        assert not route.single


@pytest.mark.parametrize("text", [*JOINED, *DERIVED])
def test_what_is_joined_at_home(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str
) -> None:
    ordered = "order by" in text
    assert answer(db, text, None, ordered=ordered) == answer(plain, text, None, ordered=ordered)
    route = db.explain_route(text)
    assert len(route.asked) > 1, route


@pytest.mark.parametrize("text", NESTED)
def test_selects_in_selects(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str
) -> None:
    params = (50,) if "%s" in text else ()
    ordered = "order by" in text
    assert answer(db, text, params, ordered=ordered) == answer(plain, text, params, ordered=ordered)
    route = db.explain_route(text, params)
    assert len(route.asked) > 1, route


@pytest.mark.parametrize("text", [*WHOLE, *NOT_JOINED])
def test_not_in_parts(nodes: Cluster, plain: psycopg.Connection[Any], text: str) -> None:
    # What is not understood keeps a connection on its node, so each has its own.
    with shardman.connect(nodes.dsn(2), autocommit=True, options="-c timezone=Asia/Tokyo") as db:
        route = db.explain_route(text)
        assert not route.asked, route
        found = answer(db, text, None, ordered=False)
    # Sums of floating point depend on the order, on one server, too.
    if "weight" not in text:
        assert found == answer(plain, text, None, ordered=False)


NUMBERS = st.sampled_from(
    ("id", "grp", "small", "amount", "grp * 2", "amount - grp", "coalesce(grp, 9)", "-amount", "id % 9",
     "length(name)", "amount / 3", "case when active then grp else small end")
)  # fmt: skip
FUNCTIONS = ("sum", "avg", "min", "max", "count", "variance", "stddev", "var_pop", "stddev_pop")
KEYS = st.sampled_from(
    ("grp", "small", "name", "note", "active", "day", "id % 4", "upper(note)", "grp is null")
)
CONDITIONS = st.sampled_from(
    ("", " where grp > 2", " where note like 'ä%' or active", " where amount between 10 and 90 and not active",
     " where name in ('Name 1', 'Name 2')", " where day < date '2024-01-09'", " where made > '2024-03-01'",
     " where id is distinct from 7 and grp is not null", " where id in (1, 2, 3, 4, 5, 6, 7, 8)")
)  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> str:
    """Groups, sorted by all that tells them apart."""
    keys = draw(st.lists(KEYS, max_size=2, unique=True))
    only = draw(st.sampled_from(("", "", " filter (where active)")))
    found = [
        f"{draw(st.sampled_from(FUNCTIONS))}({draw(NUMBERS)}){only}"
        for _ in range(draw(st.integers(1, 3)))
    ]
    found += draw(st.lists(KEYS.map(lambda k: f"count(distinct {k})"), max_size=1))
    text = f"select {', '.join([*keys, *found])} from acc{draw(CONDITIONS)}"
    if keys:
        text += f" group by {', '.join(keys)}"
        text += draw(
            st.sampled_from(("", " having count(*) > 3", " having min(id) < 20 or sum(grp) > 9"))
        )
        numbers = [str(n + 1) for n in range(len(keys))]
        text += " order by " + ", ".join(draw(st.permutations(numbers)))
        text += draw(st.sampled_from(("", " limit 4", " limit 3 offset 2")))
    return text


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(text=questions())
def test_generated(db: shardman.Connection, plain: psycopg.Connection[Any], text: str) -> None:
    expected = answer(plain, text, None, ordered=True)
    assert answer(db, text, None, ordered=True) == expected, db.explain_route(text)


@st.composite
def nested(draw: st.DrawFn) -> str:
    """A question about what a question gives, or about what it is asked of, in parentheses or behind WITH."""
    function = draw(st.sampled_from(("sum", "avg", "min", "max", "count", "count(*) +count")))
    if draw(st.booleans()):
        keys = draw(st.lists(KEYS, min_size=1, max_size=2, unique=True))
        shown = ", ".join(f"{k} as k{i}" for i, k in enumerate(keys))
        by = draw(
            st.sampled_from(
                (f" group by {', '.join(keys)}", f" group by {', '.join(keys)} having count(*) > 3")
            )
        )
        value = f"{draw(st.sampled_from(('sum', 'min', 'count', 'avg')))}({draw(NUMBERS)})"
        inner = f"select {shown}, {value} as v from acc{draw(CONDITIONS)}{by}"
        if draw(st.booleans()):
            inner = f"select distinct {shown}, {draw(NUMBERS)} as v from acc{draw(CONDITIONS)}"
    else:
        inner = f"select {draw(KEYS)} as k0, {draw(NUMBERS)} as v from acc{draw(CONDITIONS)}"
    text = f"{function}(s.v), count(distinct k0), count(*) from"
    only = draw(st.sampled_from(("", " where v > 3", " where k0 is not null and v <> 7")))
    last = draw(
        st.sampled_from(("", " group by k0 order by k0", " group by 1 order by 1 desc limit 3"))
    )
    text = f"select {'k0, ' if last else ''}{text}"
    if draw(st.booleans()):
        return f"with s as ({inner}) {text} s{only}{last}"
    return f"{text} ({inner}) s{only}{last}"


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(text=nested())
def test_generated_in_each_other(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str
) -> None:
    expected = answer(plain, text, None, ordered=True)
    assert answer(db, text, None, ordered=True) == expected, db.explain_route(text)


SIDES = st.sampled_from(
    ("acc a", "mark m", '"Kind%" k', "acc b", "mark o", "(select acc_id, n from mark where v > 1) p",
     "(select acc_id, count(*) as n from mark group by acc_id) q", '(select distinct grp from "Kind%") r',
     "(select acc_id, n from mark group by acc_id, n) s")
)  # fmt: skip
COLUMNS = {"a": "id", "b": "id", "k": "grp", "r": "grp", **dict.fromkeys("mopqs", "acc_id")}
OTHER_COLUMNS = {"a": "grp", "b": "small", "k": "grp", "r": "grp", **dict.fromkeys("mopqs", "n")}


@st.composite
def joins(draw: st.DrawFn) -> str:
    """Tables joined in any order, by their keys or not."""
    sides = draw(st.lists(SIDES, min_size=2, max_size=4, unique=True))
    text, known = sides[0], [sides[0][-1]]
    for each in sides[1:]:
        new, old = each[-1], draw(st.sampled_from(known))
        names = [draw(st.sampled_from((COLUMNS, COLUMNS, OTHER_COLUMNS)))[x] for x in (old, new)]
        kind = draw(st.sampled_from(("join", "left join", "left join", "right join")))
        text += f" {kind} {each} on {old}.{names[0]} = {new}.{names[1]}"
        known.append(new)
    counts = ", ".join(f"count({x}.{COLUMNS[x]}), sum({x}.{OTHER_COLUMNS[x]})" for x in known)
    text = f"select {counts}, count(*) from {text}"
    one, other = draw(st.sampled_from(known)), draw(st.sampled_from(known))
    return text + draw(
        st.sampled_from(
            ("", f" where {one}.{COLUMNS[one]} = {other}.{COLUMNS[other]}", f" where {one}.{COLUMNS[one]} < 30",
             f" where {one}.{OTHER_COLUMNS[one]} is null")
        )
    )  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(text=joins())
def test_generated_joins(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str
) -> None:
    expected = answer(plain, text, None, ordered=True)
    assert answer(db, text, None, ordered=True) == expected, db.explain_route(text)


def test_in_transactions(nodes: Cluster) -> None:
    with shardman.connect(nodes.dsn(3)) as db:
        count = "select count(*) from acc"
        assert db.execute(count).fetchone() == (400,)
        with db.transaction():
            db.execute("insert into acc (id) values (1001)")
            # Its own writes are seen.
            assert not db.explain_route(count).asked
            assert db.execute(count).fetchone() == (401,)
            raise psycopg.Rollback
        assert db.execute(count).fetchone() == (400,)
        db.rollback()
        # Parts on several nodes answer each for its own.
        for key in range(1001, 1013):
            db.execute("insert into acc (id, grp) values (%s, 99)", (key,))
        assert len(db.router.parts()) > 1
        assert db.execute(count).fetchone() == (412,)
        assert db.execute("select grp, max(id) from acc where grp > 6 group by 1").fetchall() == [
            (99, 1012)
        ]
        rows = db.execute("select id, grp from acc where grp = 99 order by id")
        assert rows.fetchall() == [(key, 99) for key in range(1001, 1013)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            db.execute("select sum(1 / (id - 7)) from acc")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            db.execute(count)
        db.rollback()
        with db.snapshot():
            assert db.execute(count).fetchone() == (400,)
        db.rollback()
        db.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        assert not db.explain_route(count).asked
        assert db.execute(count).fetchone() == (400,)
        db.rollback()
    with (
        shardman.connect(nodes.dsn(3), autocommit=True, fanout="single") as db,
        pytest.raises(psycopg.errors.FeatureNotSupported),
    ):
        db.execute("select count(*) from acc")


def test_asynchronous(nodes: Cluster) -> None:
    async def ask() -> Any:
        async with await shardman.AsyncConnection.connect(nodes.dsn(1)) as db:
            assert len(db.explain_route("select max(id) from acc").asked) > 1
            return await (
                await db.execute("select max(id) from acc where grp < %s", (3,))
            ).fetchone()

    assert asyncio.run(ask()) == (400,)


STREAMED = [
    ("select id, name, grp from acc", None),
    (
        "select id as n, id, upper(note) || '%%' as \"a %%\" from acc a where id > %s or note is null",
        (9,),
    ),
    ("select * from mark order by v desc, acc_id, n", None),
    ("select grp, id, made from acc order by grp, made desc", None),
    ("select active, grp, id from acc order by active desc, grp desc nulls last, id", None),
    ("select day, id, amount from acc order by 1 nulls first, amount, id desc", None),
    (
        "select m.acc_id, m.n, a.name from acc a join mark m on a.id = m.acc_id order by acc_id, n",
        None,
    ),
    ("select id from acc where false order by id", None),
]


@pytest.mark.parametrize(("text", "params"), STREAMED)
def test_streams(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str, params: Any
) -> None:
    streaming = db.cursor(row_factory=dict_row)
    mine = [repr(r) for r in streaming.stream(text, params)]
    with plain.cursor(row_factory=dict_row) as cur:
        theirs = [repr(r) for r in cur.execute(text, params).fetchall()]
        # psycopg knows none before there is a row.
        shown = [(c.name, c.type_code) for c in streaming.description or cur.description]
        assert shown == [(c.name, c.type_code) for c in cur.description or ()]
        assert bool(mine) == (streaming.description is not None)
    assert streaming.execute("select 1 as one").fetchone() == {"one": 1}
    assert (mine if "order by" in text else sorted(mine)) == (
        theirs if "order by" in text else sorted(theirs)
    )
    streams = db.drive(db.router.streams(text, params))
    assert len(streams.sessions) > 1
    db.drive(db.router.streamed(streams))


@pytest.mark.parametrize(
    "text",
    [
        "select id, name from acc order by name",
        "select id from acc order by grp",
        "select id, weight from acc order by weight",
        "select count(*) from acc",
        "select id from acc order by id limit 7",
        "select id, marks from acc",
    ],
)
def test_streams_through_a_node(
    db: shardman.Connection, plain: psycopg.Connection[Any], text: str
) -> None:
    assert db.drive(db.router.streams(text, None)) is None
    assert sorted(db.cursor().stream(text)) == sorted(plain.execute(text).fetchall())


def test_a_stream_is_left_in_the_middle(nodes: Cluster) -> None:
    many = "select a.id, b.id, c.grp from acc a join acc b on b.id = a.id join acc c on c.id = a.id"
    with shardman.connect(nodes.dsn(2)) as db:
        for size in (1, 10):
            rows = db.cursor().stream(f"{many} order by a.id", size=size)
            assert [next(rows)[0] for _ in range(3)] == [1, 2, 3]
            rows.close()
            assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            assert db.execute("select count(*) from acc").fetchone() == (400,)
        with pytest.raises(psycopg.errors.DivisionByZero) as failed:
            list(db.cursor().stream("select 1 / (id - 7) as x, id from acc order by id"))
        assert failed.value.node.startswith("node ")  # type: ignore[attr-defined]
        assert db.execute("select count(*) from acc").fetchone() == (400,)

    async def use() -> list[Any]:
        async with await shardman.AsyncConnection.connect(nodes.dsn(2)) as db:
            async with aclosing(db.cursor().stream("select id from acc order by id desc")) as rows:
                assert await anext(rows) == (400,)
            found = [r async for r in db.cursor().stream("select id, grp from acc order by id")]
            await db.rollback()
            return found

    assert [r[0] for r in asyncio.run(use())] == list(range(1, 401))


def test_memory_of_a_stream_is_bounded(nodes: Cluster) -> None:
    """Each of 400 rows is 1 MB wide. Not by getrusage: that knows what began this process, too."""
    text = "select id, repeat('x', 1000000) as wide from acc order by id"
    code = (
        "import re, sys, shardman\n"
        "from pathlib import Path\n"
        "db = shardman.connect(sys.argv[1], autocommit=True)\n"
        "print(sum(len(r[1]) for r in db.cursor().stream(sys.argv[2])))\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, nodes.dsn(2), text], check=True, capture_output=True, text=True
    )
    read, peak_kb = map(int, done.stdout.split())
    assert read == 400_000_000
    assert peak_kb < 150_000


def test_an_error_is_that_of_the_statement(db: shardman.Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        db.execute("select sum(id / (id - 7)) from acc")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        db.execute("select sum(nothing) from acc")


def test_rights_and_policies(nodes: Cluster) -> None:
    for node in (0, 1, 2, 3):
        nodes.sql(node, "create role asks login password 'asks'")
    nodes.sql(1, "grant select (id, grp) on acc to asks")
    dsn = psycopg.conninfo.make_conninfo(nodes.dsn(2), user="asks", password="asks")

    def asks() -> Any:
        with shardman.connect(dsn, autocommit=True) as db:
            assert len(db.explain_route("select count(*) from acc").asked) > 1
            found = db.execute("select count(*), max(grp) from acc where id < 400").fetchone()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute("select max(amount) from acc")
            return found

    eventually("the rights", asks, until=lambda row: row == (399, 6), tolerate=psycopg.Error)
    # What a policy of the table hides, each part hides.
    nodes.sql(3, "alter table acc enable row level security")
    assert asks() == (0, None)
    nodes.sql(3, "create policy few on acc using (grp = 4)")
    few = nodes.value(1, "select count(*) from acc where id < 400 and grp = 4")
    assert asks() == (few, 4)
    nodes.sql(2, "drop policy few on acc")
    nodes.sql(1, "alter table acc disable row level security")
    assert asks() == (399, 6)


def test_a_partition_that_moves_meanwhile(nodes: Cluster) -> None:
    with shardman.connect(nodes.dsn(1), autocommit=True, refresh_seconds=3600) as db:
        question = "select count(*), sum(id) from acc"
        before = db.execute(question).fetchone()
        assert before == (400, 80200)
        owner = nodes.value(0, "select owner from shardman.partitions where part_name = 'acc_2'")
        to = random.Random(1).choice([n for n in (1, 2, 3) if n != owner])
        assert nodes.cmd(f"select shardman.move_part('acc_2', {to})").status == "success"  # type: ignore[arg-type]
        assert db.execute(question).fetchone() == before
        assert nodes.cmd("select shardman.set_partitions_count('acc', 12)").status == "success"
        assert db.execute(question).fetchone() == before


def test_nodes_on_one_machine_answer_without_parallel_workers(nodes: Cluster) -> None:
    willing = "".join(
        f" -c {name}=0"
        for name in (
            "min_parallel_table_scan_size",
            "parallel_setup_cost",
            "parallel_tuple_cost",
        )
    )
    with shardman.connect(nodes.dsn(2), autocommit=True, options=willing) as db:
        db.execute("select count(*) from acc")
        sessions = db.router.sessions
        assert len(sessions) == 3
        assert sharing_a_machine(sessions, 2) == set(sessions)
        # With so many workers for one statement a server would be as busy as three with one worker each.
        assert sharing_a_machine(sessions, 5) == set()
        for text in ("select count(*), sum(amount) from acc", "select grp from acc group by grp"):
            question = db.router.plan(text, with_parameters=False).question
            assert question is not None
            numbers = tuple(range(6))

            def plan(*, alone: bool, question: Any = question, numbers: Any = numbers) -> str:
                asked = question.asked(numbers, alone=alone)
                rows = sessions[HERE].execute("explain " + asked, {"none": None}).fetchall()
                return "\n".join(r[0] for r in rows)

            # Only partitions of this node's own can be read by workers.
            own = [i for i, p in enumerate(question.table.parts) if p.node == HERE]
            assert "Gather" in plan(alone=False, numbers=tuple(own))
            assert "Gather" not in plan(alone=True, numbers=tuple(own))


def test_tables_of_rows_are_named_only_where_they_are_the_partitions(nodes: Cluster) -> None:
    """A client that hears of nothing: of neither a policy, nor a replica that has become the primary."""
    nodes.sql(1, "create table led (id int primary key, n int)")
    made = nodes.cmd("select shardman.create_hash_partitions(1, 'led', 'id', 6)")
    assert made.status == "success", made
    nodes.sql(1, "insert into led select i, 1 from generate_series(1, 100) i")
    owner = nodes.value(0, "select owner from shardman.partitions where part_name = 'led_0'")
    other = next(n for n in (1, 2, 3) if n != owner)
    done = nodes.cmd(f"select shardman.create_replica('led_0', {other})")  # type: ignore[arg-type]
    assert done.status == "success", done
    question = "select count(*), sum(n) from led"
    with shardman.connect(nodes.dsn(owner), autocommit=True, refresh_seconds=3600) as db:
        assert len(db.explain_route(question).asked) > 1
        assert db.execute(question).fetchone() == (100, 100)
        db.router._ear.heard = db.router._heard = -1  # type: ignore[union-attr]
        done = nodes.cmd(f"select shardman.switch_primary('led_0', {other})")  # type: ignore[arg-type]
        assert done.status == "success", done
        nodes.sql(other, "update led set n = 2")
        assert db.execute(question).fetchone() == (100, 200)
    nodes.sql(1, "create role led_owner login password 'led'")
    for node in (0, 2, 3):
        eventually("the role", lambda n=node: _makes_role(nodes, n, "led_owner"))
    nodes.sql(1, "alter table led owner to led_owner")
    dsn = psycopg.conninfo.make_conninfo(nodes.dsn(2), user="led_owner", password="led")
    with (
        shardman.connect(dsn, autocommit=True, refresh_seconds=3600) as db,
        psycopg.connect(dsn, autocommit=True) as plain,
    ):
        for conn in (db, plain):
            eventually(
                "the owner's rights",
                lambda c=conn: c.execute(question).fetchone() == (100, 200),  # type: ignore[attr-defined]
                tolerate=psycopg.Error,
            )
        nodes.sql(1, "create policy early on led using (id <= 10)")
        nodes.sql(1, "alter table led enable row level security, force row level security")
        assert db.execute(question).fetchone() == (10, 20)
    with shardman.connect(dsn, autocommit=True) as db:
        assert len(db.explain_route(question).asked) > 1
        assert db.execute(question).fetchone() == (10, 20)


def _makes_role(nodes: Cluster, node: int, name: str) -> bool:
    if not nodes.sql(node, "select from pg_roles where rolname = %s", (name,)):
        nodes.sql(node, f"create role {name} login password 'led'")  # type: ignore[arg-type]
    return True
