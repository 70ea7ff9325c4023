"""drop_table(relation, aside, follow): drops a sharded table, replicas included, or a shared one on all nodes.
DROP TABLE submits it by itself, with ``follow``: the table is put away then, and this ends it."""

from __future__ import annotations

from dataclasses import replace

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.forget_layout import forget_steps
from shardman.commands.remains import asides, drop_asides, need_alone
from shardman.commands.unshare_table import (
    drop_copies,
    forget_copies,
    need_unreferred,
    shared_dependents,
)
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Shared
from shardman.model.plan import Plan, Step


@verb
class DropTable(Command):
    """Drops ``relation``, with all its rows, on all nodes; with ``aside`` also what was set aside of it."""

    name = "drop_table"
    summary = "Drop a sharded or shared table, with all its rows, on all nodes."

    relation: str = argument("A sharded or shared table, written as in SQL.", kind=Kind.RELATION)
    aside: bool = argument("Drop what failovers have set aside of it, too.", default=False)
    follow: bool = argument(
        "Only what DROP TABLE has dropped for its users already: it submits this by itself.",
        default=False,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim(f"table {self.relation}"),
                # One that is dropped with it may refer to it: these go first.
                Claim("tables that are shared"),
                *(group_claims(cluster, self.relation) if self.relation in cluster.tables else ()),
                *({Claim("channels")} if self._replicas(cluster) else ()),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What on each node is made of the table, and what was set aside of it."""
        if self.relation in cluster.shared:
            table = cluster.shared[self.relation]
            return self._still_there(table) if self.follow else shared_dependents(table)
        if self.follow and self.relation not in cluster.tables:
            return ()
        return tuple(
            Question(f"{what} {node}", node, query, (self.relation,))
            for node in cluster.members
            for what, query in _QUESTIONS.items()
        )

    def plan(self, facts: Facts) -> Plan:
        cluster, relation = facts.cluster, self.relation
        if relation in cluster.shared:
            if self.follow:
                if self._is_everywhere(facts, cluster.shared[relation]):
                    # Nobody has dropped it: it was called by hand.
                    return Plan()
                # All that use it have let it go. A worker that was away has its copy still, and on a lord that
                # is a worker the statement itself has forgotten who has one.
                return forget_copies(relation, sorted(n.id for n in cluster.workers), keep=None)
            need_unreferred(facts, relation)
            return self._forgetting(
                cluster, drop_copies(facts, cluster.shared[relation], keep=None)
            )
        if self.follow and relation not in cluster.tables:
            return Plan()
        cluster.table(relation)
        called = {n: facts.answers.get(f"called {n}") for n in cluster.members}
        put_away = {n: c for n, c in called.items() if c is not None and c != relation}
        if self.follow and not put_away:
            return Plan()
        self._need_unreferred(cluster)
        for node in cluster.members:
            need_alone(facts, relation, node, "Drop it there first")
        call = f"drop_table('{relation}', aside => true)"
        # DROP TABLE is refused where there are any: these have come since, of what was dropped with all rows.
        found = asides(facts, relation, may_go=self.aside or self.follow, call=call)
        replicas = self._replicas(cluster)
        plan = Plan(
            prepare=(
                *(
                    (Step("leave_group", f"let {relation} go alone", {"relation": relation}),)
                    if cluster.group(relation) != (relation,)
                    else ()
                ),
                *(
                    (
                        Step(
                            "take_replicas_away",
                            f"take the {replicas} replicas of {relation} away",
                            {"relation": relation},
                        ),
                    )
                    if replicas
                    else ()
                ),
            ),
            switch=(
                Step("forget_table", f"record that {relation} is gone", {"relation": relation}),
            ),
            finish=(
                *drop_asides(relation, found),
                *(
                    Step(
                        "drop_sharded",
                        f"drop {relation} on node {node}",
                        {
                            "node": node,
                            "relation": relation,
                            **({"called": put_away[node]} if node in put_away else {}),
                        },
                    )
                    for node in cluster.members
                ),
                Step("converge", "tell all nodes", {}),
            ),
        )
        return self._forgetting(cluster, plan)

    def _still_there(self, table: Shared) -> tuple[Question, ...]:
        """Whether nodes keep their copies, though DROP TABLE is said to have dropped them. It commits on one
        node after the other: each is waited for."""
        query = "select shardman.keeps_shared_copy(%s)"
        return tuple(
            Question(f"keeps {n}", n, query, (table.relation,), member=False) for n in table.nodes
        )

    def _is_everywhere(self, facts: Facts, table: Shared) -> bool:
        kept = [facts.answers.get(f"keeps {n}") for n in table.nodes]
        return bool(kept) and all(each is True for each in kept)

    def _forgetting(self, cluster: Cluster, plan: Plan) -> Plan:
        """What is dropped by a command is not made again."""
        if self.follow:
            return plan
        return replace(plan, finish=(*forget_steps(cluster.members, self.relation), *plan.finish))

    def _need_unreferred(self, cluster: Cluster) -> None:
        for each in cluster.group(self.relation):
            if each != self.relation and self.relation in cluster.tables[each].inside:
                raise UserError(
                    f"a foreign key of {each}, which is colocated with it, refers to {self.relation}",
                    f"Drop that foreign key, or drop {each} first",
                    code=Code.TABLE_UNSUITABLE,
                )

    def _replicas(self, cluster: Cluster) -> int:
        return sum(c.relation == self.relation and c.prv is not None for c in cluster.copies)


#: What each node is asked.
_QUESTIONS = {
    "dependents": "select shardman.dependents(%s)",
    "asides": "select shardman.asides_of(%s)",
    "called": "select shardman.called_here(%s)",
}
