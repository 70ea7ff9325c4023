"""What docs/weak-sides.md says does not work does not work so: when one of these fails, either
PostgreSQL has learned something or we have broken something, and the page is to be changed."""

from __future__ import annotations

import psycopg
import pytest

from shardman.testing.cluster import Cluster


@pytest.fixture(scope="module")
def table(cluster: Cluster) -> Cluster:
    """A table `t (id, v)` in six partitions."""
    cluster.sql(1, "create table t (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into t select i, i from generate_series(1, 600) as i")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 6)")
    assert done.status == "success", done
    return cluster


def far(table: Cluster, node: int) -> int:
    """A row that does not lie on a node."""
    there = 1 + node % 3
    (part,) = table.sql(
        0,
        "select part_name from shardman.partitions where owner = %s and relation = 't' limit 1",
        (there,),
    )[0]
    return int(table.value(node, f"select min(id) from {part}"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("insert into t values (1) on conflict (id) do nothing", "42P10"),
        ("insert into t values (1) on conflict (id) do update set v = 1", "42P10"),
        (
            "merge into t using (values (1)) as n (i) on id = i when matched then update set v = 1",
            "0A000",
        ),
        ("copy t to stdout", "42809"),
    ],
)
def test_is_refused(table: Cluster, statement: str, state: str) -> None:
    with table.connect(1) as conn, pytest.raises(psycopg.Error) as error:
        conn.execute(statement)  # type: ignore[arg-type]
    assert error.value.sqlstate == state


def test_on_conflict_without_target_works(table: Cluster) -> None:
    with table.connect(1) as conn:
        for row in (far(table, 1), far(table, 2)):
            done = conn.execute("insert into t values (%s) on conflict do nothing", (row,))
            assert done.rowcount == 0


def test_copy_with_freeze_is_refused(table: Cluster) -> None:
    with (
        table.connect(1) as conn,
        pytest.raises(psycopg.errors.FeatureNotSupported),
        conn.cursor().copy("copy t from stdin (freeze)"),
    ):
        pass


@pytest.mark.parametrize("which", ["true", "id = {far}"])
def test_the_key_of_far_rows_cannot_be_changed(table: Cluster, which: str) -> None:
    condition = which.format(far=far(table, 1))
    # Twenty keys: at least one of them belongs to another partition.
    moves = "; ".join(f"update t set id = id + {10**6 + n} where {condition}" for n in range(20))
    with table.connect(1) as conn, pytest.raises(psycopg.Error) as error:
        conn.execute(moves.encode())
    assert error.value.sqlstate in ("23514", "0A000")


def test_prepare_transaction_is_refused_after_a_far_read(table: Cluster) -> None:
    with table.connect(1) as conn:
        conn.execute("begin")
        conn.execute("select v from t where id = %s", (far(table, 1),))
        with pytest.raises(psycopg.Error) as error:
            conn.execute("prepare transaction 'mine'")
    assert error.value.sqlstate == "0A000"


def test_where_current_of_is_refused(table: Cluster) -> None:
    with table.connect(1) as conn:
        conn.execute("begin")
        conn.execute("declare c cursor for select * from t where id = %s", (far(table, 1),))
        conn.execute("fetch c")
        with pytest.raises(psycopg.Error) as error:
            conn.execute("update t set v = 0 where current of c")
    assert error.value.sqlstate in ("24000", "0A000")


def test_two_writers_of_one_far_row_get_40001(table: Cluster) -> None:
    row = far(table, 1)
    with table.connect(1) as one, table.connect(1) as other:
        other.execute("begin")
        other.execute("select v from t where id = %s", (row,))
        one.execute("update t set v = v + 1 where id = %s", (row,))
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("update t set v = v + 1 where id = %s", (row,))


def test_tablesample_is_dropped_on_the_way(table: Cluster) -> None:
    assert table.value(1, "select count(*) from t tablesample bernoulli (0)") > 0


def test_skip_locked_is_dropped_on_the_way(table: Cluster) -> None:
    row = far(table, 1)
    with table.connect(2) as holder, table.connect(1) as conn:
        holder.execute("begin")
        holder.execute("select from t where id = %s for update", (row,))
        conn.execute("set statement_timeout = '700ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute("select from t where id = %s for update skip locked", (row,))


def test_the_keys_of_a_table_are_for_reading(table: Cluster) -> None:
    keys = "select indisprimary, indisvalid from pg_index where indrelid = 't'::regclass"
    assert table.sql(1, keys) == [(True, False)]
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        table.sql(1, "insert into t values (1) on conflict (id) do nothing")


def test_identity_always_becomes_a_default(table: Cluster) -> None:
    table.sql(1, "create table a (id bigint generated always as identity primary key, v int)")
    done = table.cmd("select shardman.create_hash_partitions(1, 'a', 'id', 3)")
    assert done.status == "success"
    assert "becomes a default" in (done.result or "")
    table.sql(2, "insert into a values (5)")
    numbers = [table.value(n, "insert into a (v) values (1) returning id") for n in (0, 1, 2, 3)]
    assert len(set(numbers)) == 4


def test_a_change_of_the_table_in_a_function_of_a_superuser_stays_on_its_node(
    table: Cluster,
) -> None:
    table.sql(1, "create table b (id int primary key)")
    assert table.cmd("select shardman.create_hash_partitions(1, 'b', 'id', 3)").status == "success"
    table.sql(
        1,
        "create function change() returns void language sql as 'alter table b add column v int'",
    )
    table.sql(1, "select change()")
    column = "select count(*) from pg_attribute where attrelid = 'b'::regclass and attname = 'v'"
    assert (table.value(1, column), table.value(2, column)) == (1, 0)
