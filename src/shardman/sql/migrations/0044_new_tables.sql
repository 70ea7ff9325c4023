-- New tables that are to be shared are told to the lord when their transaction ends: see shardman.share_new in routines/96_new_tables.sql.

create table shardman.new_tables (rel oid primary key);
comment on table shardman.new_tables is
    'tables that an open transaction has made and that are to be shared: nobody ever sees a row of another transaction, as it ends without any';
