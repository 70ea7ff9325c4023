"""The accounts of the soak test: money moves only between those of one partition.

A transaction over two nodes is not atomic when one of them is killed in the middle of its commit
(docs/weak-sides.md), one within a partition is.
"""

from __future__ import annotations

import random
import time
from itertools import count

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank

SIZE = 3000
#: Accounts that are deleted and opened again: whoever wants to change one meanwhile would not find it.
RENEWED = 60
TABLES = ("accounts", "marks")
BALANCE = 1000
#: Ids of one partition that no account has.
TWO_IDS = """
select id from generate_series(10000, 1000000) id
 where satisfies_hash_partition('accounts'::regclass, %(modulus)s, %(remainder)s, id)
 limit 2
"""


class PartitionBank(Bank):
    """Transfers within one partition: its accounts and their balance are the same at every look.

    Args:
        groups: the ids of the accounts of each partition.
        nomads: of each partition one account more, which changes its id from one of two to the other.
    """

    def __init__(
        self, accounts: str, groups: list[list[int]], nomads: list[tuple[int, int]]
    ) -> None:
        super().__init__(accounts, SIZE)
        self._groups = groups
        self._nomads = nomads
        #: How often the balance of a partition was found right.
        self.looked = count(1)

    def pair(self, rng: random.Random) -> list[int]:
        group = [i for i in rng.choice(self._groups) if i <= SIZE]
        return rng.sample(group, 2)

    def renew(self, conn: SyncConnection, rng: random.Random) -> int:
        """Deletes an account and opens it again as it was."""
        with conn.transaction():
            row = conn.execute(
                f"delete from {self.accounts} where id = %s returning id, balance, touched, filler",
                (SIZE + rng.randint(1, RENEWED),),
            ).fetchone()
            if row is None:  # Somebody else is renewing it.
                return 0
            conn.execute(f"insert into {self.accounts} values (%s, %s, %s, %s)", row)
        return 0

    def swell(self, conn: SyncConnection, rng: random.Random) -> int:
        """Changes every row of a partition, in one large transaction."""
        k = rng.randrange(len(self._groups))
        time.sleep(rng.random())
        conn.execute(f"update {self.accounts}_{k} set filler = repeat(md5(random()::text), 20)")
        return 0

    def look(self, conn: SyncConnection, rng: random.Random) -> int:
        """Counts one partition and its money: a reader, through whatever node."""
        k = rng.randrange(len(self._groups))
        row = conn.execute(
            f"select count(*), sum(balance)::bigint from {self.accounts}_{k}"
        ).fetchone()
        there = len(self._groups[k]) + 1
        if row != (there, there * BALANCE):
            raise AssertionError(f"{self.accounts}_{k} has {row}, not {there} x {BALANCE}")
        next(self.looked)
        return 0

    def wander(self, conn: SyncConnection, rng: random.Random) -> int:
        """Changes the key of an account."""
        k = rng.randrange(len(self._nomads))
        one, other = self._nomads[k]
        done = conn.execute(
            f"update {self.accounts}_{k} set id = %s - id where id in (%s, %s)",
            (one + other, one, other),
        )
        if done.rowcount != 1:
            raise AssertionError(f"{done.rowcount} accounts {one} or {other}")
        return 0


def prepare(cluster: Cluster, replevel: int, partitions: int) -> PartitionBank:
    """Accounts and marks, spread over all workers, each partition with so many replicas."""
    cluster.sql(
        1,
        "create table accounts (id int primary key, balance bigint not null default 1000,"
        " touched bigint not null default 0, filler text not null default '')",
    )
    cluster.sql(1, "create table marks (id bigint primary key)")
    cluster.sql(1, "insert into accounts (id) select generate_series(1, %s)", (SIZE + RENEWED,))
    for table in TABLES:
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, %s, 'id', %s)", (table, partitions)
        )
        assert done.status == "success", done
        if replevel:
            done = cluster.cmd("select shardman.set_replevel(%s, %s)", (table, replevel))
            assert done.status == "done", done
    groups, nomads = [], []
    with cluster.connect(1) as node:
        for k in range(partitions):
            rows = node.execute(f"select id from accounts_{k} order by id".encode()).fetchall()
            groups.append([int(r[0]) for r in rows])
            one, other = (
                r[0] for r in node.execute(TWO_IDS, {"modulus": partitions, "remainder": k})
            )
            node.execute("insert into accounts (id) values (%s)", (one,))
            nomads.append((one, other))
    return PartitionBank("accounts", groups, nomads)
