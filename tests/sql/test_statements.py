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
