"""Moves, failovers, statements, replicas: this tree and another one, by turns on one machine at the same time.

    git worktree add ../v0.1.0 v0.1.0
    .venv/bin/python bench/against.py ../v0.1.0/src

Each tree has clusters of its own, in a process of its own that is told what to do next; the programs that
measure are those of this tree for both. What the machine does meanwhile meets both alike, so the ratios mean
something where the seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, LiteralString

import psycopg

import shardman
from measure_failover import _fill, _freeze, _kill, _write_all
from measure_moves import _move
from measure_replicas import _cluster, _pgbench, _set
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load
from timing import seconds, side_by_side

#: Of the partition that moves.
ROWS = 83_000
PARTITIONS = 12
#: Of each kind in one turn.
STATEMENTS = 300
PGBENCH_S = 4
Figures = dict[str, float]


def _moves(turn: Callable[[], bool]) -> Iterator[Figures]:
    """A move to and fro, then one under four writers."""
    with closing(Cluster(workers=2, fsync=True)) as cluster:
        columns = "id int primary key, touched bigint not null default 0, balance bigint not null default 0"
        cluster.sql(1, f"create table t ({columns}, filler text)")
        cluster.sql(
            1,
            "insert into t select i, 0, 0, repeat('x', 60) from generate_series(1, %s) i",
            (ROWS,),
        )
        done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 1, false)")
        assert done.status == "success", done
        bank = Bank("t", ROWS)
        while turn():
            there = seconds(lambda: _move(cluster, 2))
            back = seconds(lambda: _move(cluster, 1))
            with Load(list(cluster.worker_dsns.values()), [bank.increment], workers=4) as load:
                loaded = seconds(lambda: _move(cluster, 2))
                wait = load.longest_s
            assert not load.errors, load.errors[:3]
            _move(cluster, 1)
            yield {
                "move": (there + back) / 2,
                "move, four writers": loaded,
                "longest wait of a writer": wait,
            }


def _failovers(turn: Callable[[], bool]) -> Iterator[Figures]:
    """A node with all primaries is killed, or hangs; each time in a new cluster."""
    while turn():
        found: Figures = {}
        for fault, inflict in (("kill -9", _kill), ("hangs", _freeze)):
            with closing(Cluster(workers=3)) as cluster:
                ids = _fill(cluster, PARTITIONS)
                begun = time.monotonic()
                heal = inflict(cluster)
                taken = sorted(_write_all(cluster, ids, begun))
                heal()
            found |= {
                f"{fault}: first write, median": statistics.median(taken),
                f"{fault}: last": taken[-1],
            }
        yield found


def _statements(turn: Callable[[], bool]) -> Iterator[Figures]:
    """An ordinary role reads and writes single rows of another node; in this tree by roads."""
    with closing(Cluster(workers=2)) as cluster, ExitStack() as stack:
        cluster.sql(1, "create table t (id int primary key, n int not null)")
        cluster.sql(1, "insert into t select i, 0 from generate_series(1, %s) i", (ROWS,))
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, 't', 'id', %s)", (PARTITIONS,)
        )
        assert done.status == "success", done
        for node in (0, *cluster.worker_dsns):
            cluster.sql(node, "create role app login password 'app'")
        for node in (0, *cluster.worker_dsns):
            cluster.sql(node, "grant select, update on t to app")
        owned = "select id from t where tableoid::regclass::text like '%_data'"
        ids = [row[0] for row in cluster.sql(2, owned)]
        conn = stack.enter_context(cluster.connect(1, user="app", password="app"))
        works = {
            "a row of another node is read": "select n from t where id = %s",
            "a row of another node is written": "update t set n = n + 1 where id = %s",
        }
        calls = {name: _call(conn, query, ids) for name, query in works.items()}
        time.sleep(5)  # The rights have arrived everywhere, and nothing is reconciled any more.
        while turn():
            yield side_by_side(calls, STATEMENTS, warm_up=20)


def _call(
    conn: psycopg.Connection[Any], query: LiteralString, ids: list[int]
) -> Callable[[], object]:
    return lambda: conn.execute(query, (random.choice(ids),))


def _replicas(turn: Callable[[], bool]) -> Iterator[Figures]:
    """Eight clients write at the owner, without a replica and with a synchronous one."""
    with closing(_cluster((PARTITIONS, 1))) as cluster:
        _set(cluster, "t12", 1, sync=True)
        while turn():
            yield {
                "a write, no replica": _pgbench(cluster.dsn(1), "t1", PGBENCH_S).ms / 1000,
                "a write, a synchronous replica": _pgbench(cluster.dsn(1), "t12", PGBENCH_S).ms
                / 1000,
            }


WORKS = {
    "moves": _moves,
    "failover": _failovers,
    "statements": _statements,
    "replicas": _replicas,
}


def _measure(work: str) -> None:
    """What the process of one tree does: measures once for each line that it reads."""
    print(Path(shardman.__file__).parent.parent, flush=True)
    for figures in WORKS[work](lambda: bool(sys.stdin.readline())):
        print(json.dumps(figures), flush=True)


class _Tree:
    """The process of one tree."""

    def __init__(self, source: Path, work: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--measure", work],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == str(source), "another shardman was imported"

    def turn(self) -> Figures:
        """Has it measure once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return {k: float(v) for k, v in json.loads(self._read()).items()}

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Ends it, and its clusters with it."""
        self._process.communicate()


def compare(other: Path, work: str, rounds: int) -> None:
    """Prints for each figure the median of the other tree, of this one, and of the rounds' ratios."""
    here = Path(shardman.__file__).parent.parent
    with closing(_Tree(other, work)) as old, closing(_Tree(here, work)) as new:
        taken = []
        for n in range(rounds):
            # Who comes first changes: the second finds the caches warm, or the machine busy.
            if n % 2:
                after, before = new.turn(), old.turn()
            else:
                before, after = old.turn(), new.turn()
            taken.append((before, after))
    print(f"{'':32}{'other':>11}{'this':>11}{'ratio':>7}   {rounds} rounds")
    for name in taken[0][0]:
        olds, news = ([pair[k][name] for pair in taken] for k in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(olds, news, strict=True))
        print(
            f"{name:32}{statistics.median(olds):9.5f} s{statistics.median(news):9.5f} s{ratio:7.2f}",
            flush=True,
        )


def main() -> None:
    """Compares, or is one of the two processes of a comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", type=Path, help="the folder src of another tree")
    parser.add_argument("--work", choices=sorted(WORKS), help="only this; both by default")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--measure", choices=sorted(WORKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        _measure(args.measure)
    elif args.other is None:
        parser.error("name the folder src of another tree")
    else:
        for work in [args.work] if args.work else WORKS:
            compare(args.other.resolve(), work, args.rounds)


if __name__ == "__main__":
    main()
