"""What the doctor decides from what servers have said; no server is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardman.errors import Code, UserError
from shardman.nodes.doctor.comparison import compare, judge_server
from shardman.nodes.doctor.facts import Facts, Setting
from shardman.nodes.doctor.finding import Level
from shardman.nodes.doctor.settings import Wanted, judge_settings
from shardman.pg.text_rules import TextRules

RULES = {"encoding": "UTF8", "collation": "C.UTF-8", "locale provider": "c"}
GOOD = {
    "wal_level": "logical",
    "max_prepared_transactions": "64",
    "max_replication_slots": "64",
    "max_wal_senders": "64",
    "max_logical_replication_workers": "16",
    "max_worker_processes": "32",
    "max_locks_per_transaction": "512",
    "max_connections": "100",
    "jit": "off",
    "fsync": "on",
    "log_statement": "none",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "default_text_search_config": "pg_catalog.english",
    "xmlbinary": "base64",
}


def server(name: str = "a", **changed: str) -> Facts:
    contexts = {"jit": "user", "log_statement": "superuser"}
    settings = {
        n: Setting(v, contexts.get(n, "postmaster")) for n, v in {**GOOD, **changed}.items()
    }
    said = {
        "version": 180001, "system_id": name, "started": f"then {name}", "database": 'Da"ta', "ssl": True,
        "extensions": {"postgres_fdw": "1.2"}, "collations": [], "roles": ["app"], "bytes": 10 << 30,
        "others": 0, "one_phase": [], "cluster": None, "owner": None,
    }  # fmt: skip
    return Facts(
        name, None, 0, said, settings, TextRules(RULES, "2.36", "2.36"), (), 0.0, 0.001, False
    )


def told(facts: Facts, **said: object) -> Facts:
    return replace(facts, said={**facts.said, **said})


def test_a_good_server() -> None:
    assert not [*judge_server(server()), *judge_settings(server(), Wanted(3, 128))]
    assert not list(compare([server("a"), server("b"), server("c")]))


def test_head_room_grows_with_the_cluster() -> None:
    assert not list(judge_settings(server(), Wanted(8, 128)))
    found = list(judge_settings(server(), Wanted(40, 1024, sessions=500)))
    names = {f.what.split()[0] for f in found}
    assert names == {
        "max_replication_slots", "max_wal_senders", "max_logical_replication_workers",
        "max_worker_processes", "max_locks_per_transaction", "max_connections",
        "max_prepared_transactions",
    }  # fmt: skip
    assert {f.level for f in found} == {Level.WARNING}
    locks = next(f for f in found if f.what.startswith("max_locks"))
    assert locks.mend == "alter system set max_locks_per_transaction = '4096'"
    assert locks.hint == "Restart the server"


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("wal_level", "replica", Level.ERROR),
        ("max_replication_slots", "1", Level.ERROR),
        ("max_replication_slots", "4", Level.WARNING),
        ("fsync", "off", Level.ERROR),
        ("jit", "on", Level.WARNING),
        ("log_statement", "all", Level.NOTE),
        ("wal_retrieve_retry_interval", "5000", Level.WARNING),
        ("max_slot_wal_keep_size", "1024", Level.WARNING),
        ("synchronous_standby_names", "x", Level.NOTE),
    ],
)
def test_settings_that_harm(name: str, value: str, level: Level) -> None:
    (found,) = judge_settings(server(**{name: value}), Wanted(3, 128))
    assert (found.level, found.what.startswith(name)) == (level, True)


def test_what_one_server_has() -> None:
    fault = UserError("the server is a standby", "Give its primary", code=Code.SERVER_UNSUITABLE)
    bad = told(server(), ssl=False, others=2, one_phase=["shardman_x_1_2"], collations=['x."Y"'])
    bad = replace(bad, faults=(fault,), text=TextRules(RULES, "2.40", "2.36"), free=1 << 29)
    found = list(judge_server(bad))
    assert [f.level for f in found] == [Level.ERROR, *[Level.WARNING] * 6]
    assert 'reindex database "Da""ta"' in found[4].mend
    assert found[5].mend == 'alter collation x."Y" refresh version'
    assert not list(
        judge_server(replace(bad, said=server().said, faults=(), text=server().text, free=2 << 30))
    )


def test_what_differs() -> None:
    one, two = server("a"), server("b", TimeZone="Europe/Paris")
    other = replace(
        told(
            two,
            extensions={"postgres_fdw": "1.2", "hstore": "1.8"},
            roles=["app", "bob"],
            version=150004,
        ),
        text=TextRules({**RULES, "collation": "de_DE.utf8"}, "2.40", "2.40"),
        clock=3.0,
    )
    found = list(compare([one, other]))
    assert [(f.level, f.subject) for f in found] == [
        (Level.ERROR, "b"), (Level.WARNING, "b"), (Level.WARNING, "b"), (Level.NOTE, "a"),
        (Level.NOTE, "all servers"), (Level.WARNING, "b"), (Level.NOTE, "a"),
    ]  # fmt: skip
    assert found[2].mend == """alter database "Da""ta" set TimeZone = 'UTC'"""
    assert found[3].mend == 'create extension "hstore"'


def test_copies_and_one_server_twice() -> None:
    one = server("a")
    copy = told(replace(one, name="b"), started="otherwise")
    (found,) = compare([one, copy])
    assert "is a copy of that of a" in found.what
    (found,) = compare([one, replace(one, name="b")])
    assert "is the same database as a" in found.what
    assert not list(compare([one, told(replace(one, name="b"), database="another")]))
