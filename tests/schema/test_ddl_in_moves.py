"""DDL that comes while a partition moves: the move goes on, and the copies end as the table is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster, CommandResult
from shardman.testing.waiting import eventually, repeated

#: What a move begins with, and what is taken away or comes while it runs.
CHANGES = [
    "alter table item set (fillfactor = 80)",
    "alter table item drop column note",
    "drop index by_n",
    "drop index by_id_n",
    "drop statistics of_both",
    "alter table item drop constraint item_id_name_key",
    "create index by_name on item (name)",
    "create unique index by_id_name on item (id, name)",
    "create statistics of_names on n, name from item",
]


@pytest.fixture(scope="module")
def item(cluster: Cluster) -> Cluster:
    """A table with a replica of each partition."""
    cluster.sql(
        1,
        "create table item (id int primary key, n int not null default 0, name text, note int,"
        " unique (id, name)); create index by_n on item (n);"
        " insert into item select i, i % 7, 'n' || i, i from generate_series(1, 300) i",
    )
    for command in (
        "select shardman.create_hash_partitions(1, 'item', 'id', 3)",
        "select shardman.set_replevel('item', 1)",
    ):
        done = cluster.cmd(command)
        assert done.status in ("success", "done"), done
    for statement in (
        "create unique index by_id_n on item (id, n)",
        "create index by_note on item (note)",
        "create statistics of_both on id, n from item",
        "alter table item alter note set statistics 500",
    ):
        cluster.sql(2, statement)
    followed(cluster)
    return cluster


def followed(cluster: Cluster) -> None:
    eventually("what DDL submitted has ended", lambda: not cluster.commands_left())


def away(cluster: Cluster) -> tuple[str, int]:
    """A partition, and a node that has no copy of it."""
    part, node = cluster.sql(
        0,
        "select p.part_name, n from shardman.partitions p, generate_series(1, 3) n where p.prv is null"
        " and not exists (select from shardman.partitions q where (q.part_name, q.owner) = (p.part_name, n))"
        " order by 1, 2 limit 1",
    )[0]
    return str(part), int(node)


@pytest.mark.parametrize("n", range(len(CHANGES)))
def test_a_move_goes_on_when_its_table_changes(item: Cluster, n: int) -> None:
    part, node = away(item)
    moving = item.submit("select shardman.move_part(%s, %s)", (part, node))
    # At another place of the move each.
    time.sleep(0.1 * n)
    repeated(lambda: item.sql(1 + n % 3, CHANGES[n]))
    moved = item.wait(moving)
    assert moved.status == "success", moved
    followed(item)
    assert check(item.lord_dsn, data=True) == []


def test_a_copy_that_the_snapshot_does_not_show_is_missed(item: Cluster) -> None:
    """DDL looks so on other nodes; an index of a copy that came since is missed as well."""
    part, node = away(item)
    look = "select shardman.need_new_look('item')"
    with psycopg.connect(item.dsn(node)) as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            for made in ("make_data_table(%s, keys => false)", "make_data_indexes(%s)"):
                late.execute(look)
                item.sql(node, f"select shardman.{made}", (part,))
                # With a lock a session hears of what others have done, as behind the gate.
                late.execute("lock table only item in share mode")
                with pytest.raises(psycopg.errors.TransactionRollback, match=part):
                    late.execute(look)
                late.rollback()
            late.execute(look)
        finally:
            late.rollback()
            item.sql(node, f"set shardman.ddl = 'here'; drop table {part}_data")


def test_a_copy_that_can_take_no_more_is_made_anew(item: Cluster) -> None:
    """Rows on their way to it have a column that it has no more."""
    part, node = away(item)
    moving = item.submit("select shardman.move_part(%s, %s)", (part, node))
    with item.connect(node) as dest:
        of_copy = "select subname from pg_subscription where subname ~ '_c[0-9]+$'"
        ((stream,),) = eventually(
            "the copy is subscribed", lambda: dest.execute(of_copy).fetchall(), every=0.005
        )
        switch = sql.SQL("alter subscription {} {}")
        dest.execute(switch.format(sql.Identifier(stream), sql.SQL("disable")))
        repeated(lambda: item.sql(1, "alter table item add gone int"))
        item.sql(2, "update item set gone = id")
        repeated(lambda: item.sql(3, "alter table item drop gone"))
        dest.execute(switch.format(sql.Identifier(stream), sql.SQL("enable")))
    moved = item.wait(moving)
    assert moved.status == "success", moved
    assert item.value(0, "select attempt > 1 from shardman.commands where id = %s", (moving,))
    followed(item)
    assert check(item.lord_dsn, data=True) == []


def test_ddl_and_new_copies_wait_for_each_other(item: Cluster) -> None:
    """What DDL would not see on another node is not made between its first look there and its locks."""
    part, node = away(item)
    home = next(n for n in (1, 2, 3) if n != node)
    made = "select to_regclass(%s) is not null"
    with item.connect(home, autocommit=False) as ddl:
        ddl.execute("alter table item add column turn int")
        moving = item.submit("select shardman.move_part(%s, %s)", (part, node))
        time.sleep(1)
        assert not item.value(node, made, (f"{part}_data",))
        ddl.execute("alter table item drop column turn")
        ddl.commit()
    with item.connect(0, autocommit=False) as copies:
        copies.execute("select shardman.hold_off_ddl(1000)")
        began = time.monotonic()
        release = threading.Timer(0.5, copies.rollback)
        release.start()
        item.sql(0, "alter table item alter n set default 1")
        assert time.monotonic() - began >= 0.5
        release.join()
    moved = item.wait(moving)
    assert moved.status == "success", moved
    followed(item)


def test_statistics_that_the_snapshot_does_not_show_go_all_the_same(item: Cluster) -> None:
    """A move has just made the object when DDL that drops it looks for it on the copies."""
    part, node = item.sql(
        0, "select part_name, owner from shardman.partitions where prv is null order by 1 limit 1"
    )[0]
    rank = int(part.rpartition("_")[2])
    made = f"select count(*) from pg_statistic_ext where stxname = 'of_late_{rank}'"
    with psycopg.connect(item.dsn(node)) as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("select 1 from pg_class")
        item.sql(
            node,
            f"set shardman.ddl = 'here'; create statistics of_late_{rank} on id, n from {part}_data",
        )
        assert item.value(node, made) == 1
        late.execute(
            "select shardman.follow_statistics_on(%s::regclass, %s, '[]', '{of_late}')",
            (f"{part}_data", rank),
        )
    assert item.value(node, made) == 0


@pytest.fixture
def stumbling(item: Cluster) -> Iterator[int]:
    """A node on which the first foreign table that anybody makes fails, and the second does not."""
    part, _ = away(item)
    owner = int(
        item.value(
            0,
            "select owner from shardman.partitions where part_name = %s and prv is null",
            (part,),
        )
    )
    item.sql(
        owner,
        "set shardman.ddl = 'here'; create sequence stumbles;"
        " create function stumble() returns event_trigger language plpgsql as $$ begin"
        "   if nextval('public.stumbles') = 1 then raise exception 'stumbled'; end if; end $$;"
        " create event trigger stumble on ddl_command_start when tag in ('CREATE FOREIGN TABLE')"
        " execute function stumble()",
    )
    yield owner
    item.sql(
        owner,
        "set shardman.ddl = 'here'; drop event trigger stumble; drop function stumble();"
        " drop sequence stumbles",
    )


def attempts(cluster: Cluster, cmd_id: int) -> int:
    return int(cluster.value(0, "select attempt from shardman.cmd_log where id = %s", (cmd_id,)))


def submit_both(cluster: Cluster, *, change: bool = True) -> int:
    """A move, and with it what DDL submits; the move's id."""
    part, node = away(cluster)
    with cluster.connect(0) as lord, lord.transaction():
        row = lord.execute("select shardman.move_part(%s, %s)", (part, node)).fetchone()
        assert row is not None
        if change:
            lord.execute("select shardman.refresh_table('item')")
    return int(row[0])


def submitted_with(cluster: Cluster, *, change: bool) -> tuple[int, CommandResult]:
    """The same, and the move's end."""
    moving = submit_both(cluster, change=change)
    return moving, cluster.wait(moving)


@contextmanager
def between_attempts(cluster: Cluster) -> Iterator[int]:
    """Inside, a move has failed, and what DDL has submitted is about to be written down. Its id."""
    with cluster.connect(0) as holder, holder.transaction():
        holder.execute("select from shardman.tables where relation = 'item' for update")
        moving = submit_both(cluster)
        eventually(
            "it waits for what DDL has submitted",
            lambda: status(cluster, moving + 1),
            until=lambda found: found == "in progress",
            seconds=30,
        )
        yield moving


def status(cluster: Cluster, cmd_id: int) -> str:
    return str(cluster.value(0, "select status from shardman.cmd_log where id = %s", (cmd_id,)))


@pytest.mark.usefixtures("stumbling")
def test_what_failed_over_ddl_begins_anew_behind_it(item: Cluster) -> None:
    moving, moved = submitted_with(item, change=True)
    assert moved.status == "success", moved
    assert attempts(item, moving) == 2
    followed(item)
    assert item.sql(0, "select status::text from shardman.cmd_log where id > %s", (moving,)) == [
        ("success",)
    ]


@pytest.mark.usefixtures("stumbling")
def test_what_failed_of_itself_does_not_begin_anew(item: Cluster) -> None:
    moving, moved = submitted_with(item, change=False)
    assert moved.status == "failed"
    assert "stumbled" in str(moved.error)
    assert attempts(item, moving) == 1


@pytest.mark.usefixtures("stumbling")
def test_the_shardlord_is_killed_between_two_attempts(item: Cluster) -> None:
    with between_attempts(item) as moving:
        item.stop_lord(kill=True)
    item.start_lord()
    moved = item.wait(moving)
    assert moved.status == "success", moved
    assert attempts(item, moving) == 2
    followed(item)
    assert status(item, moving + 1) == "success"
    assert check(item.lord_dsn, data=True) == []


@pytest.mark.usefixtures("stumbling")
def test_a_move_is_canceled_between_two_attempts(item: Cluster) -> None:
    """What DDL has made is written down all the same."""
    with between_attempts(item) as moving:
        item.sql(0, "select shardman.cancel_cmd(%s)", (moving,))
        time.sleep(0.3)
    assert item.wait(moving).status == "canceled"
    followed(item)
    assert status(item, moving + 1) == "success"
    assert item.sql(0, "select from shardman.cmd_steps where state = 'started'") == []


def test_what_ddl_has_made_is_written_down_behind_what_could_not_wait(item: Cluster) -> None:
    """A node hangs, and others take over or replicas are given up meanwhile."""
    src, dest = item.sql(
        0,
        "select p.owner, q.owner from shardman.partitions p join shardman.partitions q using (part_name)"
        " where p.prv is null and q.prv is not null order by 1, 2 limit 1",
    )[0]
    (hangs,) = {1, 2, 3} - {src, dest}
    with item.connect(hangs) as holder, holder.transaction():
        holder.execute("lock table shardman.tables in access exclusive mode")
        refresh = item.submit("select shardman.refresh_table('item')")
        eventually(
            "it is begun",
            lambda: status(item, refresh),
            until=lambda found: found == "in progress",
        )
        given_up = item.cmd("select shardman.suspend_replicas(%s, %s)", (src, dest))
        assert given_up.status == "success", given_up
        assert status(item, refresh) != "canceled"
    assert item.wait(refresh).status == "success"
    eventually(
        "it follows again",
        lambda: item.value(
            0, "select count(*) from shardman.partitions where stale_since is not null"
        ),
        until=lambda n: n == 0,
        seconds=60,
    )


def test_what_ddl_has_made_is_written_down_where_that_has_failed(item: Cluster) -> None:
    """As nobody was there who could say what it is."""
    refresh = item.submit("select shardman.refresh_table('item')")
    assert item.wait(refresh).status == "success"
    item.sql(
        0,
        "update shardman.cmd_log set status = 'failed', error_code = 'node_unreachable' where id = %s",
        (refresh,),
    )
    again = "select status::text from shardman.cmd_log where cmd_type = 'refresh_table' and id > %s"
    eventually(
        "it is tried again",
        lambda: item.sql(0, again, (refresh,)),
        until=lambda rows: rows == [("success",)],
        seconds=30,
    )
