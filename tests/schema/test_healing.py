"""A change of the schema that not all nodes have reaches those that lack it, by itself and as who sent it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.bob import NODES, as_bob
from schema.trap import NO_TRAP, PASSING, trap
from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SHAPE = "select shardman.shape_of('app.acc')"
CHANGES = "select count(*) from shardman.schema_changes"
TRAP = trap(3, "ALTER TABLE", "CREATE VIEW", "CREATE INDEX", "ALTER INDEX", "DROP INDEX")


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    for node in NODES:
        cluster.sql(node, "create role bob login password 'b'; create schema app authorization bob")
    with as_bob(cluster, 1) as bob:
        bob.execute("create table acc (id int primary key, v int)")
        bob.execute("insert into acc select i, i from generate_series(1, 30) i")
    for command in (
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 3)",
        "select shardman.set_replevel('app.acc', 1)",
    ):
        done = cluster.cmd(command)
        assert done.status in ("success", "done"), done
    eventually("bob is let in", lambda: counted(cluster), tolerate=psycopg.Error)
    return cluster


def counted(cluster: Cluster) -> bool:
    for node in NODES:
        with as_bob(cluster, node) as bob:
            assert bob.execute("select count(*) from acc").fetchone() == (30,)
            ready = "select has_table_privilege('shardman.ddl', 'insert')"
            assert bob.execute(ready).fetchone() == (True,)
    return True


def healed(cluster: Cluster) -> None:
    """All nodes have the same, nothing is pending or kept any more, and nothing is wrong."""
    eventually(
        "all have the same schema",
        lambda: len({str(cluster.value(n, SHAPE)) for n in NODES}),
        until=lambda n: n == 1,
        tolerate=psycopg.Error,
    )
    eventually(
        "all nodes have settled it",
        lambda: [cluster.value(n, CHANGES) for n in NODES],
        until=lambda c: c == [0, 0, 0, 0],
    )
    eventually("what DDL submitted has ended", lambda: not cluster.commands_left())


def half_committed(cluster: Cluster, node: int, statement: str, *, at: int) -> None:
    """Sends a statement to a node whose part on another fails when others may have committed theirs."""
    cluster.sql(at, TRAP)
    try:
        with as_bob(cluster, node) as bob, pytest.raises(psycopg.Error, match="trapped"):
            bob.execute(statement.encode())
    finally:
        cluster.sql(at, NO_TRAP)


def test_what_some_nodes_committed_all_get(acc: Cluster) -> None:
    for node, at, statement, there in (
        (1, 3, "alter table acc add column note text not null default 'x'", "note text not null"),
        (2, 0, "alter table acc add constraint low check (v < 1000)", "CHECK ((v < 1000))"),
        (0, 2, "alter table acc rename v to w", "w integer"),
        (3, 1, "alter table acc add column n bigserial", "n bigint not null"),
        # Its constants are read as in the session that has sent them.
        (
            1,
            2,
            "set datestyle = 'SQL, DMY'; alter table acc add column day date default '02/03/2019'",
            "default '2019-03-02'::date",
        ),
    ):
        half_committed(acc, node, statement, at=at)
        healed(acc)
        assert all(there in str(acc.value(n, SHAPE)) for n in NODES), statement
    half_committed(acc, 1, "create view sums as select sum(w) as s from acc", at=3)
    eventually(
        "all have the view",
        lambda: [acc.value(n, "select s from app.sums") for n in NODES],
        until=lambda sums: sums == [465] * 4,
        tolerate=psycopg.Error,
    )
    healed(acc)
    half_committed(acc, 1, "alter table acc set (fillfactor = 60)", at=2)
    healed(acc)
    for node in (1, 2, 3):
        stored = (
            "select array_agg(distinct reloptions[1]) from pg_class where relname ~ '^acc_._data$'"
        )
        assert acc.value(node, stored) == ["fillfactor=60"]
    for node, at, statement, there in (
        (2, 0, "create unique index once on acc (id, w)", {"once"}),
        (3, 1, "drop index once", set()),
    ):
        half_committed(acc, node, statement, at=at)
        healed(acc)
        assert [uniques(acc, n) for n in NODES] == [there] * 4, statement
    assert check(acc.lord_dsn, data=True) == []


def uniques(cluster: Cluster, node: int) -> set[str]:
    """The unique indexes of the table on a node, and of each of its copies there."""
    found = cluster.sql(
        node,
        """
        select c.relname, array_remove(array_agg(regexp_replace(x.relname, '_[0-9]$', '')), null)
          from pg_class c
          left join (pg_index i join pg_class x on x.oid = i.indexrelid)
            on i.indrelid = c.oid and i.indisunique and not i.indisprimary
         where c.relname ~ '^acc(_[0-9]_data)?$' group by 1
        """,
    )
    (alike,) = {frozenset(names) for _, names in found}
    return set(alike)


@pytest.mark.parametrize("killed", [1, 3])
def test_a_node_dies_while_all_commit(acc: Cluster, killed: int) -> None:
    """The sender's, whose part is the last, or another, which waits in its COMMIT."""
    acc.sql(3, TRAP)
    if killed == 1:
        acc.sql(3, PASSING)
    with ThreadPoolExecutor(1) as pool, as_bob(acc, 1) as bob:
        sent = pool.submit(bob.execute, f"alter table acc add column of_{killed} int".encode())
        eventually(
            "its part on node 3 is being committed", lambda: acc.sql(3, "select * from trap.held")
        )
        acc.kill_node(killed)
        with pytest.raises(psycopg.Error):
            sent.result()
    acc.start_node(killed)
    acc.sql(3, NO_TRAP)
    healed(acc)
    assert all(f"of_{killed} integer" in str(acc.value(n, SHAPE)) for n in NODES)
    eventually(
        "nothing is wrong",
        lambda: [*check(acc.lord_dsn), *read(acc.lord_dsn).problems],
        until=lambda found: found == [],
        seconds=120,
    )


EVIL = """
create or replace function app.evil() returns int language plpgsql as $$
begin
    perform set_config('role', 'none', false);
    alter role bob superuser;
    return 1;
exception when others then
    insert into app.loot values (session_user, current_user, sqlerrm);
    return 2;
end $$
"""


def test_whose_change_is_repeated_has_nothing_by_it(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        bob.execute("create table lone (id int primary key)")
        bob.execute("insert into lone select generate_series(1, 30)")
        bob.execute("create function evil() returns int language sql as 'select 1'")
    done = acc.cmd("select shardman.create_hash_partitions(1, 'app.lone', 'id', 3)")
    assert done.status == "success", done
    acc.cmd("select shardman.rebalance('app.lone')")
    acc.stop_lord()
    half_committed(acc, 1, "alter table lone add column x int default evil()", at=2)
    here = "set shardman.ddl = 'here';"
    acc.sql(2, f"{here} create table app.loot (s text, c text, e text)")
    acc.sql(
        2,
        f"{here} alter table app.loot owner to bob; {EVIL}; alter function app.evil() owner to bob",
    )
    # A name by which the statement would mean another thing, had it not the path with which it was sent.
    acc.sql(2, f"{here} create table public.lone (x int); alter role bob set search_path = public")
    with as_bob(acc, 3) as bob:
        forged = "select shardman.note_change(jsonb_build_object('target', %s::text, 'tag', 'ALTER TABLE'))"
        with pytest.raises(psycopg.Error):
            bob.execute(forged, ("public.lone",))
    acc.sql(3, GONE)
    acc.start_lord()
    eventually(
        "node 2 has the column",
        lambda: "x integer" in str(acc.value(2, "select shardman.shape_of('app.lone')")),
    )
    assert acc.sql(2, "select distinct s from app.loot") == [("shardman_bob",)]
    assert not acc.value(2, "select rolsuper from pg_roles where rolname = 'bob'")
    told = eventually(
        "status names what cannot be repeated",
        lambda: [p for p in read(acc.lord_dsn).problems if "no_such_role" in p.what],
    )
    assert {p.subject for p in told} == {"node 0", "node 2"}
    for node, id_ in acc.sql(0, "select node, id from shardman.pending_changes"):
        acc.sql(0, "select shardman.skip_change(%s, %s)", (id_, node))
    acc.sql(3, f"{here} alter table app.acc drop column odd")
    healed(acc)
    assert acc.sql(0, "select * from shardman.pending_changes") == []
    assert acc.cmd("select shardman.drop_table('app.lone')").status == "success"
    # Of what is in no table others than node 2 have had it harmless all the time.
    with as_bob(acc, 1) as bob:
        bob.execute("create or replace function app.evil() returns int language sql as 'select 1'")
    acc.sql(2, "alter role bob reset search_path")
    # The replicas that lacked the column as well follow again.
    eventually(
        "nothing is wrong",
        lambda: [*check(acc.lord_dsn), *read(acc.lord_dsn).problems],
        until=lambda found: found == [],
        seconds=120,
    )


GONE = """
set shardman.ddl = 'here';
alter table app.acc add column odd int;
insert into shardman.schema_changes (id, sender, statement, path, tag, target, tables, nodes, made_at)
values (gen_random_uuid(), 'no_such_role', 'alter table app.acc add column odd int', 'app', 'ALTER TABLE',
        'app.acc', '{app.acc}', '{0,2,3}', now())
"""


def test_a_node_that_was_away_gets_it(acc: Cluster) -> None:
    acc.stop_node(3)
    eventually(
        "others have taken over",
        lambda: acc.value(
            0, "select count(*) from shardman.partitions where owner = 3 and prv is null"
        ),
        until=lambda n: n == 0 or None,
    )
    for node in (1, 2):
        eventually(
            f"node {node} knows",
            lambda node=node: acc.value(node, "select shardman.may_lack_ddl(3)"),
        )
    said: list[str] = []
    with as_bob(acc, 1) as bob:
        bob.add_notice_handler(lambda n: said.append(str(n.message_primary)))
        bob.execute("alter table acc add column late int")
        bob.execute("create view late as select late from acc")
    assert said == ["node 3 is away: it gets this when it is back"] * 2
    eventually(
        "status tells",
        lambda: [p for p in read(acc.lord_dsn).problems if "add column late" in p.what],
    )
    acc.start_node(3)
    healed(acc)
    assert acc.sql(3, "select count(*) from app.late") == [(30,)]


BEFORE = [
    "create type mood as enum ('sad', 'glad')",
    "create function seen(mood) returns text language sql as $$ select 'I am ' || $1 $$",
    "create view moods as select seen('glad') as said, id from acc",
    'create view "Of Moods" with (security_barrier) as select * from moods where id < 10',
    "comment on view moods is 'how it is'",
    # Whoever reads its literal runs its check.
    (
        "create function trusted(int) returns bool language plpgsql as $$ begin"
        " perform set_config('role', 'none', false); alter role bob superuser; return true;"
        " exception when others then return true; end $$"
    ),
    "create domain pledged as int check (trusted(value))",
    "create type pair as (a pledged)",
    "create view pairs as select '(5)'::pair as p",
]


def test_a_node_that_is_added_has_what_is_in_no_table(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        for statement in BEFORE:
            bob.execute(statement.encode())
        bob.execute("create table plain (id int)")
        bob.execute("create view of_plain as select * from plain")
    for node in NODES:
        acc.sql(node, "create role reader; grant select on app.moods to reader")
    with psycopg.connect(dsn := acc.add_server(), autocommit=True) as server:
        server.execute("create role bob login password 'b'; create role reader")
    added = acc.cmd("select shardman.add_node(%s)", (dsn,))
    assert added.status == "success", added
    new = (added.data or {})["node_id"]
    definitions = "select kind, name, statements from shardman.spread_objects() order by 1, 2"
    there, here = acc.sql(0, definitions), acc.sql(new, definitions)
    assert [o for o in there if o not in here] == [o for o in there if o[1] == "app.pairs"]
    assert 'app."Of Moods"' in {name for _, name, _ in here}
    assert "view app.pairs could not be made: the cluster does not read a value" in str(
        added.result
    )
    assert "of_plain" not in str(added.result)
    with psycopg.connect(
        make_conninfo(acc.dsn(new), user="bob", password="b"), autocommit=True
    ) as bob:
        said = eventually(
            "the view gives rows",
            lambda: bob.execute('select count(*), min(said) from app."Of Moods"').fetchone(),
            tolerate=psycopg.Error,
        )
    assert said == (9, "I am glad")
    assert not acc.value(new, "select rolsuper from pg_roles where rolname = 'bob'")


def test_what_is_in_no_table_is_compared(acc: Cluster) -> None:
    acc.sql(
        2,
        "set shardman.ddl = 'here'; create or replace view app.\"Of Moods\" as select * from app.moods",
    )
    (found,) = (p for p in read(acc.lord_dsn).problems if "Of Moods" in p.subject)
    assert found.subject == 'view app."Of Moods" on node 2'
    assert "its words differ from those of most nodes: lacks create view" in found.what
    with as_bob(acc, 1) as bob:
        bob.execute(
            'create or replace view "Of Moods" with (security_barrier) as select * from moods where id < 10'
        )
    assert not [p for p in read(acc.lord_dsn).problems if "Of Moods" in p.subject]
