"""A connection to the whole cluster, used like psycopg's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from inspect import isgenerator
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

import psycopg
from psycopg import errors
from psycopg.rows import Row, RowFactory, TupleRow, tuple_row

from shardman.client import two_phase
from shardman.client.blocks import Block
from shardman.client.canceled import explained
from shardman.client.client import Client, Watcher
from shardman.client.client import connect as connect_client
from shardman.client.cursors import Cursor
from shardman.client.explanation import Route, explain
from shardman.client.likeness import Likeness
from shardman.client.result import Result
from shardman.client.retry import REPEATED, Pauses
from shardman.client.router import Fanout, Query, Router
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.server_cursors import ServerCursor
from shardman.client.sessions import Steps
from shardman.client.snapshots import IN_SNAPSHOT, need_whole, take
from shardman.client.verbs import Verbs

if TYPE_CHECKING:
    from shardman.client.loading.load import Loaded, Progress
    from shardman.client.loading.unload import Unloaded

T = TypeVar("T")
#: Of a cursor that has others than the connection's.
CursorRow = TypeVar("CursorRow")


def _loading(part: str) -> Any:
    """A module of loading, which needs libraries that not everybody wants.

    Raises:
        ImportError: they are not installed.
    """
    try:
        return import_module(f"shardman.client.loading.{part}")
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("numpy", "pyarrow"):
            raise
        raise ImportError(
            f"{error.name} is not installed, and loading needs it: pip install 'pg-shardman[load]'"
        ) from error


@overload
def connect(
    dsn: str = "",
    *more: str,
    autocommit: bool = False,
    row_factory: RowFactory[Row],
    fanout: Fanout = "any",
    atomic: bool = True,
    refresh_seconds: float = 2.0,
    **options: Any,
) -> Connection[Row]: ...


@overload
def connect(
    dsn: str = "",
    *more: str,
    autocommit: bool = False,
    row_factory: None = None,
    fanout: Fanout = "any",
    atomic: bool = True,
    refresh_seconds: float = 2.0,
    **options: Any,
) -> Connection[TupleRow]: ...


def connect(
    dsn: str = "",
    *more: str,
    autocommit: bool = False,
    row_factory: RowFactory[Any] | None = None,
    fanout: Fanout = "any",
    atomic: bool = True,
    refresh_seconds: float = 2.0,
    **options: Any,
) -> Connection[Any]:
    """Connects to a cluster.

    Args:
        dsn: of any node; where it is empty, options and the environment say it.
        more: of others, tried in this order where one does not answer.
        autocommit, row_factory: as psycopg has them.
        fanout: ``single`` refuses statements that may touch more than one partition.
        atomic: a transaction takes in further nodes, and is committed on all of them or on none; else it stays
            on its first, and uses others through that.
        refresh_seconds: how old what is known of the partitions may be. Older than what is true it is slower,
            and never wrong.
        options: as for `psycopg.connect`.

    Raises:
        OperationalError: no node answers.
    """
    return Connection.connect(
        dsn,
        *more,
        autocommit=autocommit,
        row_factory=row_factory,
        fanout=fanout,
        atomic=atomic,
        refresh_seconds=refresh_seconds,
        **options,
    )


# Where psycopg and what builds on it ask whether something is a connection (TypeInfo.fetch), it is one.
class Connection(  # type: ignore[misc, override] # what psycopg's has as attributes is of several sessions
    Likeness, Verbs, psycopg.Connection[Row]
):
    """As `psycopg.Connection`, and with a method for each command of the cluster.

    A transaction takes in each node to which a statement goes straight, and is committed on all of them or
    on none.
    """

    def __init__(self, router: Router, row_factory: RowFactory[Row]) -> None:
        self.router = router
        self.row_factory = row_factory
        self.lock = threading.RLock()  # type: ignore[assignment] # what it does may call it again
        self._client: Client | None = None

    @classmethod
    def connect(  # type: ignore[override] # of one or several nodes
        cls,
        dsn: str = "",
        *more: str,
        autocommit: bool = False,
        row_factory: RowFactory[Row] | None = None,
        fanout: Fanout = "any",
        atomic: bool = True,
        refresh_seconds: float = 2.0,
        **options: Any,
    ) -> Self:
        """See `shardman.connect`.

        Raises:
            OperationalError: no node answers.
        """
        router = Router(
            (dsn, *more),
            options,
            psycopg.connect,
            autocommit,
            refresh_seconds,
            fanout=fanout,
            atomic=atomic,
        )
        db = cls(router, row_factory or cast(RowFactory[Row], tuple_row))
        db.drive(router.open())
        return db

    def drive(self, steps: Steps) -> Any:
        """Runs what a router wants to be called."""
        with self.lock:
            try:
                return self._drive(steps)
            except errors.QueryCanceled as error:
                why = self._drive(explained(self.router, error))
                if why is error:
                    raise
                raise why from error

    def _drive(self, steps: Steps) -> Any:
        try:
            call = next(steps)
            while True:
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - it goes to who wanted it
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            return end.value

    # -- as psycopg's ---------------------------------------------------------------------------

    @overload
    def cursor(self, *, binary: bool = False) -> Cursor[Row]: ...

    @overload
    def cursor(
        self, *, binary: bool = False, row_factory: RowFactory[CursorRow]
    ) -> Cursor[CursorRow]: ...

    @overload
    def cursor(
        self,
        name: str,
        *,
        binary: bool = False,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> ServerCursor[Row]: ...

    @overload
    def cursor(
        self,
        name: str,
        *,
        binary: bool = False,
        row_factory: RowFactory[CursorRow],
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> ServerCursor[CursorRow]: ...

    def cursor(
        self,
        name: str = "",
        *,
        binary: bool = False,
        row_factory: RowFactory[Any] | None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> Cursor[Any] | ServerCursor[Any]:
        """A cursor; with a name one of the server, where its statement's rows are."""
        factory = row_factory or self.row_factory
        if not name:
            return Cursor(self, factory, binary)
        return ServerCursor(self, factory, binary, name, scrollable, withhold)

    def execute(
        self,
        query: Query,
        params: Params = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        fanout: Fanout | None = None,
    ) -> Cursor[Row]:
        """Sends a statement where its rows are."""
        cursor: Cursor[Row] = Cursor(self, self.row_factory, binary)
        return cursor.execute(query, params, prepare=prepare, fanout=fanout)

    def commit(self) -> None:
        """Commits, on all nodes of the transaction or on none.

        Raises:
            SerializationFailure: a partition has moved meanwhile; it is rolled back.
            FeatureNotSupported: one of several nodes cannot prepare its part; it is rolled back.
            OperationalError: a connection broke. Where it is not known what came of it, the error says so.
        """
        self.drive(self.router.end("commit"))

    def rollback(self) -> None:
        """Rolls back."""
        self.drive(self.router.end("rollback"))

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False, *, here: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction, or a savepoint inside of one. It begins with its first statement, on that one's node.

        Args:
            here: it begins at once on the node that was connected to, for statements about what only
                that node has.
        """
        block = Block(savepoint_name, force_rollback, self)
        self.router.blocks.append(block)
        try:
            if here:
                self.drive(self.router.on_here())
            yield block  # type: ignore[misc] # it is one for isinstance, too
        except BaseException as error:
            if not self.drive(
                self.router.end_block(block, type(error), error, error.__traceback__)
            ):
                raise
        else:
            self.drive(self.router.end_block(block, None, None, None))

    def run(self, work: Callable[[Self], T], *, attempts: int | None = 10) -> T:
        """Does a piece of work in a transaction, and again, with pauses, where the server wants it repeated.

        That is after 40001 and 40P01, which a partition that moves gives too.

        Args:
            work: gets this connection. It may be called several times, so it should do nothing else.
            attempts: at most; None: until it succeeds.

        Returns:
            What it returns.

        Raises:
            psycopg.Error: another error, or the last one.
            ProgrammingError: a transaction is open, only all of which could be repeated.
        """
        self.router.need_no_transaction()
        pauses = Pauses(attempts)
        while True:
            try:
                with self.transaction():
                    return work(self)
            except REPEATED as error:
                time.sleep(pauses.next(error))

    @contextmanager
    def snapshot(self, *, patience_s: float = 5.0) -> Iterator[None]:
        """A transaction that only reads, and reads all nodes as one: each transaction over several nodes that
        a `shardman.connect` has committed is seen wholly or not at all.

        What was read counts when the block has ended without an error.

        Args:
            patience_s: for so long snapshots are taken again.

        Raises:
            SerializationFailure: partitions moved, or writers came to no end: repeat it.
            FeatureNotSupported: a node can be no part of it.
            ProgrammingError: a transaction is open.
        """
        self.router.need_no_transaction(IN_SNAPSHOT)
        with ExitStack() as stack:
            self._enter_snapshot(stack, time.monotonic() + patience_s)
            yield
            self.drive(need_whole(self.router))

    def _enter_snapshot(self, stack: ExitStack, until: float) -> None:
        pauses = Pauses(None)
        while True:
            try:
                with ExitStack() as attempt:
                    attempt.enter_context(self.transaction())
                    self.drive(take(self.router, until))
                    stack.push(attempt.pop_all())
                    return
            except errors.SerializationFailure as error:
                if time.monotonic() > until:
                    raise
                time.sleep(pauses.next(error))

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """psycopg's pipeline, on the node of the transaction or the one that was connected to."""
        self.router.need_one_node("a pipeline is on one node")
        node = self.router.bound() or HERE
        session = self.drive(self.router.session(node))
        with session.pipeline() as pipeline:
            self.router.pipeline = node
            self.router.goes_through(node)
            try:
                yield pipeline
            finally:
                self.router.pipeline = None

    def copy_from(
        self,
        table: str,
        *sources: Any,
        columns: Sequence[str] | None = None,
        header: bool = True,
        delimiter: str = ",",
        quote: str = '"',
        null: str = "",
        encoding: str = "utf8",
        block_bytes: int = 1 << 20,
        batch_rows: int | None = None,
        skip: int = 0,
        rejects: str | PathLike[str] | None = None,
        max_rejects: int = 1000,
        progress: Callable[[Progress], None] | None = None,
    ) -> Loaded:
        """Loads rows: to all owners at once, all of them or none.

        In a transaction of its own, or in the one that is open.

        Args:
            table: any table of the cluster; its name as SQL has it.
            sources: paths (CSV, also .gz, .bz2, .zst, .lz4; .parquet; .arrow), open files (CSV), frames and
                tables (whatever gives Arrow: pandas, Polars, DuckDB, pyarrow), or iterables of rows.
            columns: of the source, where it does not name them, or names them otherwise.
            header, delimiter, quote, null, encoding: of CSV, as COPY has them.
            block_bytes: how much of CSV is read at once; a row must not be longer.
            batch_rows: commits after about so many rows, instead of once. Then what was committed stays, and an
                error says with which ``skip`` to go on.
            skip: how many rows are left out at the beginning.
            rejects: a file into which rows go that are wrong, which end the loading otherwise.
            max_rejects: how many go there; one more ends it.
            progress: is told how far it is.

        Raises:
            psycopg.Error: as COPY raises it; where a row is wrong its number is in ``row``, and in the notes
                with its content.
            ImportError: pg-shardman[load] is not installed.
        """
        loading = _loading("load")
        wishes = loading.Wishes(
            columns,
            loading.Csv(header, delimiter, quote, null, encoding, block_bytes),
            batch_rows,
            skip,
            rejects,
            max_rejects,
            progress or (lambda _progress: None),
        )
        with self.lock:
            return loading.load(self, table, sources, wishes)  # type: ignore[no-any-return]

    def copy_to(
        self,
        table: str,
        target: Any,
        *,
        columns: Sequence[str] | None = None,
        header: bool = True,
        progress: Callable[[Unloaded], None] | None = None,
    ) -> Unloaded:
        """Writes a table's rows out, from all nodes at once, in no order.

        Each node's rows are as they were at one instant of its own; in an open transaction as that sees them.

        Args:
            table: any table of the cluster; its name as SQL has it.
            target: a path (CSV, also .gz, .bz2, .zst, .lz4; .parquet), or an open file, for CSV.
            columns: those that are written.
            header: CSV begins with the columns' names.
            progress: is told how far it is.

        Raises:
            psycopg.Error: as COPY raises it. A file that was named is as it was before.
            ImportError: pg-shardman[load] is not installed.
        """
        format_ = _loading("sources").Csv(header)
        unload = _loading("unload").unload
        with self.lock:
            return unload(  # type: ignore[no-any-return]
                self, table, target, columns, format_, progress or (lambda _done: None)
            )

    def cancel(  # type: ignore[override] # a command of the cluster, too
        self, cmd_id: int | None = None
    ) -> bool | None:
        """Cancels the statement that is under way; with a number that command of the cluster."""
        if cmd_id is not None:
            return self.client.cancel(cmd_id)
        for session in list(self.router.sessions.values()):
            session.cancel()
        return None

    def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """As psycopg's, on all nodes."""
        for session in list(self.router.sessions.values()):
            session.cancel_safe(timeout=timeout)

    def close(self) -> None:
        """Closes the sessions on all nodes; what is not committed is rolled back."""
        self.drive(self.router.close())
        if self._client is not None:
            self._client.close()

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction."""
        return self.router.autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.set_autocommit(value)

    @property
    def isolation_level(self) -> psycopg.IsolationLevel | None:
        """Of transactions that begin."""
        return self.router.settings.get("isolation_level")

    @isolation_level.setter
    def isolation_level(self, value: psycopg.IsolationLevel | None) -> None:
        self.set_isolation_level(value)

    @property
    def read_only(self) -> bool | None:
        """Whether transactions that begin only read."""
        return self.router.settings.get("read_only")

    @read_only.setter
    def read_only(self, value: bool | None) -> None:
        self.set_read_only(value)

    @property
    def deferrable(self) -> bool | None:
        """Whether transactions that begin wait for a moment in which they need not be checked."""
        return self.router.settings.get("deferrable")

    @deferrable.setter
    def deferrable(self, value: bool | None) -> None:
        self.set_deferrable(value)

    def set_autocommit(self, value: bool) -> None:
        """As psycopg's, on all nodes."""
        self.drive(self.router.set("autocommit", value))

    def set_isolation_level(self, value: psycopg.IsolationLevel | None) -> None:
        """As psycopg's, on all nodes."""
        self.drive(self.router.set("isolation_level", value))

    def set_read_only(self, value: bool | None) -> None:
        """As psycopg's, on all nodes."""
        self.drive(self.router.set("read_only", value))

    def set_deferrable(self, value: bool | None) -> None:
        """As psycopg's, on all nodes."""
        self.drive(self.router.set("deferrable", value))

    def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> Generator[psycopg.Notify, None, None]:
        """As psycopg's. LISTEN is on the node that was connected to."""
        here = self.drive(self.router.session(HERE))
        yield from here.notifies(timeout=timeout, stop_after=stop_after)

    def tpc_begin(self, xid: psycopg.Xid | str) -> None:
        """As psycopg's: a transaction on the node that was connected to only."""
        self.drive(two_phase.begin(self.router, xid))

    def tpc_prepare(self) -> None:
        """As psycopg's."""
        self.drive(two_phase.prepare(self.router))

    def tpc_commit(self, xid: psycopg.Xid | str | None = None) -> None:
        """As psycopg's."""
        self.drive(two_phase.end(self.router, "tpc_commit", xid))

    def tpc_rollback(self, xid: psycopg.Xid | str | None = None) -> None:
        """As psycopg's."""
        self.drive(two_phase.end(self.router, "tpc_rollback", xid))

    def tpc_recover(self) -> list[psycopg.Xid]:
        """As psycopg's: what is prepared on the node that was connected to."""
        return self.drive(two_phase.recover(self.router))  # type: ignore[no-any-return]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self.closed:
                self.drive(self.router.end("rollback" if kind else "commit"))
        finally:
            if self._pool is None:
                self.close()

    # -- of the cluster -------------------------------------------------------------------------

    def explain_route(self, query: Query, params: Params = None) -> Route:
        """Where a statement would go, and why; nothing is sent."""
        return explain(self.router, query, params)

    @property
    def client(self) -> Client:
        """The commands, over a connection of their own."""
        if self._client is None:
            info = self._here.info
            self._client = connect_client(info.dsn, **self._secret(info))
        return self._client

    def _secret(self, info: psycopg.ConnectionInfo) -> dict[str, str]:
        return {"password": info.password} if info.password else {}

    def wait(  # type: ignore[override] # for a command of the cluster, too
        self, cmd_id: int, timeout: float | None = None, watch: Watcher | None = None
    ) -> Result:
        """See `Client.wait`."""
        work: Any = cmd_id
        if isgenerator(work):
            return self._wait(work, timeout)  # type: ignore[no-any-return]
        return self.client.wait(cmd_id, timeout, watch)

    def _wait(self, work: Any, interval: float | None) -> Any:
        """psycopg's wait: what a cursor of its own wants done, on the node that was connected to."""
        with self.lock:
            here = self._drive(self.router.on_here())
            return here.wait(work, *([] if interval is None else [interval]))

    def command(self, cmd_id: int) -> Result:
        """See `Client.command`."""
        return self.client.command(cmd_id)

    def commands(self, limit: int | None = None) -> list[Result]:
        """See `Client.commands`."""
        return self.client.commands(limit)

    def _run(
        self, name: str, arguments: Mapping[str, Any], wait: bool, timeout: float | None
    ) -> Result:
        return self.client._run(name, arguments, wait, timeout)  # noqa: SLF001 - it is its other half
