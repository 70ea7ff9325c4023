"""unshare_table: a shared table becomes a plain table of one worker again."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
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
        """What on each node is made of the table."""
        known = cluster.shared.get(self.relation)
        return (
            Question("references", 0, "select shardman.references_to(%s)", (self.relation,)),
            *(
                Question(
                    f"dependents {n}", n, "select shardman.shared_dependents(%s)", (self.relation,)
                )
                for n in (known.nodes if known else ())
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        known = facts.cluster.shared_table(self.relation)
        if self.node_id not in known.nodes:
            raise UserError(
                f"node {self.node_id} has no copy of {self.relation}",
                f"Name one that has: {', '.join(map(str, known.nodes))}",
                code=Code.NO_SUCH_COPY,
            )
        if sharded := facts.answers.get("references"):
            raise UserError(
                f"foreign keys of {', '.join(sharded)} refer to {self.relation}",
                "Drop those first, with drop_foreign_key",
                code=Code.TABLE_UNSUITABLE,
            )
        for node in known.nodes:
            self._need_alone(facts, node)
        others = [n for n in known.nodes if n != self.node_id]
        return Plan(
            switch=(
                Step(
                    "forget_shared",
                    f"record that {self.relation} is no shared table",
                    {"relation": self.relation},
                ),
            ),
            finish=(
                Step(
                    "unshare_home",
                    f"make {self.relation} a plain table of node {self.node_id}",
                    {"node": self.node_id, "relation": self.relation},
                ),
                *(
                    Step(
                        "drop_shared",
                        f"drop the copy of {self.relation} on node {n}",
                        {"node": n, "relation": self.relation},
                    )
                    for n in others
                ),
                Step("converge", "tell all nodes", {}),
            ),
        )

    def _need_alone(self, facts: Facts, node: int) -> None:
        answer = facts.answers.get(f"dependents {node}")
        if answer is None:
            raise UserError(
                f"node {node} cannot be reached, and {self.relation} is there too",
                "Start it, or remove it with rm_node, and try again",
                code=Code.NODE_UNREACHABLE,
            )
        if answer and node != self.node_id:
            raise UserError(
                f"{', '.join(answer)} on node {node} needs {self.relation}",
                "Drop it there first, or unshare it",
                code=Code.TABLE_UNSUITABLE,
            )
