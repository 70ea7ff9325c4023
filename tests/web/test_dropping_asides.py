"""What a failover has set aside is dropped by an operator: by the command, and from the page."""

from __future__ import annotations

import html
import re

import psycopg
import pytest
from markupsafe import escape
from psycopg.conninfo import make_conninfo

import shardman
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from web.viewing import PASSWORD, Viewer, served

ODD = '"Läden"."Ort\'s <b>"'
COUNT = "select count(*) from shardman.set_aside"


@pytest.fixture(scope="module")
def behind(cluster: Cluster) -> Cluster:
    """Node 2 was replaced and is back: it has old primaries of two tables."""
    for node in range(4):
        for role, group in (("actor", "shardman_operator"), ("looker", "shardman_viewer")):
            quoted = PASSWORD.replace("'", "''")
            cluster.sql(node, f"create role {role} login password '{quoted}' in role {group}")
    cluster.sql(1, 'create schema "Läden"')
    for name in ("acc", ODD):
        cluster.sql(1, f"create table {name} (id int primary key, n int not null default 0)")
        cluster.sql(1, f"insert into {name} select generate_series(1, 100)")
        made = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 6)", (name,))
        assert made.status == "success", made
        assert cluster.cmd("select shardman.set_replevel(%s, 1)", (name,)).status == "done"
    cluster.kill_node(2)
    query = "select status from shardman.status_failovers where cmd_type = 'failover'"
    ended = [("success",), ("done",)]
    eventually("a failover succeeds", lambda: any(r in ended for r in cluster.sql(0, query)))
    cluster.start_node(2)
    eventually(
        "nothing is left to be set aside",
        lambda: (
            cluster.value(2, COUNT)
            and cluster.value(0, "select count(*) = 0 from shardman.returns_of(2)")
        ),
    )
    return cluster


def names(cluster: Cluster) -> list[str]:
    query = (
        "select shardman.relation_text(schema_name, table_name) from shardman.set_aside order by 1"
    )
    return [name for (name,) in cluster.sql(2, query)]


def as_role(cluster: Cluster, role: str, node: int) -> str:
    return make_conninfo(cluster.dsn(node), user=role, password=PASSWORD)


def test_an_operator_drops_one_from_any_node(behind: Cluster) -> None:
    first, *rest = names(behind)
    assert rest
    with shardman.connect(as_role(behind, "actor", 3)) as db:
        done = db.drop_aside(2, first)
    assert done.status == "success"
    assert names(behind) == rest
    assert behind.value(1, "select count(*) from acc") == 100


def test_what_add_node_found_is_kept_unless_it_is_said(behind: Cluster) -> None:
    """It may be another cluster's."""
    cmd = behind.value(0, "select id from shardman.cmd_log where cmd_type = 'add_node' limit 1")
    name = f"acc_1_aside_c{cmd}"
    behind.sql(3, f"create table {name} (id int)")
    refused = behind.cmd("select shardman.drop_aside(3)")
    assert "add_node found it" in str(refused.error)
    assert behind.cmd("select shardman.drop_aside(3, also_found => true)").status == "success"
    assert behind.sql(3, "select from shardman.set_aside") == []


def test_what_is_not_there_is_said(behind: Cluster) -> None:
    before = names(behind)
    with shardman.connect(as_role(behind, "actor", 1)) as db:
        for done, error in (
            (db.drop_aside(2, "acc"), "no table acc is set aside on node 2"),
            (db.drop_aside(77), "there is no node 77"),
        ):
            assert done.status == "failed"
            assert error in str(done.error)
        # Where nothing is, nothing is to be done.
        assert db.drop_aside(3).status == "success"
    with (
        shardman.connect(as_role(behind, "looker", 1)) as db,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        db.drop_aside(2)
    assert names(behind) == before


def test_the_last_copy_is_kept(behind: Cluster) -> None:
    name = next(n for n in names(behind) if n.startswith("acc"))
    part = behind.value(
        2,
        "select part_name from shardman.set_aside where shardman.relation_text(schema_name, table_name) = %s",
        (name,),
    )
    primary = behind.value(
        0, "select owner from shardman.partitions where part_name = %s and prv is null", (part,)
    )
    behind.sql(0, "insert into shardman.settings values ('failover_after', '1000')")
    behind.stop_node(primary)
    try:
        done = behind.cmd("select shardman.drop_aside(2, %s)", (name,))
        assert done.status == "failed"
        assert done.error is not None
        assert "may be the last copy" in done.error
    finally:
        behind.start_node(primary)
        behind.sql(0, "delete from shardman.settings where name = 'failover_after'")
    assert name in names(behind)


def test_from_the_page(behind: Cluster) -> None:
    odd = next(n for n in names(behind) if n.startswith('"L'))
    cmd = re.search(r"_aside_c(\d+)", odd)
    assert cmd
    # No partition bears such a name.
    strange = f"stranger_aside_c{cmd[1]}"
    behind.sql(2, f"create table {strange} (id int)")
    with served(behind) as base:
        looker, viewer = Viewer(base), Viewer(base)
        looker.log_in("looker")
        assert "drop_aside?" not in looker.get("/nodes/2").text
        viewer.log_in("actor")
        listed = viewer.get("/nodes/2").text
        links = [
            html.unescape(each) for each in re.findall(r'href="(/do/drop_aside\?[^"]+)"', listed)
        ]
        assert len(links) == len(names(behind)) + 1
        filled = [viewer.get(each).text for each in links]
        assert sum(str(escape(odd)) in each for each in filled) == 1

        def do(**given: str) -> str:
            values = {"csrf": viewer.csrf(), "node_id": "2", **given}
            plan = viewer.post("/do/drop_aside/plan", values)
            assert plan.status == 200, plan.text
            done = viewer.post("/do/drop_aside", values)
            assert done.status == 303, done.text
            behind.wait(int(done.address.rpartition("/")[2]))
            return html.unescape(plan.text)

        assert f"drop {odd} on node 2" in do(table_name=odd)
        assert odd not in names(behind)
        assert f"{strange} is kept: no partition of the cluster bears its name" in do()
    assert names(behind) == [strange]
    refused = behind.cmd("select shardman.drop_aside(2)")
    assert refused.error is not None
    assert f"{strange} is kept" in refused.error
    behind.sql(2, f"drop table {strange}")
