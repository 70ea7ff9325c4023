-- Advisory locks are open to every role that may connect: one line of SQL kept every shardlord from acting, another one hung
-- every command. Ours are locks on tables to which nobody else has a right, and a row whose holder must be alive.

alter table shardman.lease add column backend_start timestamptz;
comment on column shardman.lease.pid is 'the holder''s session; a number is used again, so it is the holder''s together with backend_start';
comment on column shardman.lease.backend_start is 'null: written by an earlier version, which had no such column';

alter table shardman.local add column leaving bool not null default false;
comment on column shardman.local.leaving is 'what the cluster made here is being taken away: nothing is brought in line with the metadata';

create table shardman.accepting ();
comment on table shardman.accepting is
    'lord only, without rows: a lock on it is held by whoever submits a command, to the end of his transaction, and taken by a lord '
    'that steps down';

create table shardman.reconciling ();
comment on table shardman.reconciling is 'without rows: a lock on it is held by the one reconciliation that runs';
