-- What `shardman distribute` takes away for a while.

create table shardman.dropped_references (
    relation    text not null,
    name        name not null,
    columns     name[] not null,
    referred    text not null,
    to_columns  name[] not null,
    definition  text not null,
    noted_at    timestamptz not null default clock_timestamp(),
    primary key (relation, name)
);
comment on table shardman.dropped_references is
    'this node only: foreign keys between tables that are being sharded one after the other. They are noted down in the transaction that drops '
    'them, and stay here until shardman distribute --apply has added them again';
comment on column shardman.dropped_references.relation is 'whose foreign key it is';
comment on column shardman.dropped_references.referred is 'the table that it refers to';
comment on column shardman.dropped_references.definition is 'as pg_get_constraintdef gave it';
