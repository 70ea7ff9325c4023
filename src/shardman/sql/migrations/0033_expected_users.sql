-- Who will use a table of the cluster that is not one yet: see shardman.expect_users in routines/70_nodes.sql.

create table shardman.expected_users (
    relation text primary key,
    roles    name[] not null
);
comment on table shardman.expected_users is
    'this node only: roles that get their ways to other nodes before a table is sharded or shared, so that nobody is without on the way. A row goes when the table is there';
