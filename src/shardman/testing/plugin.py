"""The pytest plugin: clusters of real servers, always torn down.

A test that needs a server has the marker `server`. Whatever gets its servers from a fixture of this
plugin, directly or through other fixtures, has it by itself; a test that starts them without says
`pytest.mark.server`. So `-m "not server"` chooses what needs none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from shardman.errors import UserError
from shardman.local import Programs, find_programs
from shardman.testing.cluster import Cluster
from shardman.testing.proxy import Proxy

ClusterFactory = Callable[..., Cluster]
ProxyFactory = Callable[[str], Proxy]

_open: list[Cluster] = []


@pytest.fixture(scope="session")
def pg_programs() -> Programs:
    """The server programs that the tests run on."""
    return find_programs()


@pytest.fixture(scope="session")
def pg_bin(pg_programs: Programs) -> Path:
    """The directory of the server programs."""
    return pg_programs.bin


@pytest.fixture
def cluster_factory(pg_programs: Programs) -> Iterator[ClusterFactory]:
    """Makes clusters that live as long as the test; arguments as those of `Cluster`."""
    yield from _factory(pg_programs)


@pytest.fixture(scope="module")
def module_cluster_factory(pg_programs: Programs) -> Iterator[ClusterFactory]:
    """Makes clusters that live as long as the test module."""
    yield from _factory(pg_programs)


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    """A lord and three workers, shared by the tests of a module."""
    return module_cluster_factory()


@pytest.fixture
def proxy_factory() -> Iterator[ProxyFactory]:
    """Puts a cuttable wire in front of a server: `proxy_factory(dsn)`."""
    with ExitStack() as stack:
        yield lambda dsn: stack.enter_context(Proxy.to(dsn))


def _factory(programs: Programs) -> Iterator[ClusterFactory]:
    with ExitStack() as stack:

        def make(**options: Any) -> Cluster:
            made = stack.enter_context(closing(Cluster(**{"pg_bin": programs.bin, **options})))
            _open.append(made)
            stack.callback(_open.remove, made)
            return made

        yield make


def pytest_configure(config: pytest.Config) -> None:
    """The plugin's own markers, and Ctrl-C."""
    config.addinivalue_line("markers", "pg(minimum): needs a server of at least this version")
    config.addinivalue_line("markers", "server: starts PostgreSQL; the plugin's fixtures imply it")
    # A shell starts what runs in its background with SIGINT ignored, and programs inherit that: then
    # no test of Ctrl-C could pass.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # Before `-m` chooses.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a fixture of ours needs a server."""
    for item in items:
        if "pg_programs" in getattr(item, "fixturenames", ()):
            item.add_marker("server")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.pg(17)` skips a test on older servers."""
    marker = item.get_closest_marker("pg")
    if marker is None:
        return
    found = find_programs()
    if found.major < marker.args[0]:
        pytest.skip(f"needs PostgreSQL {marker.args[0]}, this is {found.version}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of its servers' logs: soon nothing else will be left of them."""
    report = yield
    if report.failed:
        report.sections += [(f"logs of {each.local.directory}", each.logs()) for each in _open]
    return report


def pytest_report_header() -> str:
    """Say on what we test."""
    try:
        found = find_programs()
    except UserError as error:
        return f"No PostgreSQL: {error}"
    return f"PostgreSQL {found.version} in {found.bin}, {os.cpu_count()} processors"
