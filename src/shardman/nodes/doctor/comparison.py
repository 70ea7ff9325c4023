"""What must be alike on all servers, and what is wrong with one by itself. Decides, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from shardman.nodes.doctor.facts import Facts
from shardman.nodes.doctor.finding import Diagnosis, Level

#: Seconds that clocks may differ before times of several nodes cannot be compared, and before it does harm.
CLOCK_NOTE_S, CLOCK_WARNING_S = 0.5, 2.0
FREE_LEAST = 0.1
ALIKE = ("TimeZone", "DateStyle", "IntervalStyle", "default_text_search_config", "xmlbinary")


def judge_server(facts: Facts) -> Iterator[Diagnosis]:
    """What is wrong with a server by itself, its settings left out."""
    for fault in facts.faults:
        # Those have findings of their own, with statements.
        if not fault.hint.startswith("Change the server's configuration"):
            yield Diagnosis(Level.ERROR, facts.name, fault.what, hint=fault.hint)
    if not facts.local and not facts.said["ssl"]:
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            "the connection is not encrypted: rows and passwords can be read on the way",
            "alter system set ssl = on; select pg_reload_conf()",
            "Give the server a certificate, and write sslmode=verify-full into the connection strings",
        )
    if facts.said["others"]:
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            f"{facts.said['others']} transactions are prepared for more than 5 minutes: they hold up"
            " replication and VACUUM",
            "select gid, prepared, owner, database from pg_prepared_xacts",
            "COMMIT PREPARED or ROLLBACK PREPARED each, as whoever made it knows",
        )
    if facts.said["one_phase"]:
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            f"channels of replicas have one phase: {', '.join(facts.said['one_phase'])}. What is prepared here"
            " is not on the other node when this one dies for good",
            "select subject, hint from shardman.cluster_problems where subject like 'channel %'",
            "Where max_prepared_transactions is 8 for each node or more, the shardlord gives them two on"
            " PostgreSQL 18; before it shardman suspend-replicas SRC DEST has one made anew",
        )
    yield from _text(facts)
    yield from _disk(facts)


def _text(facts: Facts) -> Iterator[Diagnosis]:
    recorded, library = facts.text.recorded, facts.text.library
    database = _name(facts.said["database"])
    if recorded is not None and library is not None and recorded != library:
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            f"the database was made with version {recorded} of the library that sorts text, which is"
            f" {library} now: indexes on text may be wrong",
            f"reindex database {database}; alter database {database} refresh collation version",
        )
    for collation in facts.said["collations"]:
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            f"the collation {collation} was made with another version of its library: indexes that use it"
            " may be wrong",
            f"alter collation {collation} refresh version",
            "First REINDEX what uses it",
        )


def _disk(facts: Facts) -> Iterator[Diagnosis]:
    if facts.free is not None and facts.free < max(FREE_LEAST * facts.said["bytes"], 1 << 30):
        yield Diagnosis(
            Level.WARNING,
            facts.name,
            f"{facts.free >> 20} MB are free where its data are, and its database has"
            f" {facts.said['bytes'] >> 20} MB: a copy of a partition needs its size, and WAL comes on top",
            hint="Make room, or give the server a larger disk",
        )


def compare(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    """What differs between servers and should not; each against the first."""
    first = servers[0]
    for other in servers[1:]:
        yield from _rules(first, other)
        yield from _alike(first, other)
    yield from _extensions(servers)
    yield from _versions(servers)
    yield from _clocks(servers)
    yield from _copies(servers)
    yield from _roles(servers)
    yield from _clusters(servers)


def _rules(first: Facts, other: Facts) -> Iterator[Diagnosis]:
    for what, here, there in other.text.differences(first.text):
        yield Diagnosis(
            Level.ERROR,
            other.name,
            f"the database's {what} is {here}, that of {first.name} is {there}",
            hint="Text would hash or sort differently: make the database like that one",
        )
    if first.text.library != other.text.library:
        yield Diagnosis(
            Level.WARNING,
            other.name,
            f"the library that sorts text has version {other.text.library}, that of {first.name} has"
            f" {first.text.library}: order by text may differ between the nodes",
            hint="Use the same release of the operating system on all machines",
        )


def _alike(first: Facts, other: Facts) -> Iterator[Diagnosis]:
    for name in ALIKE:
        here, there = other.settings[name].value, first.settings[name].value
        if here != there:
            database = _name(other.said["database"])
            value = sql.Literal(there).as_string(None)
            yield Diagnosis(
                Level.WARNING,
                other.name,
                f"{name} is {here}, that of {first.name} is {there}: one statement means two things",
                f"alter database {database} set {name} = {value}",
            )


def _extensions(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    """Each against the first that has it."""
    having: dict[str, Facts] = {}
    for facts in servers:
        for name in facts.said["extensions"]:
            having.setdefault(name, facts)
    for name in sorted(having.keys() - {"postgres_fdw", "plpgsql"}):
        model = having[name]
        version = model.said["extensions"][name]
        for facts in servers:
            here = facts.said["extensions"].get(name)
            if here is None:
                yield Diagnosis(
                    Level.NOTE,
                    facts.name,
                    f"lacks the extension {name}, which {model.name} has",
                    f"create extension {_name(name)}",
                )
            elif here != version:
                yield Diagnosis(
                    Level.WARNING,
                    facts.name,
                    f"the extension {name} has version {here}, that of {model.name} {version}",
                    f"alter extension {_name(name)} update to {sql.Literal(version).as_string(None)}",
                )


def _versions(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    found = sorted({f.said["version"] // 10000 for f in servers})
    if len(found) > 1:
        yield Diagnosis(
            Level.NOTE,
            "all servers",
            f"they are of PostgreSQL {', '.join(map(str, found))}",
            hint="That works, and what only the newest can is to be used nowhere",
        )


def _clocks(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    low, high = min(servers, key=lambda f: f.clock), max(servers, key=lambda f: f.clock)
    # Half of the way there and back is what cannot be told from a wrong clock.
    apart = high.clock - low.clock - (high.latency + low.latency) / 2
    if apart > CLOCK_NOTE_S:
        yield Diagnosis(
            Level.WARNING if apart > CLOCK_WARNING_S else Level.NOTE,
            high.name,
            f"its clock is {apart:.1f} s before that of {low.name}: now() means two things",
            hint="Let all machines take their time from one source (NTP)",
        )


def _copies(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    seen: dict[str, Facts] = {}
    for facts in servers:
        twin = seen.setdefault(facts.said["system_id"], facts)
        # Two databases of one server have one identifier by right.
        if twin.said["started"] != facts.said["started"]:
            yield Diagnosis(
                Level.ERROR,
                facts.name,
                f"its data folder is a copy of that of {twin.name} (same system identifier)",
                hint="Make it with an initdb of its own",
            )
        elif twin is not facts and twin.said["database"] == facts.said["database"]:
            yield Diagnosis(
                Level.ERROR,
                facts.name,
                f"is the same database as {twin.name}",
                hint="Name another",
            )


def _roles(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    everywhere = set.union(*(set(f.said["roles"]) for f in servers))
    for facts in servers:
        if lacking := sorted(everywhere - set(facts.said["roles"])):
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            yield Diagnosis(
                Level.NOTE,
                facts.name,
                f"lacks roles that others have: {', '.join(lacking[:5])}{more}",
                "select shardman.sync_roles()",
                "Those that use sharded tables have to be on every node; in a cluster this makes them",
            )


def _clusters(servers: Sequence[Facts]) -> Iterator[Diagnosis]:
    clusters = {f.said["cluster"] for f in servers} - {None}
    if len(clusters) > 1:
        yield Diagnosis(
            Level.ERROR,
            "all servers",
            f"they are of several clusters: {', '.join(sorted(clusters))}",
            hint="A database can be in one cluster only",
        )


def _name(name: str) -> str:
    return sql.Identifier(name).as_string(None)
