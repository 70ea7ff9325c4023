-- What day 02/03/2019 is depends on the session that says it.

alter table shardman.schema_changes add column words jsonb;
comment on column shardman.schema_changes.words is
    'the settings of the session that sent it by which its constants are read, as DateStyle; null: those of whoever repeats it';
