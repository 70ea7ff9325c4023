-- Copies of shared tables are compared in the background: see lord/watchers/shared_scrub.py.

create table shardman.shared_comparisons (
    relation        text,
    node            int,
    compared_with   int not null,
    compared_at     timestamptz not null default clock_timestamp(),
    rows            bigint not null check (rows >= 0),
    differing       bigint not null default 0 check (differing >= 0),
    unmended        text,
    last_difference timestamptz,
    mended_at       timestamptz,
    primary key (relation, node)
);
comment on table shardman.shared_comparisons is
    'lord only: when the shardlord has last compared each copy of a shared table in the background, and what it found';
comment on column shardman.shared_comparisons.compared_with is 'the node of the copy that it was compared with: one of those that are right, or the first one';
comment on column shardman.shared_comparisons.rows is 'of this copy';
comment on column shardman.shared_comparisons.differing is 'rows that differed, at least; 0 when both were equal, and once they were made equal';
comment on column shardman.shared_comparisons.unmended is 'why it was not mended; null where it was, or nothing is to be mended';
comment on column shardman.shared_comparisons.last_difference is 'when they were last found to differ; null: never';
comment on column shardman.shared_comparisons.mended_at is 'when rows of this copy were last made like those of the others; null: never';

create table shardman.replaced_rows (
    relation    text not null,
    replaced_at timestamptz not null default clock_timestamp(),
    content     text not null
);
revoke all on shardman.replaced_rows from public;
comment on table shardman.replaced_rows is
    'this node only: rows of its copies of shared tables that the shardlord has replaced or removed, as most other copies had others; kept for 30 days';
comment on column shardman.replaced_rows.content is 'the row as it was, as text';
