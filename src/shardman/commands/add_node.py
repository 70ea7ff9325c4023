"""add_node(connstring): a server becomes a worker of the cluster.

It fails whole: a node that could not be added leaves nothing behind on any node. Only what the database
held of a former cluster is taken away first, and never user data.
"""

from __future__ import annotations

from shardman.commands.arguments import argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.create_shared_table import share_step
from shardman.commands.reachability import who_answers
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class AddNode(Command):
    """Adds the server that ``connstring`` (without its password) reaches.

    Args:
        zone: what may fail together with other nodes of that name; None: with no other.
    """

    name = "add_node"
    summary = "Add a server to the cluster as a worker."

    connstring: str = argument(
        "A libpq connection string that reaches the server from every node.",
        secret=True,
    )
    zone: str | None = argument("What it may fail together with, say a rack.", default=None)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Whether it is the lord's own database; who has shared tables to show."""
        lord = cluster.lord
        return (
            *(who_answers(cluster) if cluster.shared else ()),
            Question(
                "lord",
                lord.id,
                "select shardman.same_address(%s, %s)",
                (self.connstring, lord.connstring),
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        # An id is never used twice: names of objects and ranges of sequences carry it.
        node_id = max(facts.cluster.nodes) + 1
        if facts.answers.get("lord"):
            return self._lord(facts, node_id)
        for node in facts.cluster.nodes.values():
            if node.connstring == self.connstring and node.status != "removed":
                raise UserError(
                    f"{self.connstring} is node {node.id} already",
                    "See shardman.nodes",
                    code=Code.NODE_EXISTS,
                )
        new: dict[str, Json] = {"node": node_id}
        return Plan(
            prepare=(
                Step("check_node", "check the server", new),
                Step("forget_former", "clear what a former cluster left there", new),
                Step("node_schema", "install the schema", new),
                Step("node_reaches", "check that it reaches the other nodes", new),
                Step("node_metadata", "subscribe to the metadata", new),
                self._needed(node_id, [facts.cluster.lord.id, *self._sharing(facts)]),
                Step("node_tables", "make the routes to all sharded tables", new),
                *self._check_shared(facts.cluster, node_id),
            ),
            switch=(
                Step(
                    "insert_node",
                    f"record the node as {node_id}",
                    {**new, "connstring": self.connstring, "zone": self.zone},
                ),
            ),
            finish=(
                *_share_out(facts.cluster, node_id),
                Step(
                    "give_objects",
                    "make the views, functions and types that all nodes have",
                    {**new, "source": facts.cluster.lord.id},
                ),
                Step("converge", "tell all nodes", {}),
            ),
            data={"node_id": node_id},
        )

    def _check_shared(self, cluster: Cluster, node_id: int) -> tuple[Step, ...]:
        names: list[Json] = [t.relation for t in cluster.shared_in_order]
        if not names:
            return ()
        return (
            Step(
                "check_all_shared",
                "check that it can have the shared tables",
                {"node": node_id, "relations": names},
            ),
        )

    def _needed(self, node_id: int, sources: list[int]) -> Step:
        return Step(
            "give_all_needed",
            "make the types and functions that tables need",
            {"node": node_id, "sources": list(dict.fromkeys(sources))},
        )

    def _sharing(self, facts: Facts) -> list[int]:
        """Nodes that have all shared tables between them: a lord that is no worker has none. One that does not
        answer can show nothing; what the new node lacks then is said by who checks that it can have them."""
        answering = {n.id for n in facts.cluster.workers if facts.answers.get(f"answers {n.id}")}
        holders = (answering.intersection(t.nodes) for t in facts.cluster.shared_in_order)
        return sorted({min(each) for each in holders if each})

    def _lord(self, facts: Facts, node_id: int) -> Plan:
        """The lord's database has the schema and all metadata, and every node reaches it."""
        cluster = facts.cluster
        lord = cluster.lord
        if lord.status is not None:
            raise UserError(
                f"the lord's database is node {lord.id} already",
                "See shardman.nodes",
                code=Code.NODE_EXISTS,
            )
        return Plan(
            prepare=(
                *([self._needed(lord.id, sharing)] if (sharing := self._sharing(facts)) else ()),
                *self._check_shared(cluster, lord.id),
            ),
            switch=(
                Step(
                    "lord_joins",
                    f"record the lord's database as worker {node_id}",
                    {"node": node_id, "zone": self.zone},
                ),
            ),
            finish=(
                *_share_out(cluster, node_id),
                Step("converge", "tell all nodes", {}),
            ),
            data={"node_id": node_id},
        )


def _share_out(cluster: Cluster, node_id: int) -> tuple[Step, ...]:
    """Gives it the shared tables, before anybody is told of it."""
    return tuple(share_step(node_id, t.relation) for t in cluster.shared_in_order)
