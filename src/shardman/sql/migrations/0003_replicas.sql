alter table shardman.tables
    add column replevel int not null default 0 check (replevel >= 0),
    add column sync bool not null default true;
comment on column shardman.tables.replevel is 'how many replicas each partition is to have beside its primary, as set_replevel was told';
comment on column shardman.tables.sync is 'whether a commit waits until every replica has it';
