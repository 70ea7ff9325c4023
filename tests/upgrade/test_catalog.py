"""The schema of an earlier release, brought up to date, is that of a fresh install."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardman.errors import UserError
from shardman.pg.schema import install, is_current
from shardman.testing.cluster import Cluster
from upgrade.releases import Release

pytestmark = pytest.mark.server

CATALOG = (Path(__file__).parent / "catalog.sql").read_bytes()
#: Numbers of migrations that were never released; 0010 says so.
MISSING = {5, 26, 28, 29, 30, 39, 41, 45}


@pytest.fixture(scope="module")
def database() -> Iterator[Callable[[], str]]:
    """Makes databases."""
    number = itertools.count()
    with closing(Cluster(workers=0, bare=True)) as cluster:

        def make() -> str:
            name = f"d{next(number)}"
            cluster.sql(0, sql.SQL("create database {}").format(sql.Identifier(name)))
            return psycopg.conninfo.make_conninfo(cluster.lord_dsn, dbname=name)

        yield make


def bring_up_to_date(dsn: str) -> bool:
    """Installs this version; whether the database says afterwards that it has it."""

    async def run() -> bool:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await install(conn)
            return await is_current(conn)

    return asyncio.run(run())


def catalog(dsn: str) -> dict[str, Any]:
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute(CATALOG).fetchall())


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for each in statements:
            conn.execute(each.encode())


def test_equals_a_fresh_install(database: Callable[[], str], release: Release) -> None:
    old, new = database(), database()
    release.install(old)
    assert bring_up_to_date(old)
    assert bring_up_to_date(new)
    found, wanted = catalog(old), catalog(new)
    assert sorted(found) == sorted(wanted)
    assert {t: w for t, w in found.items() if w != wanted[t]} == {
        t: w for t, w in wanted.items() if w != found[t]
    }


def test_what_another_version_had_is_replaced_or_dropped(database: Callable[[], str]) -> None:
    dsn = database()
    bring_up_to_date(dsn)
    wanted = catalog(dsn)
    execute(
        dsn,
        # Other names of arguments, another result, fewer arguments, another kind of object.
        "drop function shardman.my_id() cascade",
        "create function shardman.my_id() returns text language sql as $$ select '1' $$",
        "drop function shardman.cmd_wait(bigint, interval)",
        "create function shardman.cmd_wait(command bigint, timeout interval default null)"
        " returns shardman.cmd_status language sql as 'select null::shardman.cmd_status'",
        "create function shardman.cmd_wait(cmd_id bigint) returns shardman.cmd_status"
        " language sql as 'select null::shardman.cmd_status'",
        "drop function shardman.need_zone(text)",
        "create procedure shardman.need_zone(zone text) language sql as 'select 1'",
        # Views with other columns, one on top of the other, and a function that returns rows of one.
        "drop view shardman.status_nodes cascade",
        "create view shardman.status_nodes as select 1 as something",
        "create view shardman.former as select * from shardman.status_nodes",
        "create function shardman.former() returns setof shardman.former language sql as 'select 1'",
        "create view shardman.later as select * from shardman.former()",
        # A trigger that calls what is not there any more.
        "create function shardman.stamp_former() returns trigger"
        " language plpgsql as 'begin return new; end'",
        "drop trigger stamp on shardman.partitions",
        "create trigger stamp before insert on shardman.partitions"
        " for each row execute function shardman.stamp_former()",
        # What a command has made for itself stays.
        "create function shardman.replay_c7() returns int language sql as 'select 1'",
    )
    assert bring_up_to_date(dsn)
    found = catalog(dsn)
    assert found.pop("routine shardman.replay_c7()")
    assert sorted(found) == sorted(wanted)
    assert [t for t in wanted if found[t] != wanted[t]] == []


def test_what_hangs_on_an_earlier_release_is_named(
    database: Callable[[], str], release: Release
) -> None:
    dsn = database()
    release.install(dsn)
    execute(dsn, "create view mine as select * from shardman.status_failovers")
    with pytest.raises(UserError, match="view mine depends on") as refused:
        bring_up_to_date(dsn)
    assert "Drop what depends on it first" in refused.value.hint
    execute(dsn, "select * from mine", "drop view mine")
    assert bring_up_to_date(dsn)


def test_nothing_of_anybody_elses_goes(database: Callable[[], str]) -> None:
    dsn = database()
    bring_up_to_date(dsn)
    execute(
        dsn,
        "create view mine as select id from shardman.commands",
        "drop view shardman.status_failovers cascade",
        "create view shardman.status_failovers as select 1 as something",
    )
    bring_up_to_date(dsn)
    execute(dsn, "select id from mine")
    execute(
        dsn,
        "create view shardman.former as select 1 as a",
        "create view yours as select * from shardman.former",
    )
    with pytest.raises(UserError, match="view yours depends on what it changes") as refused:
        bring_up_to_date(dsn)
    assert "Drop that first" in refused.value.hint
    execute(dsn, "select * from yours", "drop view yours")
    bring_up_to_date(dsn)
    assert "relation former" not in catalog(dsn)


def test_a_trigger_of_ours_on_a_users_table_keeps_what_it_calls(
    database: Callable[[], str],
) -> None:
    dsn = database()
    bring_up_to_date(dsn)
    execute(
        dsn,
        "create table t (id int)",
        "create function shardman.former_guard() returns trigger language plpgsql as"
        " 'begin raise exception ''guarded''; end'",
        "create trigger guard before insert on t for each row execute function shardman.former_guard()",
    )
    bring_up_to_date(dsn)
    with pytest.raises(psycopg.errors.RaiseException, match="guarded"):
        execute(dsn, "insert into t values (1)")
    execute(dsn, "drop table t")
    bring_up_to_date(dsn)
    assert "routine shardman.former_guard()" not in catalog(dsn)


def test_numbers_of_migrations_have_no_gap_that_is_not_explained() -> None:
    names = sorted(e.name for e in files("shardman.sql").joinpath("migrations").iterdir())
    numbers = [int(found[1]) for n in names if (found := re.match(r"(\d{4})_\w+\.sql$", n))]
    assert len(numbers) == len(set(numbers)) == len(names)
    assert set(range(1, max(numbers) + 1)) - set(numbers) <= MISSING
