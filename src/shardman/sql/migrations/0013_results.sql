-- Results and errors for programs, beside the sentences for people.
alter table shardman.cmd_log
    add column result_data jsonb,
    add column error_code text,
    add check (jsonb_typeof(result_data) = 'object'),
    add check (error_code ~ '^[a-z]+(_[a-z]+)*$'),
    add check (error_code is null or status in ('failed', 'canceled'));
comment on column shardman.cmd_log.result_data is 'what the command has measured and made, by names; see docs/commands/README.md';
comment on column shardman.cmd_log.error_code is
    'failed, canceled: what kind of error it is, see docs/errors.md; null: it failed under a version that had no codes';
update shardman.cmd_log set error_code = 'canceled' where status = 'canceled';
