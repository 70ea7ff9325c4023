"""Sends statements where they belong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg import errors, sql
from psycopg.pq import ConnStatus, TransactionStatus

from shardman.client import inner
from shardman.client.held import Said
from shardman.client.routing.analysis import analyse
from shardman.client.routing.choice import Choice, Situation, choose
from shardman.client.routing.guards import MOVED
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.quick import Quick, is_quick
from shardman.client.sessions import IDLE, Steps
from shardman.client.splitting import Gather, Splits
from shardman.client.streaming import Streams, loads_plainly

Fanout = Literal["any", "single"]
Query = Any

_PLANS = 2000
_ATTEMPTS = 5
#: So often a statement is split; then it goes through a node.
_SPLITS = 3
#: What a node says to a statement that names what is not there any more, or not in this way.
_MOVED = ("42P01", "42P10", "25006")
_BUILT_IN_OIDS = 16384
_OPEN = TransactionStatus.INTRANS
_OWN_PLACEHOLDERS = (psycopg.RawCursor, psycopg.AsyncRawCursor)


@dataclass(frozen=True)
class Failed:
    """An attempt to send a statement straight.

    Args:
        fresh: nothing was open before.
    """

    error: psycopg.Error
    node: str
    session: Any
    fresh: bool


@dataclass
class Router(Splits):
    """Which session a statement goes to; see `Sessions` and `Transactions` for its fields."""

    fanout: Fanout = "any"
    _plans: dict[tuple[Any, bool], Plan] = field(default_factory=dict)
    _quick: dict[str, Quick] = field(default_factory=dict)

    def forget(self) -> None:
        """Plans know where partitions are."""
        self._plans.clear()
        self._quick.clear()

    def straight(self, query: Query, params: Params) -> tuple[str, bytes, bool] | None:
        """The node and the text for a statement that was sent straight before, its key in one parameter.

        Also whether it is the first of its transaction. The same answer as `run` gives, where nothing stands
        against it, in a few microseconds; else None.
        """
        quick = self._quick.get(query) if type(query) is str else None
        if quick is None or params is None or self._is_special():
            return None
        place = quick.place(params)
        if place is None:
            return None
        text, node = place
        session = self.sessions.get(node)
        if session is None or not self.is_alive(node, session):
            return None
        begins = session.pgconn.transaction_status == IDLE
        if begins and (self.held or node in self.wrote):
            # It is to be told something before, or its part of the transaction is gone.
            return None
        for block in self.blocks:
            if node not in block.entered:
                return None
        first = self._is_first(node, begins)
        if first is None:
            return None
        if quick.writes and self.is_open():
            self.wrote.add(node)
        return node, text, first

    def _is_first(self, node: str, begins: bool) -> bool | None:
        """Whether a statement on a node begins the transaction; None where it is not so simple.

        Args:
            begins: nothing is open there.
        """
        own = self.sessions[node].pgconn.transaction_status
        first = begins
        for other, session in self.sessions.items():
            if other != node and (status := session.pgconn.transaction_status) != IDLE:
                # All of them are parts of one transaction, or this one is taken in.
                if status != _OPEN or own not in (_OPEN, IDLE):
                    return None
                first = False
        if begins and not first and not (node in self.numbers and self.may_take_in()):
            return None
        return first

    def _is_special(self) -> bool:
        return bool(
            self.pinned or self.lost or self.unfit or self.pipeline is not None or self.is_old()
        )

    # -- statements -----------------------------------------------------------------------------

    def plan(self, query: Query, *, with_parameters: bool) -> Plan:
        """What is known of a text."""
        if isinstance(query, sql.Composable):
            query = query.as_bytes(self.sessions[HERE])
        key = (query, with_parameters)
        found = self._plans.get(key)
        if found is None:
            text = query.encode() if isinstance(query, str) else bytes(query)
            found = analyse(text, self.picture, with_parameters=with_parameters)
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[key] = found
        return found

    def choice(self, plan: Plan, params: Params, fanout: Fanout | None = None) -> Choice:
        """Where a statement goes.

        Raises:
            FeatureNotSupported: not there, or to several partitions where ``fanout`` is single.
        """
        own = plan.own_types and any(
            t.oid >= _BUILT_IN_OIDS for t in self.sessions[HERE].adapters.types
        )
        now = Situation(
            self.parts(),
            bool(self.pinned),
            self.unfit,
            own,
            self.loners if self.may_take_in() else None,
            self.cursors,
        )
        found = choose(plan, params, self.picture, now)
        if found.text is None and not (plan.is_local or found.notifies):
            self.need_one_node(f"this statement cannot be sent straight ({found.reason})")
        if (fanout or self.fanout) == "single" and not found.single:
            raise errors.FeatureNotSupported(
                f"the statement may touch more than one partition: {found.reason}."
                " Name the key, or pass fanout='any'"
            )
        return found

    def way(self, plan: Plan, params: Params, fanout: Fanout | None = None) -> Choice:
        """As `choice`, and which nodes are asked about their partitions before.

        Raises:
            FeatureNotSupported: as there.
        """
        try:
            found = self.choice(plan, params, fanout)
        except errors.FeatureNotSupported:
            parts = self.parts()
            if len(parts) < 2 or (fanout or self.fanout) == "single":
                raise
            # It cannot go through a node, and each node can answer as a part of the transaction.
            found = self._in_parts(plan, params, Choice(parts[0], None, plan.reason, single=False))
            if not found.asked:
                raise
            return found
        return found if found.text is not None else self._in_parts(plan, params, found)

    def _in_parts(self, plan: Plan, params: Params, found: Choice) -> Choice:
        split = self.parted(plan, params, found)
        return split if split.split else self.divided(plan, params, split)

    def ask(
        self,
        query: Query,
        params: Params,
        fanout: Fanout | None,
        act: Callable[..., Steps],
        gather: Gather,
        failed: Failed | None = None,
    ) -> Steps:
        """As `run`; a question to several partitions is answered by their nodes at the same time, and what can
        be split is sent to them in parts.

        Args:
            act: sends a text on a session, with the parameters or with those that it is given.
        """
        if failed is None:
            self.need_alive()
            yield from self.refresh()
            plan = self.plan(query, with_parameters=params is not None)
            # Whether anything else may go where it belongs is not to be judged here.
            if plan.question is not None or (plan.split is not None and plan.names_several):
                found = self.way(plan, params, fanout)
                if found.split:
                    if (yield from self._split(query, params, fanout, gather)):
                        return None
                    return (yield from self.run(query, params, fanout, act))
                merged = (yield from self.answers(plan, found, params)) if found.asked else None
                if merged is not None:
                    # What a transaction has set is told to its parts.
                    node = found.asked[0][0] if self.bound() else HERE
                    return (yield from self.put_together(act, node, *merged))
        return (yield from self.run(query, params, fanout, act, failed))

    def streams(self, query: Query, params: Params) -> Steps:
        """What all nodes are asked, each for its rows, in streams; None where the statement is no such one."""
        self.need_alive()
        yield from self.refresh()
        plan = self.plan(query, with_parameters=params is not None)
        question = plan.question
        if question is None or question.few or question.sorts is None:
            return None
        if self.fanout == "single" or len(self.parts()) > 1:
            return None
        found = self.divided(plan, params, self.choice(plan, params), many=True)
        if not found.asked or not loads_plainly(self.sessions[HERE], question.sorts):
            return None
        if not (yield from self._open_all(found, fresh=True)):
            return None
        sessions = {node: self.sessions[node] for node, _ in found.asked}
        if self.unfit.keys() & sessions.keys():
            return None
        values = {f"p{i + 1}": params[n] for i, n in enumerate(question.parameters)}  # type: ignore[index]
        yield from self.without_transactions(sessions, True)
        texts = [question.streamed(numbers) for _, numbers in found.asked]
        nodes = list(sessions)

        def told(error: psycopg.Error, at: int) -> psycopg.Error:
            self.outdated()
            if MOVED in str(error):
                error = errors.SerializationFailure(
                    "a table has got another number of partitions meanwhile: repeat it"
                )
            return self.told(error, nodes[at])

        params = {**values, "none": None}
        return Streams(list(sessions.values()), texts, params, question.sorts, told)

    def streamed(self, streams: Streams) -> Steps:
        """Behind the last row."""
        yield from self.without_transactions(dict(enumerate(streams.sessions)), False)

    def _split(self, query: Query, params: Params, fanout: Fanout | None, gather: Gather) -> Steps:
        """Sends a statement in parts; whether it was."""
        for attempt in range(1, _SPLITS + 1):
            plan = self.plan(query, with_parameters=params is not None)
            found = self.way(plan, params, fanout) if plan.split is not None else None
            if found is None or not found.split:
                return False
            fresh = self.bound() is None and not self.blocks and not self.held
            if not (yield from self._open_all(found, fresh=fresh)):
                continue
            try:
                sent = yield from self.send_parts(plan, found, params, gather)
            except psycopg.Error as error:
                if not fresh or attempt == _SPLITS or not _met_a_move(error):
                    raise
                # It is undone on all nodes.
                yield from self.end("rollback")
                yield from self._look_again(None)
                continue
            if sent is None:
                return False
            yield from gather.done(*sent)
            self._note(plan)
            return True
        return False

    def _open_all(self, found: Choice, *, fresh: bool) -> Steps:
        """Whether there is a session on each node; if not, they are looked for again."""
        for node, _ in found.asked:
            try:
                yield from self.session(node)
            except psycopg.OperationalError as error:
                if node == HERE or not fresh:
                    raise self.told(error, node) from None
                yield from self._look_again(node)
                return False
        return True

    def run(
        self,
        query: Query,
        params: Params,
        fanout: Fanout | None,
        act: Callable[[Any, Query], Steps],
        failed: Failed | None = None,
        declares: str = "",
    ) -> Steps:
        """Sends a statement where it belongs; again where what it met has moved and nothing is lost by that.

        Args:
            act: sends a text on a session.
            failed: an attempt that was made already.
            declares: the cursor of the server that it is.

        Returns:
            What ``act`` gives.
        """
        self.need_alive()
        if failed is not None:
            yield from self._recover(query, failed)
        yield from self.refresh()
        for_all = self._for_all(query, params, act)
        if for_all is not None:
            return (yield from for_all)
        for attempt in range(1, _ATTEMPTS + 1):
            # What a picture says of a text goes with it.
            plan = self.plan(query, with_parameters=params is not None)
            found = self.choice(plan, params, fanout)
            fresh = self.bound() is None and not self.blocks and attempt < _ATTEMPTS
            self.need_sound(found.node)
            try:
                session = yield from self.session(found.node)
            except psycopg.OperationalError as error:
                if found.node == HERE or not fresh:
                    raise self.told(error, found.node) from None
                # Nothing was sent. Another node may have taken over; if not, the routes are asked.
                yield from self._look_again(found.node)
                continue
            if self._is_unfit(found):
                continue
            try:
                yield from self.begin(session, found.node)
                self._count(plan, found)
                result = yield from act(session, query if found.text is None else found.text)
            except psycopg.Error as error:
                if not fresh or not self._may_repeat(plan, found, session, error):
                    self.lose(session)
                    raise self.told(error, found.node) from None
                yield from self._leave(session)
                yield from self._look_again(found.node if attempt > 1 else None)
                continue
            self._done(query, plan, found, declares)
            return result
        raise AssertionError("the last attempt returns or raises")

    def _done(self, query: Query, plan: Plan, found: Choice, declares: str) -> None:
        self._note(plan)
        if declares:
            self.cursors[declares] = found
        new = type(query) is str and query not in self._quick
        if found.text is not None and new and is_quick(plan):
            self._quick[query] = Quick(plan)

    def _for_all(self, query: Query, params: Params, act: Callable[..., Steps]) -> Steps | None:
        """What is done with a statement that is about the transaction on all of its nodes, if it is one."""
        said = self._said(query, params)
        if said is not None:
            return self.say(said, query, act)
        if len(self.parts()) < 2 or self.blocks:
            return None
        ends = self.plan(query, with_parameters=params is not None).ends
        return self._ended(ends, query, act) if ends else None

    def _ended(self, ends: str, query: Query, act: Callable[..., Steps]) -> Steps:
        yield from self.end(ends)
        return (yield from act(None, query))

    def _said(self, query: Query, params: Params) -> Said | None:
        """What a statement says to all nodes of the transaction, if it is one of those."""
        if not self.is_open() or self.pipeline is not None or params:
            return None
        said = self.plan(query, with_parameters=params is not None).said
        # Of a savepoint that nobody knows the server speaks, where there is one already.
        return said if said is not None and (self.held.knows(said) or self.parts()) else None

    def _is_unfit(self, found: Choice) -> bool:
        """Whether the session that was opened says that the statement cannot go there."""
        if found.takes_in and found.node not in self.numbers:
            self.loners.add(found.node)
            return True
        return found.text is not None and found.node in self.unfit

    def _recover(self, query: Query, failed: Failed) -> Steps:
        """Raises the error of an attempt, unless the statement may be sent again."""
        plan = self.plan(query, with_parameters=True)
        found = Choice(failed.node, b"", plan.reason)
        again = failed.fresh and not self.blocks
        if not again or not self._may_repeat(plan, found, failed.session, failed.error):
            self.lose(failed.session)
            raise self.told(failed.error, failed.node) from None
        yield from self._leave(failed.session)
        yield from self._look_again(None)

    def _look_again(self, avoid: str | None) -> Steps:
        yield from self.refresh(now=True)
        if avoid is not None:
            self.avoid(avoid)

    def run_many(
        self,
        query: Query,
        rows: Sequence[Params],
        act: Callable[[Any, Query, Sequence[Params]], Steps],
    ) -> Steps:
        """The same for many rows of parameters: to their owners, in one transaction.

        Args:
            act: sends a text with rows of parameters on a session.

        Returns:
            For each row the list of rows with which it was sent; None where they all were sent as they are.
        """
        yield from self.refresh()
        plan = self.plan(query, with_parameters=True)
        if not rows:
            # As psycopg, which begins a transaction, and sends nothing.
            session = yield from self.session(self.bound() or HERE)
            yield from act(session, query, rows)
            return None
        choices = [self.choice(plan, row) for row in rows]
        groups: dict[Choice, list[Params]] = {}
        for found, row in zip(choices, rows, strict=True):
            groups.setdefault(found, []).append(row)
        if len(groups) == 1 or self._may_part(groups):
            yield from self.together(self._run_groups(query, groups, act))
            return [groups[found] for found in choices]
        if self.fanout == "single":
            raise errors.FeatureNotSupported("the rows are of several partitions")
        yield from self.run_through(query, partial(_with_rows, act, rows))
        return None

    def _run_groups(
        self,
        query: Query,
        groups: Mapping[Choice, Sequence[Params]],
        act: Callable[[Any, Query, Sequence[Params]], Steps],
    ) -> Steps:
        """In the order in which split statements have them."""
        for found in sorted(groups, key=lambda c: (self.node_number(c.node), c.parts)):
            group = groups[found]
            yield from self.run(query, group[0], None, partial(_with_rows, act, group))

    def _may_part(self, groups: Collection[Choice]) -> bool:
        """Whether rows of several partitions may go to their owners each: they are one transaction, and the
        order of rows of different keys is nobody's."""
        nodes = {found.node for found in groups}.union(self.parts())
        return (
            self.fanout != "single"
            and all(found.text is not None for found in groups)
            and not self.why_not_over(nodes)
        )

    def run_through(self, query: Query, act: Callable[[Any, Query], Steps]) -> Steps:
        """Sends a statement unchanged, to the node of the transaction or the one that was connected to."""
        self.need_alive()
        self.need_one_node("this statement is sent unchanged")
        node = self.bound() or HERE
        plan = self.plan(query, with_parameters=True)
        if plan.scope is Scope.HERE and node != HERE:
            self.choice(plan, None)
        session = yield from self.session(node)
        try:
            yield from self.begin(session, node)
            self.goes_through(node)
            yield from act(session, query)
        except psycopg.Error as error:
            self.lose(session)
            raise self.told(error, node) from None
        self._note(plan)

    def judged(self, query: Query, params: Params) -> Steps:
        """Raises what the server has against a statement that was refused here: one that is wrong is not told
        that another transaction would do it.

        Raises:
            psycopg.Error: as the server has it.
            ProgrammingError, TypeError: psycopg would not send it.
        """
        kind = self.sessions[HERE].cursor_factory
        if not isinstance(kind, type) or issubclass(kind, _OWN_PLACEHOLDERS):
            return
        parts = self.parts()
        if not parts or not self.plan(query, with_parameters=params is not None).single:
            return
        error = yield from self._looked_at(HERE, query, params)
        if error is None:
            return
        if HERE not in parts:
            # It is the transaction's error, wherever that is.
            yield from self._looked_at(parts[0], query, params)
        raise error

    def _looked_at(self, node: str, query: Query, params: Params) -> Steps:
        session = yield from self.session(node)
        error = yield from inner.looked_at(session, query, params)
        return None if error is None else self.told(error, node)

    def _note(self, plan: Plan) -> None:
        if plan.listens is not None:
            self._hears(*plan.listens)
        if plan.alters:
            self._read_at = 0.0
        if plan.pins and self.pinned != "session":
            self.pinned = plan.pins
        if plan.frees:
            self.channels.clear()
            self.pinned = ""
            self._read_at = 0.0
        if plan.scope is Scope.TRANSACTION and self.bound() is None:
            self.held.clear()
        self.forget_transaction()

    def _hears(self, from_now_on: bool, channel: str) -> None:
        if from_now_on:
            self.channels[channel] = None
        elif channel:
            self.channels.pop(channel, None)
        else:
            self.channels.clear()

    def _count(self, plan: Plan, found: Choice) -> None:
        """What the transaction does with this statement."""
        if not self.is_open():
            return
        if not plan.reads:
            self.wrote.add(found.node)
        if found.notifies:
            self.decides = found.node
        elif found.text is None and not plan.is_local:
            self.through = True

    def _may_repeat(self, plan: Plan, found: Choice, session: Any, error: psycopg.Error) -> bool:
        if self.pipeline is not None or found.text is None:
            return False
        if session.pgconn.status != ConnStatus.OK:
            return plan.reads and found.node != HERE
        return _has_moved(error)

    def _leave(self, session: Any) -> Steps:
        if session.pgconn.status == ConnStatus.OK and session.pgconn.transaction_status != IDLE:
            yield session.rollback
        # What the attempt was said to have changed is gone with it.
        self.forget_transaction()

    def close(self) -> Steps:
        """Closes all sessions."""
        self.closed = True
        self._leave_ear()
        for session in self.sessions.values():
            yield session.close


def _has_moved(error: psycopg.Error) -> bool:
    """Whether a statement has met what is not there any more, or not in this way."""
    return (
        error.sqlstate in _MOVED
        or (error.sqlstate == "22P02" and MOVED in str(error))
        or (
            error.sqlstate == "23514" and error.diag.constraint_name in (None, "shardman_partition")
        )
    )


def _met_a_move(error: psycopg.Error) -> bool:
    """The same of a transaction over several nodes that was one statement."""
    return isinstance(error, errors.SerializationFailure) or _has_moved(error)


def _with_rows(
    act: Callable[[Any, Query, Sequence[Params]], Steps],
    rows: Sequence[Params],
    session: Any,
    text: Query,
) -> Steps:
    return act(session, text, rows)
