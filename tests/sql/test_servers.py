"""Foreign servers and user mappings follow the metadata, and the roles that there are."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from sql.databases import Node, Nodes, numbers

OPTIONS = """
select jsonb_object_agg(o.option_name, o.option_value)
  from pg_foreign_server s, pg_options_to_table(s.srvoptions) o where s.srvname = %s
"""
MAPPING = """
select jsonb_object_agg(o.option_name, o.option_value)
  from pg_user_mappings m, pg_options_to_table(m.umoptions) o where m.srvname = %s and m.usename = %s
"""


@pytest.fixture
def sharded(nodes: Nodes) -> Nodes:
    nodes[1].run("create table acc (id int primary key, note text)")
    nodes[1].run("insert into acc select i, 'n' || i from generate_series(1, 50) i")
    nodes.shard("acc", "id")
    return nodes


@pytest.fixture
def role(sharded: Nodes) -> Iterator[str]:
    """A role without rights; databases of one server share it."""
    name = f"clerk_{next(numbers)}"
    sharded[1].run(f"create role {name} login")
    yield name
    for node in sharded.all:
        node.run(f"drop owned by {name}")
    sharded[1].run(f"drop role {name}")


def as_role(node: Node, name: str, query: str) -> list[tuple[object, ...]]:
    with node.connect(user=name) as conn:
        return conn.execute(query.encode()).fetchall()


def test_a_setting_of_the_cluster_is_a_setting_of_every_server(nodes: Nodes) -> None:
    nodes.receive(("insert into shardman.settings values ('fetch_size', '77')", ()))
    for node in nodes.all:
        for other in nodes.all:
            if other is not node:
                assert node.value(OPTIONS, f"shardman_node_{other.id}")["fetch_size"] == "77"
    nodes.receive(("delete from shardman.settings", ()))
    assert nodes[1].value(OPTIONS, "shardman_node_2")["fetch_size"] == "10000"


def test_a_new_address_is_followed(nodes: Nodes) -> None:
    nodes[1].receive(
        (
            """update shardman.nodes set options = options - 'port' || '{"sslmode": "prefer"}'
                where id = 2""",
            (),
        )
    )
    options = nodes[1].value(OPTIONS, "shardman_node_2")
    assert options["sslmode"] == "prefer"
    assert "port" not in options


def test_a_password_is_followed(nodes: Nodes) -> None:
    insert = "insert into shardman.node_secrets values (2, 'it''s %s secret')"
    nodes.receive((insert.replace("%", "%%"), ()))
    password = nodes[1].value(MAPPING, "shardman_node_2", "postgres")["password"]
    assert password == "it's %s secret"
    nodes.receive(("delete from shardman.node_secrets", ()))
    assert nodes[1].value(MAPPING, "shardman_node_2", "postgres") == {"user": "postgres"}


@pytest.mark.parametrize(
    "grant",
    [
        "grant select on acc to {}",
        "grant select (id) on acc to {}",
        "grant pg_read_all_data to {}",
        "grant select on acc to public",
        "alter table acc owner to {}",
    ],
)
def test_whoever_may_read_a_table_reaches_its_rows(sharded: Nodes, role: str, grant: str) -> None:
    node = sharded[2]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(node, role, "select count(id) from acc")
    node.run(grant.format(role))
    assert node.reconcile() == 0
    assert as_role(node, role, "select count(id) from acc") == [(50,)]
    node.run("revoke select on acc from public")
    node.run(f"revoke pg_read_all_data from {role}")
    node.run("alter table acc owner to postgres")


def test_roles_of_a_group_and_the_group_itself(sharded: Nodes, role: str) -> None:
    node = sharded[2]
    node.run("create role readers nologin")
    node.run("grant select on acc to readers")
    node.run(f"grant readers to {role}")
    assert node.reconcile() == 0
    assert as_role(node, role, "select count(*) from acc") == [(50,)]
    with node.connect(user=role) as conn:
        conn.execute("set role readers")
        assert conn.execute("select count(*) from acc").fetchone() == (50,)
    node.run("drop owned by readers")
    node.run("drop role readers")


def test_a_role_cannot_change_how_it_reaches_others(sharded: Nodes, role: str) -> None:
    node = sharded[2]
    node.run(f"grant select on acc to {role}")
    assert node.reconcile() == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(
            node,
            role,
            f"alter user mapping for {role} server shardman_node_1 options (set user 'other')",
        )


def test_a_removed_node_is_nowhere_to_be_reached(sharded: Nodes) -> None:
    removed = "update shardman.nodes set worker_status = 'removed' where id = 1"
    sharded[2].receive((removed, ()))
    with pytest.raises(psycopg.Error, match="node 1 was removed from the cluster"):
        sharded[2].rows("select * from acc")
    sharded[2].receive(("delete from shardman.partitions", ()))
    assert sharded[2].value(OPTIONS, "shardman_node_1") is not None  # its routes are there still
    sharded[2].receive(("delete from shardman.tables", ()))
    sharded[2].reconcile()  # the routes
    sharded[2].reconcile()  # then the server that nothing uses any more
    assert sharded[2].value(OPTIONS, "shardman_node_1") is None


def test_one_that_fails_keeps_none_of_the_others(nodes: Nodes) -> None:
    node = nodes[1]
    node.receive(
        ('update shardman.nodes set options = options || \'{"no_such": "1"}\' where id = 0', ()),
        (
            'update shardman.nodes set options = options || \'{"sslmode": "prefer"}\' where id = 2',
            (),
        ),
    )
    assert node.value(OPTIONS, "shardman_node_2")["sslmode"] == "prefer"
    assert 'invalid option "no_such"' in node.drift()["servers"]
    assert node.reconcile() == 1
    node.receive(("update shardman.nodes set options = options - 'no_such' where id = 0", ()))
    assert node.reconcile() == 0
    assert node.drift() == {}


def test_who_is_asked_tells_whether_it_is_the_one_meant(nodes: Nodes) -> None:
    node = nodes[1]
    address = "select options from shardman.nodes where id = 2"
    ask = f"select shardman.try_node(({address}), null, 'abcdef', %s)"
    before = node.value("select count(*) from pg_foreign_server")
    assert node.value(ask, 2) is None
    assert "another server or database" in node.value(ask, 0)
    with nodes[2].connect() as witness:
        row = witness.execute(
            "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        ask = f"select shardman.try_session(({address}), null, %s, %s)"
        assert node.value(ask, *row) is None
    nowhere = (
        'select shardman.try_node(\'{"host": "127.0.0.1", "port": "1"}\', \'hush\', \'abcdef\', 2)'
    )
    assert "refused" in node.value(nowhere)
    assert "hush" not in node.value(nowhere)
    assert node.value("select count(*) from pg_foreign_server") == before
