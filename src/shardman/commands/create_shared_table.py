"""create_shared_table: every worker gets a full copy of a plain table, which all of them write through.

What it guarantees, and how, is in docs/commands/shared.md; the instant that matters is `steps/sharing.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.remains import sequences_taken
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Shared
from shardman.model.plan import Json, Plan, Step


@verb
class CreateSharedTable(Command):
    """Makes the plain table ``relation`` of worker ``node_id`` a shared one. Of one that is shared already, all
    copies become like that of ``node_id``."""

    name = "create_shared_table"
    summary = "Give every worker a full copy of a plain table, written through from each of them."

    relation: str = argument("A plain table, written as in SQL.")
    node_id: int = argument(
        "The worker that has the table; of a shared one, the worker whose copy is right.",
        kind=Kind.NODE,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        # One after the other: tables of a migration refer to each other, in the order of their making.
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim(f"table {self.relation}"),
                Claim("tables that are shared"),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        if self.node_id not in cluster.nodes:
            return ()
        described = Question(
            "described", self.node_id, "select shardman.describe_shared(%s)", (self.relation,)
        )
        return (
            described,
            *(
                Question(f"taken {n}", n, "select shardman.shared_name_taken(%s)", (self.relation,))
                for n in self._others(cluster)
            ),
            *(
                Question(f"used {n}", n, "select shardman.names_used(%s)", (self.relation,))
                for n in self._others(cluster)
            ),
            *(
                Question(f"made {n}", n, "select shardman.made_now_owner(%s)", (self.relation,))
                for n in self._others(cluster)
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        known = self._known(cluster)
        # Shared in the transaction that has made it: only the lord does not know.
        made = self._made(facts)
        described = self._described(facts, again=known is not None or bool(made))
        has = known.nodes if known else made
        others = self._receivers(facts, has)
        for node in others:
            if node not in made:
                self._need_free(facts, node, has)
        definition = described["definition"]
        new = [] if known else [n for n in others if n not in made]
        return Plan(
            prepare=(
                *(() if known else self._needed_steps(facts, others)),
                *(self._check_step(n, definition) for n in new),
            ),
            switch=() if known and not made else (self._record_step(definition, made),),
            finish=(
                Step(
                    "share_home",
                    f"let node {self.node_id} write to copies of {self.relation}",
                    {"node": self.node_id, "relation": self.relation},
                ),
                *(share_step(n, self.relation, self.node_id) for n in others),
                *(
                    views_step(self.relation, n, self.node_id)
                    for n in others
                    if described.get("views")
                ),
                Step("converge", "tell all nodes", {}),
            ),
        )

    def _known(self, cluster: Cluster) -> Shared | None:
        """What the metadata have of it; None: it is a plain table so far."""
        if self.relation in cluster.tables:
            raise UserError(
                f"{self.relation} is sharded",
                "A table is sharded or shared; take a plain one",
                code=Code.ALREADY_SHARDED,
            )
        cluster.worker(self.node_id)
        known = cluster.shared.get(self.relation)
        if known is not None and self.node_id not in known.nodes:
            raise UserError(
                f"node {self.node_id} has no copy of {self.relation} that is in use",
                "Name another node",
                code=Code.NO_SUCH_COPY,
            )
        return known

    def _receivers(self, facts: Facts, has: tuple[int, ...]) -> list[int]:
        """The nodes that get a copy. Writers do without one that has died: it gets its copy when it is back."""
        answering = self._answering(facts, self._others(facts.cluster))
        return [n for n in self._others(facts.cluster) if not has or n in has or n in answering]

    def _needed_steps(self, facts: Facts, others: list[int]) -> tuple[Step, ...]:
        nodes = sorted({*self._answering(facts, others), facts.cluster.lord.id})
        return needed_steps(nodes, self.relation, self.node_id)

    def _check_step(self, node: int, definition: Json) -> Step:
        return Step(
            "check_shared",
            f"check that node {node} can have {self.relation}",
            {"node": node, "relation": self.relation, "definition": definition},
        )

    def _record_step(self, definition: Json, made: tuple[int, ...]) -> Step:
        options: dict[str, Json] = {
            "node": self.node_id,
            "relation": self.relation,
            "definition": definition,
        }
        if made:
            options["copies"] = list(made)
        return Step("record_shared", f"record {self.relation} as shared", options)

    def _described(self, facts: Facts, *, again: bool) -> Mapping[str, Any]:
        described = facts.answers.get("described")
        if described is None:
            raise UserError(
                f"node {self.node_id} cannot be reached",
                "Start it and try again",
                code=Code.NODE_UNREACHABLE,
            )
        obstacles = [] if again and described.get("shape") else described["obstacles"]
        if obstacles:
            first, more = obstacles[0], len(obstacles) - 1
            others = f" (and {more} more in the way)" if more else ""
            raise UserError(f"{first['what']}{others}", first["hint"], code=Code.TABLE_UNSUITABLE)
        return dict(described)

    def _made(self, facts: Facts) -> tuple[int, ...]:
        """The nodes with copies since the transaction that made the table: each says so of a table of the same
        owner, for one node's word would let him have others' tables of that name."""
        described = facts.answers.get("described") or {}
        owner = (described.get("definition") or {}).get("owner")
        return tuple(
            n
            for n in described.get("made_now") or ()
            if n == self.node_id or (owner and facts.answers.get(f"made {n}") == owner)
        )

    def _need_free(self, facts: Facts, node: int, has: tuple[int, ...]) -> None:
        taken = facts.answers.get(f"taken {node}")
        if taken is None:
            raise UserError(
                f"node {node} cannot be reached, and every worker gets a copy of {self.relation}",
                "Start it, or remove it with rm_node, and try again",
                code=Code.NODE_UNREACHABLE,
            )
        described = facts.answers.get("described") or {}
        taken = [*taken, *sequences_taken(facts, node, described.get("definition") or {})]
        if taken and node not in has:
            raise UserError(
                f"node {node} has a relation {taken[0]} of its own", *_RENAME, code=Code.NAME_TAKEN
            )

    def _answering(self, facts: Facts, nodes: list[int]) -> list[int]:
        return [n for n in nodes if facts.answers.get(f"taken {n}") is not None]

    def _others(self, cluster: Cluster) -> list[int]:
        return sorted({n.id for n in cluster.workers} - {self.node_id})


_RENAME = ("Rename or drop it there",)


def share_step(node: int, relation: str, source: int | None = None) -> Step:
    """What gives a worker its copy.

    Args:
        source: whose copy is right; None: that of the first of its nodes.
    """
    return Step(
        "share_out",
        f"copy {relation} to node {node}",
        {"node": node, "relation": relation, "source": source},
    )


def views_step(relation: str, node: int, source: int, *, tell: bool = True) -> Step:
    """What gives a node the views that a table of another has there."""
    return Step(
        "give_views",
        f"make views of {relation} on node {node}",
        {"node": node, "source": source, "relation": relation, **({} if tell else {"tell": False})},
    )


def needed_steps(nodes: list[int], relation: str, source: int) -> tuple[Step, ...]:
    """What gives nodes the types and functions that a table of another is made of, and its users their ways."""
    options: dict[str, Json] = {
        "nodes": [n for n in nodes if n != source],
        "source": source,
        "relation": relation,
    }
    return (
        Step("give_needed", f"make everywhere what {relation} is made of", options),
        Step("give_ways", f"let those who use {relation} reach all nodes", options),
    )
