"""Any name of a schema, table, column, constraint, index, sequence or policy will do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

import shardman
from sql.conftest import make_nodes
from sql.databases import Node, Nodes, numbers

ROLE = '"Ad min".é%s\'\\ $1'
#: What means something to SQL, psycopg, format(), regular expressions, libpq or shells.
LETTERS = "aZ_9 \"'.%\\$;,:()[]{}|*+?^=-/#@!~`<>&\n\tßé漢"
TABLE_SQL = """
create schema {schema};
create sequence {sequence};
create table {table} (
    {key} bigint default nextval({sequence_name}::regclass), {value} text default {text} not null,
    constraint {check} check ({value} <> {text} || 'x'), constraint {pk} primary key ({key})
);
alter sequence {sequence} owned by {table}.{key};
create unique index {index} on {table} ({key}, ({value} || {text}));
create statistics {stat} on {key}, {value} from {table};
comment on column {table}.{value} is {text};
alter table {table} enable row level security;
create policy {policy} on {table} using (exists (select 1 where {table}.{value} <> {text}));
insert into {table} ({value}) select i::text from generate_series(1, 20) i
"""


@st.composite
def names(draw: st.DrawFn, size: int = 63) -> str:
    """What PostgreSQL takes for a name as it is, often of the greatest length."""
    text = draw(st.text(LETTERS, min_size=1, max_size=20))
    if draw(st.booleans()):
        text += "x" * size
    return text.encode()[:size].decode(errors="ignore")


@pytest.fixture(scope="module")
def cluster(server: str) -> Iterator[Nodes]:
    """Its role and databases have names of this kind too."""
    role = sql.Identifier(ROLE)
    with psycopg.connect(server, autocommit=True) as admin:
        password = admin.info.password
        admin.execute(sql.SQL("create role {} superuser login password {}").format(role, password))
    with closing(make_nodes(server, range(3), user=ROLE, suffix=" \"D\" 'b'.é%\\")) as made:
        yield made


@settings(max_examples=3, derandomize=True, database=None)
@given(
    st.lists(names(), min_size=9, max_size=9, unique=True), names(55), st.text(LETTERS, max_size=9)
)
def test_a_table_of_any_names(cluster: Nodes, words: list[str], table: str, text: str) -> None:
    schema = words[0].encode()[:50].decode(errors="ignore") + f" {next(numbers)}"
    key, value, sequence = words[1], words[2], sql.Identifier(schema, words[3])
    relation = sql.Identifier(schema, table).as_string(None)
    cluster[1].conn.execute(
        sql.SQL(TABLE_SQL).format(
            schema=sql.Identifier(schema),
            table=sql.SQL(relation),
            sequence=sequence,
            sequence_name=sequence.as_string(None),
            text=text,
            **dict(
                zip(
                    ("key", "value", "check", "pk", "index", "policy"),
                    map(sql.Identifier, (key, value, *words[4:8])),
                    strict=True,
                )
            ),
            stat=sql.Identifier(schema, words[8]),
        )
    )
    cluster.shard(relation, sql.Identifier(key).as_string(None))
    everywhere = sql.SQL("select count(*), max({}) from {}").format(
        sql.Identifier(key), sql.SQL(relation)
    )
    for node in cluster.all:
        assert node.reconcile() == 0
        assert node.drift() == {}
        insert = sql.SQL("insert into {} values (default, 'new')").format(sql.SQL(relation))
        node.conn.execute(insert)
    for node in cluster.all:
        assert node.conn.execute(everywhere).fetchone()[0] == 23  # type: ignore[index]
    part = cluster[1].value("select shardman.suffixed(%s, '_1')", relation)
    cluster.move(part, 1, 2)
    cluster.own(part, 2)
    for node in cluster.all:
        assert node.reconcile() == 0
        assert node.rows("select * from shardman.rights_apart(null)") == []
        assert node.conn.execute(everywhere).fetchone()[0] == 23  # type: ignore[index]


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("(note <> 'acc.x'::text)", "(note <> 'acc.x'::text)"),
        ("(s.id = acc.id) and ('it''s acc.' = acc.note)",
         "(s.id = acc_1.id) and ('it''s acc.' = acc_1.note)"),
        ('(app.acc.id = "acc.".id)', '(app.acc.id = "acc.".id)'),
    ],
)  # fmt: skip
def test_policies_are_rewritten_by_words(node: Node, expression: str, right: str) -> None:
    rewrite = "select shardman.policy_expression(%s, 'acc', 'acc_1')"
    assert node.value(rewrite, expression) == right


@pytest.mark.parametrize(
    ("key", "count"),
    [('"a;\\--$b"', 1), ('"a,/*", "-"', 2), ("lower('a') , \"'\"", 2), ("a;b", 0), ("a--", 0),
     ("e'\\'\"a'\"", 0), ('"a"$x', 0), ("a /* \" */, b, \" */", 0)],
)  # fmt: skip
def test_a_key_may_have_any_name_but_ends_no_statement(node: Node, key: str, count: int) -> None:
    split = "select cardinality(shardman.split_list(%s))"
    if count:
        assert node.value(split, key) == count
    else:
        with pytest.raises(psycopg.errors.SyntaxError):
            node.value(split, key)


def test_no_name_of_a_role_is_read_as_sql() -> None:
    """`current_user::regrole` folds case and looks for quotes: a role "Admin" is another one then."""
    folder = Path(shardman.__file__).parent
    for file in (*folder.rglob("*.sql"), *folder.rglob("*.py")):
        assert not re.search(r"_(user|userbyid|role)\b[^,;]{0,12}::\s*reg", file.read_text()), file
