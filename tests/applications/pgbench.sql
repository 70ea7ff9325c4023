-- The tables that `pgbench -i --foreign-keys` makes.
create table pgbench_branches (bid int not null primary key, bbalance int, filler char(88)) with (fillfactor = 100);
create table pgbench_tellers (tid int not null primary key, bid int references pgbench_branches, tbalance int, filler char(84)) with (fillfactor = 100);
create table pgbench_accounts (aid int not null primary key, bid int references pgbench_branches, abalance int, filler char(84)) with (fillfactor = 100);
create table pgbench_history (tid int references pgbench_tellers, bid int references pgbench_branches, aid int references pgbench_accounts,
    delta int, mtime timestamp, filler char(22));
insert into pgbench_branches select i, 0 from generate_series(1, 2) i;
insert into pgbench_tellers select i, 1 + i % 2, 0 from generate_series(1, 20) i;
insert into pgbench_accounts select i, 1 + i % 2, 0, '' from generate_series(1, 2000) i;
insert into pgbench_history select 1 + i % 20, 1 + i % 2, i * 13 % 2000 + 1, i, timestamp '2024-01-01' from generate_series(1, 50) i;
