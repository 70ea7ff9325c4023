"""Takes pictures of all nodes and has them judged: what `shardman check` prints.

Everything holds in a cluster at rest. While commands run, what they are changing is left out; what
travels asynchronously gets `patience` seconds to arrive.
"""

from __future__ import annotations

import time

import psycopg

from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.finding import Finding
from shardman.model.invariants import Picture, Placed, Range, judge
from shardman.nodes.data import check_data
from shardman.nodes.reach import NodeError, Reach
from shardman.nodes.shapes import shapes
from shardman.nodes.shared import shared_differences
from shardman.pg.connection import SyncConnection
from shardman.pg.metadata import read_cluster_sync
from shardman.sql.loader import queries

__all__ = ["Finding", "check"]

_PAUSE = 0.25


def check(dsn: str, data: bool = False, patience: float = 10.0) -> list[Finding]:
    """All that is wrong in the cluster; empty when nothing is.

    Args:
        dsn: any node.
        data: also compare the rows, see `check_data`.
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
                found += shared_differences(reach, *_truth(reach), data=True)
        if over or not found:
            return found
        time.sleep(_PAUSE)


def _look(reach: Reach) -> list[Finding]:
    cluster, busy = _truth(reach)
    answers = reach.everywhere(lambda node, session: _picture(node, session, cluster))
    down = [a.finding for a in answers.values() if isinstance(a, NodeError)]
    pictures = [p for p in answers.values() if isinstance(p, Picture)]
    alike = [*shared_differences(reach, cluster, busy)]
    return down + list(judge(cluster, pictures, busy)) + alike


def _truth(reach: Reach) -> tuple[Cluster, frozenset[str]]:
    """The lord's metadata; this node's when the lord cannot be reached."""
    try:
        with reach.open(reach.lord) as lord:
            return read_cluster_sync(lord), _busy(lord)
    except (UserError, psycopg.Error):
        return read_cluster_sync(reach.here), _busy(reach.here)


def _busy(session: SyncConnection) -> frozenset[str]:
    return frozenset(r["name"] for r in session.execute(queries("invariants")["busy"]))


def _picture(node: int, session: SyncConnection, cluster: Cluster) -> Picture:
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
                r["partition"], tuple(r["attached"]), r["server"], r["leads_to"], r["data"]
            )
            for r in session.execute(named["placed"])
        },
        ranges=tuple(
            Range(r["name"], r["seqmin"], r["seqmax"]) for r in ranges if r["seqmin"] is not None
        ),
        missing_sequences=tuple(r["name"] for r in ranges if r["seqmin"] is None),
        faults=tuple(f for f in faults if f is not None),
        shapes=shapes(session),
    )


def _identity(node: int, session: SyncConnection, cluster: Cluster) -> Finding | None:
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
