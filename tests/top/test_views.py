"""The pages of `shardman top`, from values that are made up: no terminal, no server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from shardman.cli.live import views
from shardman.cli.live.picture import Picture, Rates, keyed
from shardman.metrics.node import Value
from shardman.model.finding import Finding
from shardman.nodes.status import Status


def values(nodes: int, partitions: int) -> Iterator[Value]:
    yield Value("shardlord_acting", {}, 1)
    for n in range(nodes):
        node = {"node": str(n)}
        yield Value("node_up", node, float(n != 3))
        yield Value("node_age_seconds", node, 4000 if n == 3 else 0.1)
        yield Value("node", {**node, "role": "lord, worker" if n == 0 else "worker"}, 1)
        yield Value("node_zone", {**node, "zone": f"rack-{n}-of-the-cellar"}, 1)
        yield Value("node_sessions", {**node, "state": "idle"}, 1234)
        yield Value(
            "slot_retained_bytes", {**node, "purpose": "metadata", "to_node": "1"}, 123456789
        )
        for copy in ("primary", "replica", "stale"):
            yield Value("node_copies", {**node, "copy": copy}, partitions / nodes)
    yield Value("table_partitions", {"table": 'app."Tab""x[red]"'}, partitions)
    for p in range(partitions):
        of = {"partition": f"accounts_{p}", "node": str(p % nodes)}
        yield Value("partition_bytes", {**of, "copy": "primary"}, 1000 + p)


def status(*problems: Finding, partitions: int = 0) -> Status:
    parts = tuple(
        {"part_name": f"accounts_{p}", "replicas_on": [2, 15], "stale_on": [15]}
        for p in range(partitions)
    )
    return Status("abc", None, (), (), parts, (), (), problems=problems)


def command(**of: Any) -> dict[str, Any]:
    return {
        "id": 17, "cmd_type": "move_part", "opts": "part_name=accounts_3, dest=2" * 3, "status": "in progress",
        "step_no": 3, "steps_total": 12, "step_name": "copy", "started_at": 1,
        "bytes_done": 250, "bytes_total": 1000,
        "duration": timedelta(seconds=30), "waits_for": None, "error": None, "result": None, **of,
    }  # fmt: skip


def lines(page: Any, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=StringIO())
    console.print(page)
    return console.export_text().splitlines()


@pytest.mark.parametrize(("nodes", "partitions"), [(3, 12), (16, 1024)])
@pytest.mark.parametrize("key", views.PAGES)
def test_80_columns_suffice(key: str, nodes: int, partitions: int) -> None:
    picture = Picture(
        keyed(values(nodes, partitions)),
        status=status(Finding("node 3", "is down", "Start it"), partitions=partitions),
        commands=(command(), command(status="failed", error="no [bold]room[/bold] " * 20)),
    )
    said = lines(views.PAGES[key][1](picture))
    assert said
    assert max(map(len, said)) <= 80
    # Headings are whole: what they are above has room.
    heads = {"n": "kept", "t": "reads/s", "p": "reads/s", "c": "left"}
    assert heads.get(key, "") in said[0]
    assert len(views.header(picture).plain) <= 80


def test_a_node_that_is_down() -> None:
    picture = Picture(keyed(values(5, 10)))
    said = lines(views.nodes(picture))
    assert "down 1 h" in said[4]
    assert said[1].startswith("0") and "both" in said[1]
    assert "4/5" in views.header(picture).plain


def test_names_are_no_markup() -> None:
    assert 'app."Tab""x[red]"' in lines(views.tables(Picture(keyed(values(3, 3)))))[1]
    failed = Picture(commands=(command(status="failed", error="[bold]x[/bold]"),))
    assert "[bold]x[/bold]" in "\n".join(lines(views.commands(failed), 200))


def test_a_command_says_how_long_it_takes_yet() -> None:
    said = lines(views.commands(Picture(commands=(command(),))), 200)[1]
    assert "25%" in said
    assert "1 min 30 s" in said
    waiting = lines(views.commands(Picture(commands=(command(waits_for="bob"),))), 200)[1]
    assert "waits for bob" in waiting
    assert "does not answer" in lines(views.commands(Picture()))[0]


def test_what_is_wrong_comes_with_what_to_do() -> None:
    picture = Picture(status=status(Finding("node 3", "is down", "Start it")), wrong="it hangs")
    said = "\n".join(lines(views.wrong(picture)))
    assert "may be old: it hangs" in said
    assert "node 3: is down\n  Start it" in said
    assert "Nothing is wrong" in lines(views.wrong(Picture(status=status())))[0]


def test_rates() -> None:
    rates = Rates()

    def at(count: float, age: float) -> dict[Any, float]:
        node = {"node": "1"}
        return keyed([Value("node_deadlocks", node, count), Value("node_age_seconds", node, age)])

    def rate(found: Any) -> Any:
        return Picture(rates=found).rate("node_deadlocks", node="1")

    assert rate(rates.follow(at(10, 0), now=100)) is None
    assert rate(rates.follow(at(30, 0), now=102)) == 10
    # No newer answer: the rate stays, it does not become 0.
    assert rate(rates.follow(at(30, 2), now=104)) == 10
    assert rate(rates.follow(at(30, 0), now=106)) == 0
    # A server that was started anew.
    assert rate(rates.follow(at(3, 0), now=108)) == 0
    assert rate(rates.follow({}, now=110)) is None
