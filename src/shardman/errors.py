"""Errors that a person reads, each with a code that a program reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """What kind of error it is: `cmd_log.error_code`, `UserError.code`. The values are stable: one may be
    added, none changes its meaning. docs/errors.md says of each what to do.
    """

    # What was named is not there.
    NO_SUCH_NODE = "no_such_node"
    """No node, or no worker, has this id."""
    NO_SUCH_PARTITION = "no_such_partition"
    """No partition has this name."""
    NO_SUCH_COPY = "no_such_copy"
    """The node has no copy, or no replica, of this partition."""
    NO_SUCH_COMMAND = "no_such_command"
    """No command has this id."""
    NO_SUCH_ROLE = "no_such_role"
    """The node has no such role, or one that is not given to others."""
    NOT_SHARDED = "not_sharded"
    """The relation is no sharded table."""
    NOT_SHARED = "not_shared"
    """The relation is no shared table."""

    # What is to be made is there already.
    NODE_EXISTS = "node_exists"
    """The database is a node of this cluster already."""
    COPY_EXISTS = "copy_exists"
    """The destination has a copy of the partition already."""
    ALREADY_SHARDED = "already_sharded"
    """The table is sharded already."""
    NAME_TAKEN = "name_taken"
    """A name that is needed on a node belongs to something else there."""

    # Nodes.
    NODE_UNREACHABLE = "node_unreachable"
    """A node, or another server, cannot be reached, or the connection broke."""
    NODE_NOT_ACTIVE = "node_not_active"
    """The node was removed, or is being removed."""
    NODE_DRAINING = "node_draining"
    """The node is being drained, so nothing is placed on it."""
    NOT_IN_MAINTENANCE = "not_in_maintenance"
    """The node is not in maintenance, so there is nothing to end."""
    NODE_RETURNING = "node_returning"
    """The node is back after others took its partitions over and has not set its own copies aside yet."""
    NODE_BEHIND = "node_behind"
    """The node does not have the newest metadata yet."""
    NODE_HOLDS_PARTITIONS = "node_holds_partitions"
    """The node holds partitions, so it cannot be removed without force."""
    NODE_ALIVE = "node_alive"
    """The node answers, so nobody takes its partitions over."""
    NODE_IS_LORD = "node_is_lord"
    """The node's database is the lord's too."""
    NOT_A_MEMBER = "not_a_member"
    """The node has lost the cluster's metadata, or belongs to another cluster."""

    # Partitions and their copies.
    IS_PRIMARY = "is_primary"
    """The copy is the primary of its partition."""
    REPLICA_STALE = "replica_stale"
    """The replica does not follow its primary."""
    NO_SUCCESSOR = "no_successor"
    """No replica may take over without the loss of acknowledged writes."""
    LAST_COPY = "last_copy"
    """The copy may be the last one."""
    CHANGED_MEANWHILE = "changed_meanwhile"
    """Somebody has changed the table or its copies since the command was planned."""
    COPIES_DIFFER = "copies_differ"
    """Two copies that must be equal are not; nothing was changed."""
    OBJECT_MISSING = "object_missing"
    """A table, a type or another object is not on a node that needs it."""

    # Tables.
    TABLE_UNSUITABLE = "table_unsuitable"
    """The table has something that a sharded table cannot have, or that a command on it cannot have."""
    TOO_BUSY = "too_busy"
    """The table is written to, truncated or rewritten faster than the command can follow."""

    # Servers and databases.
    SERVER_UNSUITABLE = "server_unsuitable"
    """The server or the database lacks what a node needs: version, settings, extension, locale, role."""
    SERVER_IS_A_COPY = "server_is_a_copy"
    """The server's files are a copy of another node's."""
    SERVER_FULL = "server_full"
    """A server has no room left: replication slots, connections, memory or disk."""
    SETTING_IN_USE = "setting_in_use"
    """Somebody else has set what the command would have to set."""
    PREPARED_TRANSACTION = "prepared_transaction"
    """A prepared transaction of somebody else holds replication up."""
    DATABASE_TAKEN = "database_taken"
    """The database belongs to a cluster already."""
    SCHEMA_CONFLICT = "schema_conflict"
    """The database has a schema shardman of somebody else, or objects that depend on ours."""
    SCHEMA_VERSION = "schema_version"
    """The database has the schema of another version."""
    NOT_IN_CLUSTER = "not_in_cluster"
    """The database is in no cluster."""
    NOT_THE_LORD = "not_the_lord"
    """The database is not the lord's, or not any more."""

    # What may go better later, without a change.
    LOCK_TIMEOUT = "lock_timeout"
    """Others held a lock for too long."""
    BUSY = "busy"
    """Something else is at work on the same things."""
    REPLICATION_STALLED = "replication_stalled"
    """A subscriber, a walsender or a standby does not go on."""

    # The command and who called it.
    CANCELED = "canceled"
    """The command was taken back on request."""
    SHARDLORD_DIED = "shardlord_died"
    """The shardlord died while it worked on the command, which is not begun anew."""
    UNKNOWN_COMMAND = "unknown_command"
    """The acting shardlord does not know the command or its arguments: it is of another version."""
    BAD_ARGUMENT = "bad_argument"
    """An argument has no sensible value."""
    BAD_CONNECTION_STRING = "bad_connection_string"
    """The connection string cannot be read, or does not lead to the server from where it is needed."""
    TRANSACTION_OPEN = "transaction_open"
    """A transaction has to be committed first."""
    PERMISSION_DENIED = "permission_denied"
    """The role may not do this."""
    LOCAL_CLUSTER = "local_cluster"
    """A cluster or a demo on this machine lacks a program, a directory, an account or a port."""

    # The rest.
    SERVER_ERROR = "server_error"
    """PostgreSQL reported an error that has no code of its own; `result_data` has its SQLSTATE."""
    INTERNAL_ERROR = "internal_error"
    """A mistake of ours."""
    UNKNOWN = "unknown"
    """Python only: the command failed under another version, whose code this one does not know."""

    @classmethod
    def of(cls, text: str | None) -> Self:
        """The code that a column has; `UNKNOWN` for none and for those of later versions."""
        try:
            return cls(text or "unknown")
        except ValueError:
            return cls("unknown")


class UserError(Exception):
    """Something only the user can put right.

    Args:
        what: one sentence on what was wrong, without a full stop at the end.
        hint: one sentence on what to do.
        code: what kind of error it is.
    """

    def __init__(self, what: str, hint: str = "", *, code: Code) -> None:
        self.what = what.rstrip(".")
        self.hint = hint.rstrip(".")
        self.code = code
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}." if self.hint else f"{self.what}."


class RemovedNodeAway(UserError):
    """A node that was removed from the cluster cannot be reached: what was left to be done there
    never will be, and nobody waits for it any more."""

    def __init__(self, node: int) -> None:
        super().__init__(
            f"node {node} was removed and cannot be reached", code=Code.NODE_NOT_ACTIVE
        )


class Temporary(Exception):
    """Failed now and may succeed later, unchanged: a node that is down, a lock that is held.

    Args:
        what: one sentence on what was in the way.
        code: what kind of error it is.
    """

    def __init__(self, what: str, *, code: Code) -> None:
        self.code = code
        super().__init__(what)


class Refused(Exception):
    """This shardlord's epoch is over: another one acts. It must stop at once."""


class Deposed(Refused):
    """Another database is the lord's of this cluster now."""
