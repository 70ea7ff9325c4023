alter table shardman.cmd_opts add column name text;
comment on column shardman.cmd_opts.name is
    'of the argument; null in a command that a worker of version 0.1 submitted: its arguments are in the order of the function''s';
comment on table shardman.cmd_opts is 'the arguments of commands, one row each, in the order of id; passwords are left out';
