"""Questions to several partitions: all nodes are asked at once, and the answers are put together on one.

Nothing is begun by it: under READ COMMITTED a statement that reads sees what is committed, within a
transaction or without. Partitions are named, each once, so one that has moved is reached through its former
owner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import ConnStatus

from shardman.client.answers import arrays, types
from shardman.client.routing.asked import MOST_ROWS
from shardman.client.routing.choice import Choice
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params, fit
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.values import Unclear
from shardman.client.routing.writing import tells_time
from shardman.client.sessions import IDLE, Steps
from shardman.client.together import at_once
from shardman.client.transactions import Transactions


@dataclass
class Questions(Transactions):
    """What nodes are asked about their partitions."""

    def divided(self, plan: Plan, params: Params, found: Choice, *, many: bool = False) -> Choice:
        """The same with the nodes that are to be asked, and with why it is so.

        Args:
            many: also about rows that may be many.
        """
        if plan.scope not in (Scope.OWNER, Scope.ANYWHERE) or not plan.reads or self.pinned:
            return found
        if plan.question is None:
            why = f"{found.reason}, and it is not split: {plan.undivided}"
            return replace(found, reason=why) if plan.undivided else found
        if not fit(plan.question.parameters, params):
            # psycopg says so.
            return found
        why_not = self.why_not(params, shares=plan.question.joined.shares)
        if why_not:
            return replace(found, reason=f"{found.reason}, and it is not split: {why_not}")
        if (
            not many
            and not plan.question.few
            and plan.scope is not Scope.OWNER
            and len(self.parts()) < 2
        ):
            # They may be many, and a node sends them as they come.
            why = "it is about rows, not about few of them or groups"
            return replace(found, reason=f"{found.reason}, and it is not split: {why}")
        parts = plan.question.table.parts
        asked: dict[str, list[int]] = {}
        for number in self._numbers(plan, params):
            asked.setdefault(parts[number].node, []).append(number)
        if not asked or self.unfit.keys() & asked.keys():
            return found
        return replace(
            found,
            reason="each node answers for its own partitions, and the answers are put together",
            parts=tuple(parts[n].plain for numbers in asked.values() for n in numbers),
            asked=tuple((node, tuple(numbers)) for node, numbers in asked.items()),
            single=False,
        )

    def _numbers(self, plan: Plan, params: Params) -> Sequence[int]:
        if plan.scope is Scope.OWNER:
            try:
                return sorted(plan.targets[0].numbers(params))
            except Unclear:
                pass
        assert plan.question is not None
        return range(len(plan.question.table.parts))

    def why_not(self, params: Params, *, shares: bool) -> str:
        """Why nodes are not asked, each about its partitions; empty when they may be.

        Args:
            shares: about a shared table, too.
        """
        if self.parts() and shares:
            # What it has written to one is not yet there in its own sessions on other nodes.
            return "a transaction is open, and a shared table is in it"
        if len(self.parts()) > 1:
            return "" if self.may_take_in() else "a transaction is open"
        if self.parts() or self.held:
            return "a transaction is open"
        levels = {self.picture.settings.get("default_transaction_isolation"), self._level()}
        if self.is_open() and levels - {"read committed", None}:
            return "a transaction of another isolation than READ COMMITTED sees one state"
        values = params.values() if isinstance(params, Mapping) else params or ()
        for value in values:
            many = value if isinstance(value, list | tuple) else (value,)
            if any(map(tells_time, many)):
                return "a parameter may mean the time"
        return self.picture.problem

    def _level(self) -> str | None:
        level = self.settings.get("isolation_level")
        return (
            None if level is None else psycopg.IsolationLevel(level).name.lower().replace("_", " ")
        )

    def answers(self, plan: Plan, found: Choice, params: Params) -> Steps:
        """The statement that puts the answers together, and its parameters; None where the statement is to be
        sent as it is: then that says what is wrong.

        Raises:
            QueryCanceled: it was cancelled.
        """
        assert plan.question is not None
        sessions: dict[str, Any] = {}
        values = {f"p{i + 1}": params[n] for i, n in enumerate(plan.question.parameters)}  # type: ignore[index]
        inside = bool(self.parts())
        try:
            if inside:
                taken = yield from self.take_in([node for node, _ in found.asked], writes=False)
                sessions = taken or {}
            else:
                for node, _ in found.asked:
                    sessions[node] = yield from self.session(node)
            if not sessions or self.unfit.keys() & sessions.keys():
                return None
            cursors = yield from self._ask_all(plan, found, sessions, {**values, "none": None})
        except psycopg.errors.QueryCanceled as error:
            raise self.told(error, HERE) from None
        except psycopg.Error:
            if inside:
                raise
            # A partition may be elsewhere, a node away.
            self._read_at = 0.0
            return None
        results = [c.pgresult for c in cursors]
        named = types(results)
        if named is None or sum(r.ntuples for r in results) > MOST_ROWS:
            return None
        raws = {f"c{i}": raw for i, raw in enumerate(arrays(results))}
        return plan.question.merged(named), {**values, **raws}

    def _ask_all(
        self, plan: Plan, found: Choice, sessions: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Steps:
        question = plan.question
        assert question is not None
        cursors = [
            s.cursor(binary=True, row_factory=psycopg.rows.tuple_row) for s in sessions.values()
        ]
        crowded = sharing_a_machine(sessions, self.picture.workers)
        # What has moved would end a transaction that is open.
        by_tables = not self.parts()
        calls = [
            _call(cursor, question.asked(numbers, alone=n in crowded, by_tables=by_tables), values)
            for cursor, (n, numbers) in zip(cursors, found.asked, strict=True)
        ]
        try:
            yield from self.without_transactions(sessions, True)
            yield lambda: at_once(list(sessions.values()), calls)
        finally:
            yield from self.without_transactions(sessions, False)
        return cursors

    def without_transactions(self, sessions: Mapping[Any, Any], begins: bool) -> Steps:
        """What is done on them begins none, or may again."""
        if self.autocommit:
            return
        for session in sessions.values():
            pgconn = session.pgconn
            if pgconn.status == ConnStatus.OK and pgconn.transaction_status == IDLE:
                yield partial(session.set_autocommit, begins)

    def put_together(
        self, act: Callable[..., Steps], node: str, text: str, values: Mapping[str, Any]
    ) -> Steps:
        """Sends that statement, on a node that was asked or the one that was connected to."""
        session = yield from self.session(node)
        try:
            yield from self.without_transactions({node: session}, True)
            return (yield from act(session, text, values))
        except psycopg.Error as error:
            raise self.told(error, node) from None
        finally:
            yield from self.without_transactions({node: session}, False)


def sharing_a_machine(sessions: Mapping[str, Any], workers: int) -> set[str]:
    """Nodes that answer without parallel workers, for their machine is as busy by the nodes on it that are
    asked as it would be by one server with all of its workers.

    Args:
        workers: how many a server takes for one statement.
    """
    machines: dict[str, list[str]] = {}
    for node, session in sessions.items():
        machines.setdefault(_machine(session.info), []).append(node)
    return {n for nodes in machines.values() if 1 + workers < 2 * len(nodes) > 2 for n in nodes}


def _machine(info: psycopg.ConnectionInfo) -> str:
    """By its address: it may have others, so two may be one, and take no notice of each other."""
    address = info.hostaddr or info.host
    here = address.startswith(("/", "@", "127.")) or address in ("", "::1", "localhost")
    return "" if here else address


def _call(cursor: Any, text: str, values: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: cursor.execute(text, values)
