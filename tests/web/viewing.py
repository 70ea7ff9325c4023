"""A viewer without a browser, and the page in a process of its own."""

from __future__ import annotations

import http.cookiejar
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shardman.local import ports
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

ODD = '<b>"T"&amp</b>'
#: The same as the metadata write it.
QUOTED = '"' + ODD.replace('"', '""') + '"'
#: Roles of the cluster, with what they are members of.
ROLES = {"looker": "shardman_viewer", "actor": "shardman_operator", "nobody_": None}
PASSWORD = "it's a <secret>"


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str
    headers: dict[str, str]
    address: str


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Viewer:
    """Somebody who looks, with cookies."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), _Stay()
        )

    def get(self, path: str, **headers: str) -> Answer:
        return self._open(urllib.request.Request(self.base + path, headers=headers))

    def post(self, path: str, form: dict[str, str], **headers: str) -> Answer:
        data = urllib.parse.urlencode(form).encode()
        return self._open(urllib.request.Request(self.base + path, data, headers))

    def log_in(self, role: str, password: str = PASSWORD) -> Answer:
        return self.post("/login", {"role": role, "password": password})

    def csrf(self) -> str:
        """The secret of this session's forms."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/do").text)
        assert found
        return found[1]

    def _open(self, request: urllib.request.Request) -> Answer:
        try:
            answer = self._opener.open(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            headers = {k.lower(): v for k, v in answer.headers.items()}
            text = answer.read().decode()
            return Answer(answer.status, text, headers, headers.get("location", ""))


@contextmanager
def served(cluster: Cluster) -> Iterator[str]:
    """The page, until the end; where it is."""
    port = ports.choose()
    base = f"http://127.0.0.1:{port}"
    shardman = [sys.executable, "-P", "-m", "shardman"]
    process = subprocess.Popen(
        [*shardman, "web", cluster.lord_dsn, cluster.dsn(2), "--listen", f"127.0.0.1:{port}"],
        env=os.environ | {"PGPASSWORD": cluster.password, "PYTHONFAULTHANDLER": "1"},
    )
    try:
        eventually(
            "the page answers",
            lambda: Viewer(base).get("/login").status,
            until=lambda status: status == 200,
            seconds=60,
            tolerate=OSError,
        )
        yield base
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # It says where each of its threads is, and ends.
            process.wait(10)
            raise
