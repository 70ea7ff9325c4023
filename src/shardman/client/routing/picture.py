"""What a client knows of the cluster: its tables, and on which node each partition is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardman.client.routing.values import Unclear, is_known, value_hash
from shardman.model.partition_hash import partition_number

_SERVER = re.compile(r"(shardman_node_[0-9]+)_c[0-9]+", re.ASCII)
#: The node that was connected to first; others are known by the name of the server that leads to them.
HERE = "here"


def quoted(*names: str) -> str:
    """A name as SQL has it, every part in quotes."""
    return ".".join('"' + n.replace('"', '""') + '"' for n in names)


@dataclass(frozen=True)
class Column:
    """A column of the key."""

    name: str
    type: str
    length: int


@dataclass(frozen=True)
class Part:
    """A partition: its name and that of its rows' table in quotes, and where it is."""

    name: str
    data: str
    plain: str
    node: str


@dataclass(frozen=True, eq=False)
class Table:
    """A sharded table, or a shared one, which has no partitions and no key.

    Args:
        numbered: columns whose default is the next value of a sequence. Those of the node where a statement
            arrives count.
        primary: columns of the primary key.
        types: of the columns; empty for what is not in the default collation.
        problem: why statements on it are not sent to owners; empty when they are.
        policies: its policies hide rows from whoever is connected.
    """

    schema: str
    name: str
    columns: tuple[str, ...]
    key: tuple[Column, ...] = ()
    parts: tuple[Part, ...] = ()
    numbered: frozenset[str] = frozenset()
    shared: bool = False
    own_types: bool = False
    problem: str = ""
    fingerprint: tuple[Any, ...] = ()
    types: tuple[str, ...] = ()
    primary: tuple[str, ...] = ()
    policies: bool = False

    def number(self, values: Sequence[Any], *, stored: bool) -> int:
        """The partition of a key.

        Raises:
            Unclear: nobody can tell.
        """
        try:
            hashes = [
                value_hash(v, c.type, c.length, stored=stored)
                for v, c in zip(values, self.key, strict=True)
            ]
        except TypeError:
            # Not to be remembered, so none of the types that have a hash here.
            raise Unclear("a list, or the like, for a key") from None
        return partition_number(hashes, len(self.parts))


@dataclass(frozen=True)
class Picture:
    """All of it, at one moment, as one node's catalogs have it.

    Args:
        named: tables by schema and name.
        visible: tables by name alone, as the session's search_path finds them.
        functions: names of functions that are not PostgreSQL's own.
        volatile: those of them that may do something.
        addresses: of the other nodes, parameters of libpq.
        workers: how many of them may help one session with one statement.
        problem: why nothing is sent to owners; empty when it is.
    """

    named: Mapping[tuple[str, str], Table] = field(default_factory=dict)
    visible: Mapping[str, Table] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    volatile: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    problem: str = ""
    shape: tuple[Any, ...] = ()
    workers: int = 0

    def is_as(self, other: Picture) -> bool:
        """Whether another one says the same."""
        return (
            self.shape == other.shape
            and self.settings == other.settings
            and self.addresses == other.addresses
            and self.problem == other.problem
            and self.workers == other.workers
            and all(
                (t.parts, t.policies) == (other.named[n].parts, other.named[n].policies)
                for n, t in self.named.items()
            )
        )

    def table(self, schema: str | None, name: str) -> Table | None:
        """The table that a name means, when it is a sharded or a shared one."""
        return self.visible.get(name) if schema is None else self.named.get((schema, name))


def read(tables: Sequence[Mapping[str, Any]], session: Mapping[str, Any]) -> Picture:
    """Makes a picture of the rows of the queries `tables` and `session` (sql/queries/client.sql)."""
    addresses: dict[str, dict[str, str]] = {}
    named = {(t["schema"], t["name"]): _table(t, addresses) for t in tables}
    visible = {t["name"]: named[t["schema"], t["name"]] for t in tables if t["visible"]}
    functions = frozenset(session["functions"])
    volatile = frozenset(session["volatile"])
    return Picture(
        named,
        visible,
        functions,
        volatile,
        session["settings"],
        addresses,
        _problem(session),
        # What an analysis depends on; where partitions are is no part of it.
        (
            tuple(sorted((k, t.fingerprint, t.problem) for k, t in named.items())),
            tuple(sorted((n, t.schema) for n, t in visible.items())),
            functions,
            volatile,
        ),
        session["workers"],
    )


def _problem(session: Mapping[str, Any]) -> str:
    if session["encoding"] != "UTF8":
        return f"the database has the encoding {session['encoding']}"
    if session["sent_in"] != "UTF8":
        return f"statements are sent in {session['sent_in']}"
    if session["settings"].get("standard_conforming_strings", "on") != "on":
        return "standard_conforming_strings is off, so literals are read in another way"
    path = [s for s in session["path"] if not s.startswith("pg_temp")]
    if path[:1] != ["pg_catalog"]:
        return "search_path has another schema before pg_catalog"
    if len(path) < len(session["path"]):
        return "the session has temporary tables"
    return ""


def _table(row: Mapping[str, Any], addresses: dict[str, dict[str, str]]) -> Table:
    columns = tuple(row["columns"])
    print_ = (tuple(row["shape"]), str(row["key"]), len(row["parts"] or ()), tuple(row["primary"]))
    if row["shared"]:
        return Table(
            row["schema"],
            row["name"],
            columns,
            shared=True,
            fingerprint=print_,
            types=tuple(row["types"]),
            primary=tuple(row["primary"]),
        )
    key = tuple(Column(*k) for k in row["key"] if k[0] is not None)
    parts = _parts(row["parts"] or (), addresses)
    problem = ""
    if len(key) < len(row["key"]):
        problem = "its key has an expression"
    elif not all(is_known(c.type) for c in key):
        problem = f"its key has the type {', '.join(c.type for c in key)}"
    elif parts is None:
        problem = "it is no sharded table, or one that is being changed"
    elif row["next_taken"]:
        problem = "another table has the name of a further partition"
    elif "\\" in row["schema"] + row["name"]:
        problem = "there is a backslash in its name"
    elif not row["alike"]:
        problem = "its partitions have other columns or defaults than the table"
    return Table(
        row["schema"],
        row["name"],
        columns,
        key,
        parts or (),
        frozenset(row["numbered"]),
        own_types=bool(row["own_types"]),
        problem=problem,
        fingerprint=print_,
        types=tuple(row["types"]),
        primary=tuple(row["primary"]),
        policies=bool(row["policies"]),
    )


def node_of(server: str) -> str:
    """The node to which a foreign server leads. Behind a move there are several for one node for a while
    (`names.fresh_server`): with a session for each a transaction would wait for itself there."""
    found = _SERVER.fullmatch(server)
    return server if found is None else found[1]


def _parts(
    rows: Sequence[Sequence[str | None]], addresses: dict[str, dict[str, str]]
) -> tuple[Part, ...] | None:
    """In the order of their numbers; None when there is something else among them, or one is missing."""
    found: dict[int, Part] = {}
    for modulus, remainder, schema, name, leaf, server, *address in rows:
        if modulus is None or remainder is None or schema is None or name is None or leaf is None:
            return None
        if int(modulus) != len(rows) or leaf != name + ("_fdw" if server else "_data"):
            return None
        node = node_of(server) if server else HERE
        if server:
            addresses[node] = dict(a.split("=", 1) for a in address if a)
        plain = quoted(schema, name)
        found[int(remainder)] = Part(plain, quoted(schema, name + "_data"), name, node)
    if sorted(found) != list(range(len(rows))):
        return None
    return tuple(found[n] for n in range(len(rows)))
