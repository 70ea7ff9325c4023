"""What is one statement, and what several: text of users, in which quotes may hide a semicolon or not."""

from __future__ import annotations

import pytest

from sql.databases import Node

ONE = [
    "alter table acc add b int",
    "alter table acc add b int ; ",
    "comment on table acc is 'a; b'",
    "comment on table acc is $$a; b$$",
    "comment on table acc is $x$a; $$ b$x$",
    r"comment on table acc is E'a\'; b'",
    'alter table acc rename b to "c;d"',
    "alter table acc /* ; */ add b int -- ;",
    "-- first\nalter table acc add b int",
    "set constraints all immediate; alter table acc add b int",
]
SEVERAL = [
    "alter table acc add b int; drop table other",
    "comment on table acc is $$x$$; drop table other; comment on table acc is $$y$$",
    "comment on table acc is $x$x$x$; drop table other; comment on table acc is $x$y$x$",
    r"comment on table acc is E'a\'b'; drop table other; comment on table acc is 'c'",
    "comment on table acc is 'x'; drop table other; comment on table acc is 'y'",
    'alter table acc rename "b" to c; drop table other; alter table acc rename "c" to d',
    "comment on table acc is $$x$$; drop table other; comment on table acc is '$$'",
]


@pytest.mark.parametrize("query", ONE)
def test_one(node: Node, query: str) -> None:
    assert node.value("select shardman.one_statement(%s)", query) is not None


@pytest.mark.parametrize("query", SEVERAL)
def test_several(node: Node, query: str) -> None:
    assert node.value("select shardman.one_statement(%s)", query) is None


CASTS = [
    ("alter a type int using a::int", "alter a type int"),
    ('alter column "A b" type numeric(8, 2) using "A b"::numeric(8, 2)', None),
    ('alter a set data type text collate pg_catalog."C" using(a::text)', None),
    ("alter a type int USING ( a :: int ), alter b type text using b::text, drop c", None),
    ("alter a type int using b::int", "alter a type int using b::int"),
    ("alter a type int using a::int + 1", "alter a type int using a::int + 1"),
    ("alter a type int using a::int8", "alter a type int using a::int8"),
    ("alter a type int using (a::int", "alter a type int using (a::int"),
]


@pytest.mark.parametrize(("actions", "left"), CASTS)
def test_using_that_is_but_the_cast(node: Node, actions: str, left: str | None) -> None:
    query = "select shardman.without_casts(%s)"
    said = str(node.value(query, "alter table acc " + actions)).removeprefix("alter table acc ")
    assert said == left if left else "using" not in said.lower()
