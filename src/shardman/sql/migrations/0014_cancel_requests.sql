-- Who asks for a command's end writes a row of his own. What a worker asks arrives in a repeatable read transaction
-- (postgres_fdw), which may not change a row of cmd_log that the shardlord has written meanwhile; and the row of cmd_log
-- would stay locked as long as the caller's transaction is open, and hold up the journal.
create table shardman.cancel_requests (
    id           uuid primary key default gen_random_uuid(),
    cmd_id       bigint not null,
    requested_by text not null,
    requested_at timestamptz not null default clock_timestamp()
);
create index on shardman.cancel_requests (cmd_id);
comment on table shardman.cancel_requests is
    'who has asked that a command is taken back; the command ends as canceled unless it was past its point of no return';
comment on column shardman.cancel_requests.cmd_id is
    'not a foreign key: its check would fail in the transactions that the table is made for';

insert into shardman.cancel_requests (cmd_id, requested_by)
select id, submitted_by from shardman.cmd_log where cancel_requested and status in ('waiting', 'in progress')
   and exists (select from shardman.local where lord);

-- That of 0.1.0 read all columns; it is laid anew behind the migrations.
drop view if exists shardman.status_failovers;
alter table shardman.cmd_log drop column cancel_requested;
