"""A connection to a node, with a method for each command."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from shardman.client.calls import call
from shardman.client.result import Result
from shardman.client.verbs import Verbs
from shardman.errors import Code, UserError
from shardman.pg.connect import connect as open_session
from shardman.pg.connection import SyncConnection

#: One look at a command lasts this long; it ends at once when the command does.
_LOOK_SECONDS = 0.25
#: A worker learns of a new command a moment after its submission.
_UNKNOWN_SECONDS = 5.0

Watcher = Callable[[Result], None]


def connect(dsn: str, **parameters: Any) -> Client:
    """Connects to any node of a cluster.

    Args:
        dsn: any libpq connection string.
        parameters: more of them, as for `psycopg.connect`.

    Raises:
        UserError: the string cannot be read, or the server cannot be reached.
    """
    return Client(open_session(dsn, row_factory=psycopg.rows.tuple_row, **parameters))


class Client(Verbs):
    """The commands, over one connection.

    Each method submits a command and waits until it has ended (`Result.ok` says how), at most
    ``timeout`` seconds; with ``wait=False`` it returns at once. The connection is in autocommit
    mode.

    Args:
        connection: to any node. One of your own keeps its settings: `wait` needs read committed
            transactions, and times are only read with an ISO DateStyle.
    """

    def __init__(self, connection: SyncConnection) -> None:
        self.connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; commands that were submitted go on."""
        self.connection.close()

    # -- what became of them --------------------------------------------------------------------

    def wait(
        self, cmd_id: int, timeout: float | None = None, watch: Watcher | None = None
    ) -> Result:
        """Waits until a command has ended, or for ``timeout`` seconds.

        Args:
            cmd_id: the command.
            timeout: the result is returned as it is then: see `Result.ended`.
            watch: called with the command's state some times a second.

        Raises:
            UserError: there is no such command.
        """
        self._refuse_in_transaction()
        begun = time.monotonic()
        until = None if timeout is None else begun + timeout
        while True:
            left = _LOOK_SECONDS if until is None else max(0.0, until - time.monotonic())
            self._execute(
                "select shardman.cmd_wait(%s::bigint, make_interval(secs => %s))",
                (cmd_id, min(left, _LOOK_SECONDS)),
            )
            now = self._find(cmd_id)
            if now is None:
                if time.monotonic() - begun > _UNKNOWN_SECONDS:
                    raise _no_command(cmd_id)
                continue
            if watch is not None:
                watch(now)
            if now.ended or (until is not None and time.monotonic() >= until):
                return now

    def cancel(self, cmd_id: int) -> bool:
        """Cancels a command; false when it has ended or is past its point of no return."""
        return bool(self._execute("select shardman.cancel_cmd(%s::bigint)", (cmd_id,))[0][0])

    def command(self, cmd_id: int) -> Result:
        """One command as it is now.

        Raises:
            UserError: there is no such command.
        """
        found = self._find(cmd_id)
        if found is None:
            raise _no_command(cmd_id)
        return found

    def commands(self, limit: int | None = None) -> list[Result]:
        """The commands, the newest first."""
        return self._results("select * from shardman.commands order by id desc limit %s", (limit,))

    def running_parts(self, cmd_id: int) -> list[Result]:
        """The commands that this one has begun as parts of itself and that are running."""
        return self._results(
            "select * from shardman.commands where parent = %s and status = 'in progress'"
            " order by id",
            (cmd_id,),
        )

    def since(self, cmd_id: int, also: Sequence[int] = ()) -> list[Result]:
        """The commands submitted after this one, and those named, the oldest first."""
        return self._results(
            "select * from shardman.commands where id > %s or id = any (%s) order by id",
            (cmd_id, list(also)),
        )

    def submit(self, function_call: LiteralString, arguments: Sequence[Any] = ()) -> int:
        """Submits a command by a select of its SQL function; returns its id at once."""
        return int(self._execute(function_call, arguments)[0][0])

    # -- inside ---------------------------------------------------------------------------------

    def _run(
        self, name: str, arguments: Mapping[str, Any], wait: bool, timeout: float | None
    ) -> Result:
        if wait:
            self._refuse_in_transaction()
        cmd_id = int(self._execute(call(name, arguments), arguments)[0][0])
        if wait:
            return self.wait(cmd_id, timeout)
        # Not read back: on a worker the row may not have arrived yet.
        return self._find(cmd_id) or Result(cmd_id, name, None, "waiting")

    def _refuse_in_transaction(self) -> None:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            raise UserError(
                "a command begins when the transaction that submits it is committed",
                "Commit before waiting, or call it with wait=False",
                code=Code.TRANSACTION_OPEN,
            )
        if not self.connection.autocommit:
            # Otherwise the first select would open a transaction in which no end can be seen.
            self.connection.autocommit = True

    def _find(self, cmd_id: int) -> Result | None:
        found = self._results("select * from shardman.commands where id = %s", (cmd_id,))
        return found[0] if found else None

    def _results(self, query: LiteralString, arguments: Sequence[Any]) -> list[Result]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return [Result.of(row) for row in cursor.execute(query, arguments)]

    def _execute(
        self, query: LiteralString | sql.Composed, arguments: Sequence[Any] | Mapping[str, Any]
    ) -> list[tuple[Any, ...]]:
        with self.connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
            return cursor.execute(query, arguments).fetchall()


def _no_command(cmd_id: int) -> UserError:
    return UserError(
        f"there is no command {cmd_id}",
        "See shardman log for those there are",
        code=Code.NO_SUCH_COMMAND,
    )
