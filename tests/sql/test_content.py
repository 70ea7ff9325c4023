"""Two tables have one content hash when they hold the same rows, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from sql.databases import Node

TABLE = """
create type mood as enum ('sad', 'ok');
create domain small as int check (value < 100);
create domain labels as text[];
create table here (id int, gone text, a int, b int, "T ext" text, v varchar(9), c char(5), n numeric,
                   at timestamptz, j jsonb, m mood, s small, l labels, ar int[], u uuid, x json,
                   f float8, bits bit varying, d date, yes bool, raw bytea);
alter table here drop column gone;
insert into here values
    (1, 3, 4, 'one', 'v', 'c', 1.5, '2020-01-01', '{"a": 1}', 'sad', 7, '{x}', '{1,2}',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"k": 1}', 0.1, '101', '-infinity', true, 'abc'),
    (2, 4, 3, 'two', null, '', -1, 'infinity', '[]', 'ok', null, null, null, null, null, 'nan', null,
     '5874897-12-31', false, null),
    (3, null, 3, '', '', 'c', 0, null, null, null, null, '{}', '{}', null, null, null, '', null, null, ''),
    (4, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
     null, null, null);
create table there as select * from here order by id desc;
"""


@pytest.fixture
def pair(node: Node) -> Node:
    node.run("set local search_path = public; set local timezone = 'UTC'; " + TABLE)
    return node


def content(node: Node, table: str) -> tuple[Any, ...]:
    (row,) = node.rows("select * from shardman.content_hash(%s)", table)
    return row


def test_order_and_dropped_columns_do_not_matter(pair: Node) -> None:
    assert content(pair, "here") == content(pair, "there")
    assert content(pair, "here")[0] == 4


@pytest.mark.parametrize(
    "change",
    [
        "delete from there where id = 4",
        "insert into there select * from there where id = 4",
        "update there set a = b, b = a where id = 1",
        "update there set a = 3 - a + 4 where id in (1, 2)",
        'update there set "T ext" = upper("T ext") where id = 1',
        "update there set v = '' where id = 2",
        "update there set v = null where id = 3",
        'update there set v = "T ext", "T ext" = v where id = 1',
        "update there set a = 0 where id = 4",
        "update there set n = 1.6 where id = 1",
        "update there set at = at + interval '1 microsecond' where id = 1",
        "update there set j = '{\"a\": 2}' where id = 1",
        "update there set m = 'ok' where id = 1",
        "update there set s = null where id = 1",
        "update there set l = '{y}' where id = 1",
        "update there set ar = '{2,1}' where id = 1",
        "update there set u = gen_random_uuid() where id = 1",
        "update there set x = '{\"k\": 2}' where id = 1",
        "update there set f = 0.2 where id = 1",
        "update there set bits = '1010' where id = 1",
        "update there set d = '2020-01-01' where id = 1",
        "update there set yes = null where id = 2",
        "update there set raw = null where id = 3",
    ],
)
def test_every_difference_matters(pair: Node, change: str) -> None:
    pair.run(change)
    assert content(pair, "here") != content(pair, "there")


def test_a_table_without_columns(node: Node) -> None:
    node.run("create table public.bare (); insert into public.bare default values")
    assert content(node, "bare") == (1, "0")


def test_every_version_hashes_alike(pair: Node) -> None:
    # The nodes of a cluster may run different versions.
    assert content(pair, "here")[1] == "-4460288646883912571"
