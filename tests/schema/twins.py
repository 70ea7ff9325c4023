"""One schema twice: tables of a cluster, and the same of a plain server. Both are told the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from schema.shapes import Shape, Table, read_shape
from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

PLAIN = "plain"
NODES = (0, 1, 2, 3)
PARTITIONS = 3
#: Of both schemas of an example.
ALL_VIEWS = """
select oid::regclass::text from pg_class
 where relkind = 'v' and relnamespace::regnamespace::text in (%(schema)s, %(schema)s || 'b')
"""
CATALOGS = (Path(__file__).parent / "twins.sql").read_text()

SCHEMA = """
create type mood as enum ('well', 'ill');
create table country (code text primary key, name varchar(20), seen integer not null default 0);
create function nothing() returns trigger language plpgsql as $$ begin return coalesce(new, old); end $$;
create function counting() returns trigger language plpgsql as $$ begin new.seen := 1; return new; end $$;
create trigger counted before insert on country for each row execute function counting();
create trigger quiet after delete on country for each row execute function nothing();
create table acc (id integer primary key, v integer not null default 5, name varchar(20), land text,
                  mood mood default 'well', n smallserial, constraint small check (v < 1000));
create table item (acc_id integer, no integer, note text, price numeric(8,2), primary key (acc_id, no));
create index item_note on item (note);
grant select on acc to reader;
insert into country select 'c' || i, 'n' || i from generate_series(0, 5) i;
insert into acc (id, v, name, land, mood)
select i, i % 3, 'n' || i, 'c' || i % 6, 'ill' from generate_series(1, 20) i;
insert into item select i, j, 'x', i from generate_series(1, 20) i, generate_series(1, 2) j;
"""

#: Types of columns whose values are each database's own.
OWN = ("smallint", "uuid")
#: The foreign key within the group.
INSIDE = "of_acc"

#: What ours may refuse though a plain server does it, by what the error says: see docs/weak-sides.md and
#: docs/operations.md.
REFUSED = (
    r"has row-level security, which would hide rows from its own copies",
    r"^.+ is a shared table, and this would change its copy on this node only",
    r"is sharded, and this (\w+ ?)+ would be on this node only",
    r"is sharded, and this would change it on this node only",
    r"^sequence .+ (gives .+ its numbers, and belongs to it|has numbers from .+ and others on other nodes)",
    r"where each node has a range of its own$",
    r"cannot build or drop an index of a partitioned table concurrently",
    r"an index of a shared table is built or dropped on all nodes in one transaction",
    r"keys, foreign keys, triggers and new columns of .* cannot be changed in one statement with other things",
    r"^unique constraint on partitioned table must include all partitioning columns",
    r"^.+ has no primary key",
    r"because it is part of the partition key of relation",
    r"a sharded table as .+ cannot have the trigger .+: it acts once for each statement",
    r"has never been validated, rows that break it could not be moved",
    r"^this would write the rows of .+ anew on each of its copies",
)


@dataclass(frozen=True)
class Outcome:
    """How a statement ended: a count of rows, or an error."""

    count: int = -1
    code: str | None = None
    message: str = ""


@dataclass
class Twins:
    """Both databases; `renew` gives them new tables in a schema that nobody has used before.

    Attributes:
        said: all that was said since, for who reads the failure.
        refusals: how often ours alone refused something, by what the error says.
    """

    cluster: Cluster
    level: int = 0
    said: list[str] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    tried: int = 0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        for node in NODES:
            self.cluster.sql(node, "create role bob login password 'b'; create role reader")
        self.cluster.sql(0, f"create database {PLAIN}")
        self._admin: SyncConnection = psycopg.connect(
            make_conninfo(self.cluster.dsn(0), dbname=PLAIN), autocommit=True
        )
        self.schema = ""

    # -- new tables -------------------------------------------------------------------------------

    def renew(self) -> None:
        """Both get the tables anew, with their rows; those of before go."""
        self.close_sessions()
        self._drop_former()
        self.schema = f"s{next(self._numbers)}"
        self.said = []
        both = [self.schema, f"{self.schema}b"]
        make = ";".join(f"create schema {s} authorization bob" for s in both)
        self._admin.execute(make.encode())
        for node in NODES:
            self.cluster.sql(node, f"set shardman.ddl = 'here'; {make}".encode())  # type: ignore[arg-type]
        self.plain = self._session(make_conninfo(self.cluster.dsn(0), dbname=PLAIN))
        self.nodes = {node: self._session(self.cluster.dsn(node)) for node in NODES}
        for session in (self.plain, self.nodes[1]):
            session.execute(SCHEMA.encode())
        self._take_in()
        self._oids = {
            name: self._ask_plain("select %s::regclass::oid::int", name)
            for name in ("country", "acc", "item")
        }
        self.settle()

    def _take_in(self) -> None:
        for query in (
            "create_shared_table('SCHEMA.country', 1)",
            f"create_hash_partitions(1, 'SCHEMA.acc', 'id', {PARTITIONS})",
            "create_hash_partitions(1, 'SCHEMA.item', 'acc_id', colocate_with => 'SCHEMA.acc')",
            *([f"set_replevel('SCHEMA.acc', {self.level})"] if self.level else []),
        ):
            done = self.cluster.cmd(
                f"select shardman.{query.replace('SCHEMA', self.schema)}".encode()
            )  # type: ignore[arg-type]
            assert done.status in ("success", "done"), done

    def _drop_former(self) -> None:
        if not self.schema:
            return
        self._admin.execute(f"drop schema {self.schema}, {self.schema}b cascade".encode())
        like = f"^{self.schema}b?\\."
        left = "select relation from shardman.{} where relation ~ %s"
        sharded = [r for (r,) in self.cluster.sql(0, left.format("tables").encode(), (like,))]  # type: ignore[arg-type]
        shared = [r for (r,) in self.cluster.sql(0, left.format("shared_tables").encode(), (like,))]  # type: ignore[arg-type]
        for node in NODES:
            for (view,) in self.cluster.sql(node, ALL_VIEWS, {"schema": self.schema}):
                drop = f"set shardman.ddl = 'here'; drop view if exists {view} cascade"
                self.cluster.sql(node, drop.encode())  # type: ignore[arg-type]
        for relation in [*sorted(sharded, key=lambda r: "item" not in r), *shared]:
            self.cluster.cmd("select shardman.drop_table(%s)", (relation,))

    def _session(self, dsn: str) -> SyncConnection:
        options = f"-c search_path={self.schema} -c client_min_messages=error"
        as_bob = make_conninfo(dsn, user="bob", password="b", options=options)
        # A test asks the same after a column was added.
        return psycopg.connect(as_bob, autocommit=True, prepare_threshold=None)

    def close_sessions(self) -> None:
        if self.schema:
            for session in (self.plain, *self.nodes.values()):
                session.close()

    def close(self) -> None:
        self.close_sessions()
        self._admin.close()

    # -- what is said -----------------------------------------------------------------------------

    def shape(self, node: int = 1) -> Shape:
        """What there is now, as the plain server has it, of what a node has: the lord has no shared table."""
        shape = read_shape(self.plain, self._oids, dict.fromkeys(self._oids, 1), self.schema)
        if node:
            return shape
        sharded = {first: table for first, table in shape.tables.items() if not table.shared}
        return replace(shape, tables=sharded)

    def _ask_plain(self, query: str, *params: object) -> int:
        row = self.plain.execute(query.encode(), params).fetchone()
        assert row is not None
        return int(row[0])

    def say(self, node: int, statement: str) -> None:
        """A statement in a transaction of its own, to both."""
        self.plain.execute("begin")
        done = self._both(node, statement)
        self.plain.execute("commit" if done else "rollback")

    def transaction(self, node: int, statements: Iterable[str], commit: bool) -> None:
        """Several in one transaction, each behind a savepoint."""
        for session in (self.plain, self.nodes[node]):
            session.execute("begin")
        self.said.append(f"{node}: begin")
        for statement in statements:
            for session in (self.plain, self.nodes[node]):
                session.execute("savepoint s")
            end = "release s" if self._both(node, statement) else "rollback to s"
            for session in (self.plain, self.nodes[node]):
                session.execute(end.encode())
        self.end(node, commit)

    def end(self, node: int, commit: bool) -> None:
        word = "commit" if commit else "rollback"
        self.said.append(f"{node}: {word}")
        for session in (self.plain, self.nodes[node]):
            session.execute(word.encode())

    def refer(self, node: int, action: str) -> None:
        """The foreign key within the group comes or goes: by ALTER TABLE there, by a command here."""
        item, acc = (self.shape().tables[first] for first in ("item", "acc"))
        if INSIDE in item.constraints:
            statement, call = f"drop constraint {INSIDE}", ("drop_foreign_key", INSIDE)
        else:
            to = f"references {self._qualified(acc.name)} ({acc.keys[0]}){action}"
            key = f"foreign key ({item.keys[0]}) {to}"
            statement, call = f"add constraint {INSIDE} {key}", ("add_foreign_key", INSIDE, key)
        expected = self._try(self.plain, f"alter table {item.name} {statement}")
        name, *args = call
        done = self._called(node, name, self._qualified(item.name), *args)
        self.said.append(f"{node}: alter table {item.name} {statement}  -- by a command: {done}")
        assert (expected.code is None) == (done is None), self.told(f"plain: {expected}")
        self.settle()

    def _qualified(self, name: str) -> str:
        """As the metadata have it: their path is not ours."""
        return name if "." in name else f"{self.schema}.{name}"

    def _called(self, node: int, name: str, *args: str) -> str | None:
        """What went wrong with a command that an owner of tables may submit."""
        marks = ", ".join(["%s"] * len(args))
        try:
            row = (
                self.nodes[node]
                .execute(f"select shardman.{name}({marks})".encode(), args)
                .fetchone()
            )
        except psycopg.Error as error:
            return str(error)
        assert row is not None
        return self.cluster.wait(int(row[0])).error

    def _both(self, node: int, statement: str) -> bool:
        """Whether both did it. Fails the test where one alone did, and it is not said why."""
        self.tried += 1
        expected = self._try(self.plain, statement)
        got = self._try(self.nodes[node], statement)
        for _ in range(3):
            # Somebody of the cluster's own was at work on it.
            if got.code != "55P03":
                break
            got = self._try(self.nodes[node], statement)
        self.said.append(
            f"{node}: {statement}" + (f"  -- {got.code} {got.message}" if got.code else "")
        )
        why = next((p for p in REFUSED if re.search(p, got.message)), None)
        if got.code and not expected.code and why:
            self.refusals[why] = self.refusals.get(why, 0) + 1
            return False
        # Of several things that are wrong with a statement either may name another one.
        same = bool(got.code) == bool(expected.code) and got.count == expected.count
        assert same, self.told(f"plain: {expected}", f"cluster: {got}")
        return not got.code

    def _try(self, session: SyncConnection, statement: str) -> Outcome:
        status = session.info.transaction_status
        inside = session is self.plain and status == psycopg.pq.TransactionStatus.INTRANS
        if inside:
            session.execute("savepoint here")
        try:
            done = session.execute(statement.encode())
        except psycopg.Error as error:
            if inside:
                session.execute("rollback to here")
            return Outcome(code=error.sqlstate or type(error).__name__, message=str(error))
        return Outcome(count=done.rowcount)

    # -- whether they are the same ----------------------------------------------------------------

    def compare(self) -> None:
        """Catalogs and rows, through each node, are those of the plain server."""
        shared = self.shape().tables["country"].bare
        names = {"schemas": [self.schema, f"{self.schema}b"], "shared": f"^{shared}$"}
        expected = self._catalogs(self.plain, names)
        rows = self._rows(self.plain, self.shape())
        for node, session in self.nodes.items():
            there = self.shape(node)
            got = self._catalogs(session, names)
            if node == 0:
                # Only its tables: what else is the shared ones' is on the workers.
                both = (_of(there, shared, self.schema, lines) for lines in (expected, got))
                self._same(node, *both)
                self._same(node, self._rows(self.plain, there), self._rows(session, there))
                continue
            self._same(node, expected, got)
            self._same(node, rows, self._rows(session, there))

    def _same(self, node: int, expected: list[str], got: list[str]) -> None:
        lost, more = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
        assert expected == got, self.told(
            f"node {node}",
            *(f"only plain: {x}" for x in lost[:8]),
            *(f"only there: {x}" for x in more[:8]),
        )

    def _catalogs(self, session: SyncConnection, names: dict[str, object]) -> list[str]:
        return [str(row[0]) for row in session.execute(CATALOGS.encode(), names)]

    def _rows(self, session: SyncConnection, shape: Shape) -> list[str]:
        return [
            f"{table.name} {row}"
            for table in shape.tables.values()
            for row in sorted(map(repr, session.execute(_query(table).encode())))
        ]

    def settle(self) -> None:
        """What DDL submitted has ended."""
        eventually(
            "what DDL submitted has ended", lambda: not self.cluster.commands_left(), seconds=60
        )

    def healthy(self) -> None:
        """The cluster itself finds nothing wrong."""
        self.settle()
        assert check(self.cluster.lord_dsn, data=True, patience=20) == [], self.told()

    def told(self, *lines: str) -> str:
        return "\n".join([*lines, f"after, in {self.schema}:", *self.said])


def _query(table: Table) -> str:
    """All rows, but of columns whose values differ only whether there is one."""
    shown = [f"{c} is null" if kind in OWN else c for c, kind in table.columns.items()]
    return f"select {', '.join(shown)} from {table.name}"


def _of(shape: Shape, shared: str, schema: str, lines: list[str]) -> list[str]:
    """What catalogs say of tables; not of one that is called as the shared one, in the other schema."""
    names = [t.bare.strip('"') for t in shape.tables.values() if t.bare != shared]
    kinds = [
        *(f"table {s} " for s in (schema, f"{schema}b")),
        *("column ", "constraint ", "index ", "statistics ", "policy "),
    ]
    heads = tuple(f"{kind}{name} " for kind in kinds for name in names)
    return [line for line in lines if line.startswith(heads)]
