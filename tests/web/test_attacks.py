"""The page under attack: forged requests, stolen or chosen cookies, names and words that carry markup."""

from __future__ import annotations

import html
import http.client
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from web.viewing import PASSWORD, Viewer

EVIL = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture
def looker(page: str) -> Viewer:
    viewer = Viewer(page)
    assert viewer.log_in("looker").status == 303
    return viewer


def commands(cluster: Cluster) -> int:
    return int(cluster.value(0, "select count(*) from shardman.commands"))


def raw(page: str, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    """A request as no browser sends it: the path goes as it is."""
    place = urllib.parse.urlsplit(page)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


@contextmanager
def busy_session(cluster: Cluster, node: int) -> Iterator[None]:
    """Somebody whose program has a name, and whose statement words, that carry markup."""
    dsn = make_conninfo(cluster.dsn(node), application_name=EVIL)
    with psycopg.connect(dsn) as session:
        session.execute(f"select 'x' as \"{EVIL.replace(chr(34), '')}\"".encode())
        yield


def test_words_of_others_are_text(cluster: Cluster, looker: Viewer) -> None:
    """A zone, a program's name, a statement, an argument of a command, and its error."""
    zoned = cluster.cmd("select shardman.set_zone(2, %s)", (EVIL,))
    assert zoned.status == "success", zoned
    failed = cluster.cmd("select shardman.move_part(%s, 2)", (f'"{EVIL.replace(chr(34), "")}"',))
    assert failed.status == "failed"
    number = cluster.value(0, "select max(id) from shardman.commands where cmd_type = 'move_part'")
    with busy_session(cluster, 2):
        for path in ("/", "/nodes/2", "/commands", f"/commands/{number}"):
            text = eventually(
                f"{path} has the words",
                lambda path=path: looker.get(path).text,
                until=lambda text: "onerror" in text,
                seconds=30,
            )
            assert "<img" not in text, path
    assert cluster.cmd("select shardman.set_zone(2, null)").status == "success"


@pytest.mark.parametrize(
    "path",
    [
        "/partitions/{}",
        "/tables/{}",
        "/tables/acc?shade={}",
        "/?shade={}",
        "/do/{}",
        "/do/move_part?part_name={}",
        "/{}",
    ],
)
def test_what_is_asked_for_is_text(looker: Viewer, path: str) -> None:
    text = looker.get(path.format(urllib.parse.quote(EVIL, safe=""))).text
    assert "<img" not in text
    assert 'onerror=alert(1)>"' not in text


def test_what_is_typed_is_text(page: str) -> None:
    assert "<img" not in Viewer(page).log_in(EVIL, "x").text


def test_a_role_does_not_say_where_to_log_in(page: str) -> None:
    """Connection strings are put together from what is typed."""
    for role in ("looker' host='127.0.0.9", "looker host=127.0.0.9", "looker\\' host=127.0.0.9"):
        answer = Viewer(page).log_in(role)
        assert answer.status in (403, 429)
        assert "127.0.0.9" not in answer.text.replace(html.escape(role), "").replace(role, "") or (
            "password authentication failed" in html.unescape(answer.text)
        )


def test_files_beside_the_assets(page: str) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
    ):
        answer = raw(page, path)
        assert answer.status in (303, 404, 405), path
        assert b"import" not in answer.read()


def test_a_cookie_that_somebody_chose(page: str) -> None:
    for value in ("x", "", "None", "0", "a" * 43):
        answer = raw(page, "/", cookie=f"shardman={value}")
        assert (answer.status, answer.getheader("location")) == (303, "/login")


def test_a_session_is_new_ends_and_is_kept_from_scripts(page: str) -> None:
    form = urllib.parse.urlencode({"role": "looker", "password": PASSWORD})
    place = urllib.parse.urlsplit(page)
    tokens = []
    for _ in range(2):
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        chosen = {"cookie": "shardman=chosen", "content-type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", form, chosen)
        cookie = connection.getresponse().getheader("set-cookie") or ""
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        tokens.append(cookie.partition(";")[0])
    assert len({*tokens, "shardman=chosen"}) == 3
    text = raw(page, "/do", cookie=tokens[0]).read().decode()
    csrf = (re.search(r'name="csrf" value="([^"]+)"', text) or [""])[1]
    viewer = Viewer(page)

    def log_out(cookie: str) -> int:
        return viewer.post("/logout", {"csrf": csrf}, Cookie=cookie).status

    assert log_out(tokens[1]) == 403  # the secret of another session
    assert raw(page, "/", cookie=tokens[1]).status == 200
    assert log_out(tokens[0]) == 303
    assert raw(page, "/", cookie=tokens[0]).status == 303


def test_nothing_is_done_by_a_link(cluster: Cluster, page: str) -> None:
    """An image on another page sends a GET, with the session's cookie if it were not strict."""
    actor = Viewer(page)
    actor.log_in("actor")
    before = commands(cluster)
    for path in (
        "/do/move_part?part_name=acc_3&dest=2",
        "/do/move_part/plan?part_name=acc_3&dest=2",
        "/commands/1/cancel",
        "/logout",
    ):
        assert actor.get(path).status in (200, 404, 405), path
    assert commands(cluster) == before
    assert actor.get("/do").status == 200  # still there


def test_who_may_only_look_is_offered_nothing_and_cancels_nothing(
    cluster: Cluster, looker: Viewer
) -> None:
    assert "/do/move_part" not in looker.get("/partitions/acc_1").text
    node = cluster.value(
        0, "select owner from shardman.partitions where part_name = 'acc_2' and prv is null"
    )
    with psycopg.connect(cluster.dsn(int(node))) as writer:
        writer.execute("update acc_2 set n = n + 1")
        dest = cluster.value(
            0,
            "select id from shardman.nodes where worker_status = 'active' and id not in"
            " (select owner from shardman.partitions where part_name = 'acc_2') limit 1",
        )
        number = cluster.value(0, "select shardman.move_part('acc_2', %s)", (dest,))
        eventually(
            "it runs",
            lambda: looker.get(f"/commands/{number}").text,
            until=lambda text: "is-in-progress" in text,
            seconds=30,
        )
        assert "Cancel it" not in looker.get(f"/commands/{number}").text
        answer = looker.post(f"/commands/{number}/cancel", {"csrf": looker.csrf()})
        assert answer.status == 409
        assert "permission denied" in answer.text
        writer.rollback()
    assert cluster.wait(int(number)).status == "success"
