"""Dashboard, alerts and their page name metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.docs.pages import ROOT

from shardman.errors import UserError
from shardman.metrics.catalog import METRICS
from shardman.metrics.exposition import parse_address

ALERTS = (ROOT / "contrib/prometheus/alerts.yml").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "contrib/grafana/shardman.json").read_text("utf-8"))
OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")

LABELS = {metric.sample: set(metric.labels) for metric in METRICS.values()}


def expressions() -> Iterator[str]:
    yield from re.findall(r"^ +expr: '(.*)'$", ALERTS, re.MULTILINE)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (a["expr"] for a in DASHBOARD["annotations"]["list"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_expressions_name_metrics_and_labels_that_exist(expression: str) -> None:
    named = set(re.findall(r"shardman_\w+", expression))
    assert named
    assert named <= LABELS.keys()
    used = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) + re.findall(r"\{(\w+)", expression)
    known = set().union(*(LABELS[name] for name in named))
    assert {label.strip() for labels in used for label in labels.split(",")} <= known


def test_each_alert_says_what_to_do_in_the_page() -> None:
    alerts = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)
    rows = re.findall(r"^\| `(Shardman\w+)` \| (.+) \|$", OPERATIONS, re.MULTILINE)
    assert [name for name, _ in rows] == alerts
    assert len(alerts) == ALERTS.count("expr: '") > 15
    assert all(re.search(rf"Alerts, {name}\"", ALERTS) for name in alerts)


def test_panels_do_not_lie_upon_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert max(x for x, _ in taken) < 24


def test_names_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
        assert metric.help and not metric.help.endswith(".")
        assert len(set(metric.labels)) == len(metric.labels) <= 3


@pytest.mark.parametrize("address", ["9187", ":9187", "host:", "host:x", "host:99999", ""])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="no address to listen on"):
        parse_address(address)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:9187") == ("127.0.0.1", 9187)
    assert parse_address("[::1]:0") == ("::1", 0)
