"""What settings of one server are good for a cluster of a certain size. Decides, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shardman.nodes.doctor.facts import Facts, Setting
from shardman.nodes.doctor.finding import Diagnosis, Level
from shardman.pg.server import LEAST, too_little

#: Moves and copies that are to have room at the same time, on each node.
MOVES = 4
#: Of a table of that many partitions a query that touches all takes so many locks for each.
LOCKS = 4
WAL_TO_KEEP_MB = 10 * 1024


@dataclass(frozen=True)
class Wanted:
    """The cluster that there is to be.

    Args:
        nodes: how many.
        partitions: of the largest table.
        sessions: of clients, at the same time; 0 where nobody has said.
    """

    nodes: int
    partitions: int
    sessions: int = 0


def judge_settings(facts: Facts, wanted: Wanted) -> Iterator[Diagnosis]:
    """Everything about one server's settings."""
    settings = facts.settings
    required = dict(too_little({name: s.value for name, s in settings.items()}))
    if "wal_level" in required:
        found = settings["wal_level"].value
        yield _set(facts, Level.ERROR, "wal_level", "logical", f"is {found}, logical is needed")
    for name, least in _room(wanted).items():
        setting = settings.get(name)
        if setting is not None and int(setting.value) < least:
            level = Level.ERROR if name in required else Level.WARNING
            yield _set(facts, level, name, str(least), _too_little(name, setting, least, wanted))
    yield from _values(facts)
    yield from _sizes(facts)


def _room(wanted: Wanted) -> Mapping[str, int]:
    """What each setting has to be at least: any node may become the lord's, which feeds all others."""
    others = max(wanted.nodes - 1, 1)
    slots, subscriptions = others + wanted.nodes + MOVES, others + 1 + MOVES
    return {
        **LEAST,
        "max_replication_slots": slots,
        "max_wal_senders": slots,
        "max_logical_replication_workers": subscriptions,
        "max_worker_processes": subscriptions + MOVES,
        "max_active_replication_origins": subscriptions,
        "max_prepared_transactions": max(64, 8 * wanted.nodes),
        "max_locks_per_transaction": max(64, LOCKS * wanted.partitions),
        **({"max_connections": wanted.sessions + 20} if wanted.sessions else {}),
    }


def _too_little(name: str, setting: Setting, least: int, wanted: Wanted) -> str:
    whom = f"{wanted.nodes} nodes"
    if name == "max_locks_per_transaction":
        whom = f"a table of {wanted.partitions} partitions"
    if name == "max_prepared_transactions":
        whom = "clients' transactions over several nodes"
    if name == "max_connections":
        whom = f"{wanted.sessions} sessions, each of which may keep a connection to every node"
    return f"is {setting.value}, {whom} want {least}"


#: A setting, the values that do harm, what they do, a better one, and how bad it is.
_HARMFUL: tuple[tuple[str, tuple[str, ...], str, str, Level], ...] = (
    ("fsync", ("off",), "a crash of the machine can lose everything", "on", Level.ERROR),
    ("full_page_writes", ("off",), "a crash can leave torn pages", "on", Level.WARNING),
    ("autovacuum", ("off",), "tables and the metadata grow for ever", "on", Level.WARNING),
    ("jit", ("on",), "to compile a query over many partitions takes longer than to run it", "off",
     Level.WARNING),
    ("synchronous_commit", ("off", "local", "remote_write"),
     "commits do not wait until replicas have them", "on", Level.WARNING),
    ("wal_sender_timeout", ("0",), "a receiver that is gone is not noticed", "60s", Level.WARNING),
    ("wal_receiver_timeout", ("0",), "a sender that is gone is not noticed", "60s", Level.WARNING),
    ("lock_timeout", ("0",), "deadlocks over two nodes are not detected, and end by it only", "10s",
     Level.NOTE),
    ("idle_in_transaction_session_timeout", ("0",), "a forgotten transaction delays moves", "10min",
     Level.NOTE),
    ("log_statement", ("ddl", "mod", "all"),
     "statements that carry passwords, such as the call of add_node, are in the server's log", "none",
     Level.NOTE),
)  # fmt: skip


def _values(facts: Facts) -> Iterator[Diagnosis]:
    for name, bad, why, good, level in _HARMFUL:
        setting = facts.settings.get(name)
        if setting is not None and setting.value in bad:
            yield _set(facts, level, name, good, f"is {setting.value}: {why}")
    names = facts.settings.get("synchronous_standby_names")
    if facts.node is None and names is not None and names.value:
        yield Diagnosis(
            Level.NOTE,
            facts.name,
            f"synchronous_standby_names is {names.value}",
            hint="In the cluster the shardlord replaces it where tables have synchronous replicas",
        )


def _sizes(facts: Facts) -> Iterator[Diagnosis]:
    retry = facts.settings.get("wal_retrieve_retry_interval")
    if retry is not None and int(retry.value) > 1000:
        why = f"is {retry.value} ms: moves and new replicas take that much longer"
        yield _set(facts, Level.WARNING, "wal_retrieve_retry_interval", "200ms", why)
    keep = facts.settings.get("max_slot_wal_keep_size")
    if keep is not None and 0 <= int(keep.value) < WAL_TO_KEEP_MB:
        why = (
            f"is {keep.value} MB: a node that is away while so much is written must be removed and added"
            " again; wal_keep_limit of the cluster keeps the disk from filling"
        )
        yield _set(facts, Level.WARNING, "max_slot_wal_keep_size", "-1", why)


def _set(facts: Facts, level: Level, name: str, value: str, what: str) -> Diagnosis:
    restart = facts.settings[name].context == "postmaster"
    return Diagnosis(
        level,
        facts.name,
        f"{name} {what}",
        f"alter system set {name} = '{value}'" + ("" if restart else "; select pg_reload_conf()"),
        "Restart the server" if restart else "",
    )
