"""Whole applications, distributed, asked and changed through every node, compared with a plain server."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo
from tests.answers.twin import ask
from tests.cli.conftest import Said, run
from tests.docs.pages import ROOT, blocks

from shardman.nodes import application as database
from shardman.nodes.invariants import check
from shardman.nodes.reach import Reach
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "commands" / "distribute.md"


class Both:
    """The cluster, with the tables on worker 1, and a plain server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        cluster.sql(0, "create database plain")
        plain = conninfo.make_conninfo(cluster.dsn(0), dbname="plain")
        self.plain: SyncConnection = psycopg.connect(plain, autocommit=True)
        self.nodes = {node: cluster.connect(node) for node in cluster.worker_dsns}
        self.tables: set[str] = set()

    def close(self) -> None:
        for session in (self.plain, *self.nodes.values()):
            session.close()

    def load(self, text: str) -> None:
        for session in (self.plain, self.nodes[1]):
            session.execute(text.encode())
        self.tables |= set(re.findall(r"^create table (\w+)", text, re.MULTILINE))

    def distribute(self, *arguments: str) -> Said:
        return run("distribute", *arguments, dsn=self.cluster.dsn(1))

    def same(self, node: int, statement: str) -> str | None:
        """Says it to both; the error's code, which is the same."""
        expected = ask(self.plain, statement)
        got = ask(self.nodes[node], statement)
        assert got.matches(expected, ordered=False), (node, statement, expected, got)
        return got.error

    def same_contents(self) -> None:
        for table in sorted(self.tables):
            for node in self.nodes:
                self.same(node, f"select * from {table}")


@pytest.fixture(scope="module")
def both(cluster: Cluster) -> Iterator[Both]:
    made = Both(cluster)
    yield made
    made.close()


def test_nothing_is_changed_without_apply_and_nobody_is_asked_in_vain(both: Both) -> None:
    both.load((HERE / "chinook.sql").read_text())
    said = both.distribute("--shard", "invoice=invoice_id")
    assert said.code == 1
    document = tomllib.loads(said.out)
    assert document["tables"]["invoice_line"] == {
        "as": "sharded",
        "by": "invoice_id",
        "colocate_with": "invoice",
    }
    assert "PRIMARY KEY (invoice_id, invoice_line_id)" in said.out
    refused = both.distribute("--shard", "invoice=invoice_id", "--apply", "--yes")
    assert refused.code == 1 and "nothing was done" in refused.err
    assert both.distribute("--apply").code == 2
    assert both.distribute("--shard", "nothing=a").code == 1
    assert "has no column a" in both.distribute("--shard", "invoice=a").err
    assert both.cluster.sql(0, "select relation from shardman.shared_tables") == []


def test_chinook(both: Both, tmp_path: Path) -> None:
    """Its lines of invoices are sharded by their own key, the other ten tables are shared."""
    plan = tmp_path / "plan.toml"
    wish = ("--shard", "invoice_line=invoice_line_id", "--partitions", "4")
    assert both.distribute(*wish, "--plan", str(plan)).code == 0
    done = both.distribute("--plan", str(plan), "--apply", "--yes")
    assert done.code == 0, done
    again = both.distribute("--plan", str(plan), "--apply", "--yes")
    assert again.code == 0 and "Nothing is left" in again.out, again
    assert both.distribute("--plan", str(plan), "--partitions", "5").code == 2
    for node in both.nodes:
        n = 1000 * node
        both.same(
            node, "select name, count(*) from genre join track using (genre_id) group by name"
        )
        both.same(
            node,
            "select c.country, sum(l.unit_price * l.quantity) from invoice_line l join invoice i"
            " using (invoice_id) join customer c using (customer_id) group by 1",
        )
        both.same(
            node,
            "with recursive chain as (select employee_id, reports_to, 1 as depth from employee where"
            " reports_to is null union all select e.employee_id, e.reports_to, depth + 1 from employee e"
            " join chain c on e.reports_to = c.employee_id) select * from chain",
        )
        assert both.same(node, f"insert into genre values ({n}, 'of node {node}')") is None
        assert both.same(node, f"insert into invoice_line values ({n}, 1, 1, 2, 3)") is None
        assert (
            both.same(node, f"update invoice_line set quantity = 9 where invoice_line_id = {node}")
            is None
        )
        assert both.same(node, f"delete from playlist_track where track_id = {node + 1}") is None
        assert (
            both.same(node, f"insert into invoice_line values ({n + 1}, 99999, 1, 2, 3)") == "23503"
        )
        assert both.same(node, f"insert into album values ({n}, 'x', 99999)") == "23503"
        assert both.same(node, "delete from track where track_id = 12") == "23503"
        assert both.same(node, f"insert into invoice_line values ({n}, 1, 1, 2, 3)") == "23505"
    both.same_contents()


def test_pgbench_goes_on_after_the_program_was_killed(both: Both) -> None:
    """History lies with the accounts, by a foreign key that is away meanwhile."""
    both.load((HERE / "pgbench.sql").read_text())
    with Reach(both.cluster.dsn(1)) as reach, reach.open(1) as session:
        keys = database.read(session).foreign_keys
        (inner,) = (k for k in keys if k.name == "pgbench_history_aid_fkey")
        database.drop_key(session, inner)
    assert "pgbench_history_aid_fkey" in run("status", dsn=both.cluster.dsn(2)).out
    wish = ("--shard", "pgbench_accounts=aid", "--partitions", "4", "--apply", "--yes")
    done = both.distribute(*wish)
    assert done.code == 0, done
    assert both.cluster.sql(1, "select * from shardman.dropped_references") == []
    assert "Nothing is left" in both.distribute("--apply").out
    for node in both.nodes:
        new = f"insert into pgbench_history values (1, 1, %s, {node}, '2024-01-02')"
        assert both.same(node, new % node) is None
        assert both.same(node, new % 99999) == "23503"
        assert (
            both.same(node, f"update pgbench_accounts set abalance = 7 where aid = {node}") is None
        )
        assert (
            both.same(node, f"update pgbench_branches set bbalance = {node} where bid = 1") is None
        )
        assert both.same(node, "delete from pgbench_accounts where aid = 14") == "23503"
        both.same(
            node,
            "select a.bid, count(*), sum(delta) from pgbench_history h join pgbench_accounts a using (aid)"
            " join pgbench_tellers t using (tid) group by 1",
        )
    both.same_contents()


def test_the_example_of_the_page(both: Both, tmp_path: Path) -> None:
    tables, plan = (b.code for b in blocks(PAGE) if b.marks == "distribute")
    # Chinook has one of that name.
    tables = tables.replace("table customer", "table client").replace(
        "customer values", "client values"
    )
    both.load(
        re.sub(
            r"references customer\b|into customer\b",
            lambda m: m[0].replace("customer", "client"),
            tables,
        )
    )
    path = tmp_path / "plan.toml"
    assert both.distribute("--shard", "payment=payment_id", "--plan", str(path)).code == 0
    written, shown = (
        tomllib.loads(path.read_text()),
        tomllib.loads(plan.replace("customer", "client")),
    )
    assert {k: v for k, v in written["tables"].items() if k in shown["tables"]} == shown["tables"]
    done = both.distribute("--plan", str(path), "--apply", "--yes")
    assert done.code == 0, done
    for node in both.nodes:
        assert both.same(node, f"insert into payment values ({1000 + node}, 1, 'CHF', 5)") is None
        assert (
            both.same(node, f"insert into payment values ({2000 + node}, 0, 'CHF', 5)") == "23503"
        )
        both.same(
            node, "select name, sum(amount) from payment join client using (customer_id) group by 1"
        )
    both.same_contents()


def test_pagila(both: Both) -> None:
    """Triggers, views, an aggregate and an enum go to all nodes with its tables; payment stays on its own."""
    for session in (both.plain, *both.nodes.values()):
        session.execute("set search_path = pagila")
    for session in (both.plain, both.nodes[1]):
        session.execute("create schema pagila")
        session.execute((HERE / "pagila.sql").read_bytes())
    by_film = both.distribute("--shard", "pagila.film=film_id", "--json").out
    # A view of customers is none of film's; what refers to film follows it, as far as its keys let it.
    assert {o["table"] for o in json.loads(by_film)["obstacles"]} >= {
        "pagila.film",
        "pagila.inventory",
        "pagila.rental",
    }
    found = json.loads(both.distribute("--json").out)
    assert found["tables"]["pagila.payment"]["as"] == "plain" and found["obstacles"] == []
    done = both.distribute("--apply", "--yes")
    assert done.code == 0, done
    for node in both.nodes:
        n = 1000 * node
        both.same(node, "select * from customer_list")
        both.same(node, "select fid, title, category, actors from film_list")
        new = f"insert into film (film_id, title, description, language_id) values ({n}, 'dogs {n}', 'a', 1)"
        assert both.same(node, new) is None
        assert (
            both.same(node, f"update film set description = 'of cats' where film_id = {n}") is None
        )
        both.same(
            node, "select film_id, fulltext from film where fulltext @@ to_tsquery('cat | dog')"
        )
        assert both.same(node, f"update actor set first_name = 'x' where actor_id = {node}") is None
        assert both.same(node, f"insert into film_actor values ({node}, {n})") is None
        assert both.same(node, f"insert into film_actor values ({n}, 1)") == "23503"
        both.same(node, "select actor_id, last_update > '2020-01-01' from actor")
    for node in both.nodes:
        both.nodes[node].execute(
            "insert into actor (first_name, last_name) values ('by', 'number')"
        )
    # The trigger acted on one node, once: its time is that of the writer.
    copies = {
        str(s.execute("select actor_id, last_update from actor order by 1").fetchall())
        for s in both.nodes.values()
    }
    assert len(copies) == 1
    both.same(1, "select * from sales_by_store")
    # On a plain table again they are what they were.
    triggers = (
        "select pg_get_triggerdef(oid) from pg_trigger"
        " where not tgisinternal and tgrelid = 'actor'::regclass"
    )
    assert "fires_here" in str(both.nodes[2].execute(triggers).fetchall())
    both.nodes[1].execute("drop view film_list")
    for table in ("film_actor", "actor"):
        done_ = both.cluster.cmd(f"select shardman.unshare_table('pagila.{table}', 1)")
        assert done_.status == "success", done_
    both.same(1, triggers)
    for session in (both.plain, *both.nodes.values()):
        session.execute("reset search_path")


def test_a_key_whose_column_may_be_null(both: Both) -> None:
    both.load(
        "create table booking (id int primary key, tenant int); insert into booking values (1, null)"
    )
    told = both.distribute("--shard", "booking=tenant", "--partitions", "4").out
    assert "with which tenant becomes NOT NULL" in told
    assert "1 of its rows have no tenant" in told
    for session in (both.plain, both.nodes[1]):
        session.execute("drop table booking")


def test_names(both: Both) -> None:
    script = """
        create schema "Läden";
        create table "Läden"."Ort's" ("Nr" int primary key, "Na me" text);
        create table "Läden"."Bon.x" ("Nr" bigint primary key, "Ort" int not null references "Läden"."Ort's");
        insert into "Läden"."Ort's" values (1, 'a'), (2, 'b');
        insert into "Läden"."Bon.x" select i, 1 + i % 2 from generate_series(1, 50) i;
    """
    both.load(script)
    wish = ("--shard", '"Läden"."Bon.x"="Nr"', "--partitions", "3", "--apply", "--yes")
    done = both.distribute(*wish)
    assert done.code == 0, done
    for node in both.nodes:
        both.same(node, 'select * from "Läden"."Bon.x" join "Läden"."Ort\'s" o on o."Nr" = "Ort"')
        assert both.same(node, f'insert into "Läden"."Bon.x" values ({node + 100}, 7)') == "23503"


def test_a_circle_of_shared_tables_and_a_view_of_what_is_sharded(both: Both) -> None:
    both.load(
        """
create table team (team_id int primary key, name text, lead_id int);
create table player (player_id int primary key, team_id int not null references team);
create table goal (goal_id int primary key, player_id int not null references player, at int);
alter table team add constraint lead_fk foreign key (lead_id) references player
    deferrable initially deferred;
create view scorer as select team.name, player_id, count(*) as goals
  from goal join player using (player_id) join team using (team_id) group by 1, 2;
create view best as select name, max(goals) as goals from scorer group by name;
insert into team select i, 'team ' || i from generate_series(1, 3) i;
insert into player select i, 1 + i % 3 from generate_series(1, 9) i;
update team set lead_id = team_id;
insert into goal select i, 1 + i * i % 9, i from generate_series(1, 60) i;
"""
    )
    said = both.distribute("--shard", "goal=goal_id", "--apply", "--yes")
    assert said.code == 0, said
    assert "note the foreign key player_team_id_fkey" in said.out
    assert "could not be made" not in said.err
    both.same_contents()
    for node in both.nodes:
        both.same(node, "select * from scorer")
        both.same(node, "select * from best")
        assert both.same(node, "update team set lead_id = 99") == "23503"
    assert both.cluster.sql(1, "select * from shardman.dropped_references") == []


def test_all_is_well_in_the_end(both: Both) -> None:
    assert check(both.cluster.lord_dsn, data=True, patience=30) == []
