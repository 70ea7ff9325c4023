"""The pump that carries a COPY between two servers, where one of them is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from shardman.pg.copy_pipe import Pump
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

COPY_IN = b"copy arrived from stdin"
#: 100 MB.
MUCH = b"copy (select i, repeat('x', 1000) from generate_series(1, 100000) i) to stdout"
#: While somebody else holds it the target takes no row.
HELD = 4711
MAKE = f"""
create table arrived (i int, filler text);
create function wait() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock_shared({HELD}); return new; end $$;
create trigger wait before insert on arrived for each row execute function wait();
"""


@pytest.fixture(scope="module")
def two(module_cluster_factory: ClusterFactory) -> Cluster:
    cluster = module_cluster_factory(workers=1, bare=True)
    cluster.sql(1, sql.SQL(MAKE))
    return cluster


@pytest.fixture
def pump(two: Cluster) -> Iterator[Pump]:
    two.sql(1, "truncate arrived")
    with closing(two.connect(0)) as source, closing(two.connect(1)) as target:
        yield Pump(source.pgconn, target.pgconn)


def slow(before_row: int, seconds: float) -> bytes:
    """Ten rows, too large for the server to gather them, and a pause before one of them."""
    pause = f"case when i = {before_row} then pg_sleep({seconds})::text else '' end"
    return (
        f"copy (select i, repeat('x', 20000) || {pause} from generate_series(1, 10) i) to stdout"
    ).encode()


def arrived(two: Cluster) -> int:
    return int(two.value(1, "select count(*) from arrived"))


def test_it_sleeps_while_the_source_has_nothing_to_say(two: Cluster, pump: Pump) -> None:
    before = time.process_time()
    pump.run(slow(5, 2.0), COPY_IN)
    assert time.process_time() - before < 0.5
    assert pump.rows_done == arrived(two) == 10


@pytest.mark.parametrize("before_row", [1, 5])
def test_it_is_stopped_while_the_source_has_nothing_to_say(
    two: Cluster, pump: Pump, before_row: int
) -> None:
    threading.Timer(0.3, pump.stopped.set).start()
    begun = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="stopped"):
        pump.run(slow(before_row, 20), COPY_IN)
    assert time.monotonic() - begun < 5
    assert arrived(two) == 0


def test_the_source_waits_for_a_target_that_takes_nothing(two: Cluster, pump: Pump) -> None:
    with two.connect(1) as holder:
        holder.execute("select pg_advisory_lock(%s)", (HELD,))
        carrying = threading.Thread(target=pump.run, args=(MUCH, COPY_IN))
        carrying.start()
        eventually("something was carried", lambda: pump.bytes_done, seconds=30, every=0.01)
        time.sleep(1)
        # What libpq holds for it, and what fits into the kernel's buffers.
        assert pump.bytes_done < 20_000_000
    carrying.join(60)
    assert arrived(two) == 100_000


def test_it_is_stopped_while_the_target_takes_nothing(two: Cluster, pump: Pump) -> None:
    with two.connect(1) as holder:
        holder.execute("select pg_advisory_lock(%s)", (HELD,))
        threading.Timer(0.5, pump.stopped.set).start()
        # The target hears of it only when it may take a row again.
        threading.Timer(1.5, holder.execute, ("select pg_advisory_unlock_all()",)).start()
        with pytest.raises(psycopg.OperationalError, match="stopped"):
            pump.run(MUCH, COPY_IN)
    assert arrived(two) == 0


def test_a_target_that_refuses_a_row_ends_it(two: Cluster, pump: Pump) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        pump.run(b"copy (select 'no number', 'x') to stdout", COPY_IN)
    assert arrived(two) == 0
