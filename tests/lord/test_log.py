"""The shardlord's log, in a program that does more than that."""

from __future__ import annotations

import io

import pytest
import structlog

from shardman.log import configure


def test_it_goes_where_errors_go_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    former, now = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", former)
    configure()
    log = structlog.get_logger()
    log.info("one")
    former.close()
    monkeypatch.setattr("sys.stderr", now)
    log.info("another")
    assert "another" in now.getvalue()
    structlog.reset_defaults()
