"""A node follows its metadata."""

from __future__ import annotations

from sql.databases import Nodes


def test_a_new_table_appears_on_every_node(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key, note text)")
    nodes[1].run("insert into acc select i, 'n' || i from generate_series(1, 100) i")
    nodes.shard("acc", "id")
    for node in nodes.all:
        assert node.drift() == {}
        assert node.value("select count(*) from acc") == 100
        assert node.value("select note from acc where id = 77") == "n77"
        assert node.reconcile() == 0
