"""When a difference between the tables of a primary and its replica is one."""

from __future__ import annotations

from lord.policies.clusters import Clock
from shardman.lord.policies.takes import LASTS_S, Lasting

PAIR, OTHER = (1, 2), (2, 1)


def test_what_is_seen_all_the_time_for_long_lasts() -> None:
    clock, lasting = Clock(), Lasting()
    assert lasting.lasts(PAIR, {"acc_0": "why"}, clock.now) == set()
    clock.wait(LASTS_S / 2)
    assert lasting.lasts(PAIR, {"acc_0": "why", "acc_1": "why"}, clock.now) == set()
    assert lasting.lasts(OTHER, {"acc_0": "why"}, clock.now) == set()
    clock.wait(LASTS_S / 2)
    assert lasting.lasts(PAIR, {"acc_0": "why", "acc_1": "why"}, clock.now) == {"acc_0"}
    clock.wait(LASTS_S / 2)
    # Once it is gone it begins anew.
    assert lasting.lasts(PAIR, {"acc_1": "why"}, clock.now) == {"acc_1"}
    assert lasting.lasts(PAIR, {"acc_0": "why", "acc_1": "why"}, clock.now) == {"acc_1"}
