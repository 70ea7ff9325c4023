"""Whether a replica can take what its primary takes."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from shardman.model.takes import Takes, refusals, refused

SAME = Takes(18, frozenset({"id integer", "m taking 'sad'"}), frozenset({"PRIMARY KEY (id)"}))


def other(
    needs: Collection[str] = (),
    rules: Collection[str] = (),
    *,
    version: int = 18,
    locked: bool = False,
) -> Takes:
    return Takes(version, SAME.needs.union(needs), SAME.rules.union(rules), locked)


@pytest.mark.parametrize(
    ("primary", "replica", "said"),
    [
        (SAME, SAME, None),
        (other({"more text"}), SAME, "the replica's table lacks more text"),
        (other({"m taking 'glad'"}), SAME, "lacks m taking 'glad'"),
        (SAME, other({"more text"}), None),
        (SAME, other(rules={"more not null"}), "the primary's table lacks more not null"),
        (other(rules={"CHECK (id > 0)"}), SAME, None),
        (SAME, other(rules={"CHECK (id > 0)"}, version=15), None),
        (SAME, other(rules={"CHECK (id > 0)"}, locked=True), None),
    ],
)
def test_a_replica_needs_no_less_and_refuses_no_more(
    primary: Takes, replica: Takes, said: str | None
) -> None:
    found = refused(primary, replica)
    assert (found is None) if said is None else (found is not None and said in found)


def test_only_partitions_on_both_sides_are_compared() -> None:
    strict = other(rules={"CHECK (id > 0)"})
    found = refusals(
        {"acc_0": SAME, "acc_1": SAME, "acc_2": SAME}, {"acc_0": strict, "acc_1": SAME}
    )
    assert list(found) == ["acc_0"]
