"""pg_dump, pg_restore and psql, as an administrator calls them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from shardman.local import Programs


def run(programs: Programs, program: str, *args: str, stdin: str | None = None) -> str:
    """Runs a client program; fails the test with what it said where it fails."""
    done = subprocess.run(
        [programs.bin / program, *args], capture_output=True, text=True, check=False, input=stdin
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def pg_dump(programs: Programs, dsn: str, *options: str) -> str:
    """A dump as SQL."""
    return run(programs, "pg_dump", "--dbname", dsn, *options)


def restore(programs: Programs, dsn: str, dump: str) -> None:
    """Restores it with psql, which stops at the first error."""
    options = ("-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null")
    run(programs, "psql", "--dbname", dsn, *options, stdin=dump)


@contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """A new database on a server."""
    identifier = sql.Identifier(name)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(identifier))
        try:
            yield psycopg.conninfo.make_conninfo(dsn, dbname=name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(identifier))
