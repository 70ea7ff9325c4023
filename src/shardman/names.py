"""Every name of an object of ours is made here.

PostgreSQL cuts identifiers at 63 bytes without an error, so names that carry a user's relation are
checked (`fits`), and names of replication objects carry ids only.
"""

from __future__ import annotations

import hashlib
import re

MAX_IDENTIFIER_BYTES = 63
TERM_SHIFT = 32
_OURS = re.compile(r"shardman_(meta_)?[a-z0-9]{6}(_[0-9]|_[cx][0-9]|\Z)")
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")
#: application_name of a remote session of a route (`shardman.wanted_server`): the node and the session that it
#: works for, as %c of log_line_prefix.
ROUTE_OF = r"postgres_fdw from ([0-9]{1,9}) ([0-9a-f]+\.[0-9a-f]+)"
#: How that of a client's session ends: the same for its sessions on all nodes, see `client_part`.
CLIENT_PART = r"(?:\A| )\+([0-9a-f]{16})\Z"
_CLIENT_PART_BYTES = len(" +") + 16


def unquote(relation: str) -> tuple[str, str]:
    """Schema and name of a relation as the metadata writes it (already normal: no upper case
    outside of quotes).

    >>> unquote('accounts'), unquote('app."Weird.Name"')
    (('public', 'accounts'), ('app', 'Weird.Name'))
    """
    parts = re.findall(r'"(?:[^"]|"")*"|[^".]+', relation)
    plain = [p[1:-1].replace('""', '"') if p.startswith('"') else p for p in parts]
    return ("public", plain[0]) if len(plain) == 1 else (plain[0], plain[1])


def fits(name: str) -> bool:
    """Whether PostgreSQL keeps the identifier whole."""
    return len(name.encode()) <= MAX_IDENTIFIER_BYTES


def application(epoch: int) -> str:
    """application_name of a shardlord's sessions; `shardman.end_older_lords` reads it."""
    return f"shardman lord {epoch}"


def client_part(name: str, token: str) -> str:
    """application_name of the sessions of one client.

    Args:
        name: what its user calls it.
        token: 16 hexadecimal digits.
    """
    room = MAX_IDENTIFIER_BYTES - _CLIENT_PART_BYTES
    kept = ""
    for char in name:
        # What is not ASCII becomes four characters a byte (PostgreSQL 16 and newer).
        room -= 1 if " " <= char <= "~" else 4 * len(char.encode())
        if room < 0:
            break
        kept += char
    return f"{kept.rstrip()} +{token}".lstrip()


def term(epoch: int) -> int:
    """The term of the lord's database in an epoch; `shardman.next_term` makes the next one."""
    return epoch >> TERM_SHIFT


def meta_publication(cluster: str) -> str:
    """Publication of the metadata on the lord."""
    return f"shardman_meta_{cluster}"


def meta_slot(cluster: str, node: int) -> str:
    """Slot on the lord and subscription on the node that carry the metadata to a node."""
    return f"shardman_meta_{cluster}_{node}"


def node_server(node: int) -> str:
    """Foreign server of a node."""
    return f"shardman_node_{node}"


def fresh_server(node: int, cmd_id: int) -> str:
    """Foreign server of a node for the sessions that saw a move: a server of its own means a new
    connection, whose snapshot is younger than the moved copy."""
    return f"shardman_node_{node}_c{cmd_id}"


def copy_channel(cluster: str, cmd_id: int) -> str:
    """Publication and slot on the source, subscription on the destination, of a running copy."""
    return f"shardman_{cluster}_c{cmd_id}"


def channel(cluster: str, src: int, dest: int) -> str:
    """Publication and slot on node src, subscription on node dest: what carries the writes to all
    partitions that have their primary on src and a replica on dest."""
    return f"{channels_of(cluster, src)}{dest}"


def channel_source(cluster: str, name: str, dest: int) -> int | None:
    """The node from which a channel of that name comes to dest; None where it is no such channel.

    >>> channel_source("aaaaaa", "shardman_aaaaaa_1_2", 2)
    1
    """
    found = re.fullmatch(f"shardman_{re.escape(cluster)}_([0-9]+)_{dest}", name)
    return int(found[1]) if found else None


def channels_of(cluster: str, src: int) -> str:
    """What the names of all channels from a node begin with."""
    return f"shardman_{cluster}_{src}_"


def is_ours(name: str) -> bool:
    """Whether a publication, slot, subscription or prepared transaction bears a name of ours, of
    whatever cluster; also a transaction that a client of ours has prepared.

    >>> [is_ours(n) for n in ("shardman_aaaaaa_c5_1_2", "shardman_aaaaaa_x1_740_0f", "shardman_aaaaaa_y")]
    [True, True, False]
    """
    return _OURS.match(name) is not None


#: Above all attempts.
GATE = 1_000_000


def prepared_prefix(cluster: str, cmd_id: int) -> str:
    """What the identifiers of all prepared transactions of a command begin with."""
    return f"shardman_{cluster}_c{cmd_id}_"


def prepared(cluster: str, cmd_id: int, attempt: int, node: int) -> str:
    """Global identifier of a prepared transaction."""
    return f"{prepared_prefix(cluster, cmd_id)}{attempt}_{node}"


def prepared_gate(cluster: str, cmd_id: int, attempt: int, node: int) -> str:
    """The same of a second one, which keeps clients out until the first ones are committed on all nodes."""
    return prepared(cluster, cmd_id, GATE + attempt, node)


def set_aside(part_name: str, cmd_id: int) -> str:
    """Raw name (unquoted, without schema) of a data table that a command put out of the way.

    Different for different partitions, and the same as `shardman.aside_name` gives.
    """
    suffix = f"_aside_c{cmd_id}"
    raw = unquote(part_name)[1].encode()
    if len(raw) + len(suffix) > MAX_IDENTIFIER_BYTES:
        suffix = f"_{hashlib.md5(raw, usedforsecurity=False).hexdigest()[:8]}{suffix}"
        raw = raw[: MAX_IDENTIFIER_BYTES - len(suffix)]
    return raw.decode(errors="ignore") + suffix


def shadow(relation: str, cmd_id: int) -> str:
    """The sharded table that a conversion builds beside the plain one, as a name in SQL."""
    schema, raw = unquote(relation)
    name = f"shardman_c{cmd_id}_{raw}".encode()[:MAX_IDENTIFIER_BYTES].decode(errors="ignore")
    return quoted(schema, name)


def quoted(schema: str, name: str) -> str:
    """A relation as a name in SQL."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))
