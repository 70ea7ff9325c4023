"""Commands and their steps as OpenTelemetry spans, out of the journal.

They are read when a command has ended. So the shardlord neither knows of it nor waits for it, and a collector
that is away costs spans and nothing else. A command's trace has the same id whoever exports it, and however
often.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, Status, StatusCode

from shardman.errors import UserError
from shardman.nodes.kept import KeptReach
from shardman.pg.wording import in_words, scrub
from shardman.sql.loader import queries

log = structlog.get_logger()

#: Seconds between two looks.
EVERY_S = 2.0
#: A command that ended at a time is to be seen a while after it: its transaction has to be committed.
OVERLAP = timedelta(minutes=1)

Row = dict[str, Any]


class _Ids(IdGenerator):
    """Ids that follow from what a span is of."""

    def __init__(self) -> None:
        self.trace = self.span = ""

    def generate_trace_id(self) -> int:
        return int.from_bytes(hashlib.sha256(self.trace.encode()).digest()[:16])

    def generate_span_id(self) -> int:
        return int.from_bytes(hashlib.sha256(self.span.encode()).digest()[:8])


class Traces:
    """Exports what ends from now on.

    Args:
        dsn: of any node.
        endpoint: of the collector, ``http://HOST:4318/v1/traces``; None: as OpenTelemetry's environment
            variables have it.
    """

    def __init__(self, dsn: str, endpoint: str | None = None) -> None:
        self._dsn = dsn
        self._reach: KeptReach | None = None
        self._after: datetime | None = None
        self._known: dict[int, datetime] = {}
        self._ids = _Ids()
        self._told = ""
        self._provider = TracerProvider(
            id_generator=self._ids, resource=Resource.create({"service.name": "shardman"})
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("shardman")

    def run(self) -> None:
        """Looks for ever. What is in the way is said once, and tried again."""
        while True:
            try:
                self.look()
                self._told = ""
            except (UserError, psycopg.Error) as error:
                self._tell(in_words(error) if isinstance(error, psycopg.Error) else error)
            time.sleep(EVERY_S)

    def _tell(self, error: UserError) -> None:
        self._forget_sessions()
        if error.what != self._told:
            log.warning("commands cannot be read", error=error.what)
            self._told = error.what

    def look(self) -> int:
        """Exports what has ended since the last look; the first only notes the time.

        Returns:
            How many commands.

        Raises:
            UserError: the node that was named cannot be reached.
            psycopg.Error: the lord's database did not answer.
        """
        if self._reach is None:
            self._reach = KeptReach(self._dsn, "shardman traces")
        else:
            self._reach.follow()
        asked = queries("traces")
        with self._reach.session(self._reach.lord) as lord:
            now = lord.execute(asked["now"]).fetchall()[0]["now"]
            if self._after is None:
                self._after = now
            given = {"after": self._after, "known": [*self._known]}
            commands = lord.execute(asked["ended"], given).fetchall()
            steps = lord.execute(asked["steps"], {"ids": [c["id"] for c in commands]}).fetchall()
        self._export(self._reach.cluster, commands, steps)
        self._note(commands, now)
        return len(commands)

    def _note(self, commands: Iterable[Row], now: datetime) -> None:
        assert self._after is not None
        self._known |= {c["id"]: c["ended_at"] for c in commands if c["parent"] is None}
        self._after = max(self._after, now - OVERLAP)
        self._known = {i: at for i, at in self._known.items() if at > self._after}

    def _export(self, cluster: str, commands: Iterable[Row], steps: Iterable[Row]) -> None:
        spans: dict[int, tuple[Span, Row]] = {}
        for row in commands:
            self._ids.trace = f"{cluster} {row['root']}"
            self._ids.span = f"{cluster} {row['id']}"
            above = spans.get(row["parent"])
            spans[row["id"]] = (self._begin(row, above and above[0]), row)
        for step in steps:
            span, _ = spans[step["cmd_id"]]
            self._ids.span = (
                f"{cluster} {step['cmd_id']} {step['attempt']} {step['n']} {step['started_at']}"
            )
            self._step(step, span)
        for span, row in spans.values():
            span.end(_ns(row["ended_at"]))

    def _begin(self, row: Row, above: Span | None) -> Span:
        span = self._tracer.start_span(
            row["cmd_type"],
            context=trace.set_span_in_context(above) if above else None,
            start_time=_ns(row["submitted_at"]),
            attributes={
                "shardman.command.id": row["id"],
                "shardman.command.arguments": scrub(row["opts"] or ""),
                "shardman.command.status": row["status"],
                "shardman.command.attempt": row["attempt"] or 0,
                "shardman.command.submitted_by": row["submitted_by"] or "",
            },
        )
        if row["started_at"] is not None:
            span.add_event("begun", timestamp=_ns(row["started_at"]))
        if row["error"]:
            span.set_status(Status(StatusCode.ERROR, scrub(row["error"])))
        return span

    def _step(self, row: Row, command: Span) -> None:
        span = self._tracer.start_span(
            scrub(row["title"]),
            context=trace.set_span_in_context(command),
            start_time=_ns(row["started_at"]),
            attributes={
                "shardman.step.number": row["n"],
                "shardman.step.phase": row["phase"],
                "shardman.step.state": row["state"],
                "shardman.step.attempt": row["attempt"],
            },
        )
        if row["error"]:
            span.set_status(Status(StatusCode.ERROR, scrub(row["error"])))
        span.end(_ns(row["ended_at"]))

    def _forget_sessions(self) -> None:
        if self._reach is not None:
            self._reach.close()
            self._reach = None

    def flush(self) -> None:
        """Sends what waits to be sent."""
        self._provider.force_flush()


def _ns(at: datetime) -> int:
    """Nanoseconds since 1970."""
    return round(at.timestamp() * 1_000_000) * 1000
