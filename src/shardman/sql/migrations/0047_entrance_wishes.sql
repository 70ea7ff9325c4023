-- Entrances of a table that are held while nodes commit: see routines/95_entrances.sql.

create table shardman.entrance_wishes ();
comment on table shardman.entrance_wishes is
    'has no rows: a session that is about to write a sharded table anew locks it (ROW SHARE) until the entrances of other nodes are held, and there with each try '
    'to close the gate; a lock is seen before its transaction ends';
