"""What the demo does, in order. Every claim it prints is checked against the file it was loaded from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from shardman.client import Result
from shardman.client.client import connect
from shardman.demo import flights
from shardman.demo.screen import Holding, Say, Screen
from shardman.demo.writers import Seen, Writers
from shardman.errors import Code, UserError
from shardman.local import LocalCluster
from shardman.nodes import invariants
from shardman.pg.conninfo import without_secrets
from shardman.sql.loader import queries

PARTITIONS = 12
_MOVED = "flights_0"
_LOOKED_UP = 123_456
# Long enough to see a rate, before anything moves.
_WARM_UP_S = 2.0
# For one command, on a machine that is slow or busy with other things.
_PATIENCE_S = 600.0

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Question:
    """Something to ask of every node, and what the file says."""

    words: str
    query: LiteralString
    answer: list[Row]


@dataclass
class Demo:
    """The story, told on a running cluster.

    Args:
        cluster: a lord and its workers, up.
        data: the flights.
        screen: where to tell it.
    """

    cluster: LocalCluster
    data: flights.Flights
    screen: Screen
    failed: int = 0
    _sql: dict[str, LiteralString] = field(default_factory=lambda: queries("demo"))

    def tell(self) -> bool:
        """All chapters; returns whether every check held."""
        self.shard_and_load()
        self.ask_every_node()
        writers = Writers(list(self.nodes.values()), len(self.data))
        with writers.load:
            self.move(writers)
            self.grow(writers)
        self.what_writers_saw(writers.phases)
        self.check_everything(writers)
        return self.failed == 0

    # -- chapters -------------------------------------------------------------------------------

    def shard_and_load(self) -> None:
        """A plain table on worker 1 becomes a sharded one, and is filled through worker 2."""
        first, second, *_ = self.workers
        self.screen.chapter(
            "A table becomes a sharded table",
            "It is made like any table on one server. Any node takes commands and rows.",
        )
        self.screen.sql(f"worker {first}", "create table flights (id bigint … primary key, …)")
        self._execute(first, self._sql["create_table"])
        call: LiteralString = "select shardman.create_hash_partitions(%s, 'flights', 'id', %s)"
        done = self._command(first, call, (first, PARTITIONS))
        self.screen.ok(f"{PARTITIONS} partitions on {len(self.workers)} workers in {_took(done)}")
        self.screen.sql(f"worker {second}", "copy flights from stdin (format csv)")
        begun = time.monotonic()
        with self.screen.working("loading") as say:
            self._load(second, say)
        seconds = time.monotonic() - begun
        self.screen.ok(
            f"{len(self.data):,} rows through worker {second} in {seconds:.1f} s,"
            f" {len(self.data) / seconds:,.0f} rows/s"
        )
        self.show_placement()

    def ask_every_node(self) -> None:
        """The same questions at each node, the lord's too; the file knows the answers."""
        self.screen.chapter(
            "Every node answers for all of them",
            "The same questions at each node; each answer is compared with the file.",
        )
        questions = [
            Question("how many?", self._sql["count"], [(len(self.data),)]),
            Question("who flies most?", self._sql["carriers"], list(self.data.carriers())),
            Question("late by how many minutes?", self._sql["delays"], list(self.data.delays())),
            Question("flight 123456?", self._sql["one_flight"], [self.data.one(_LOOKED_UP)]),
        ]
        with self.screen.working("asking") as say:
            rows = [self._ask(name, dsn, questions, say) for name, dsn in self.nodes.items()]
        truth = ("the file", *(_in_words(q.answer) for q in questions))
        self.screen.table(("", *(q.words for q in questions)), [truth, *rows], left=99)

    def move(self, writers: Writers) -> None:
        """One partition changes its node."""
        self.screen.chapter(
            "A partition moves while clients write",
            f"{writers.clients} clients, {writers.nodes} nodes: they book seats, look and then book,"
            " move passengers between flights in transactions over two nodes, and add flights.",
        )
        with self.screen.working("writing") as say:
            self._wait(_WARM_UP_S, writers, say)
        writers.begin_phase()
        self._wait(_WARM_UP_S, writers, None)
        writers.end_phase("before")
        src = self._owners()[_MOVED]
        dest = next(n for n in self.workers if n != src)
        asked = self.workers[-1]
        writers.begin_phase()
        done = self._command(asked, "select shardman.move_part(%s, %s)", (_MOVED, dest), writers)
        seen = writers.end_phase(f"move of {_MOVED}")
        self._check(done.status == "success", f"{_MOVED} from worker {src} to worker {dest} in "
                    f"{_took(done)}; {_cut_over(done.result_data)}")  # fmt: skip
        self._check_phase(seen)
        self.show_placement()

    def grow(self, writers: Writers) -> None:
        """A server joins and gets its share."""
        self.screen.chapter("A new worker joins and gets its share", "The clients go on writing.")
        writers.begin_phase()
        with self.screen.working("initdb and start of one more server"):
            server = self.cluster.add_servers(1)[0]
            self.cluster.start_servers()
            self.screen.sql(
                "worker 1", f"select shardman.add_node('{without_secrets(server.dsn)} password=…');"
            )
            self.cluster.add_workers()
        new = self.workers[-1]
        self.screen.ok(f"it is worker {new}")
        self._check_phase(writers.end_phase("a node is added"))
        writers.begin_phase()
        done = self._command(new, "select shardman.rebalance('flights')", (), writers)
        seen = writers.end_phase("rebalance")
        self._check(done.status == "done", f"rebalance ended in {_took(done)}")
        self._show_moves(done.id)
        self._check_phase(seen)
        self.show_placement()

    def what_writers_saw(self, phases: Sequence[Seen]) -> None:
        """Phase by phase."""
        self.screen.chapter("What the writers saw")
        rows = [
            (
                seen.title,
                f"{seen.seconds:.1f} s",
                f"{seen.writes:,}",
                f"{seen.rate:,.0f}",
                f"{len(seen.errors)}",
                f"{seen.retried}",
                f"{seen.longest_s * 1000:.0f} ms",
            )
            for seen in phases
        ]
        columns = ("", "took", "writes", "per second", "errors", "repeated", "longest wait")
        self.screen.table(columns, rows)
        for error in sorted({e for seen in phases for e in seen.errors})[:5]:
            self.screen.bad(error.strip())
        if any(seen.retried for seen in phases):
            self.screen.plain(
                "Repeated: two clients changed one row at the same instant (SQLSTATE 40001), see"
                " docs/weak-sides.md."
            )

    def check_everything(self, writers: Writers) -> None:
        """Every row against the file, every acknowledged write, every invariant of the cluster."""
        self.screen.chapter("Is everything there?")
        through = self.workers[-1]
        with self.screen.working("comparing every row with the file") as say:
            wrong = self._compare(through)
            self._check(
                wrong == 0,
                f"{len(self.data):,} lines in the file, each there once, through worker {through}"
                if wrong == 0
                else f"{wrong} lines of the file are missing, doubled or changed",
            )
            say("adding up on every node")
            self._check_totals(writers)
            say("checking the cluster")
            found = invariants.check(self.cluster.lord_dsn, data=True)
            self._check(not found, f"shardman check --data finds {len(found) or 'nothing'}")
        for each in found[:5]:
            self.screen.bad(str(each))

    def show_placement(self) -> None:
        """What each worker holds, counted there."""
        held: dict[int, list[tuple[int, int, int]]] = {n: [] for n in self.workers}
        for part, owner in self._owners().items():
            query = sql.SQL(self._sql["part"]).format(
                name=sql.Literal(f"{part}_data"), table=sql.Identifier(f"{part}_data")
            )
            rows, size = self._rows(owner, query)[0]
            held[owner].append((int(part.rpartition("_")[2]), rows, size))
        self.screen.placement(
            {
                node: Holding(
                    [p[0] for p in parts], sum(p[1] for p in parts), sum(p[2] for p in parts)
                )
                for node, parts in held.items()
            }
        )

    def example_move(self) -> str:
        """A move that can be made now, as arguments of `shardman move-part`."""
        part, owner = max(self._owners().items(), key=lambda item: len(item[0]))
        return f"{part} {next(n for n in self.workers if n != owner)}"

    # -- nodes ----------------------------------------------------------------------------------

    @property
    def workers(self) -> list[int]:
        """Their ids."""
        return sorted(self.cluster.worker_dsns)

    @property
    def nodes(self) -> dict[str, str]:
        """Names and connection strings of all nodes."""
        workers = {f"worker {n}": self.cluster.worker_dsns[n] for n in self.workers}
        return {"lord": self.cluster.lord_dsn, **workers}

    def _rows(self, node: int, query: LiteralString | sql.Composed) -> list[Row]:
        dsn = self.cluster.lord_dsn if node == 0 else self.cluster.worker_dsns[node]
        return self._rows_at(dsn, query)

    def _rows_at(self, dsn: str, query: LiteralString | sql.Composed) -> list[Row]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            return conn.execute(query).fetchall()

    def _execute(self, node: int, statements: LiteralString) -> None:
        with psycopg.connect(self.cluster.worker_dsns[node]) as conn:
            conn.execute(statements)

    def _owners(self) -> dict[str, int]:
        return dict(self._rows(0, self._sql["owners"]))

    # -- what the chapters are made of ----------------------------------------------------------

    def _command(
        self,
        node: int,
        call: LiteralString,
        arguments: Sequence[Any],
        writers: Writers | None = None,
    ) -> Result:
        """Submits a command on a node, shows how far it is, and returns how it ended."""
        with connect(self.cluster.worker_dsns[node]) as client:
            self.screen.sql(f"worker {node}", _filled_in(call, arguments))
            with self.screen.working("waiting for the shardlord") as say:

                def watch(now: Result) -> None:
                    words = _progress(now)
                    say(f"{words} · {writers.so_far()}" if writers else words)

                done = client.wait(client.submit(call, arguments), timeout=_PATIENCE_S, watch=watch)
        if not done.ok:
            raise UserError(
                f"command {done.id} ({done.title}) is {done.status}: {done.error or done.waits_for}",
                "Look at the logs of its servers: shardman demo --keep leaves them",
                code=Code.of(done.error_code),
            )
        return done

    def _load(self, node: int, say: Say) -> None:
        sent = 0
        with (
            psycopg.connect(self.cluster.worker_dsns[node]) as conn,
            conn.cursor() as cursor,
            cursor.copy(self._sql["load"]) as copy,
        ):
            for block in self.data.blocks():
                copy.write(block)
                sent += block.count("\n")
                say(f"loading {sent:,} rows")

    def _ask(self, name: str, dsn: str, questions: Sequence[Question], say: Say) -> tuple[str, ...]:
        """The node's row of the table: whether each answer is right, and how long it took."""
        cells = [name]
        with psycopg.connect(dsn, autocommit=True) as conn:
            for question in questions:
                say(f"{name}: {question.words}")
                begun = time.monotonic()
                right = conn.execute(question.query).fetchall() == question.answer
                took = (time.monotonic() - begun) * 1000
                self.failed += not right
                cells.append(f"{'✓' if right else '✗'} {took:,.0f} ms")
        return tuple(cells)

    def _wait(self, seconds: float, writers: Writers, say: Say | None) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
            if say is not None:
                say(f"writing · {writers.load.acknowledged:,} writes")

    def _show_moves(self, rebalance: int) -> None:
        with psycopg.connect(self.cluster.lord_dsn, autocommit=True) as lord:
            moves = lord.execute(self._sql["moves"], (rebalance,)).fetchall()
        rows = []
        for part, dest, src, status, error, data, seconds in moves:
            rows.append((part, src, dest, f"{seconds:.1f} s", error or _cut_over(data)))
            self.failed += status != "success"
        self.screen.table(("moved", "from", "to", "took", "cut-over"), rows)

    def _check_phase(self, seen: Seen) -> None:
        self._check(
            not seen.errors,
            f"{seen.writes:,} writes meanwhile, {len(seen.errors)} errors,"
            f" longest wait {seen.longest_s * 1000:.0f} ms",
        )

    def _compare(self, node: int) -> int:
        """How many lines of the file are not there exactly once, or not as they are in the file."""
        found = bytearray(len(self.data) + 1)
        wrong = 0
        with psycopg.connect(self.cluster.worker_dsns[node]) as conn, conn.cursor() as cursor:
            conn.execute("set time zone 'UTC'")
            with cursor.copy(self._sql["unload"]) as copy:
                for row in _lines(copy):
                    number = int(row[: row.index(",")])
                    if number > len(self.data) or found[number] or row != self.data.row(number):
                        wrong += 1
                    else:
                        found[number] = 1
        return wrong + found.count(0) - 1

    def _check_totals(self, writers: Writers) -> None:
        added = sorted(writers.work.added)
        expected = (len(self.data), writers.load.added, len(added))
        totals = {n: self._rows_at(d, self._sql["totals"])[0] for n, d in self.nodes.items()}
        differ = [name for name, total in totals.items() if total != expected]
        self._check(
            not differ,
            f"{writers.load.added:,} seats acknowledged and all of them taken, says every node"
            if not differ
            else f"of {expected} (flights, seats, new flights) they say {totals}",
        )
        ids = [row[0] for row in self._rows(self.workers[0], self._sql["added"])]
        self._check(
            ids == added,
            f"{len(added):,} new flights acknowledged, {len(ids):,} there; numbers from"
            f" {writers.nodes} nodes, none given twice",
        )

    def _check(self, good: bool, words: str) -> None:
        self.failed += not good
        self.screen.verdict(good, words)


def _lines(copy: psycopg.Copy) -> Iterable[str]:
    """The rows of a COPY TO STDOUT in text, which the server sends one by one."""
    for block in copy:
        yield from bytes(block).decode().splitlines()


def _filled_in(call: str, arguments: Sequence[Any]) -> str:
    words = [f"'{a}'" if isinstance(a, str) else str(a) for a in arguments]
    return f"{call % tuple(words)};"


def _progress(now: Result) -> str:
    if now.step_no is None:
        return "waiting for the shardlord"
    return f"step {now.step_no} of {now.steps_total}: {now.waits_for or now.step_name}"


def _took(done: Result) -> str:
    return f"{done.duration.total_seconds():.1f} s" if done.duration else "no time"


def _cut_over(data: dict[str, Any] | None) -> str:
    """How long clients of the partition were held."""
    took = (data or {}).get("cut_over_ms")
    return "no cut-over" if took is None else f"cut-over {took:.0f} ms"


def _in_words(answer: list[Row]) -> str:
    def cell(value: Any) -> str:
        return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)

    return ", ".join(" ".join(cell(value) for value in row) for row in answer)
