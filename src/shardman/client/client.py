"""A connection to a node, with a method for each command."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from shardman.client.result import Result
from shardman.errors import UserError
from shardman.pg import reach

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
    return Client(reach.connect(dsn, row_factory=psycopg.rows.tuple_row, **parameters))


class Client:
    """The commands, over one connection.

    Each method submits a command and waits until it has ended (`Result.ok` says how), at most
    ``timeout`` seconds; with ``wait=False`` it returns at once. The connection is in autocommit
    mode.

    Args:
        connection: to any node. One of your own keeps its settings: `wait` needs read committed
            transactions, and times are only read with an ISO DateStyle.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
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

    # -- commands -------------------------------------------------------------------------------

    def add_node(
        self,
        connstring: str,
        zone: str | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Adds a server to the cluster as a worker.

        Args:
            zone: what may fail together with other nodes of that name; None: with no other.
        """
        return self._run("select shardman.add_node(%s, %s)", (connstring, zone), wait, timeout)

    def set_zone(
        self, node_id: int, zone: str | None, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Says what a worker may fail together with."""
        return self._run("select shardman.set_zone(%s, %s)", (node_id, zone), wait, timeout)

    def drain_node(
        self, node_id: int, drain: bool = True, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Moves all copies of partitions off a worker; with ``drain`` false it may have some again."""
        return self._run("select shardman.drain_node(%s, %s)", (node_id, drain), wait, timeout)

    def rm_node(
        self, node_id: int, force: bool = False, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Removes a worker; without ``force`` it must hold no partitions."""
        return self._run("select shardman.rm_node(%s, %s)", (node_id, force), wait, timeout)

    def create_hash_partitions(
        self,
        node_id: int,
        relation: str,
        expr: str,
        partitions_count: int,
        rebalance: bool = True,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Shards a table that lies on worker ``node_id`` by the hash of ``expr``."""
        return self._run(
            "select shardman.create_hash_partitions(%s, %s, %s, %s, %s)",
            (node_id, relation, expr, partitions_count, rebalance),
            wait,
            timeout,
        )

    def move_part(
        self,
        part_name: str,
        dest: int,
        src: int | None = None,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Moves a copy of a partition to worker ``dest`` while it is read and written."""
        return self._run(
            "select shardman.move_part(%s, %s, %s)", (part_name, dest, src), wait, timeout
        )

    def rebalance(
        self,
        relation: str,
        by: str = "number",
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Spreads the partitions of a table evenly over the workers, by ``number`` or ``bytes``."""
        return self._run("select shardman.rebalance(%s, %s)", (relation, by), wait, timeout)

    def create_replica(
        self, part_name: str, dest: int, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Makes a further copy of a partition on worker ``dest``."""
        return self._run("select shardman.create_replica(%s, %s)", (part_name, dest), wait, timeout)

    def rm_replica(
        self, part_name: str, node: int, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Drops the replica of a partition on a worker."""
        return self._run("select shardman.rm_replica(%s, %s)", (part_name, node), wait, timeout)

    def switch_primary(
        self, part_name: str, node: int, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Makes the replica of a partition on a worker the primary, and the primary a replica."""
        return self._run("select shardman.switch_primary(%s, %s)", (part_name, node), wait, timeout)

    def suspend_replicas(
        self, src: int, dest: int, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Lets commits on one worker wait no more for the replicas on another one."""
        return self._run("select shardman.suspend_replicas(%s, %s)", (src, dest), wait, timeout)

    def set_replevel(
        self, relation: str, replevel: int, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Brings every partition of a table to this many replicas."""
        return self._run(
            "select shardman.set_replevel(%s, %s)", (relation, replevel), wait, timeout
        )

    def set_sync(
        self, relation: str, sync: bool, *, wait: bool = True, timeout: float | None = None
    ) -> Result:
        """Whether commits wait until every replica of a table's partitions has them."""
        return self._run("select shardman.set_sync(%s, %s)", (relation, sync), wait, timeout)

    def failover(
        self,
        node_id: int,
        accept_data_loss: bool = False,
        *,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Promotes the replicas of a dead worker's partitions.

        Args:
            accept_data_loss: also those that may lack acknowledged writes, where nothing else is there.
        """
        return self._run(
            "select shardman.failover(%s, %s)", (node_id, accept_data_loss), wait, timeout
        )

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
                "select shardman.cmd_wait(%s, make_interval(secs => %s))",
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
        return bool(self._execute("select shardman.cancel_cmd(%s)", (cmd_id,))[0][0])

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
        self,
        function_call: LiteralString,
        arguments: Sequence[Any],
        wait: bool,
        timeout: float | None,
    ) -> Result:
        if wait:
            self._refuse_in_transaction()
        cmd_id = self.submit(function_call, arguments)
        if wait:
            return self.wait(cmd_id, timeout)
        # Not read back: on a worker the row may not have arrived yet.
        name = function_call.partition("shardman.")[2].partition("(")[0]
        return self._find(cmd_id) or Result(cmd_id, name, None, "waiting")

    def _refuse_in_transaction(self) -> None:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            raise UserError(
                "a command begins when the transaction that submits it is committed",
                "Commit before waiting, or call it with wait=False",
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

    def _execute(self, query: LiteralString, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
            return cursor.execute(query, arguments).fetchall()


def _no_command(cmd_id: int) -> UserError:
    return UserError(f"there is no command {cmd_id}", "See shardman log for those there are")
