"""Commands as a collector of OpenTelemetry gets them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from psycopg.conninfo import make_conninfo

from shardman.local import ports
from shardman.testing import eventually
from shardman.testing.cluster import Cluster


class Collector(ThreadingHTTPServer):
    """Takes spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: dict[bytes, Any] = {}
        super().__init__(("127.0.0.1", ports.choose()), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def named(self, name: str) -> list[Any]:
        return [s for s in [*self.spans.values()] if s.name == name]

    def below(self, span: Any) -> list[Any]:
        return [s for s in [*self.spans.values()] if s.parent_span_id == span.span_id]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest()
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        sent.ParseFromString(body)
        assert isinstance(self.server, Collector)
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans |= {s.span_id: s for s in scope.spans}
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def sending(dsn: str, endpoint: str) -> Iterator[subprocess.Popen[str]]:
    program = [
        sys.executable,
        "-P",
        "-m",
        "shardman",
        "traces",
        "--dsn",
        dsn,
        "--endpoint",
        endpoint,
    ]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def attributes(span: Any) -> dict[str, Any]:
    return {
        a.key: a.value.int_value if a.value.HasField("int_value") else a.value.string_value
        for a in span.attributes
    }


@pytest.fixture(scope="module")
def watched(cluster: Cluster) -> Cluster:
    for node in range(4):
        cluster.sql(node, "create role tracer login password 'x' in role shardman_viewer")
    cluster.sql(1, "create table acc (id int primary key)")
    cluster.sql(1, "insert into acc select generate_series(1, 100)")
    made = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 3)")
    assert made.status == "success", made
    return cluster


def test_a_command_comes_with_its_steps_and_parts(watched: Cluster, collector: Collector) -> None:
    dsn = make_conninfo(watched.dsn(2), user="tracer", password="x")
    with sending(dsn, collector.endpoint):
        # What is over when it begins is not sent, so it has to have begun.
        def failed() -> list[Any]:
            watched.cmd("select shardman.move_part('acc_1', 77)")
            return collector.named("move_part")

        (wrong, *_) = eventually("spans come", failed, seconds=60, every=1)
        assert wrong.status.code == wrong.status.STATUS_CODE_ERROR
        assert "there is no node 77" in wrong.status.message or "77" in wrong.status.message
        ended = watched.cmd("select shardman.set_replevel('acc', 1)")
        assert ended.status == "done"
        (whole,) = eventually(
            "the command comes", lambda: collector.named("set_replevel"), seconds=60
        )
    number = watched.value(
        0, "select max(id) from shardman.cmd_log where cmd_type = 'set_replevel'"
    )
    assert attributes(whole)["shardman.command.id"] == number
    assert attributes(whole)["shardman.command.submitted_by"] == "postgres"
    parts = [s for s in collector.below(whole) if s.name == "create_replica"]
    assert len(parts) == 3
    assert {s.trace_id for s in parts} == {whole.trace_id}
    for part in parts:
        steps = collector.below(part)
        done = watched.sql(
            0,
            "select count(*), min(started_at) >= to_timestamp(%s), max(ended_at) <= to_timestamp(%s)"
            " from shardman.cmd_steps where cmd_id = %s",
            (
                part.start_time_unix_nano / 1e9 - 0.001,
                part.end_time_unix_nano / 1e9 + 0.001,
                attributes(part)["shardman.command.id"],
            ),
        )
        assert done == [(len(steps), True, True)]
        assert all(whole.start_time_unix_nano <= s.start_time_unix_nano for s in steps)
        assert {attributes(s)["shardman.step.phase"] for s in steps} >= {"prepare", "finish"}


def test_ids_are_the_same_whoever_sends(watched: Cluster, collector: Collector) -> None:
    """Two programs, for one may fail: a trace is there once."""
    with sending(watched.lord_dsn, collector.endpoint), sending(watched.dsn(3), collector.endpoint):

        def sent() -> bool:
            watched.cmd("select shardman.move_part('acc_2', 77)")
            return len(collector.named("move_part")) >= 2

        eventually("spans come", sent, seconds=60, every=1)
    numbers = [attributes(s)["shardman.command.id"] for s in collector.named("move_part")]
    assert len(numbers) == len(set(numbers))


def test_nobody_listens(watched: Cluster) -> None:
    """Commands go on, and so does the program; a cluster that is not there is said at once."""
    with sending(watched.lord_dsn, f"http://127.0.0.1:{ports.choose()}/v1/traces") as process:
        assert watched.cmd("select shardman.set_replevel('acc', 1)").status == "done"
        assert process.poll() is None
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "shardman", "traces", "--dsn", "host=127.0.0.1 port=1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "cannot reach" in ended.stderr
    assert "Traceback" not in ended.stderr
