"""unshare_table: a shared table becomes a plain table of one worker again."""

from __future__ import annotations

from collections.abc import Iterable

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.remains import need_alone
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Shared
from shardman.model.plan import Plan, Step


@verb
class UnshareTable(Command):
    """Leaves ``relation`` as a plain table on worker ``node_id``, and drops all other copies."""

    name = "unshare_table"
    summary = "Make a shared table a plain table of one worker again."

    relation: str = argument("A shared table, written as in SQL.")
    node_id: int = argument("The worker that keeps it.", kind=Kind.NODE)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim(f"table {self.relation}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return shared_dependents(cluster.shared.get(self.relation) or Shared(self.relation))

    def plan(self, facts: Facts) -> Plan:
        known = facts.cluster.shared_table(self.relation)
        if self.node_id not in known.nodes:
            raise UserError(
                f"node {self.node_id} has no copy of {self.relation}",
                f"Name one that has: {', '.join(map(str, known.nodes))}",
                code=Code.NO_SUCH_COPY,
            )
        need_unreferred(facts, self.relation)
        return drop_copies(facts, known, keep=self.node_id)


def shared_dependents(table: Shared) -> tuple[Question, ...]:
    """What on each node is made of a shared table."""
    return (
        Question("references", 0, "select shardman.references_to(%s)", (table.relation,)),
        *(
            Question(
                f"dependents {n}", n, "select shardman.shared_dependents(%s)", (table.relation,)
            )
            for n in table.nodes
        ),
    )


def need_unreferred(facts: Facts, relation: str) -> None:
    """Raises UserError where foreign keys of sharded tables refer to a shared one."""
    if sharded := facts.answers.get("references"):
        raise UserError(
            f"foreign keys of {', '.join(sharded)} refer to {relation}",
            "Drop those first, with drop_foreign_key",
            code=Code.TABLE_UNSUITABLE,
        )


def drop_copies(facts: Facts, table: Shared, keep: int | None) -> Plan:
    """Ends the sharing of a table and drops its copies, but for that of node ``keep``."""
    if lacking := {n.id for n in facts.cluster.workers} - set(table.nodes):
        raise UserError(
            f"node {min(lacking)} was away and lacks {table.relation}: its old copy would be left",
            "Start it and wait until it has, or remove it with rm_node",
            code=Code.NODE_UNREACHABLE,
        )
    for node in table.nodes:
        if node != keep or facts.answers.get(f"dependents {node}") is None:
            need_alone(facts, table.relation, node, "Drop it there first, or unshare it")
    return forget_copies(table.relation, table.nodes, keep)


def forget_copies(relation: str, nodes: Iterable[int], keep: int | None) -> Plan:
    """Drops what these nodes have of a shared table, once the metadata do not have it any more."""
    return Plan(
        switch=(
            Step(
                "forget_shared",
                f"record that {relation} is no shared table",
                {"relation": relation},
            ),
        ),
        finish=(
            *(
                Step(
                    "unshare_home",
                    f"make {relation} a plain table of node {node}",
                    {"node": node, "relation": relation},
                )
                for node in nodes
                if node == keep
            ),
            *(
                Step(
                    "drop_shared",
                    f"drop the copy of {relation} on node {node}",
                    {"node": node, "relation": relation},
                )
                for node in nodes
                if node != keep
            ),
            Step("converge", "tell all nodes", {}),
        ),
    )
