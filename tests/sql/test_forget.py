"""A node that was in another cluster loses its state and no row."""

from __future__ import annotations

from shardman import names
from sql.databases import Nodes


def test_data_is_set_aside_and_all_else_is_gone(nodes: Nodes) -> None:
    nodes[1].run(
        "create schema app; create table app.acc (id serial, note text, primary key (note, id))"
    )
    nodes[1].run("insert into app.acc (note) select 'x' from generate_series(1, 100)")
    nodes.shard("app.acc", "note, id")
    nodes.move("app.acc_2", 1, 2)
    nodes.own("app.acc_2", 2)
    node = nodes[2]
    # A replica, not attached.
    node.rows("select shardman.make_data_table('app.acc_3')")
    node.run("create table mine (id int) partition by hash (id)")
    node.run("create table mine_0 partition of mine for values with (modulus 1, remainder 0)")
    count = node.value("select count(*) from app.acc_2")
    aside = node.value("select shardman.forget_tables(7)")
    assert sorted(aside) == ["app.acc_2_aside_c7", "app.acc_3_aside_c7"]
    assert node.value("select count(*) from app.acc_2_aside_c7") == count
    node.run("insert into app.acc_2_aside_c7 values (-5, 'anything goes')")
    left = node.rows(
        "select relname from pg_class where relname like 'acc%%' and relkind in ('p', 'f', 'S')"
    )
    assert left == []
    assert node.value("select count(*) from mine") == 0
    assert node.value("select shardman.forget_tables(8)") == []


def test_the_node_can_join_again(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id serial primary key)")
    nodes.shard("acc", "id")
    nodes[2].rows("select shardman.forget_tables(7)")
    assert nodes[2].reconcile() == 0
    assert nodes[2].value("select count(*) from acc") == nodes[1].value("select count(*) from acc")


def test_long_names_are_cut(nodes: Nodes) -> None:
    long = "é" * 26
    nodes[1].run(f'create table "{long}" (id int primary key)')
    nodes.shard(f'"{long}"', "id", 2)
    aside = nodes[1].value("select shardman.forget_tables(12345)")
    assert len(aside) == 2
    assert all(name.strip('"').endswith("_aside_c12345") for name in aside)
    assert all(len(name.strip('"').encode()) <= 63 for name in aside)


def test_names_of_what_is_set_aside_differ_and_agree_with_python(nodes: Nodes) -> None:
    long = [f'app."{"Ünïcode " * 6}{n}"' for n in (1, 2)]
    made = [names.set_aside(part, 12345) for part in ("acc_0", *long)]
    assert len(set(made)) == 3 and all(names.fits(name) for name in made)
    for part, name in zip(("acc_0", *long), made, strict=True):
        assert nodes[1].value("select shardman.aside_name(%s, 12345)", part) == name
