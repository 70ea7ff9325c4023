"""Foreign keys from sharded tables to shared ones hold on every node, whatever partitions do."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

WORKERS = (1, 2, 3)
SCRIPT = """
create table nation (id int primary key, name text);
insert into nation select i, 'n' || i from generate_series(1, 40) i;
create table acc (
    id int primary key,
    nation int not null constraint "acc's nation" references nation);
create table note (
    id int primary key, about text,
    nation int constraint note_nation references nation on update cascade on delete cascade,
    other int references nation (id) on delete set null deferrable initially deferred);
comment on constraint note_nation on note is 'goes with it';
insert into acc select i, 1 + i % 10 from generate_series(1, 200) i;
insert into note select i, 'x', 11 + i % 10, 21 + i % 10 from generate_series(1, 200) i;
"""
#: On a node: whether exactly the data tables in their partitions have the foreign keys.
WRONG = """
select c.oid::regclass::text, n.keys from pg_class c
 cross join lateral (
       select count(*) from pg_constraint o where o.conrelid = c.oid and o.contype = 'f') as n (keys)
 where c.relname ~ '^(acc|note)_[0-9]+_data' and c.relkind = 'r'
   and n.keys <> case when not c.relispartition then 0 when c.relname like 'acc%' then 1 else 2 end
"""


@pytest.fixture(scope="module")
def tables(cluster: Cluster) -> Cluster:
    """Two sharded tables on three workers, with a replica of each partition, that refer to a shared one."""
    with cluster.connect(1) as conn:
        conn.execute(SCRIPT.encode())
    for query in (
        "select shardman.create_shared_table('nation', 1)",
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.create_hash_partitions(1, 'note', 'id', 6)",
        "select shardman.set_replevel('acc', 1)",
        "select shardman.set_replevel('note', 1)",
    ):
        ok(cluster, query)
    return cluster


def ok(cluster: Cluster, query: str, *params: object) -> None:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done"), done


def right(cluster: Cluster, nodes: tuple[int, ...] = WORKERS, column: str = "nation") -> None:
    """The keys are where they must be, and no row refers to nothing."""
    for node in nodes:
        eventually(
            f"data tables of node {node} have their foreign keys, and others none",
            lambda node=node: cluster.sql(node, WRONG.encode()),
            until=lambda found: found == [],
            seconds=30,
        )
        lost = (
            "select (select count(*) from acc a where not exists (select from nation n where n.id = a.nation))"
            f" + (select count(*) from note a where a.{column} is not null"
            f"    and not exists (select from nation n where n.id = a.{column}))"
        )
        assert cluster.value(node, lost.encode()) == 0


def owner(cluster: Cluster, part: str, replica: bool = False) -> int:
    rows = cluster.sql(
        0,
        "select owner from shardman.partitions where part_name = %s and (prv is not null) = %s",
        (part, replica),
    )
    return int(rows[0][0])


@pytest.mark.parametrize("statement", ["truncate nation cascade", "truncate nation, acc, note"])
def test_a_truncate_that_would_empty_sharded_tables_says_what_to_do(
    tables: Cluster, statement: str
) -> None:
    rows = "select (select count(*) from acc), (select count(*) from nation)"
    before = tables.sql(2, rows.encode())
    with pytest.raises(
        psycopg.errors.FeatureNotSupported, match="which refers to it on all nodes"
    ) as refused:
        tables.sql(2, statement.encode())
    assert "use DELETE" in str(refused.value.diag.message_hint)
    assert tables.sql(2, rows.encode()) == before != [(0, 0)]


def test_every_node_keeps_them(tables: Cluster) -> None:
    right(tables)
    for node in WORKERS:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="acc's nation"):
            tables.sql(node, "insert into acc select i, 99 from generate_series(1000, 1020) i")
        # Rows of every node refer to it, and each of them would do.
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="acc's nation"):
            tables.sql(node, "delete from nation where id = 3")
        # One row, which is on one node only.
        tables.sql(node, "insert into nation values (50, 'new')")
        tables.sql(node, "insert into acc values (5000, 50)")
        for other in WORKERS:
            with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
                tables.sql(other, "delete from nation where id = 50")
            assert "acc's nation" in str(refused.value)
        tables.sql(node, "delete from acc where id = 5000")
        tables.sql(node, "delete from nation where id = 50")
    here = tables.value(1, "select id from acc where tableoid::regclass::text like '%data' limit 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        tables.sql(1, "update acc set nation = 99 where id = %s", (here,))
    assert refused.value.diag.constraint_name == "acc's nation"


def test_one_transaction_writes_both(tables: Cluster) -> None:
    for node in WORKERS:
        with tables.connect(node, autocommit=False) as conn:
            conn.execute("insert into nation values (60, 'both')")
            conn.execute("insert into acc select i, 60 from generate_series(6000, 6020) i")
            conn.execute("delete from acc where id >= 6000")
            conn.execute("delete from nation where id = 60")
            conn.commit()
    right(tables)


def test_actions_are_taken_on_every_node(tables: Cluster) -> None:
    notes = "select count(*), count(nation), count(other) from note"
    assert tables.sql(1, notes) == [(200, 200, 200)]
    tables.sql(2, "delete from nation where id = 11")
    assert tables.sql(3, notes) == [(180, 180, 180)]
    tables.sql(3, "delete from nation where id = 22")
    assert tables.sql(1, notes) == [(180, 180, 160)]
    tables.sql(1, "update nation set id = 112 where id = 12")
    assert tables.value(2, "select count(*) from note where nation = 112") == 20
    with tables.connect(1, autocommit=False) as conn:
        conn.execute("delete from nation where id between 13 and 20")
        conn.rollback()
    assert tables.sql(2, notes) == [(180, 180, 160)]
    # On replicas too, through their channels.
    assert check(tables.lord_dsn, data=True, patience=30) == []


@contextmanager
def writers(cluster: Cluster, nodes: tuple[int, ...] = WORKERS) -> Iterator[list[str]]:
    """Write to all three tables through every node, and meet no error that one server would not give."""
    stop, errors, done = threading.Event(), list[str](), [0]

    def work(node: int) -> None:
        rng = random.Random(node)
        with cluster.connect(node) as conn:
            while not stop.is_set():
                key = 1000 * node + rng.randrange(30)
                try:
                    conn.execute("insert into nation values (%s, 'w')", (key,))
                    conn.execute("insert into acc values (%s, %s)", (10 * key, key))
                    conn.execute("insert into note values (%s, 'w', %s)", (10 * key, key))
                    conn.execute("delete from acc where id = %s", (10 * key,))
                    conn.execute("delete from nation where id = %s", (key,))
                    done[0] += 1
                except psycopg.errors.SerializationFailure:
                    for row in ("acc where id = 10 *", "nation where id ="):
                        with_row = f"delete from {row} {key}"
                        try:
                            conn.execute(with_row.encode())
                        except psycopg.errors.SerializationFailure:
                            break
                except psycopg.errors.UniqueViolation:
                    conn.execute(f"delete from acc where id = {10 * key}".encode())
                except psycopg.Error as error:
                    errors.append(f"node {node}: {error.sqlstate} {error}")
                stop.wait(0.2)

    threads = [threading.Thread(target=work, args=(n,)) for n in nodes]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert done[0] > 5


def test_moves_and_switches_under_writers(tables: Cluster) -> None:
    with writers(tables) as errors:
        for part in ("acc_0", "note_1"):
            src, replica = owner(tables, part), owner(tables, part, replica=True)
            dest = next(n for n in WORKERS if n not in (src, replica))
            ok(tables, "select shardman.move_part(%s, %s)", part, dest)
        for part in ("acc_2", "note_3"):
            ok(
                tables,
                "select shardman.switch_primary(%s, %s)",
                part,
                owner(tables, part, replica=True),
            )
    assert errors == []
    right(tables)
    eventually(
        "the keys are validated",
        lambda: [
            r
            for n in WORKERS
            for r in tables.sql(
                n,
                "select conrelid::regclass from pg_constraint where contype = 'f' and not convalidated",
            )
        ],
        until=lambda found: found == [],
        seconds=60,
    )
    assert check(tables.lord_dsn, data=True, patience=30) == []


def test_what_a_data_table_lacks_is_made(tables: Cluster) -> None:
    node = owner(tables, "acc_1")
    key = '"acc\'s nation"'
    with tables.connect(node) as conn:
        conn.execute("set shardman.ddl = 'here'")
        with conn.transaction():
            conn.execute(f"alter table acc_1_data drop constraint {key}".encode())
            conn.execute(
                "update acc_1_data set nation = 999 where id = (select min(id) from acc_1_data)"
            )
    eventually(
        "the key is there again",
        lambda: tables.sql(node, WRONG.encode()),
        until=lambda found: found == [],
        seconds=30,
        after=lambda: tables.sql(node, "select * from shardman.drift"),
    )
    told = "select problem from shardman.drift where subject = 'foreign keys of acc_1_data'"
    eventually(
        "the row that breaks it is told",
        lambda: tables.sql(node, told),
        until=lambda rows: rows and "violates foreign key constraint" in rows[0][0],
        seconds=60,
    )
    with tables.connect(node) as conn:
        conn.execute("set shardman.ddl = 'here'")
        conn.execute("update acc_1_data set nation = 1 where nation = 999")
        conn.execute(f"alter table acc_1_data validate constraint {key}".encode())
    eventually(
        "nothing is told any more",
        lambda: tables.sql(node, told),
        until=lambda found: found == [],
        seconds=60,
    )


def test_other_changes_of_the_table_leave_them(tables: Cluster) -> None:
    tables.sql(2, "alter table note add column more int default 3")
    tables.sql(3, "alter table note rename column nation to country")
    right(tables, column="country")
    tables.sql(1, "alter table note rename column country to nation")
    right(tables)


def test_an_owner_cannot_have_other_nodes_refer_to_what_he_likes(tables: Cluster) -> None:
    """They make foreign keys by the metadata, as a role that may refer to everything."""
    key = '"acc\'s nation"'
    node = owner(tables, "acc_1")
    mine = (
        "select conrelid::regclass::text from pg_constraint where conname = 'acc''s nation'"
        " and conrelid::regclass::text like 'acc%'"
    )
    told = (
        "select jsonb_path_query_array(definition, '$.foreign_keys[*].to') from shardman.tables"
        " where relation = 'acc'"
    )
    with tables.connect(node) as conn:
        conn.execute("set shardman.ddl = 'here'")
        conn.execute("create table other as select generate_series(1, 2000) as id")
        conn.execute("alter table other add primary key (id)")
        data = [row[0] for row in conn.execute(mine).fetchall()]
        assert data
        for table in data:
            conn.execute(
                f"alter table {table} drop constraint {key},"
                f" add constraint {key} foreign key (nation) references other,"
                " add constraint more foreign key (nation) references other".encode()
            )
        conn.execute("set shardman.ddl = ''")
        conn.execute("alter table acc add column later int")
    eventually(
        "the lord knows the new column",
        lambda: tables.value(
            0, "select definition::text from shardman.tables where relation = 'acc'"
        ),
        until=lambda found: '"later"' in found,
    )
    assert tables.value(0, told) == ["nation"]
    with tables.connect(node) as conn:
        conn.execute("set shardman.ddl = 'here'")
        for table in data:
            conn.execute(
                f"alter table {table} drop constraint {key}, drop constraint more".encode()
            )
        conn.execute("drop table other")
    tables.sql(1, "alter table acc drop column later")
    right(tables)


def test_the_shared_table_stays_shared(tables: Cluster) -> None:
    done = tables.cmd("select shardman.unshare_table('nation', 1)")
    assert done.status == "failed" and "foreign keys of acc, note refer to nation" in (
        done.error or ""
    )
    for query in (
        "drop table nation",
        "drop table nation cascade",
        "alter table nation drop constraint nation_pkey cascade",
    ):
        with pytest.raises(psycopg.Error):
            tables.sql(2, query.encode())
    # One that is made anew: what refers to it does so again.
    with tables.connect(2) as conn:
        conn.execute(
            "set shardman.ddl = 'here'; set session_replication_role = replica;"
            " comment on table nation is 'odd'"
        )
    ok(tables, "select shardman.create_shared_table('nation', 1)")
    right(tables)
    assert check(tables.lord_dsn, data=True, patience=30) == []


def test_a_node_dies(tables: Cluster) -> None:
    tables.kill_node(3)
    eventually(
        "node 3 is failed over",
        lambda: tables.sql(
            0, "select id from shardman.cmd_log where cmd_type = 'failover' and status = 'success'"
        ),
        seconds=60,
    )
    right(tables, (1, 2))
    for node in (1, 2):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            tables.sql(node, "insert into acc select i, 99 from generate_series(1000, 1020) i")
    tables.start_node(3)
    eventually(
        "no copy is stale",
        lambda: tables.value(
            0, "select count(*) from shardman.partitions where stale_since is not null"
        ),
        until=lambda n: n == 0,
        seconds=60,
    )
    right(tables)
    # What was set aside there has no say.
    tables.sql(1, "delete from acc where nation = 4")
    for node in (3, 2, 1):
        tables.sql(node, "insert into nation values (4, 'again') on conflict do nothing")
        tables.sql(node, "delete from nation where id = 4")
    assert check(tables.lord_dsn, data=True, patience=60) == []


def test_unused_it_may_be_unshared(tables: Cluster) -> None:
    for table in ("acc", "note"):
        ok(tables, "select shardman.drop_table(%s, true)", table)
    ok(tables, "select shardman.unshare_table('nation', 2)")
    assert tables.sql(2, "select oid from pg_constraint where confrelid = 'nation'::regclass") == []
