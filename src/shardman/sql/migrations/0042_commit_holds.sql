-- Commits over several nodes that are held for a session: see routines/99_holding.sql.

create table shardman.commit_holds (
    id       bigint generated always as identity primary key,
    pid      int not null,
    session  text not null,
    since    timestamptz not null default clock_timestamp(),
    failed   text,
    released timestamptz
);
comment on table shardman.commit_holds is
    'whose sessions on this node have held commits of transactions over several nodes, or wanted to: the shardlord writes it';
comment on column shardman.commit_holds.pid is 'the process of the session';
comment on column shardman.commit_holds.session is 'the session, as %c of log_line_prefix';
comment on column shardman.commit_holds.failed is 'why they were not held, or not until they were released';
comment on column shardman.commit_holds.released is 'when they were released; null with failed null: they are held';

create table shardman.hold_wishes ();
comment on table shardman.hold_wishes is
    'has no rows: a session that wants commits held, or released, locks it until it has been told (ROW SHARE, SHARE UPDATE EXCLUSIVE); a lock is seen before its '
    'transaction ends';
