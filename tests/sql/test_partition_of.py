"""Where a row lies: shardman.partition_of says it, and Python computes the same partition."""

from __future__ import annotations

import random

import psycopg
import pytest

from shardman.model.partition_hash import HASHERS, partition_number
from shardman.testing.hashes import VALUES, differing
from sql.databases import Node


@pytest.mark.parametrize("type_", HASHERS)
def test_python_hashes_as_the_server_does(node: Node, type_: str) -> None:
    r = random.Random(type_)
    values = [VALUES[type_](r) for _ in range(1500)]
    assert differing(node.conn, type_, values) == []


def test_several_columns_and_nulls(node: Node) -> None:
    node.run("create table two (a int, b text) partition by hash (a, b)")
    for k in range(7):
        node.run(
            f"create table two_{k} partition of two for values with (modulus 7, remainder {k})"
        )
    for a, b in [(1, "x"), (None, "x"), (1, None), (-5, "ü"), (None, None)]:
        number = partition_number(
            [
                None if a is None else HASHERS["integer"](a),
                None if b is None else HASHERS["text"](b),
            ],
            7,
        )
        text = None if a is None else str(a)
        found = node.rows("select partition from shardman.partition_of('two', %s, %s)", text, b)
        assert found == [(f"two_{number}",)]


def test_of_a_value_as_it_is_and_as_text(node: Node) -> None:
    node.run('create schema "S.x"; create table "S.x"."T y" (k date) partition by hash (k)')
    node.run(
        'create table "S.x"."T y_0" partition of "S.x"."T y" for values with (modulus 1, remainder 0)'
    )
    node.run("set local datestyle = 'SQL, DMY'")
    for call in ("date '2020-02-13'", "'2020-02-13'", "null"):
        found = node.value(f'select partition from shardman.partition_of(\'"S.x"."T y"\', {call})')
        assert found == '"S.x"."T y_0"'


def test_of_an_expression(node: Node) -> None:
    node.run("create table names (n varchar(9)) partition by hash (lower(n))")
    node.run("create table names_0 partition of names for values with (modulus 1, remainder 0)")
    assert node.value("select partition from shardman.partition_of('names', 'x')") == "names_0"


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("'pg_class', 1", "42P01"),
        ("'nowhere', 1", "42P01"),
        ("'one', 1, 2", "22023"),
        ("'one', 'x'", "22P02"),
    ],
)
def test_what_cannot_be(node: Node, call: str, state: str) -> None:
    node.run("create table one (k int) partition by hash (k)")
    with pytest.raises(psycopg.Error) as refused:
        node.rows(f"select * from shardman.partition_of({call})")
    assert refused.value.sqlstate == state
