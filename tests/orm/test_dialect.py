"""SQLAlchemy's own suite for dialects over the client: a part of it, all of it with `make dialect`.

Its tables are plain ones of the node that was connected to: it proves that the dialect is one, and that the
client is like psycopg.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from orm.test_sqlalchemy import url
from shardman.testing.cluster import Cluster

TESTS = Path(__file__).parents[1]
LONG = bool(os.environ.get("SHARDMAN_LONG"))
#: What asks most of a connection.
PART = (
    "InsertBehavior or RowFetch or ServerSideCursors or IsolationLevel or LastrowidTest or ReturningTest"
    " or SimpleUpdateDelete or NumericTest or JSONTest or TrueDivTest or UuidTest or DateTimeTZ or ExistsTest"
)
#: docs/orm.md says why.
LEFT_OUT = (
    "not test_reflect_expression_based_indexes and not test_get_column_returns_computed"
    " and not (QuotedNameArgumentTest and test_get_table_options)"
)


@pytest.mark.parametrize("driver", ["shardman", "shardman_async"])
@pytest.mark.timeout(1500)
def test_the_suite(cluster: Cluster, tmp_path: Path, driver: str) -> None:
    where = url(cluster, 1).set(drivername=f"postgresql+{driver}")
    engine = sa.create_engine(url(cluster, 1))
    with engine.begin() as connection:
        for schema in ("test_schema", "test_schema_2"):
            connection.execute(sa.text(f"create schema if not exists {schema}"))
    engine.dispose()
    # Where the suite's plugin looks for what it needs.
    (tmp_path / "setup.cfg").write_text(
        "[sqla_testing]\nrequirement_cls=orm.dialect.requirements:Requirements\nprofile_file=none.txt\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = suite.py\n")
    asked = LEFT_OUT if LONG else f"({PART}) and {LEFT_OUT}"
    program = (
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
        ),
        *("-p", "no:xdist", "-p", "sqlalchemy.testing.plugin.pytestplugin"),
        *(
            "-c",
            str(tmp_path / "pytest.ini"),
            "--dburi",
            where.render_as_string(hide_password=False),
        ),
        *("-k", asked, str(TESTS / "orm" / "dialect" / "suite.py")),
    )
    done = subprocess.run(
        program,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > (1000 if LONG else 80), done.stdout
