alter table shardman.cmd_log add column reason text;
comment on column shardman.cmd_log.reason is
    'why the shardlord submitted the command by itself: what it saw and whom it asked; null when somebody else did';
