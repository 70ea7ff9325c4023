"""Transactions of a connection: on one node, or on several by two-phase commit.

The parts on all nodes but the first are prepared, the first one's commit is the decision, then the others are
committed (presumed abort: Mohan, Lindsay, Obermarck, ACM TODS 11(4), 1986). What a client that dies leaves is
ended by the shardlord: see sql/routines/99_client_transactions.sql.

PostgreSQL prepares no transaction that has used another node through postgres_fdw (manual, F.38.4), so only
statements that go straight to the owner of their rows take in further nodes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, TransactionStatus

from shardman.client import inner
from shardman.client.blocks import Block
from shardman.client.held import Act, Held, Said
from shardman.client.naming import as_of_the_table
from shardman.client.routing.choice import Choice
from shardman.client.routing.picture import HERE, read
from shardman.client.sessions import IDLE, Sessions, Steps
from shardman.client.together import at_once
from shardman.client.wire import exchange, filled

_FAILED = TransactionStatus.INERROR


@dataclass
class Transactions(Sessions):
    """What a transaction has done where.

    Args:
        atomic: a transaction may take in further nodes.
        wrote: nodes on which it may have changed something.
        through: it has used other nodes through one, which cannot be prepared then.
        loners: nodes that can have no part of a transaction over several.
        held: savepoints and settings that each node of it is told.
        cursors: of the server, by name: where their statements went.
        decides: the node whose part must be the one that is not prepared; None: any may be.
    """

    atomic: bool = True
    wrote: set[str] = field(default_factory=set)
    through: bool = False
    loners: set[str] = field(default_factory=set)
    held: Held = field(default_factory=Held)
    cursors: dict[str, Choice] = field(default_factory=dict)
    decides: str | None = None

    def is_open(self) -> bool:
        """Whether there is a transaction that a statement would be a part of."""
        return bool(self.blocks) or not self.autocommit

    def may_take_in(self) -> bool:
        """Whether the transaction may go on to further nodes."""
        parts = self.parts()
        return (
            self.atomic
            and self.is_open()
            and not (self.through or self.pinned or self.pipeline)
            and not self.loners.intersection(parts)
            and all(node in self.numbers for node in parts)
        )

    def need_one_node(self, why: str) -> None:
        """For what can be no part of a transaction on several nodes.

        Raises:
            FeatureNotSupported: it is on several.
        """
        parts = self.parts()
        if len(parts) > 1:
            raise errors.FeatureNotSupported(
                f"{why}, and the transaction has taken in {' and '.join(map(self.label, parts))}."
                " Do it before, or in another transaction; with db.transaction(here=True), or"
                " connect(…, atomic=False), a transaction stays on one node"
            )

    def need_no_transaction(
        self, why: str = "only a whole one can be repeated: end it before run()"
    ) -> None:
        """For what begins one of its own.

        Raises:
            ProgrammingError: one is open.
        """
        if self.blocks or self.held or self.parts():
            raise psycopg.ProgrammingError(f"a transaction is open, and {why}")

    def need_sound(self, node: str) -> None:
        """Before a statement on one node, where the transaction has failed on another.

        Raises:
            InFailedSqlTransaction: it has.
        """
        for other in self.parts():
            if other != node and self.sessions[other].pgconn.transaction_status == _FAILED:
                raise errors.InFailedSqlTransaction(
                    f"the transaction has failed on {self.label(other)}: roll it back"
                )

    def label(self, node: str) -> str:
        """A node, for people."""
        if node == HERE:
            number = self.ids.get(HERE, self.numbers.get(HERE))
            return f"node {number}" if number is not None else "the node that was connected to"
        return f"node {node.rpartition('_')[2]}"

    def told(self, error: psycopg.Error, node: str) -> psycopg.Error:
        """The error, with the node where it arose."""
        name = self.label(node)
        error.node = name  # type: ignore[attr-defined]
        error.place = node  # type: ignore[attr-defined]
        error.add_note(f"shardman: on {name}")
        as_of_the_table(error, self.picture)
        return error

    def forget_transaction(self) -> None:
        """Behind its end."""
        if self.bound() is None:
            self.cursors.clear()
            self.through = False
            self.decides = None
            self.wrote.clear()
            if self.pinned == "transaction":
                self.pinned = ""

    def goes_through(self, node: str) -> None:
        """What is done on a node is not known, and may use others."""
        if self.is_open():
            self.through = True
            self.wrote.add(node)

    # -- its beginning --------------------------------------------------------------------------

    def need_alive(self) -> None:
        """Before anything is done in a transaction.

        Raises:
            OperationalError: a part of it is gone, or the connection was closed.
        """
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        if self.lost:
            raise psycopg.OperationalError("the transaction was lost with its node: roll it back")

    def begin(self, session: Any, node: str) -> Steps:
        """Enters on a node the blocks that are open.

        Raises:
            OperationalError: the part of the transaction there is gone, and this is another session.
        """
        entered = any(node in block.entered for block in self.blocks)
        if (entered or node in self.wrote) and not self.pipeline:
            self.lost = self.lost or session.pgconn.transaction_status == IDLE
        self.need_alive()
        fresh = not entered and session.pgconn.transaction_status == IDLE
        if fresh and self.held:
            self.held.join(node)
        for depth, block in enumerate(self.blocks):
            if fresh:
                yield from self._say_again(session, depth)
            if node not in block.entered:
                made = session.transaction(block.name, block.force_rollback)
                entered_ = yield getattr(made, "__aenter__", None) or made.__enter__
                block.entered[node] = (session, made, entered_)
        if fresh:
            yield from self._say_again(session, len(self.blocks))

    def _say_again(self, session: Any, depth: int) -> Steps:
        for text in self.held.texts(depth):
            yield partial(session.execute, text, prepare=False)

    def say(self, said: Said, text: Any, act: Callable[[Any, Any], Steps]) -> Steps:
        """Says something to all nodes of the transaction, those that are there and those that are to come.

        Args:
            act: sends a text on a session; without a session there is none yet.
        """
        if said.act is Act.ROLLBACK_TO:
            yield from self._leave_later(said.name)
        parts = self.parts()
        # Where it has failed already the statement is refused, before others hear it.
        parts.sort(key=lambda n: self.sessions[n].pgconn.transaction_status != _FAILED)
        if not parts:
            yield from act(None, text)
        for node in parts:
            session = self.sessions[node]
            try:
                if said.act is not Act.ROLLBACK_TO:
                    yield from self.begin(session, node)
                yield from act(session, text)
            except psycopg.Error as error:
                self.lose(session)
                raise self.told(error, node) from None
        self.held.note(said, text, len(self.blocks))

    def on_here(self) -> Steps:
        """The session on the node that was connected to, with what is open begun there. What is done with it
        is not known.

        Raises:
            FeatureNotSupported: the transaction is on another node.
        """
        if self.parts() not in ([], [HERE]):
            raise errors.FeatureNotSupported("the transaction has begun on another node")
        session = yield from self.session(HERE)
        yield from self.begin(session, HERE)
        self.goes_through(HERE)
        return session

    def take_in(self, nodes: Sequence[str], *, writes: bool = True) -> Steps:
        """Sessions on nodes that are to be used straight, with the transaction begun there; None where it
        cannot go on to all of them.

        Args:
            nodes: one or several.
            writes: it is to change something there.
        """
        self.need_alive()
        if len({*nodes, *self.parts()}) > 1 and not self.may_take_in():
            return None
        found = {}
        for node in nodes:
            self.need_sound(node)
            found[node] = yield from self.session(node)
            if node in self.unfit or (len(nodes) > 1 and node not in self.numbers):
                return None
        for node, session in found.items():
            yield from self.begin(session, node)
            if writes:
                self.wrote.add(node)
        return found

    def _leave_later(self, name: str) -> Steps:
        """Nodes that were taken in after a savepoint leave the transaction: all that it did there is undone."""
        if self.blocks:
            return
        for node in self.held.joined_after(name).intersection(self.parts()):
            try:
                yield self.sessions[node].rollback
            except psycopg.Error:
                # It is gone, and its part with it.
                continue
            finally:
                self.held.forget(node)
                self.wrote.discard(node)
        self.forget_transaction()

    def lose(self, session: Any) -> None:
        """Whoever goes on in a transaction whose node is away must not believe that it is all there."""
        if session.pgconn.status != ConnStatus.OK:
            self.lost = bool(self.blocks) or not self.autocommit

    # -- its end --------------------------------------------------------------------------------

    def end(self, action: str) -> Steps:
        """Commits, or rolls back, what is open.

        Args:
            action: ``commit`` or ``rollback``.

        Raises:
            OperationalError: there is nothing to commit any more, or nobody can tell yet whether it is.
            ProgrammingError: within a `transaction()` or `tpc_begin`.
        """
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        lost, self.lost = self.lost, False
        try:
            if self.blocks or inner.is_two_phase(self.sessions[HERE]):
                # psycopg says that this is not to be done here.
                yield getattr(self.sessions[self.bound() or HERE], action)
            leave = {n: partial(_end, self.sessions[n]) for n in self.parts()}
            if lost or action == "rollback":
                yield from self._roll_back(leave)
            else:
                yield from self._commit(leave)
        finally:
            if not self.blocks:
                self.held.clear()
            self.forget_transaction()
        if lost and action == "commit":
            raise psycopg.OperationalError("the transaction was lost with its node: repeat it")

    def end_block(self, block: Block, *error: Any) -> Steps:
        """Ends a `transaction()`; whether its error is to be silent."""
        block.ends(error[1])
        try:
            return (yield from self._end_block(block, *error))
        except BaseException:
            block.fails()
            raise

    def _end_block(self, block: Block, *error: Any) -> Steps:
        self.blocks.remove(block)
        self.held.leave(len(self.blocks), kept=error[0] is None and not block.force_rollback)
        silent = isinstance(error[1], psycopg.Rollback) and _is_until(error[1], block)
        if silent:
            # psycopg's transactions do not know ours.
            error = (psycopg.Rollback, psycopg.Rollback(), error[2])
        if not block.entered:
            if self.autocommit and not self.blocks:
                self.held.clear()
            return silent
        try:
            leave = {node: partial(_leave, *entered) for node, entered in block.entered.items()}
            ends = not self.blocks and error[0] is None and not block.force_rollback
            if ends and (len(leave) > 1 or self.lost):
                lost, self.lost = self.lost, False
                if lost:
                    yield from self._roll_back(leave)
                    raise psycopg.OperationalError(
                        "the transaction was lost with one of its nodes: repeat it"
                    )
                yield from self._commit(leave)
            else:
                silent = yield from self._leave_all(leave, error)
            self.lost = self.lost and bool(self.blocks)
        finally:
            if not self.blocks and self.bound() is None:
                self.held.clear()
            self.forget_transaction()
        return silent

    def _leave_all(self, leave: Mapping[str, Callable[..., Any]], error: Sequence[Any]) -> Steps:
        """Leaves a block on all nodes: a savepoint, or a transaction that is rolled back or on one node."""
        silent = False
        failed: BaseException | None = None
        for node, end in leave.items():
            try:
                silent = bool((yield partial(end, *error))) or silent
            except BaseException as problem:  # noqa: BLE001 - it is raised when all are left
                failed = failed or problem
                if self.sessions[node].pgconn.status != ConnStatus.OK:
                    self.lost = bool(self.blocks)
        if failed is not None:
            raise failed
        return silent

    def _roll_back(self, leave: Mapping[str, Callable[..., Any]]) -> Steps:
        """On all nodes, also where one is gone, which rolls back by itself."""
        for end in leave.values():
            try:
                yield partial(end, psycopg.Rollback, psycopg.Rollback(), None)
            except psycopg.Error:
                continue

    def _commit(self, leave: Mapping[str, Callable[..., Any]]) -> Steps:
        """All parts, or none.

        Args:
            leave: by node, what ends the part there.
        """
        if len(leave) <= 1:
            yield from leave.values()
            return
        if any(self.sessions[n].pgconn.transaction_status == _FAILED for n in leave):
            # As COMMIT does in one that has failed.
            yield from self._roll_back(leave)
            return
        done: set[str] = set()
        try:
            writers = [n for n in leave if n in self.wrote]
            writers.sort(key=lambda n: n != self.decides)
            # One that has only read may still fail, as SERIALIZABLE: before anything is decided.
            for node in [n for n in leave if n not in writers]:
                done.add(node)
                yield leave[node]
            if len(writers) == 1:
                done.add(writers[0])
                yield leave[writers[0]]
            elif writers:
                yield from self._commit_writers(writers, leave, done)
        except BaseException:
            yield from self._roll_back({n: end for n, end in leave.items() if n not in done})
            raise

    def _commit_writers(
        self, writers: Sequence[str], leave: Mapping[str, Callable[..., Any]], done: set[str]
    ) -> Steps:
        first, *others = writers
        tickets: dict[str, str | None] = {}
        gid = ""
        try:
            gid = yield from self._first_part(first, others)
            try:
                yield from self._prepare(others, gid, tickets)
            finally:
                for node in tickets:
                    done.add(node)
                    yield leave[node]
            told = [t for t in tickets.values() if t]

            def leave_first() -> Any:
                done.add(first)
                return leave[first]()

            yield from self._decide(first, leave_first, gid, told)
        except _InDoubt as doubt:
            raise doubt.told from None
        except BaseException as error:
            yield from self._finish(list(tickets), "rollback_prepared", gid)
            if isinstance(error, errors.FeatureNotSupported):
                yield from self._roll_back({n: e for n, e in leave.items() if n not in done})
                done.update(leave)
                raise (yield from self._not_prepared(error, writers)) from None
            raise
        yield from self._finish(others, "commit_prepared", gid)

    def _first_part(self, first: str, others: Sequence[str]) -> Steps:
        session = self.sessions[first]
        nodes = ",".join(str(self.numbers[n]) for n in others)
        text = filled(session, "first_part", secrets.token_hex(16), "{" + nodes + "}")
        try:
            gid = yield lambda: exchange(session, text)
        except psycopg.Error as error:
            raise self.told(error, first) from None
        return gid

    def _prepare(self, nodes: Sequence[str], gid: str, tickets: dict[str, str | None]) -> Steps:
        """Prepares the parts on some nodes, all at the same time.

        Args:
            tickets: gets, for each node that has prepared, by which a copy of its part can be known, if by
                anything.
        """
        sessions = {n: self.sessions[n] for n in nodes}
        told: list[psycopg.Error] = []

        def take(node: str, ticket: str | None) -> None:
            tickets[node] = ticket

        def fail(node: str, error: psycopg.Error) -> None:
            told.append(self.told(error, node))

        calls = [_part(s, filled(s, "prepare", gid), n, take, fail) for n, s in sessions.items()]
        yield from _all(list(sessions.values()), calls)
        if told:
            raise told[0] from None

    def _decide(
        self, first: str, leave: Callable[..., Any], gid: str, tickets: Sequence[str]
    ) -> Steps:
        """Commits on the first node, which is when the transaction is committed.

        Args:
            tickets: are written down with it, so that whoever takes over from a node knows its part by its
                copy there.

        Raises:
            _InDoubt: nobody can tell whether it is, before that node answers again.
        """
        session = self.sessions[first]
        try:
            # A first node of a former version cannot be told.
            if tickets and not gid.split("_")[2].startswith("x"):
                text = filled(session, "decide", gid, "{" + ",".join(tickets) + "}")
                yield lambda: exchange(session, text)
            yield leave
        except psycopg.Error as error:
            if session.pgconn.status == ConnStatus.OK:
                raise self.told(error, first) from None
            told = psycopg.OperationalError(
                f"the connection to {self.label(first)} broke while it committed: the transaction {gid}"
                " is committed on all nodes or on none, and the shardlord ends it when that node answers."
                f" Look whether it is before you repeat it ({error})"
            )
            raise _InDoubt(told) from None
        except BaseException as error:  # noqa: BLE001 - cut short: it may have been done
            raise _InDoubt(error) from None

    def _finish(self, nodes: Sequence[str], verb: str, gid: str) -> Steps:
        """What cannot be done now the shardlord does."""
        sessions = {n: self.sessions[n] for n in nodes}
        calls = [_part(s, filled(s, verb, gid), n) for n, s in sessions.items()]
        yield from _all(list(sessions.values()), calls)

    def _not_prepared(self, error: psycopg.Error, nodes: Sequence[str]) -> Steps:
        """Either a partition has moved, so that its node has forwarded, or it can never be prepared."""
        moved = yield from self._has_moved(nodes)
        yield from self.refresh(now=True)
        if moved:
            return errors.SerializationFailure(
                "a partition has moved during the transaction, which was rolled back on all nodes: repeat it"
            )
        return errors.FeatureNotSupported(
            "the transaction is on several nodes and one of them cannot prepare it, so it was rolled back on"
            f" all: {error}. With connect(…, atomic=False) it stays on one node, and uses others through that"
        )

    def _has_moved(self, nodes: Sequence[str]) -> Steps:
        """Whether nodes lack partitions that they are believed to have. The node that was connected to may
        follow a move later than they do, so it is they who are asked."""
        for node in nodes:
            session = self.sessions[node]
            tables = yield from self._ask(session, "tables")
            (seen,) = yield from self._ask(session, "session")
            yield session.rollback
            theirs = read(tables, seen).named
            for name, table in self.picture.named.items():
                there = theirs[name].parts if name in theirs else ()
                own = [p.node == node for p in table.parts]
                if any(own) and own != [
                    o and p.node == HERE for o, p in zip(own, there, strict=False)
                ]:
                    return True
        return False


def _is_until(rollback: psycopg.Rollback, block: Any) -> bool:
    return rollback.transaction is None or rollback.transaction is block


def _part(
    session: Any,
    text: bytes,
    node: str,
    take: Callable[[str, str | None], None] = lambda _node, _value: None,
    fail: Callable[[str, psycopg.Error], None] = lambda _node, _error: None,
) -> Callable[[], Any]:
    """What sends a text to one of several nodes, and tells what came of it."""

    def sync() -> None:
        try:
            take(node, exchange(session, text))
        except psycopg.Error as error:
            fail(node, error)

    async def later() -> None:
        try:
            take(node, await exchange(session, text))
        except psycopg.Error as error:
            fail(node, error)

    return later if isinstance(session, psycopg.AsyncConnection) else sync


def _all(sessions: Sequence[Any], calls: Sequence[Callable[[], Any]]) -> Steps:
    """Does all of them; one needs no thread."""
    if len(calls) == 1:
        yield calls[0]
    elif calls:
        yield lambda: at_once(sessions, calls)


class _InDoubt(Exception):
    def __init__(self, told: BaseException) -> None:
        self.told = told


def _end(session: Any, kind: Any = None, *_error: Any) -> Any:
    """Ends what is open outside of a block. A session that is gone has committed nothing, and says so."""
    status = session.pgconn.transaction_status
    if status == IDLE:
        return None
    if kind is None:
        return session.commit()
    return None if status == TransactionStatus.UNKNOWN else session.rollback()


def _leave(session: Any, made: Any, entered: Any, *error: Any) -> Any:
    """Leaves psycopg's `transaction()`, which says nothing where its session is gone."""
    kind, *rest = error or (None, None, None)
    if kind is None and session.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError("the transaction was lost with its node: repeat it")
    if kind is None and session.pgconn.transaction_status == IDLE:
        # It is prepared. A COMMIT would only make the server warn of that.
        inner.leave_silently(entered)
    end = getattr(made, "__aexit__", None) or made.__exit__
    return end(kind, *rest)
