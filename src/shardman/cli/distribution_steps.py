"""What `shardman distribute --apply` does, step by step; each is there when it is done again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from rich.text import Text

from shardman.cli import output, wait
from shardman.client import Result
from shardman.client.client import connect
from shardman.errors import Code, UserError
from shardman.model.distribution import Action, AddKey, DropKey, Own, Shard, Share
from shardman.nodes import application as database
from shardman.nodes.reach import Reach
from shardman.pg.connection import SyncConnection


def in_words(action: Action) -> str:
    """A step for a person."""
    if isinstance(action, Share):
        return f"share {action.table}"
    if isinstance(action, Own):
        return f"of {action.table}: {action.statement}"
    if isinstance(action, Shard):
        group = f", colocated with {action.colocate_with}" if action.colocate_with else ""
        return f"shard {action.table} by {action.by} into {action.partitions} partitions{group}"
    key = f"the foreign key {action.key.name} from {action.key.table} to {action.key.target}"
    if isinstance(action, DropKey):
        return f"note {key} down and drop it, until both tables are distributed"
    return f"add {key} again"


def carry_out(reach: Reach, dsn: str, node: int, actions: Sequence[Action]) -> None:
    """Does all of it, in order.

    Raises:
        UserError: one step did not succeed; those before it are done, and it says how to go on.
    """
    console = output.stderr()
    give_objects(reach, node, tell=False)
    for n, action in enumerate(actions, 1):
        console.print(Text(f"{n} of {len(actions)}: {in_words(action)}"))
        try:
            _do(reach, dsn, node, action)
        except UserError as error:
            raise UserError(
                f"{in_words(action)} did not succeed: {error.what}",
                _go_on(error.hint, actions, n - 1),
                code=error.code,
            ) from None

    give_objects(reach, node)


def give_objects(reach: Reach, node: int, *, tell: bool = True) -> None:
    """Makes what is in no table of a node on all others: views, functions, types.

    Args:
        tell: whether to say what could not be made; before tables are shared, views of them cannot be.
    """
    with reach.open(node) as session:
        made = database.objects(session)
    said: list[str] = []
    for other in reach.members:
        if other.id != node:
            with reach.open(other.id) as session:
                said += (f"node {other.id}: {w}" for w in _given(session, made, lord=other.lord))
    if tell:
        for words in said:
            output.stderr().print(Text(words, "yellow"))


def _given(session: SyncConnection, made: Sequence[Any], *, lord: bool) -> list[str]:
    try:
        failed = database.make_objects(session, made)
    except psycopg.errors.InsufficientPrivilege:
        return ["views and functions are the cluster's role's to make there: connect as it"]
    # The lord may have no tables, so no views either.
    return [] if lord else failed


def _go_on(hint: str, actions: Sequence[Action], done: int) -> str:
    words = [hint] if hint else []
    words.append(
        f"{done} of {len(actions)} steps are done and stay" if done else "Nothing else was done"
    )
    words.append("Run the same again, and it goes on with what is left")
    away = [a.key for a in actions[:done] if isinstance(a, DropKey)]
    if away:
        names = ", ".join(f"{k.name} of {k.table}" for k in away)
        words.append(
            f"Until then these foreign keys are away: {names}. Where their tables are to stay plain,"
            ' write as = "plain" for them, and --apply adds the keys again'
        )
    return ". ".join(w.rstrip(".") for w in words)


def _do(reach: Reach, dsn: str, node: int, action: Action) -> None:
    if isinstance(action, Share):
        _command(dsn, "create_shared_table", relation=action.table, node_id=node)
    elif isinstance(action, Shard):
        group = {"colocate_with": action.colocate_with} if action.colocate_with else {}
        _command(
            dsn,
            "create_hash_partitions",
            node_id=node,
            relation=action.table,
            expr=action.by,
            partitions_count=action.partitions,
            **group,
        )
    elif isinstance(action, Own):
        with reach.open(node) as session:
            database.own_sequence(session, action.statement)
    elif isinstance(action, DropKey):
        with reach.open(node) as session:
            database.drop_key(session, action.key)
    else:
        _add(reach, dsn, node, action)


def _add(reach: Reach, dsn: str, node: int, action: AddKey) -> None:
    key = action.key
    if action.inside and not _has(reach, key.table, key.name):
        _command(
            dsn,
            "add_foreign_key",
            relation=key.table,
            constraint_name=key.plain_name,
            definition=key.definition,
        )
    with reach.open(node) as session:
        if not action.inside:
            database.add_plain_key(session, key)
        database.forget_key(session, key)


def _has(reach: Reach, relation: str, name: str) -> bool:
    """Whether the metadata have a foreign key: an earlier run may have added it."""
    with reach.open(reach.lord) as lord:
        return database.has_key(lord, relation, name)


def _command(dsn: str, verb: str, **arguments: Any) -> Result:
    """Submits a command and follows it to its end."""
    with connect(dsn) as client:
        submitted = getattr(client, verb)(**arguments, wait=False)
    result = wait.until_ended(dsn, submitted.id)
    if not result.ok:
        what, _, hint = (result.error or result.status).partition(". ")
        raise UserError(
            f"command {result.id} {result.status}: {what}",
            hint,
            code=Code.of(result.error_code) if result.status == "failed" else Code.CANCELED,
        )
    if result.result:
        output.stderr().print(Text(result.result))
    return result
