"""Every metric that there is: what the SQL of queries/metrics.sql may name, what dashboard and alerts use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = "shardman_"


class Kind(StrEnum):
    """As OpenMetrics has them. A counter's samples end in ``_total``."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        name: without the prefix, and for a counter without ``_total``.
        help: one line.
        labels: the names of its labels; each has few values, or as many as there are nodes or tables.
        kind: whether it may go down.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: Kind = Kind.GAUGE

    @property
    def family(self) -> str:
        """Its name for Prometheus."""
        return PREFIX + self.name

    @property
    def sample(self) -> str:
        """The name of its samples, as queries have it."""
        ends = {Kind.COUNTER: "_total", Kind.INFO: "_info", Kind.GAUGE: ""}
        return self.family + ends[self.kind]

    @property
    def unit(self) -> str:
        """What the name ends with, where that is a unit."""
        last = self.name.rsplit("_", 1)[-1]
        return last if last in ("bytes", "seconds") else ""


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, text, labels, Kind.COUNTER)


_SLOT = ("node", "purpose", "to_node")
_CHANNEL = ("node", "to_node")

#: What the exporter says of its own looking.
OWN = (
    Metric("membership_age_seconds", "Since the list of nodes was read; a new node is seen then"),
    Metric("node_up", "Whether the node answered the last question in time", ("node",)),
    Metric(
        "node_age_seconds",
        "Since the node answered: how old its other values are; there is none before its first answer",
        ("node",),
    ),
    Metric(
        "node_details_age_seconds",
        "The same for sizes, rows of tables and problems, which are asked for less often",
        ("node",),
    ),
    Metric("node", "What the node is", ("node", "role"), Kind.INFO),
    Metric("sample_duration_seconds", "How long it took to ask all nodes"),
)

#: What each node is asked.
OF_NODES = (
    Metric("node_sessions", "Sessions of clients on the server, by state", ("node", "state")),
    Metric("node_sessions_max", "max_connections of the server", ("node",)),
    Metric("node_sessions_blocked", "Sessions in the database that wait for a lock", ("node",)),
    Metric("node_oldest_transaction_seconds", "Age of the oldest open transaction", ("node",)),
    Metric("node_commits_waiting", "Commits that wait for replicas", ("node",)),
    Metric(
        "node_commit_wait_seconds", "The longest of these, since its statement began", ("node",)
    ),
    Metric("node_prepared_transactions", "Prepared transactions in the database", ("node",)),
    Metric("node_prepared_transactions_max", "max_prepared_transactions", ("node",)),
    Metric("node_prepared_transaction_age_seconds", "Age of the oldest of them", ("node",)),
    Metric(
        "node_transactions_in_doubt", "Parts of clients' transactions that are prepared", ("node",)
    ),
    _counter("node_transactions", "Transactions in the database", "node", "outcome"),
    _counter(
        "node_rows", "Rows in the database, as pg_stat_database has them", "node", "operation"
    ),
    _counter("node_deadlocks", "Deadlocks within the server", "node"),
    _counter("node_temporary_file_bytes", "What queries have written to temporary files", "node"),
    _counter("node_wal_bytes", "WAL that the server has written", "node"),
    Metric("clock_offset_seconds", "The server's clock minus the exporter's", ("node",)),
    Metric("slot_retained_bytes", "WAL that is kept for a slot of ours", _SLOT),
    Metric("slot_lag_bytes", "How far the slot's receiver is behind", _SLOT),
    Metric("slot_active", "Whether the slot has its receiver", _SLOT),
    Metric("channel_partitions", "Replicas that follow through the channel", _CHANNEL),
    Metric("channel_streaming", "Whether it streams", _CHANNEL),
    Metric("channel_synchronous", "Whether commits should wait for it", _CHANNEL),
    Metric("channel_waited_for", "Whether commits do wait for it", _CHANNEL),
    Metric("channel_lag_bytes", "How far the replicas are behind", _CHANNEL),
    Metric("channel_lag_seconds", "The same as time, as last confirmed", _CHANNEL),
    Metric("subscriptions_down", "Subscriptions of ours that do not run", ("node",)),
    _counter("subscription_errors", "How often they failed", "node"),
    Metric("table_bytes", "Size of a table's copies on the node", ("node", "table", "copy")),
    _counter(
        "table_rows", "Rows of the table's primaries on the node", "node", "table", "operation"
    ),
    Metric("partition_bytes", "Size of a copy, with --partitions", ("node", "partition", "copy")),
    _counter(
        "partition_rows", "Rows of a primary, with --partitions", "node", "partition", "operation"
    ),
    Metric("node_database_bytes", "Size of the database", ("node",)),
    Metric("node_problems", "Rows of shardman.node_problems", ("node",)),
    Metric("node_tables_set_aside", "Rows of shardman.set_aside", ("node",)),
)

#: What the lord is asked besides.
OF_LORD = (
    Metric("commands", "Commands that wait or run", ("type", "status")),
    Metric("commands_stuck", "Running for a minute and waiting for somebody"),
    Metric("command_oldest_waiting_seconds", "The longest that a command waits to begin"),
    Metric("command_oldest_running_seconds", "The longest that a command runs"),
    _counter("commands_ended", "Commands that have ended", "type", "status"),
    Metric("shardlord_acting", "Whether a shardlord gives signs of life"),
    Metric("shardlord_sign_of_life_age_seconds", "Since the last of them"),
    Metric("shardlord_epoch", "Raised each time another shardlord takes over"),
    Metric("network_suspicion", "Most nodes are silent to the shardlord at once: it does nothing"),
    _counter("failovers", "Failovers that succeeded"),
    Metric("failover_last_timestamp_seconds", "When the last of them ended"),
    Metric("node_zone", "The node's zone, where it has one", ("node", "zone"), Kind.INFO),
    Metric("node_draining", "Whether the node is drained", ("node",)),
    Metric("node_in_maintenance", "Whether the node may be away", ("node",)),
    Metric("node_copies", "Copies of partitions on the node", ("node", "copy")),
    Metric("tables", "Sharded tables"),
    Metric("table_partitions", "Partitions of the table", ("table",)),
    Metric("table_replicas_wanted", "Replicas that each partition is to have", ("table",)),
    Metric("table_partitions_below_level", "Partitions with fewer that follow", ("table",)),
    Metric("table_replicas_stale", "Replicas that do not follow", ("table",)),
    Metric("table_unevenness", "Most minus fewest primaries on a node; 0 or 1 is even", ("table",)),
    Metric("schema_changes_pending", "Changes of the schema that a node lacks"),
    Metric("cluster_problems", "Rows of shardman.cluster_problems"),
    Metric("replicas_differing", "Replicas that differed when last compared"),
    Metric("replicas_never_compared", "Replicas that were not compared yet"),
    Metric("replica_comparison_age_seconds", "Since the least recent comparison"),
)

METRICS = {m.name: m for m in (*OWN, *OF_NODES, *OF_LORD)}
