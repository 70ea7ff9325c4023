-- DDL and copies that are just being made wait for each other: see routines/95_gate.sql.

create table shardman.copies_begin ();
comment on table shardman.copies_begin is
    'has no rows: DDL of a sharded table locks it (SHARE) on the node where it was sent, before it looks at other nodes; who makes a copy, or its indexes, '
    'locks it on all nodes (ROW EXCLUSIVE)';
