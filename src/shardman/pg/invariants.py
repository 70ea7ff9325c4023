"""Takes pictures of all nodes and has them judged: what `shardman check` prints.

Everything holds in a cluster at rest. While commands run, what they are changing is left out; what
travels asynchronously gets `patience` seconds to arrive.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
from psycopg import sql

from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.invariants import Finding, Picture, Placed, Range, judge
from shardman.names import unquote
from shardman.pg.metadata import read_cluster
from shardman.pg.reach import Connection, NodeError, Reach
from shardman.sql.loader import queries

__all__ = ["Finding", "check"]

_PAUSE = 0.25


def check(dsn: str, data: bool = False, patience: float = 10.0) -> list[Finding]:
    """All that is wrong in the cluster; empty when nothing is.

    Args:
        dsn: any node.
        data: also compare the rows, see `check_data`. Wants a cluster that nobody writes to.
        patience: how long a finding must last to be reported, in seconds.

    Raises:
        UserError: the node named by dsn cannot be reached or belongs to no cluster.
    """
    until = time.monotonic() + patience
    while True:
        with Reach(dsn) as reach:
            found = _look(reach)
            over = time.monotonic() >= until
            if data and (over or not found):
                found += check_data(reach)
        if over or not found:
            return found
        time.sleep(_PAUSE)


def _look(reach: Reach) -> list[Finding]:
    cluster, busy = _truth(reach)
    answers = reach.everywhere(lambda node, session: _picture(node, session, cluster))
    down = [
        Finding(f"node {node}", answer.problem, answer.hint)
        for node, answer in answers.items()
        if isinstance(answer, NodeError)
    ]
    pictures = [p for p in answers.values() if isinstance(p, Picture)]
    return down + list(judge(cluster, pictures, busy))


def _truth(reach: Reach) -> tuple[Cluster, frozenset[str]]:
    """The lord's metadata; this node's when the lord cannot be reached."""
    try:
        with reach.open(reach.lord) as lord:
            return read_cluster(lord), _busy(lord)
    except (UserError, psycopg.Error):
        return read_cluster(reach.here), _busy(reach.here)


def _busy(session: Connection) -> frozenset[str]:
    return frozenset(r["name"] for r in session.execute(queries("invariants")["busy"]))


def _picture(node: int, session: Connection, cluster: Cluster) -> Picture:
    named = queries("invariants")
    faults = [_identity(node, session, cluster)]
    faults += [
        Finding(f"{row['subject']} on node {node}", row["problem"], row["hint"] or "")
        for row in session.execute(named["faults"])
    ]
    ranges = session.execute(named["ranges"]).fetchall()
    return Picture(
        node=node,
        digests={r["name"]: r["digest"] for r in session.execute(named["digests"])},
        placed={
            r["part_name"]: Placed(
                r["slot"], tuple(r["attached"]), r["server"], r["leads_to"], r["data"]
            )
            for r in session.execute(named["placed"])
        },
        ranges=tuple(
            Range(r["name"], r["seqmin"], r["seqmax"]) for r in ranges if r["seqmin"] is not None
        ),
        missing_sequences=tuple(r["name"] for r in ranges if r["seqmin"] is None),
        faults=tuple(f for f in faults if f is not None),
    )


def _identity(node: int, session: Connection, cluster: Cluster) -> Finding | None:
    """The server that answers as this node must be this node."""
    row = session.execute("select cluster, node_id from shardman.local").fetchone()
    if row is not None and (row["cluster"], row["node_id"]) == (cluster.id, node):
        return None
    found = (
        "no node"
        if row is None or row["cluster"] is None
        else (f"node {row['node_id']} of cluster {row['cluster']}")
    )
    return Finding(
        f"node {node}",
        f"the server that answers for it says that it is {found}",
        "See options in shardman.nodes, and shardman.local on that server",
    )


def check_data(reach: Reach) -> list[Finding]:
    """Compares rows, by reading every table once on every node.

    Every row of a data table satisfies its hash partition; the copies of a partition are equal;
    every node counts as many rows in a table as its data tables hold.
    """
    cluster, _ = _truth(reach)
    counted = reach.everywhere(lambda node, session: _rows_here(node, session, cluster))
    found = [
        Finding(f"node {node}", answer.problem, answer.hint)
        for node, answer in counted.items()
        if isinstance(answer, NodeError)
    ]
    rows: dict[str, int] = {}
    for answer in counted.values():
        if not isinstance(answer, NodeError):
            found += answer[1]
            rows.update(answer[0])
    if not found:
        found += _counts_through_nodes(reach, cluster, rows)
    return found + list(_copies_differ(reach, cluster))


def _rows_here(
    node: int, session: Connection, cluster: Cluster
) -> tuple[dict[str, int], list[Finding]]:
    """How many rows the primaries on this node hold, and rows that lie in the wrong partition."""
    rows: dict[str, int] = {}
    found: list[Finding] = []
    for part, primary in cluster.primaries.items():
        if primary.owner != node:
            continue
        rule = session.execute(queries("invariants")["slot_rule"], {"slot": part}).fetchone()
        if rule is None or rule["rule"] is None:
            found.append(Finding(f"{part} on node {node}", "the slot is missing"))
            continue
        table = _data_table(session, part)
        query = sql.SQL(
            "select count(*) as rows, count(*) filter (where ({}) is not true) as wrong"
            " from only {}"
        ).format(sql.SQL(rule["rule"]), table)
        row = session.execute(query).fetchone()
        rows[part] = row["rows"] if row else 0
        if row and row["wrong"]:
            found.append(
                Finding(
                    f"{part} on node {node}", f"{row['wrong']} rows belong to another partition"
                )
            )
    return rows, found


def _data_table(session: Connection, part: str) -> sql.Identifier:
    row = session.execute("select shardman.data_table(%s) as name", (part,)).fetchone()
    return sql.Identifier(*unquote(row["name"] if row else part))


def _counts_through_nodes(
    reach: Reach, cluster: Cluster, rows: dict[str, int]
) -> Iterator[Finding]:
    for relation in cluster.tables:
        there = sum(rows.get(p, 0) for p, c in cluster.primaries.items() if c.relation == relation)
        query = sql.SQL("select count(*) as rows from {}").format(
            sql.Identifier(*unquote(relation))
        )

        def count(_: int, session: Connection, query: sql.Composed = query) -> int:
            row = session.execute(query).fetchone()
            return int(row["rows"]) if row else 0

        for node, answer in reach.everywhere(count).items():
            if isinstance(answer, NodeError):
                yield Finding(f"{relation} on node {node}", answer.problem, answer.hint)
            elif answer != there:
                yield Finding(
                    f"{relation} on node {node}",
                    f"counts {answer} rows, the data tables hold {there}",
                    "Only in a cluster that nobody writes to must they agree",
                )


def _copies_differ(reach: Reach, cluster: Cluster) -> Iterator[Finding]:
    replicated = {
        c.part_name for c in cluster.copies if c.prv is not None and c.stale_since is None
    }
    if not replicated:
        return

    def contents(node: int, session: Connection) -> dict[str, tuple[int, str]]:
        # Types without a hash of their own are hashed as text, which must not depend on settings.
        session.execute("set timezone = 'UTC'; set datestyle = 'ISO'; set extra_float_digits = 3")
        return {
            c.part_name: _content(session, c.part_name)
            for c in cluster.copies_on(node)
            if c.part_name in replicated
        }

    by_node = {n: a for n, a in reach.everywhere(contents).items() if not isinstance(a, NodeError)}
    for part in sorted(replicated):
        owner = cluster.primary(part).owner
        truth = by_node.get(owner, {}).get(part)
        for copy in cluster.copies_of(part):
            if copy.stale_since is not None:
                continue
            here = by_node.get(copy.owner, {}).get(part)
            if truth is not None and here is not None and here != truth:
                yield Finding(
                    f"{part} on node {copy.owner}",
                    f"the replica ({here[0]} rows) is not equal to the primary ({truth[0]} rows)",
                )


def _content(session: Connection, part: str) -> tuple[int, str]:
    row = session.execute(
        "select c.rows, c.hash from shardman.content_hash(shardman.data_table(%s)) as c", (part,)
    ).fetchone()
    return (row["rows"], row["hash"]) if row else (0, "")
