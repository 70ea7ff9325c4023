"""The roles shardman_viewer and shardman_operator: what they may, and that nobody else may it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from shardman.pg.connection import SyncConnection
from sql.databases import Node, Nodes

pytestmark = pytest.mark.server

READABLE = """
select c.oid::regclass::text from pg_class c
 where c.relnamespace = 'shardman'::regnamespace and c.relkind in ('r', 'v') and c.relname <> 'inbox'
   and c.relname !~ 'secret|^replaced_rows$'
"""
SECRET = ("node_secrets", "cmd_secrets", "road_secret", "inbox", "replaced_rows")
LOGIN = "create role {} login password '{}'"


@pytest.fixture
def people(nodes: Nodes) -> Iterator[Nodes]:
    """Alice may command, victor may look, mallory has nothing."""
    admin = nodes[0]
    for name in ("alice", "victor", "mallory"):
        admin.run(LOGIN.format(name, admin.password))
    admin.run("grant shardman_operator to alice; grant shardman_viewer to victor")
    yield nodes
    admin.run("drop role alice, victor, mallory")


def as_role(node: Node, name: str) -> SyncConnection:
    return node.connect(user=name)


def refused(conn: SyncConnection, query: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(query.encode())


@pytest.mark.parametrize("node_id", [0, 1])
def test_a_viewer_reads_all_but_secrets_and_commands_nothing(people: Nodes, node_id: int) -> None:
    node = people[node_id]
    with as_role(node, "victor") as conn:
        for (name,) in node.rows(READABLE):
            conn.execute(f"select * from {name}".encode())
        for name in SECRET:
            refused(conn, f"select * from shardman.{name}")
        assert conn.execute("select shardman.my_id()").fetchone() == (node_id,)
        for query in (
            "select shardman.rm_node(2)",
            "select shardman.cancel_cmd(1)",
            "select shardman.submit('rm_node', '{}')",
            "select shardman.accept('rm_node', '{}', null, 'victor')",
            "insert into shardman.inbox (cmd_type) values ('rm_node')",
            "insert into shardman.settings values ('failover_after', '1')",
            "select shardman.reconcile()",
            "select shardman.road_password('shardman_alice')",
        ):
            refused(conn, query)


@pytest.mark.parametrize("node_id", [0, 1])
def test_an_operator_submits_and_cancels(people: Nodes, node_id: int) -> None:
    assert people[1].reconcile() == 0
    with as_role(people[node_id], "alice") as conn:
        row = conn.execute("select shardman.move_part('acc_0', 2)").fetchone()
        assert row is not None
        log = "select status::text, submitted_by from shardman.cmd_log where id = %s"
        assert people[0].rows(log, row[0]) == [("waiting", "alice")]
        assert conn.execute("select shardman.cancel_cmd(%s)", row).fetchone() == (True,)
        assert people[0].rows(log, row[0]) == [("canceled", "alice")]
        # It would be given everybody's passwords.
        refused(conn, "select shardman.add_node('host=evil')")
        refused(conn, "select shardman.submit('add_node', '{}', 'host=evil')")
        refused(conn, "delete from shardman.nodes")
        refused(conn, "select * from shardman.node_secrets")
        # What he makes in his session is not mistaken for ours.
        conn.execute("create temp table pg_roles (rolname name, rolsuper bool)")
        conn.execute("insert into pg_temp.pg_roles values ('alice', true)")
        refused(conn, "select shardman.add_node('host=evil')")
        conn.execute("drop table pg_temp.pg_roles")


def test_nobody_else_sees_or_submits(people: Nodes) -> None:
    with as_role(people[1], "mallory") as conn:
        for query in (
            "select * from shardman.nodes",
            "select * from shardman.commands",
            "select shardman.move_part('acc_0', 2)",
            "set role shardman_operator",
        ):
            refused(conn, query)


def test_a_strangers_role_is_not_adopted(node: Node) -> None:
    node.run("comment on role shardman_operator is null")
    with pytest.raises(psycopg.Error, match="a role shardman_operator that is not ours") as error:
        node.run("select shardman.ensure_roles()")
    assert "ALTER ROLE shardman_operator RENAME" in str(error.value.diag.message_hint)
