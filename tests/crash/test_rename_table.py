"""kill -9 of the shardlord before and after every step of rename_table."""

from __future__ import annotations

import pytest

from crash.stops import armed, kill_shardlord, points, sample, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster


def renamed(former: str, wanted: str) -> str:
    return f"select shardman.rename_table('{former}', '{wanted}')"


@pytest.mark.timeout(600)
def test_the_shardlord_is_killed_at_every_step(cluster: Cluster) -> None:
    cluster.sql(1, "create table acc (id int primary key, v text)")
    cluster.sql(1, "insert into acc select i, 'v' from generate_series(1, 100) i")
    for query in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 3)",
        "select shardman.set_replevel('acc', 1)",
    ):
        done = cluster.cmd(query)  # type: ignore[arg-type]
        assert done.status in ("success", "done"), done
    undisturbed = cluster.submit(renamed("acc", "t0"))  # type: ignore[arg-type]
    assert cluster.wait(undisturbed).status == "success"
    with cluster.connect(0) as lord:
        every = points(lord, undisturbed)
    for i, point in enumerate(sample(every, 2, start=1)):
        with armed(cluster.lord_dsn, "rename_table", point) as holder:
            cmd = cluster.submit(renamed(f"t{i}", f"t{i + 1}"))  # type: ignore[arg-type]
            wait_until_stopped(holder, cmd)
            kill_shardlord(cluster, holder)
        cluster.start_lord()
        ended = cluster.wait(cmd, 60)
        assert ended.status == "success", (point, ended)
        for node in (0, 1, 2, 3):
            assert cluster.value(node, f"select count(*) from t{i + 1}") == 100
        assert check(cluster.lord_dsn, data=True, patience=20) == []
        for node in (0, 1, 2, 3):
            assert cluster.value(node, "select to_regclass(%s) is null", (f"t{i}",))
