"""Reads a statement: which tables it names, what the keys of the sharded ones are, and where it may run.

Whatever is not known here to mean the same on the owner makes it `Scope.HERE`: the statement goes to the
node that was connected to, unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pgparse

from shardman.client.routing.asked import Question
from shardman.client.routing.expressions import Level, Node, NotHere, nodes
from shardman.client.routing.guards import as_condition, guard, place_at_end
from shardman.client.routing.notifying import notifies
from shardman.client.routing.parting import need_same_everywhere, split
from shardman.client.routing.parts import Split
from shardman.client.routing.picture import Picture
from shardman.client.routing.placeholders import Unreadable, convert
from shardman.client.routing.plan import Parameter, Plan, Scope, Target, Typed
from shardman.client.routing.question import question
from shardman.client.routing.statements import Statements
from shardman.client.routing.utility import is_until_the_end, utility
from shardman.client.routing.writing import NotSplit

_QUERIES = frozenset(("SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"))


def analyse(text: bytes, picture: Picture, *, with_parameters: bool) -> Plan:
    """Reads one text; never raises."""
    try:
        read = convert(text, with_parameters=with_parameters)
        statements = pgparse.parse(read.query)
    except (Unreadable, UnicodeDecodeError, pgparse.PGQueryError) as error:
        return Plan(Scope.HERE, f"it is not understood: {error}", pins="session")
    if not statements:
        return Plan(Scope.ANYWHERE, "it is empty", reads=True)
    analysis = _Analysis(text, read, picture, with_parameters)
    try:
        if len(statements) != 1:
            return analysis.several([s["stmt"] for s in statements])
        ((kind, body),) = statements[0]["stmt"].items()
        return analysis.plan(kind, body) if kind in _QUERIES else utility(kind, body)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # A tree that nobody has thought of.
        return Plan(Scope.HERE, f"it is not understood: {error}", pins="session", sharded=True)


class _Analysis(Statements):
    def plan(self, kind: str, body: Node) -> Plan:
        try:
            if "CurrentOfExpr" in body.get("whereClause", ()):
                return self._of_cursor(kind, body)
            self.statement(kind, body, Level())
            self._refuse_what_is_elsewhere()
        except NotHere as error:
            return Plan(
                Scope.HERE,
                str(error),
                pins=self._hidden_pins(body),
                sharded=self._names_sharded(body),
                notifies=notifies(kind, body),
            )
        return self._placed(kind, body)

    def several(self, statements: Sequence[Node]) -> Plan:
        """What is left behind several statements in one text, which are sent as they are."""
        found = []
        for statement in statements:
            ((kind, body),) = statement.items()
            queries = kind in _QUERIES
            found.append(
                Plan(Scope.HERE, "", pins=self._hidden_pins(body))
                if queries
                else utility(kind, body)
            )
        own = any(p.frees or p.listens or p.scope is Scope.TRANSACTION for p in found)
        pins = {p.pins for p in found} | {"transaction" for p in found if p.said}
        pins |= {"session"} if own else set()
        return Plan(
            Scope.HERE,
            "it is not one statement",
            pins="session" if "session" in pins else max(pins),
            alters=any(p.alters for p in found),
            sharded=True,
            single=False,
        )

    def _placed(self, kind: str, body: Node) -> Plan:
        """Behind `statement`: where what was read there may run."""
        anywhere = Plan(
            Scope.ANYWHERE,
            "it names no sharded table",
            reads=not self.writes,
            sharded=bool(self.tables) or bool(self.through),
            own_types=self.own_types,
        )
        if self.through:
            return replace(anywhere, reason=self.through)
        if not self.tables:
            return anywhere
        if kind == "SelectStmt":
            divided, why = self._question(body)
            anywhere = replace(anywhere, question=divided, undivided=why)
        self.facts.spread()
        targets = []
        for relation in self.tables:
            keys = self.facts.keys(relation)
            if keys is None and kind in ("UpdateStmt", "DeleteStmt") and len(self.tables) == 1:
                targets.append(replace(relation.target, everywhere=True))
            elif keys is None:
                why = f"nothing in it says which key of {relation.table_name} it is about"
                return replace(anywhere, reason=why)
            else:
                targets.append(replace(relation.target, keys=keys))
        guards = self._guards()
        if guards is None:
            return replace(anywhere, reason="its condition is written in an unusual way")
        parted, why = self._split(kind, body, targets)
        everywhere = targets[0].everywhere
        if everywhere and parted is None:
            return replace(anywhere, reason=f"it names no key, and it is not split: {why}")
        return replace(
            anywhere,
            split=parted,
            undivided=anywhere.undivided or why,
            scope=Scope.OWNER,
            reason="it is about all rows" if everywhere else "its keys say where its rows are",
            text=self.text,
            with_parameters=self.with_parameters,
            targets=tuple(targets),
            guards=guards,
        )

    def _of_cursor(self, kind: str, body: Node) -> Plan:
        """It goes where the cursor is. No partition leaves that meanwhile: its transaction has a lock there."""
        cursor = body.pop("whereClause")["CurrentOfExpr"]["cursor_name"]
        self.statement(kind, body, Level())
        self._refuse_what_is_elsewhere()
        if self.through or len(self.tables) != 1 or self.shares:
            raise NotHere(self.through or "its table is not the only one")
        return Plan(
            Scope.HERE,
            "it is about the row of a cursor",
            text=self.text,
            with_parameters=self.with_parameters,
            targets=(self.tables[0].target,),
            sharded=True,
            own_types=self.own_types,
            current_of=cursor,
        )

    def _question(self, body: Node) -> tuple[Question | None, str]:
        """What nodes can be asked about their partitions, or why not."""
        try:
            return question(body, self.picture.table, self.read.parameters), ""
        except NotSplit as no:
            return None, str(no)
        except (LookupError, TypeError, ValueError, AttributeError):
            return None, "something in it is not known"

    def _split(self, kind: str, body: Node, targets: Sequence[Target]) -> tuple[Split | None, str]:
        """How it is split over several partitions, or why it is not."""
        if len(self.tables) != 1 or self.shares:
            return None, "another table is in it"
        everywhere = targets[0].everywhere
        try:
            if everywhere:
                need_same_everywhere(body)
            found = split(kind, body, self.read)
        except NotSplit as no:
            return None, str(no)
        except (LookupError, TypeError, ValueError, AttributeError):
            return None, "something in it is not known"
        keyed = not everywhere and _lists_keys(found, targets)
        return (found if keyed else replace(found, keys=None)), ""

    def _guards(self) -> tuple[tuple[int, bytes], ...] | None:
        """For each level that reads partitions; None where there is no place for one."""
        found = []
        for level in self.levels:
            read = [r.target.table for r in level.sharded if level.merges or not r.target.stored]
            if not read:
                continue
            added = guard(read, with_parameters=self.with_parameters)
            if level.place is not None:
                found.append((self.read.origin(level.place, level.place + 1)[0], added))
                continue
            end = place_at_end(self.text) if level.bare else None
            if end is None:
                return None
            found.append((end, as_condition(added)))
        return tuple(found)

    def _names_sharded(self, body: Node) -> bool:
        named = [
            self.picture.table(n.get("schemaname"), n["relname"])
            for n in (*nodes(body, "RangeVar"), *nodes(body, "relation"))
        ]
        return any(t is not None and not t.shared for t in named)

    def _refuse_what_is_elsewhere(self) -> None:
        if self.picture.problem:
            raise NotHere(self.picture.problem)
        if self.locks and self.shares:
            raise NotHere("it locks rows, and a shared table is in it")

    def _hidden_pins(self, body: Node) -> str:
        """A function that is not PostgreSQL's may set something, wherever in the statement it is."""
        calls = [(c["funcname"][-1]["String"]["sval"], c) for c in nodes(body, "FuncCall")]
        settings = [is_until_the_end(call) for name, call in calls if name == "set_config"]
        if not all(settings) or {name for name, _ in calls} & self.picture.volatile:
            return "session"
        if any(nodes(body, "IntoClause")) or "intoClause" in body:
            return "session"
        return "transaction" if settings else ""


def _lists_keys(found: Split, targets: Sequence[Target]) -> bool:
    """Whether the parameter is what says which keys the statement is about."""
    ((key, *further),) = [t.keys for t in targets]
    if further or len(key) != 1 or len(key[0]) != 1:
        return False
    source = key[0][0]
    inner = source.of if isinstance(source, Typed) else source
    return isinstance(inner, Parameter) and inner.many and inner.name == found.keys
