"""Kills at every step take long: `make test` has them on the newest server, `make crash` on any."""

from __future__ import annotations

import os

import pytest

from shardman.local import Programs


@pytest.fixture(scope="module", autouse=True)
def _newest_server_or_asked_for(pg_programs: Programs) -> None:
    if pg_programs.major < 18 and not os.environ.get("SHARDMAN_LONG"):
        pytest.skip("on older servers by make crash")
