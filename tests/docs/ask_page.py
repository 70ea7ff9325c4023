"""At the end of the path: alice looks at the page, Prometheus scrapes. Arguments: the ports of both."""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from urllib.parse import urlencode


def patiently(ask: Callable[[], str], wanted: str) -> str:
    """The answer, once it has the words."""
    for _ in range(60):
        try:
            if wanted in (text := ask()):
                return text
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"there is no {wanted}")


def main(web: str, metrics: str) -> None:
    """Prints what they see."""
    viewer = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    form = urlencode({"role": "alice", "password": "alice-secret"}).encode()
    page = f"http://127.0.0.1:{web}"
    patiently(lambda: viewer.open(f"{page}/login", form).read().decode(), "orders")
    print("alice sees orders")
    at = f"http://127.0.0.1:{metrics}/metrics"
    print(patiently(lambda: urllib.request.urlopen(at).read().decode(), "shardman_node_up{"))


main(*sys.argv[1:])
