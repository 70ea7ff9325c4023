-- A new table's partitions are made where they are to lie. What an older version has yet to spread is spread as any other table.

update shardman.cmd_steps set kind = 'run_moves', args = jsonb_build_object('relation', args -> 'relation') where kind = 'spread_new_table';
