create table shardman.comparisons (
    part_name       text,
    node            int,
    compared_at     timestamptz not null default clock_timestamp(),
    rows            bigint not null check (rows >= 0),
    bytes           bigint not null check (bytes >= 0),
    took            interval not null,
    differing       bigint not null default 0 check (differing >= 0),
    last_difference timestamptz,
    primary key (part_name, node)
);
comment on table shardman.comparisons is
    'lord only: when the shardlord has last compared each replica with its primary in the background (the scrub), and what it found';
comment on column shardman.comparisons.node is 'the replica''s';
comment on column shardman.comparisons.rows is 'of the primary';
comment on column shardman.comparisons.bytes is 'of the primary, as they count against scrub_rate';
comment on column shardman.comparisons.differing is 'rows that differed, at least; 0 when both were equal, and once the replica was given up to be made equal';
comment on column shardman.comparisons.last_difference is 'when they were last found to differ; null: never';
