"""Structured logs of the shardlord, to stderr: one event a line."""

from __future__ import annotations

import os
import sys
from typing import TextIO, cast

import structlog


class _Stderr:
    """Standard error as it is when a line is written: who runs this within a program of his own may have put
    another one in its place since."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure() -> None:
    """Sets structlog up. SHARDMAN_LOG_FORMAT=json gives one JSON object a line; otherwise the lines
    are for people, in colour on a terminal."""
    machine = os.environ.get("SHARDMAN_LOG_FORMAT") == "json"
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if machine
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            # The command at whose work a line is written.
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *((structlog.processors.format_exc_info,) if machine else ()),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
