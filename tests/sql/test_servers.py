"""Foreign servers and user mappings follow the metadata, and the roles that there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from sql.conftest import make_nodes
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
    sharded[1].run(f"create role {name} login password '{sharded[1].password}'")
    yield name
    for node in sharded.all:
        node.alone(f"drop owned by {name}")
    sharded[1].run(f"drop role {name}")
    settle(sharded)
    assert sharded[1].rows(LEFT) == []


def everywhere(nodes: Nodes, script: str) -> None:
    """As `shardman exec` runs it, and until all nodes have followed."""
    for node in nodes.all:
        node.alone(script)
    settle(nodes)


def settle(nodes: Nodes) -> None:
    for node in nodes.all:
        assert node.reconcile() == 0
        assert node.drift() == {}


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


def test_a_setting_bounds_what_is_fetched_of_any_table(nodes: Nodes) -> None:
    rows = "select shardman.fetched_at_once(%s, %s, %s)"
    one = nodes[1]
    assert one.value(rows, None, 10000, 10000) == 10000
    assert one.value(rows, 3000, 10000, 10000) == 10000
    assert one.value(rows, 3001, 10000, 10000) == 1000
    assert one.value(rows, 2000, 1000, 10000) == 1000, "nearly as wide as before: no lock for that"
    assert one.value(rows, 200, 1000, 10000) == 10000
    assert one.value(rows, 10**9, 10000, 10000) == 10
    assert one.value(rows, 100_000, 100, 50) == 50
    assert one.value(rows, 100, 1000, 50) == 50


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
    change = "update shardman.node_secrets set password = 'it''s %s secret' where node_id = 2"
    nodes.receive((change.replace("%", "%%"), ()))
    password = nodes[1].value(MAPPING, "shardman_node_2", "postgres")["password"]
    assert password == "it's %s secret"
    nodes.receive(("delete from shardman.node_secrets", ()))
    assert nodes[1].value(MAPPING, "shardman_node_2", "postgres") == {"user": "postgres"}
    nodes.receive(("insert into shardman.node_secrets values (2, %s)", (nodes[1].password,)))
    assert len(nodes[1].value(MAPPING, "shardman_node_2", "postgres")) == 2


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
    node.alone(grant.format(role))
    assert node.reconcile() == 0
    if "pg_read" not in grant:
        # Where the rows are, nobody has given it that right. Memberships are the whole server's.
        with pytest.raises(psycopg.Error):
            as_role(node, role, "select count(id) from acc")
    everywhere(sharded, grant.format(role))
    assert as_role(node, role, "select count(id) from acc") == [(50,)]
    everywhere(sharded, "revoke all on acc from public; alter table acc owner to postgres")
    everywhere(sharded, f"revoke all on acc from {role}; revoke pg_read_all_data from {role}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_role(sharded[1], role, "select count(id) from acc_0_data")


def test_roles_of_a_group_and_the_group_itself(sharded: Nodes, role: str) -> None:
    node = sharded[2]
    node.run("create role readers nologin")
    everywhere(sharded, f"grant select on acc to readers; grant readers to {role}")
    assert as_role(node, role, "select count(*) from acc") == [(50,)]
    with node.connect(user=role) as conn:
        conn.execute("set role readers")
        assert conn.execute("select count(*) from acc").fetchone() == (50,)
    everywhere(sharded, "drop owned by readers")
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


#: Logins that are ours, or look so, but for the two roles that are always there.
LEFT = """
select rolname from pg_roles
 where rolname like 'shardman%' and rolname not in ('shardman_operator', 'shardman_viewer')
"""
ROADS = """
select r.rolname, r.rolinherit, r.rolsuper, array_agg(g.rolname::text), shardman.road_cluster(r.oid)
  from pg_roles r join pg_auth_members m on m.member = r.oid join pg_roles g on g.oid = m.roleid
 where r.rolcanlogin and shardman.road_cluster(r.oid) is not null group by r.oid, 1, 2, 3 order by 1
"""


def test_a_road_login_is_kept_what_it_must_be(sharded: Nodes, role: str) -> None:
    everywhere(sharded, f"grant select on acc to {role}")
    login = f"shardman_{role}"
    road = [(login, False, False, [role], "abcdef")]
    assert sharded[1].rows(ROADS) == road
    stored = "select rolpassword from pg_authid where rolname = %s"
    before = sharded[1].value(stored, login)
    for change in (
        f"alter role {login} superuser",
        f"alter role {login} password 'known'",
        f"grant pg_read_all_data to {login}",
        f"alter role {login} reset role",
        f"revoke {role} from {login}",
        f"grant {login} to pg_monitor",
    ):
        sharded[1].run(change)
        settle(sharded)
        assert sharded[1].rows(ROADS) == road
        assert sharded[1].value("select bool_and(ready) from shardman.road_state()")
        assert as_role(sharded[2], role, "select count(*) from acc") == [(50,)]
    assert sharded[1].value(stored, login) != before
    assert sharded[1].value("select shardman.serves_database(r.oid, d.oid) from pg_roles r, pg_database d"
                            " where rolname = %s and datname = current_database()", login)  # fmt: skip


def test_a_login_of_a_strangers_is_not_touched(sharded: Nodes, role: str) -> None:
    node = sharded[1]
    node.run(f"create role shardman_{role} login password 'theirs'")
    node.run(f"grant select on acc to {role}")
    assert node.reconcile() == 1
    assert f"the role shardman_{role} is not the cluster's" in node.drift()["servers"]
    assert node.rows(ROADS) == []
    node.run(f"drop role shardman_{role}")
    settle(sharded)
    assert [row[0] for row in node.rows(ROADS)] == [f"shardman_{role}"]


def test_two_clusters_on_one_server_need_two_prefixes(sharded: Nodes, role: str) -> None:
    everywhere(sharded, f"grant select on acc to {role}")
    with closing(make_nodes(sharded[0].dsn, [0])) as others:
        other = others[0]
        other.run("update shardman.local set cluster = 'fedcba'")
        other.run("create table acc (id int primary key)")
        other.run(f"grant select on acc to {role}")
        others.shard("acc", "id", home=0)
        assert other.reconcile() == 1
        assert "is the road login of cluster abcdef" in other.drift()["servers"]
        others.receive(("insert into shardman.settings values ('road_prefix', 'other_')", ()))
        settle(others)
        assert [row[0] for row in other.rows(ROADS)] == [f"other_{role}", f"shardman_{role}"]
        other.run("select shardman.reset_database()")
        assert [row[0] for row in other.rows(ROADS)] == [f"shardman_{role}"]
        other.alone(f"drop owned by {role}")
    assert as_role(sharded[2], role, "select count(*) from acc") == [(50,)]


def test_roles_of_any_name(sharded: Nodes) -> None:
    names = ["Admin \"x\" 'y'", "ä" * 31, "operator", "a,b", "none such", "%I \\ $1"]
    password = sharded[1].password
    for name in names:
        everywhere(
            sharded,
            f"""do $do$ begin
                if not exists (select from pg_roles where rolname = {quoted(name)}) then
                    execute format('create role %I login password %L', {quoted(name)}, {quoted(password)});
                end if;
                execute format('grant select on acc to %I', {quoted(name)}); end $do$""",
        )
        who = "select distinct (select count(*) from acc), current_user::text"
        assert as_role(sharded[2], name, who) == [(50, name)]
    assert len(sharded[1].rows(ROADS)) == len(names)
    for name in names:
        drop = f"do $do$ begin execute format('drop owned by %I', {quoted(name)}); end $do$"
        everywhere(sharded, drop)
        sharded[1].run(drop.replace("drop owned by", "drop role"))
    settle(sharded)
    assert sharded[1].rows(ROADS) == []


def quoted(text: str) -> str:
    return sql.Literal(text).as_string(None)


def test_policies_reach_what_a_table_consists_of(sharded: Nodes, role: str) -> None:
    everywhere(sharded, "create table seen (by name, what int); grant select on seen to public")
    everywhere(sharded, f"insert into seen values ('{role}', 7), ('{role}', 8), ('else', 9)")
    everywhere(
        sharded,
        f"grant select, update on acc to {role};"
        " create policy p on acc using (exists (select from seen s where s.what = acc.id"
        " and s.by = current_user)); alter table acc enable row level security",
    )
    for node in sharded.all:
        assert as_role(node, role, "select id from acc order by 1") == [(7,), (8,)]
        parts = " union all ".join(f"select id from acc_{k}" for k in range(4))
        assert as_role(node, role, f"select id from ({parts}) p order by 1") == [(7,), (8,)]
        updated = "with u as (update acc set note = 'x' returning id) select id from u order by 1"
        assert as_role(node, role, updated) == [(7,), (8,)]
    data = " union all ".join(f"select id from acc_{k}_data" for k in range(4))
    assert as_role(sharded[1], role, f"select id from ({data}) p order by 1") == [(7,), (8,)]
    assert sharded[1].value("select count(*) from acc where note = 'x'") == 2
    everywhere(sharded, "alter policy p on acc using (id = 9)")
    assert as_role(sharded[1], role, f"select id from ({data}) p") == [(9,)]
    everywhere(sharded, "drop policy p on acc; alter table acc disable row level security")
    assert as_role(sharded[2], role, "select count(*) from acc_1") != [(0,)]
    assert sharded[1].rows("select polname from pg_policy where polname = 'p'") == []
    everywhere(sharded, "drop table seen")


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
    ask = f"select shardman.try_node(({address}), %s, 'abcdef', %s)"
    before = node.value("select count(*) from pg_foreign_server")
    assert node.value(ask, node.password, 2) is None
    assert "another server or database" in node.value(ask, node.password, 0)
    with nodes[2].connect() as witness:
        row = witness.execute(
            "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        ask = f"select shardman.try_session(({address}), %s, %s, %s)"
        assert node.value(ask, node.password, *row) is None
    nowhere = (
        'select shardman.try_node(\'{"host": "127.0.0.1", "port": "1"}\', \'hush\', \'abcdef\', 2)'
    )
    assert "refused" in node.value(nowhere)
    assert "hush" not in node.value(nowhere)
    assert node.value("select count(*) from pg_foreign_server") == before
