"""The page without a browser: who gets in, what is shown to whom, what a forged request gets."""

from __future__ import annotations

import html
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.routing import Route

from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.web.app import Web
from web.viewing import PASSWORD, QUOTED, Viewer

#: A path for each address of the page.
FILLED = {
    "{number:int}": "1",
    "{relation:path}": "acc",
    "{part:path}": "acc_3",
    "{verb}": "move_part",
}
ROUTES = [r for r in Web(["host=x"], secure=False).app().routes if isinstance(r, Route)]


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("route", [r for r in ROUTES if r.path != "/login"], ids=lambda r: r.path)
def test_nothing_without_a_login(viewer: Viewer, route: Route) -> None:
    path = filled(route.path)
    answer = viewer.post(path, {}) if "POST" in (route.methods or ()) else viewer.get(path)
    assert (answer.status, answer.address) == (303, "/login")
    assert "acc" not in answer.text


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if "GET" in (r.methods or ())], ids=lambda r: r.path
)
def test_every_page(viewer: Viewer, route: Route) -> None:
    assert viewer.log_in("looker").status == 303
    answer = viewer.get(filled(route.path))
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert PASSWORD not in html.unescape(answer.text)
    assert len(answer.text) < 50_000


def test_what_is_no_page_is_not_there(viewer: Viewer) -> None:
    viewer.log_in("looker")
    for path in (
        "/commands/99999",
        "/nodes/99",
        "/tables/nothing",
        "/partitions/nothing",
        "/nothing",
    ):
        assert viewer.get(path).status == 404, path
    assert viewer.get("/commands/99999999999999999999").status in (404, 409)


def test_a_wrong_password_and_a_role_without_rights(page: str) -> None:
    assert "password authentication failed" in Viewer(page).log_in("looker", "wrong").text
    refused = Viewer(page).log_in("nobody_")
    assert refused.status == 403
    assert "shardman_viewer" in refused.text


def test_nobody_comes_in_as_the_page_itself(cluster: Cluster, page: str) -> None:
    """Neither by what libpq finds in the environment of the process, nor where the server trusts it."""
    assert Viewer(page).log_in("postgres", "").status == 403
    cluster.sql(0, "create role trusted login in role shardman_viewer")
    hba = cluster.local.server(0).data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("host all trusted 127.0.0.1/32 trust\n" + before)
    try:
        cluster.sql(0, "select pg_reload_conf()")
        refused = eventually(
            "the server trusts the role",
            lambda: Viewer(page).log_in("trusted", "anything"),
            until=lambda answer: "asks for no password" in answer.text,
            seconds=20,
        )
        assert refused.status == 403
    finally:
        hba.write_text(before)
        cluster.sql(0, "select pg_reload_conf()")


def test_who_is_shut_out_sees_nothing_more(cluster: Cluster, viewer: Viewer) -> None:
    for node in range(4):
        cluster.sql(node, "create role leaver login in role shardman_viewer password 'x'")
    assert viewer.log_in("leaver", "x").status == 303
    assert viewer.get("/").status == 200
    for node in range(4):
        cluster.sql(node, "revoke shardman_viewer from leaver")
    eventually(
        "nothing is shown",
        lambda: viewer.get("/"),
        until=lambda answer: answer.status == 409 and "acc" not in answer.text,
        seconds=30,
    )


def test_names_are_text(viewer: Viewer) -> None:
    viewer.log_in("looker")
    text = viewer.get("/").text
    assert "<b>&#34;" not in text
    assert '<b>"' not in text
    assert QUOTED in html.unescape(text)
    link = re.search(r'href="(/tables/[^"]*T[^"]*)"', text)
    assert link
    there = viewer.get(html.unescape(link[1]))
    assert there.status == 200
    assert QUOTED in html.unescape(there.text)


def test_who_may_only_look_submits_nothing(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("looker")
    before = cluster.value(0, "select count(*) from shardman.commands")
    form = {"csrf": viewer.csrf(), "part_name": "acc_3", "dest": "2"}
    answer = viewer.post("/do/move_part", form)
    assert answer.status == 409
    assert "permission denied" in answer.text
    assert cluster.value(0, "select count(*) from shardman.commands") == before


def test_forged_forms(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("actor")
    before = cluster.value(0, "select count(*) from shardman.commands")
    form = {"part_name": "acc_3", "dest": "2"}
    assert viewer.post("/do/move_part", form).status == 403
    assert viewer.post("/do/move_part", form | {"csrf": "x" * 43}).status == 403
    own = form | {"csrf": viewer.csrf()}
    assert viewer.post("/do/move_part", own, Origin="https://evil.example").status == 403
    assert viewer.post("/do/move_part", own, Origin="null").status == 403
    assert viewer.post("/do/move_part", own | {"x": "y" * 30_000}).status == 413
    assert viewer.post("/do/rm_node", own).status == 409  # not offered
    assert cluster.value(0, "select count(*) from shardman.commands") == before


def test_a_plan_and_its_command(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("actor")
    form = {"csrf": viewer.csrf(), "part_name": "acc_1"}
    replica = cluster.value(
        0, "select owner from shardman.partitions where part_name = 'acc_1' and prv is not null"
    )
    form["node"] = str(replica)
    wrong = viewer.post("/do/switch_primary/plan", form | {"node": "77"})
    assert wrong.status == 409
    assert 'role="alert" class="wrong"' in wrong.text
    assert "77" in wrong.text
    before = cluster.value(0, "select count(*) from shardman.commands")
    assert "Do it" in viewer.post("/do/switch_primary/plan", form).text
    assert cluster.value(0, "select count(*) from shardman.commands") == before
    done = viewer.post("/do/switch_primary", form)
    assert done.status == 303
    eventually(
        "the command's page says success",
        lambda: viewer.get(done.address).text,
        until=lambda text: "is-success" in text,
        seconds=60,
    )
    eventually(
        "the partition's page follows",
        lambda: viewer.get("/partitions/acc_1").text,
        until=lambda text: f'<a href="/nodes/{replica}">{replica}</a>: primary' in text,
        seconds=30,
    )


def test_what_a_viewer_has_is_not_sent_again(viewer: Viewer) -> None:
    viewer.log_in("looker")
    version = re.search(r'"X-Version": "([0-9a-f]+)"', viewer.get("/do").text) or re.search(
        r'"X-Version": "([0-9a-f]+)"', viewer.get("/tables/acc").text
    )
    assert version
    eventually(
        "nothing new",
        lambda: viewer.get("/tables/acc", **{"X-Version": version[1]}).status,
        until=lambda status: status == 204,
        seconds=20,
    )


def test_many_viewers_cost_what_one_costs(cluster: Cluster, page: str) -> None:
    viewers = [Viewer(page) for _ in range(12)]
    for each in viewers:
        assert each.log_in("looker").status == 303

    def looks(count: int) -> int:
        """Transactions of a node in three seconds, while so many look."""
        query = "select xact_commit from pg_stat_database where datname = current_database()"
        time.sleep(1.5)  # what was counted before is flushed
        begun, before = time.monotonic(), cluster.value(3, query)
        with ThreadPoolExecutor(count) as pool:
            while time.monotonic() - begun < 4:
                list(pool.map(lambda v: v.get("/"), viewers[:count]))
        time.sleep(1.5)
        return int(cluster.value(3, query)) - int(before)

    one, many = looks(1), looks(12)
    assert many < 2 * one + 50


def test_a_node_that_hangs_is_said(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("looker")
    assert "Nothing that status can see is wrong" in viewer.get("/").text
    go_on = freeze(cluster, 3)
    try:
        eventually(
            "the page says that node 3 does not answer",
            lambda: viewer.get("/").text,
            until=lambda text: bool(re.search(r"What is wrong.*node 3", text, re.DOTALL)),
            seconds=60,
        )
        assert viewer.get("/nodes/3").status == 200
    finally:
        go_on()


def test_what_is_old_is_not_shown_as_new(cluster: Cluster, viewer: Viewer) -> None:
    """Also while the look itself hangs, for it has not failed yet."""
    viewer.log_in("looker")
    assert "Not up to date" not in viewer.get("/").text
    go_on = [freeze(cluster, node) for node in range(4)]
    try:
        eventually(
            "the page says so",
            lambda: viewer.get("/").text,
            until=lambda text: "Not up to date" in text and "acc" in text,
            seconds=45,
        )
    finally:
        for each in go_on:
            each()
    eventually(
        "it is up to date again",
        lambda: viewer.get("/").text,
        until=lambda text: "Not up to date" not in text,
        seconds=60,
    )


def test_guessing_ends(page: str) -> None:
    for _ in range(10):
        last = Viewer(page).log_in("looker", "wrong")
    assert last.status == 429
    assert Viewer(page).log_in("looker").status == 429
