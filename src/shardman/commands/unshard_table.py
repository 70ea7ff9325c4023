"""unshard_table(relation, node_id, aside): a sharded table becomes a plain table of one worker again.

What it guarantees, and how, is in docs/commands/unshard_table.md; the instant that matters is
steps/unsharding/cut_over.py.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.remains import asides, drop_asides, need_alone
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Table
from shardman.model.plan import Json, Plan, Step


@verb
class UnshardTable(Command):
    """Leaves ``relation`` as a plain table on worker ``node_id``; with ``aside``
    what failovers have set aside of it goes too."""

    name = "unshard_table"
    summary = (
        "Make a sharded table a plain table of one worker again, while it is read and written."
    )

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    node_id: int = argument("The worker that is to have it.", kind=Kind.NODE)
    aside: bool = argument("Drop what failovers have set aside of it, too.", default=False)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset(
            {
                Claim("membership", shared=True),
                *group_claims(cluster, self.relation),
                *({Claim("channels")} if self._replicas(cluster) else ()),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What on each node hangs on the table, and was set aside of it; and what it is."""
        table = cluster.tables.get(self.relation)
        node = cluster.nodes.get(self.node_id)
        if table is None or node is None:
            return ()
        first = next((c for c in cluster.primaries.values() if c.relation == self.relation), None)
        return (
            *(
                Question(f"{what} {member}", member, query, (self.relation,))
                for member in cluster.members
                for what, query in _QUESTIONS.items()
            ),
            Question("state", self.node_id, "select shardman.unshard_state(%s)", (self.relation,)),
            *(
                (Question("key", first.owner, _HAS_KEY, (first.part_name,)),)
                if first is not None
                else ()
            ),
            Question(
                "numbers",
                0,
                "select coalesce(shardman.unshard_numbers(t.definition), '')"
                " from shardman.tables t where t.relation = %s",
                (self.relation,),
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        table = cluster.table(self.relation)
        cluster.place(self.node_id)
        self._need_apart(cluster, table)
        for node in cluster.members:
            again = ", and make it again afterwards" if node == self.node_id else ""
            need_alone(facts, self.relation, node, f"Drop it there first{again}")
        call = f"unshard_table('{self.relation}', {self.node_id}, aside => true)"
        found = asides(facts, self.relation, may_go=self.aside, call=call)
        self._need_numbers(facts)
        has_key = bool(facts.answers.get("key"))
        return Plan(
            prepare=self._prepare(facts, table, has_key),
            switch=(
                Step(
                    "forget_table",
                    f"record that {self.relation} is sharded no longer",
                    {"relation": self.relation},
                ),
            ),
            finish=self._finish(facts, found),
            warnings=self._warnings(cluster, has_key),
        )

    def _prepare(self, facts: Facts, table: Table, has_key: bool) -> tuple[Step, ...]:
        name, node = self.relation, self.node_id
        here: dict[str, Json] = {"node": node, "relation": name}
        make: dict[str, Json] = {**here, "definition": dict(table.definition)}
        others = [n for n in facts.cluster.members if n != node]
        replicas = self._replicas(facts.cluster) or table.replevel
        copied = (
            (
                Step("unshard_log", f"log writes to {name}", here),
                Step("unshard_shadow", "make the plain table", make),
                Step("unshard_copy", f"copy the partitions of {name} into it", make),
                Step("unshard_index", "build indexes", make),
                Step("unshard_catch_up", f"catch up with writes to {name}", here),
                Step("unshard_verify", "compare plain table and partitions", here),
            )
            if has_key
            else (
                Step("unshard_shadow", "make the plain table", make),
                Step("unshard_index", "build indexes", make),
            )
        )
        return (
            Step("gather_partitions", f"move all partitions to node {node}", here),
            *copied,
            *(
                (
                    Step(
                        "release_replicas",
                        f"take the replicas of {name} away",
                        {"relation": name, "replevel": table.replevel},
                    ),
                )
                if replicas
                else ()
            ),
            Step(
                "unshard_cut_over",
                f"switch {name} to the plain table",
                {
                    **make,
                    "catalog": str(facts.answers.get("state")),
                    "others": list[Json](others),
                    "at_once": not has_key,
                },
            ),
        )

    def _finish(self, facts: Facts, found: dict[int, tuple[str, ...]]) -> tuple[Step, ...]:
        name, node = self.relation, self.node_id
        here: dict[str, Json] = {"node": node, "relation": name}
        return (
            Step("commit_prepared", f"release node {node}", {"node": node, "cmd": facts.cmd_id}),
            *drop_asides(name, found),
            *(
                Step("drop_sharded", f"drop {name} on node {n}", {"node": n, "relation": name})
                for n in facts.cluster.members
                if n != node
            ),
            Step("drop_former", f"drop the partitions of {name}", here),
            Step("validate_plain", f"validate the foreign keys of {name}", here),
            Step("converge", "tell all nodes", {}),
        )

    def _warnings(self, cluster: Cluster, has_key: bool) -> tuple[str, ...]:
        others = [t for t in cluster.group(self.relation) if t != self.relation]
        return (
            f"On all other nodes {self.relation} does not exist afterwards.",
            f"Node {self.node_id} needs room for all rows of {self.relation} twice.",
            *((self._carried(others),) if others else ()),
            *(() if has_key else (self._locked(),)),
        )

    def _carried(self, others: list[str]) -> str:
        return (
            f"The partitions of {', '.join(others)} go to node {self.node_id} with those of"
            f" {self.relation}: rebalance them afterwards."
        )

    def _locked(self) -> str:
        return (
            f"{self.relation} has no key by which its rows could be told apart: it is locked while"
            " they are copied."
        )

    def _replicas(self, cluster: Cluster) -> int:
        return sum(c.relation == self.relation and c.prv is not None for c in cluster.copies)

    def _need_apart(self, cluster: Cluster, table: Table) -> None:
        """Raises UserError where tables that are colocated would lose something."""
        others = [t for t in cluster.group(self.relation) if t != self.relation]
        bound = [
            t for t in others if t in table.inside or self.relation in cluster.tables[t].inside
        ]
        if bound or self.relation in table.inside:
            raise UserError(
                f"foreign keys between partitions bind {self.relation} to"
                f" {', '.join(bound or [self.relation])}",
                "Drop these foreign keys first",
                code=Code.TABLE_UNSUITABLE,
            )
        if others and self._replicas(cluster):
            raise UserError(
                f"{self.relation} has its replicas together with those of {', '.join(others)},"
                " which would lose theirs",
                f"Take them away with set_replevel('{self.relation}', 0), and give them to the others"
                " again afterwards",
                code=Code.TABLE_UNSUITABLE,
            )

    def _need_numbers(self, facts: Facts) -> None:
        if names := facts.answers.get("numbers"):
            raise UserError(
                f"above the numbers of all nodes there are none left for {names}",
                "Widen the type of its column to bigint first",
                code=Code.TABLE_UNSUITABLE,
            )


#: What each node is asked.
_QUESTIONS = {
    "dependents": "select shardman.unshard_obstacles(%s)",
    "asides": "select shardman.asides_of(%s)",
}
_HAS_KEY = "select exists (select from shardman.conversion_key(shardman.data_table(%s)))"
