"""Which of the tables that were set aside may be dropped: pure, for the program and the command."""

from __future__ import annotations


def why_kept(
    part_name: str | None, cmd_type: str, owner: int | None, *, served: bool, found: bool
) -> str | None:
    """Why such a table must not be dropped; None: nothing speaks against it.

    Args:
        part_name: the partition whose copy it was; None where the cluster has none of that name.
        cmd_type: the command that put it aside.
        owner: the node of the partition's primary; None where there is no such partition any more.
        served: the primary was seen there, attached.
        found: what `add_node` found on a server may go, too.
    """
    if part_name is None or owner is None:
        return "no partition of the cluster bears its name: its rows may be nowhere else"
    if cmd_type == "add_node" and not found:
        return "add_node found it, so its rows may be another cluster's, and nobody said that it may go, too"
    if not served:
        return f"the primary of {part_name} on node {owner} is not to be seen: this may be the last copy"
    return None
