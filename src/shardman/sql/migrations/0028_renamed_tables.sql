-- Tables that have another name on this node and not yet in its metadata: see routines/84_renaming.sql.

create table shardman.renamed_tables (
    former text primary key,
    wanted text not null
);
comment on table shardman.renamed_tables is
    'this node only: sharded tables that got another name here in a cut-over, until the metadata say so too. Nothing makes the former one again';
