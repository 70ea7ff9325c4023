"""The values as OpenMetrics text, and the endpoint that serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from shardman.errors import Code, UserError
from shardman.metrics.catalog import METRICS, Kind, Metric
from shardman.metrics.node import Value
from shardman.metrics.sampler import Sampler

#: Longer than whatever a sample may take; a mistake of ours must not hold a scrape for ever.
_GIVE_UP_S = 90.0


def _family(metric: Metric) -> Family:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(
            metric.family, metric.help, labels=metric.labels, unit=metric.unit
        )
    if metric.kind is Kind.INFO:
        return InfoMetricFamily(metric.family, metric.help, labels=metric.labels)
    return GaugeMetricFamily(metric.family, metric.help, labels=metric.labels, unit=metric.unit)


def families(values: Iterable[Value]) -> Iterator[Family]:
    """The values by metric, in the order of the catalog; metrics without a value are left out."""
    by_name: dict[str, list[Value]] = {}
    for value in values:
        by_name.setdefault(value.name, []).append(value)
    for name, metric in METRICS.items():
        if name in by_name:
            family = _family(metric)
            for value in by_name[name]:
                labels = {n: value.labels.get(n, "") for n in metric.labels}
                family.add_sample(metric.sample, labels, value.value)
            yield family


class _Cluster(Collector):
    """Asks in the event loop of a thread of its own, for whoever scrapes in another."""

    def __init__(self, sampler: Sampler, loop: asyncio.AbstractEventLoop) -> None:
        self._sampler = sampler
        self._loop = loop

    def describe(self) -> Iterable[Family]:
        """Without it the registry would ask all nodes to learn the names."""
        return [_family(metric) for metric in METRICS.values()]

    def collect(self) -> Iterator[Family]:
        """Called by the scrape."""
        work = asyncio.run_coroutine_threadsafe(self._sampler.sample(), self._loop)
        yield from families(work.result(_GIVE_UP_S))


async def once(dsn: str, *, partitions: bool) -> str:
    """The text, with all that there is.

    Raises:
        UserError: the list of nodes cannot be read.
    """
    sampler = Sampler(dsn, partitions=partitions)
    try:
        await sampler.read_members()
        values = await sampler.sample(slowly=True)
    finally:
        await sampler.close()
    registry = CollectorRegistry()
    registry.register(_Given(values))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.decode()


class _Given(Collector):
    def __init__(self, values: list[Value]) -> None:
        self._values = values

    def collect(self) -> Iterator[Family]:
        return families(self._values)


def serve(dsn: str, address: str, *, partitions: bool = False) -> None:
    """Serves the metrics, in threads that end with the process. The first scrape begins to ask.

    Args:
        address: ``HOST:PORT``; ``[::1]:9187`` for IPv6.

    Raises:
        UserError: the address cannot be listened on.
    """
    host, port = parse_address(address)
    loop = asyncio.new_event_loop()
    registry = CollectorRegistry()
    registry.register(_Cluster(Sampler(dsn, partitions=partitions), loop))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(
            f"cannot listen on {address}: {error.strerror or error}",
            "Give an address of this machine with a port that is free, e.g. 127.0.0.1:9187",
            code=Code.BAD_ARGUMENT,
        ) from None
    threading.Thread(target=loop.run_forever, name="metrics", daemon=True).start()


def parse_address(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        UserError: it is not written so.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(
            f"{address} is no address to listen on",
            "Write HOST:PORT, e.g. 127.0.0.1:9187, or 0.0.0.0:9187 for all addresses of this machine",
            code=Code.BAD_ARGUMENT,
        )
    return host, int(port)
