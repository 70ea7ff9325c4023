"""Where a statement goes, with its parameters, as things are now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import errors

from shardman.client.routing.picture import HERE, Picture
from shardman.client.routing.placeholders import Params
from shardman.client.routing.plan import Plan, Scope
from shardman.client.routing.values import Unclear


@dataclass(frozen=True)
class Choice:
    """Where a statement goes.

    Args:
        node: HERE, or the name of the server that leads to the node.
        text: what is sent; None: the statement as it is.
        reason: why there.
        parts: the partitions that it names then.
        single: it touches one partition, or none, and one node.
        takes_in: the transaction is on others so far.
        asked: nodes that are asked, each about some partitions, before the statement is sent as it is.
        split: they are sent the statement itself, each the parts of its partitions.
        notifies: it does nothing else, as a part of the transaction.
    """

    node: str
    text: bytes | None
    reason: str
    parts: tuple[str, ...] = ()
    single: bool = True
    takes_in: bool = False
    asked: tuple[tuple[str, tuple[int, ...]], ...] = ()
    split: bool = False
    notifies: bool = False


@dataclass(frozen=True)
class Situation:
    """What else counts.

    Args:
        parts: the nodes of the transaction that is open, the first one first.
        pinned: all statements go to the node that was connected to.
        unfit: nodes whose tables are not as here.
        own_types: types that are not PostgreSQL's own are registered.
        loners: nodes that it cannot take in; None: it can take in none.
        cursors: where cursors of the server were declared, each for one partition.
    """

    parts: Sequence[str]
    pinned: bool
    unfit: Collection[str] = ()
    own_types: bool = False
    loners: Collection[str] | None = None
    cursors: Mapping[str, Choice] = field(default_factory=dict)


def choose(plan: Plan, params: Params, picture: Picture, now: Situation) -> Choice:
    """Where it goes.

    Raises:
        FeatureNotSupported: it must run on the node that was connected to; the transaction is on another.
    """
    there = now.parts[0] if now.parts else HERE
    if now.pinned:
        return Choice(
            HERE, None, "the session has settings or tables of its own", (), _single(plan)
        )
    if plan.scope is Scope.TRANSACTION:
        return Choice(there, None, plan.reason)
    if plan.current_of in now.cursors and not picture.problem:
        found = _to_cursor(plan, now.cursors[plan.current_of])
        if found is not None:
            return found
    if plan.notifies and now.loners is not None and HERE not in now.loners:
        takes_in = bool(now.parts) and HERE not in now.parts
        return Choice(HERE, None, plan.reason, takes_in=takes_in, notifies=True)
    if plan.scope is Scope.HERE or (plan.own_types and now.own_types):
        if there != HERE:
            raise errors.FeatureNotSupported(
                f"this statement runs on the node that was connected to ({plan.reason}), and the"
                " transaction has begun on another one. Begin the transaction with it, or with"
                " db.transaction(here=True)"
            )
        return Choice(HERE, None, plan.reason, (), _single(plan))
    if plan.scope is Scope.OWNER and not picture.problem:
        return _to_owner(plan, params, there, now)
    return Choice(there, None, picture.problem or plan.reason, (), _single(plan))


def _to_cursor(plan: Plan, cursor: Choice) -> Choice | None:
    """Where the cursor is; None where it is of another table."""
    parts = plan.targets[0].table.parts
    number = next((n for n, p in enumerate(parts) if p.plain in cursor.parts), None)
    if number is None or cursor.node != parts[number].node:
        return None
    text = plan.rewritten((number,))
    return Choice(cursor.node, text, "its cursor is there", (parts[number].plain,))


def _single(plan: Plan) -> bool:
    return not plan.sharded


def _to_owner(plan: Plan, params: Params, there: str, now: Situation) -> Choice:
    try:
        found = [t.numbers(params) for t in plan.targets]
    except Unclear as unclear:
        return Choice(there, None, str(unclear), (), single=False)
    if any(len(numbers) != 1 for numbers in found):
        return Choice(there, None, "its keys are in several partitions", (), single=False)
    numbers = tuple(n for (n,) in found)
    parts = [t.table.parts[n] for t, n in zip(plan.targets, numbers, strict=True)]
    owners = {p.node for p in parts}
    names = tuple(dict.fromkeys(p.plain for p in parts))
    if len(owners) > 1:
        return Choice(there, None, "its partitions are on several nodes", names, single=False)
    (owner,) = owners
    if owner in now.unfit:
        return Choice(there, None, "the tables of the owner are not as here", names)
    takes_in = bool(now.parts) and owner not in now.parts
    if takes_in and (now.loners is None or owner in now.loners):
        return Choice(there, None, "the transaction has begun on another node", names, single=False)
    return Choice(owner, plan.rewritten(numbers), plan.reason, names, takes_in=takes_in)
