"""One database twice: sharded over a cluster, and plain in a database of its own.

Whatever is said to one is said to the other, and the answers are compared. The plain one lives on
the lord's server beside the lord's database: same version, same locale, nothing else in common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import conninfo

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

PLAIN = "plain"


@dataclass(frozen=True)
class Answer:
    """What came back for one statement: rows and a count, or an error's code."""

    rows: tuple[tuple[Any, ...], ...] | None = None
    count: int = -1
    error: str | None = None
    message: str = ""

    def matches(self, other: Answer, ordered: bool) -> bool:
        """The same to a client. Without an ORDER BY that leaves nothing open rows are a multiset.

        Which of several broken constraints is named depends on the order of the rows, so errors
        agree when their classes do.
        """
        if (self.error or "")[:2] != (other.error or "")[:2] or self.count != other.count:
            return False
        if ordered or self.rows is None or other.rows is None:
            return self.rows == other.rows
        return multiset(self.rows) == multiset(other.rows)


def multiset(rows: Iterable[Sequence[Any]]) -> Counter[str]:
    """Rows without their order; as text, for a json value has no hash."""
    return Counter(repr(row) for row in rows)


def ask(session: SyncConnection, statement: str, params: Sequence[Any] | None = None) -> Answer:
    """Runs one statement; an error is an answer, too."""
    try:
        done = session.execute(statement, params)
    except psycopg.Error as error:
        return Answer(error=error.sqlstate or type(error).__name__, message=str(error))
    rows = tuple(done.fetchall()) if done.description else None
    return Answer(rows=rows, count=done.rowcount)


class Twin:
    """The two databases, with a session on every node and one on the plain server.

    Args:
        cluster: its workers are nodes 1 and up.
        schema: makes the tables, on both.
        shard: table → (expr, partitions_count).
        fill: puts the rows into them, on both; runs again in `reset`.
    """

    def __init__(
        self,
        cluster: Cluster,
        schema: str,
        shard: dict[str, tuple[str, int]],
        fill: Callable[[SyncConnection], object],
    ) -> None:
        self.cluster = cluster
        self._fill = fill
        self.tables = list(shard)
        cluster.sql(0, f"create database {PLAIN}")
        plain = conninfo.make_conninfo(cluster.dsn(0), dbname=PLAIN)
        self.plain: SyncConnection = psycopg.connect(plain, autocommit=True)
        with cluster.connect(1) as first:
            for session in (self.plain, first):
                session.execute(schema)
                fill(session)
                session.execute("analyze")
        for table, (expr, count) in shard.items():
            done = cluster.cmd(
                "select shardman.create_hash_partitions(1, %s, %s, %s)", (table, expr, count)
            )
            assert done.status == "success", done
        self.nodes: dict[int, SyncConnection] = {
            node: cluster.connect(node) for node in (0, *cluster.worker_dsns)
        }
        self.dirty = False

    def close(self) -> None:
        for session in (self.plain, *self.nodes.values()):
            session.close()

    def reset(self) -> None:
        """Both as they were at the beginning, if anything was committed since; no transaction."""
        for session in (self.plain, *self.nodes.values()):
            session.rollback()
        if not self.dirty:
            return
        names = ", ".join(self.tables)
        for session in (self.plain, self.nodes[1]):
            with session.transaction():
                session.execute(f"truncate {names}")
                self._fill(session)
        self.dirty = False

    def same(
        self,
        node: int,
        statement: str,
        params: Sequence[Any] | None = None,
        *,
        ordered: bool = False,
    ) -> Answer:
        """Asks both and returns the answer; fails the test when they differ."""
        expected = ask(self.plain, statement, params)
        got = ask(self.nodes[node], statement, params)
        assert got.matches(expected, ordered), difference(statement, params, expected, got)
        return got

    def same_contents(self, nodes: Iterable[int]) -> None:
        """Every table holds the same, seen through each of these nodes."""
        for table in self.tables:
            expected = ask(self.plain, f"select * from {table}")
            for node in nodes:
                got = ask(self.nodes[node], f"select * from {table}")
                assert got.matches(expected, ordered=False), difference(
                    f"{table} through node {node}", None, expected, got
                )


def difference(statement: str, params: Sequence[Any] | None, expected: Answer, got: Answer) -> str:
    """Both answers, short enough to read."""
    lines = [re.sub(r"\s+", " ", statement), f"with {params}" if params else ""]
    for name, answer in (("plain", expected), ("cluster", got)):
        if answer.error:
            lines.append(f"{name}: {answer.error} {answer.message}")
        else:
            lines.append(f"{name}: count {answer.count}")
    if expected.rows is not None and got.rows is not None:
        only_plain = multiset(expected.rows) - multiset(got.rows)
        only_cluster = multiset(got.rows) - multiset(expected.rows)
        lines += [f"only plain: {row}" for row in list(only_plain.elements())[:5]]
        lines += [f"only cluster: {row}" for row in list(only_cluster.elements())[:5]]
        if not only_plain and not only_cluster:
            lines.append("same rows in another order")
    return "\n".join(line for line in lines if line)
