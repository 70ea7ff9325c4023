"""Statements that touch several partitions, split: each node gets its parts, in one transaction.

Where parts may wait for rows that others have locked, nodes have their turn in the order of their numbers, and
so do partitions on each: two such statements wait for each other no more than they would on one server. What is
sent to one node is a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors

from shardman.client.asking import Questions
from shardman.client.blocks import Block
from shardman.client.routing.choice import Choice
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.values import Unclear
from shardman.client.routing.writing import tells_time
from shardman.client.sessions import Steps


@dataclass(frozen=True)
class Piece:
    """A part of a statement.

    Args:
        rows: which of the statement's rows of VALUES are in it.
    """

    node: str
    text: bytes
    params: Params
    rows: tuple[int, ...] = ()


#: Makes a cursor for a session.
New = Callable[[Any], Any]


@dataclass(frozen=True)
class Gather:
    """What a cursor does with a statement that is sent in parts.

    Args:
        new: makes a cursor for a session.
        options: of psycopg's execute.
        done: gets the parts, and the cursors on which they were sent.
    """

    new: New
    options: Mapping[str, Any]
    done: Callable[[Sequence[Piece], Sequence[Any]], Steps]


@dataclass
class Splits(Questions):
    """What is sent to several nodes in parts."""

    def parted(self, plan: Plan, params: Params, found: Choice) -> Choice:
        """The same with the nodes that get parts of it; as it was where it is not split."""
        if plan.scope is not Scope.OWNER or self.pinned or self.pipeline:
            return found
        if plan.split is None:
            # Of what reads it is said where questions are looked at.
            why = "" if plan.reads else plan.undivided
            return (
                replace(found, reason=f"{found.reason}, and it is not split: {why}")
                if why
                else found
            )
        table = plan.targets[0].table
        try:
            numbers = plan.targets[0].numbers(params)
        except Unclear:
            return found
        if not plan.split.fits(params):
            return replace(found, reason=f"{found.reason}, and its lists are of different lengths")
        asked: dict[str, list[int]] = {}
        for number in sorted(numbers):
            asked.setdefault(table.parts[number].node, []).append(number)
        if not asked or self.unfit.keys() & asked.keys():
            return found
        why_not = self._why_not_split(plan, params, asked)
        if why_not:
            return replace(found, reason=f"{found.reason}, and it is not split: {why_not}")
        nodes = sorted(asked, key=self.node_number)
        return replace(
            found,
            reason="each node gets its part" + ("" if plan.reads else ", in one transaction"),
            parts=tuple(table.parts[n].plain for node in nodes for n in asked[node]),
            asked=tuple((node, tuple(asked[node])) for node in nodes),
            single=False,
            split=True,
        )

    def _why_not_split(self, plan: Plan, params: Params, asked: Mapping[str, Any]) -> str:
        assert plan.split is not None
        if plan.targets[0].everywhere:
            if self.is_open() and len(self.parts()) < 2:
                # What comes behind it in the transaction may need to go through the node.
                return "it names no key, and the transaction is not on several nodes"
            if any(map(tells_time, _values(params))):
                return "a parameter may mean the time"
        if not plan.split.waits:
            return self.why_not(params, shares=False)
        return self.why_not_over(asked)

    def why_not_over(self, nodes: Collection[str]) -> str:
        """Why what changes something is not sent to several nodes; empty when it may be."""
        parts = self.parts()
        if len({*nodes, *parts}) == 1:
            return ""
        if not self.atomic:
            return "atomic=False"
        if self.pinned or self.pipeline or self.loners & {*nodes, *parts}:
            return "a node can have no part of a transaction over several"
        if self.is_open() and not self.may_take_in():
            return "the transaction has begun on one node, and used others through it"
        return self.picture.problem

    def send_parts(self, plan: Plan, found: Choice, params: Params, gather: Gather) -> Steps:
        """Sends them.

        Returns:
            The pieces and the cursors on which they were sent; None where it cannot be done, and nothing was.
        """
        pieces = _pieces(plan, found, params)
        if not self._waits(plan) and not self.parts():
            return (yield from self._outside(pieces, gather))
        return (yield from self.together(self._in_transaction(plan, pieces, gather)))

    def together(self, steps: Steps) -> Steps:
        """Does them in the transaction that is open, or in one of their own."""
        if self.is_open():
            return (yield from steps)
        block = Block(None, False)
        self.blocks.append(block)
        try:
            result = yield from steps
        except BaseException as error:
            yield from self.end_block(block, type(error), error, error.__traceback__)
            raise
        yield from self.end_block(block, None, None, None)
        return result

    def _waits(self, plan: Plan) -> bool:
        return plan.split is not None and plan.split.waits

    def _in_transaction(self, plan: Plan, pieces: Sequence[Piece], gather: Gather) -> Steps:
        nodes = list(dict.fromkeys(p.node for p in pieces))
        sessions = yield from self.take_in(nodes, writes=not plan.reads)
        if sessions is None:
            self.loners |= {n for n in nodes if n in self.sessions and n not in self.numbers}
            return None
        turns = [[n] for n in nodes] if self._waits(plan) else [nodes]
        cursors: list[Any] = []
        for turn in turns:
            some = [p for p in pieces if p.node in turn]
            cursors += yield from self._send(some, sessions, gather)
        return pieces, cursors

    def _outside(self, pieces: Sequence[Piece], gather: Gather) -> Steps:
        """As questions are asked: nothing is begun by it."""
        sessions = {}
        for piece in pieces:
            if piece.node not in sessions:
                sessions[piece.node] = yield from self.session(piece.node)
        if self.unfit.keys() & sessions.keys():
            return None
        try:
            yield from self.without_transactions(sessions, True)
            cursors = yield from self._send(pieces, sessions, gather)
        finally:
            yield from self.without_transactions(sessions, False)
        return pieces, cursors

    def _send(
        self,
        pieces: Sequence[Piece],
        sessions: Mapping[str, Any],
        gather: Gather,
    ) -> Steps:
        """To all nodes of the pieces at once, in a pipeline on each.

        Raises:
            psycopg.Error: of the first node that has one.
        """
        cursors = [gather.new(sessions[p.node]) for p in pieces]
        failed: dict[str, BaseException] = {}
        entered: dict[str, Any] = {}
        for node in dict.fromkeys(p.node for p in pieces):
            own = [(c, p) for c, p in zip(cursors, pieces, strict=True) if p.node == node]
            try:
                if psycopg.Pipeline.is_supported():
                    pipeline = sessions[node].pipeline()
                    yield getattr(pipeline, "__aenter__", None) or pipeline.__enter__
                    entered[node] = pipeline
                for cursor, piece in own:
                    yield _executing(cursor, piece, gather.options)
            except BaseException as error:  # noqa: BLE001 - raised when all pipelines are left
                failed[node] = error
                break
        for node, pipeline in entered.items():
            leave = getattr(pipeline, "__aexit__", None) or pipeline.__exit__
            try:
                yield _leaving(leave)
            except BaseException as error:  # noqa: BLE001 - as above
                if node not in failed or isinstance(failed[node], errors.PipelineAborted):
                    failed[node] = error
        for node, problem in failed.items():
            self.lose(sessions[node])
            raise self.told(problem, node) if isinstance(problem, psycopg.Error) else problem
        return cursors

    def node_number(self, node: str) -> int:
        """The same for all clients."""
        return self.numbers.get(HERE, 0) if node == HERE else int(node.rpartition("_")[2])


def _values(params: Params) -> Iterable[Any]:
    return params.values() if isinstance(params, Mapping) else params or ()


def _executing(cursor: Any, piece: Piece, options: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: cursor.execute(piece.text, piece.params, **options)


def _leaving(leave: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: leave(None, None, None)


def _pieces(plan: Plan, found: Choice, params: Params) -> list[Piece]:
    assert plan.split is not None
    target = plan.targets[0]
    rows: dict[int, list[int]] = {}
    if plan.split.rows or plan.split.lists:
        for row, number in enumerate(target.rows(params)):
            rows.setdefault(number, []).append(row)
    lists = target.lists(params) if plan.split.keys is not None else {}
    return [
        Piece(
            node,
            plan.part(number, rows.get(number, ())),
            plan.split.params(params, rows.get(number, ()), lists.get(number, ())),
            tuple(rows.get(number, ())),
        )
        for node, numbers in found.asked
        for number in numbers
    ]
