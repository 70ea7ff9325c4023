"""Which commands run at the same time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardman.commands.base import Claim
from shardman.lord.scheduler import disturb, startable

claims = st.frozensets(
    st.builds(
        Claim, st.sampled_from(["membership", "table a", "table b", "part a_1"]), st.booleans()
    ),
    max_size=3,
)


def test_shared_claims_do_not_disturb_each_other() -> None:
    assert not disturb({Claim("t", shared=True)}, {Claim("t", shared=True)})
    assert disturb({Claim("t", shared=True)}, {Claim("t")})
    assert not disturb({Claim("t")}, {Claim("u")})


def test_a_command_waits_for_an_earlier_one_that_waits_itself() -> None:
    t = frozenset({Claim("t")})
    both = frozenset({Claim("t"), Claim("u")})
    u = frozenset({Claim("u")})
    assert startable([(1, both), (2, u)], [t]) == []


@given(st.lists(claims, max_size=6), st.lists(claims, max_size=3))
def test_nothing_is_begun_while_what_it_disturbs_runs(
    waiting: list[frozenset[Claim]], running: list[frozenset[Claim]]
) -> None:
    numbered = list(enumerate(waiting))
    for cmd_id in startable(numbered, running):
        earlier = running + waiting[:cmd_id]
        assert not any(disturb(waiting[cmd_id], other) for other in earlier)
