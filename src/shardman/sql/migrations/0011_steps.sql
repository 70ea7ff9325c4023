-- A kind of step stands in one phase: those that stood in two have two names.
update shardman.cmd_steps set kind = 'settle_standby_names', args = args - 'also' where kind = 'standby_names' and phase = 'finish';
update shardman.cmd_steps
   set kind = case phase when 'switch' then 'end_draining' else 'begin_draining' end, args = args - 'draining'
 where kind = 'set_draining';

-- What other nodes and commands have to know of a step is in columns and tables of its own, written together with the
-- plan from what the step declares. Nobody but the step itself reads its args.

alter table shardman.cmd_steps add column makes text;
comment on column shardman.cmd_steps.args is 'for the step itself; nobody else reads them';
comment on column shardman.cmd_steps.makes is
    'a thing whose name bears no command''s number: once a later command has made it too, this one does not take it away; '
    'null: the step makes nothing, or what is the command''s alone';
create index on shardman.cmd_steps (makes) where makes is not null;
-- It served what node_returns has now.
drop index if exists shardman.cmd_steps_cmd_id_idx;

create table shardman.node_returns (
    cmd_id      bigint not null,
    attempt     int not null,
    n           int not null,
    node        int not null references shardman.nodes,
    set_aside   text[] not null,
    subscribers int[] not null,
    primary key (cmd_id, attempt, n),
    foreign key (cmd_id, attempt, n) references shardman.cmd_steps on delete cascade,
    check (node <> all (subscribers))
);
create index on shardman.node_returns (node);
comment on table shardman.node_returns is
    'lord only: what a node whose partitions others have taken over does when it is back; it is still to be done as long as '
    'its command has switched and its step is planned or started';
comment on column shardman.node_returns.node is 'until it has, its commits wait for the subscribers, and it takes no copy';
comment on column shardman.node_returns.set_aside is 'partitions that were promoted elsewhere, and that it may still have in use';
comment on column shardman.node_returns.subscribers is 'nodes that have had channels from it and take nothing more';

create table shardman.node_cleanings (
    cmd_id  bigint not null,
    attempt int not null,
    n       int not null,
    node    int not null references shardman.nodes,
    primary key (cmd_id, attempt, n),
    foreign key (cmd_id, attempt, n) references shardman.cmd_steps on delete cascade
);
comment on table shardman.node_cleanings is
    'lord only: nodes that are cleaned when they were removed; one whose step is started did not answer then, and believes '
    'that it is a member';

create table shardman.standby_intents (
    cmd_id  bigint not null,
    attempt int not null,
    n       int not null,
    node    int not null references shardman.nodes,
    standby int not null references shardman.nodes,
    primary key (cmd_id, attempt, n, standby),
    foreign key (cmd_id, attempt, n) references shardman.cmd_steps on delete cascade,
    check (node <> standby)
);
create index on shardman.standby_intents (node);
comment on table shardman.standby_intents is
    'lord only: synchronous replicas that commands are about to make. Commits on node wait for standby from the start of the '
    'step until the metadata say so, or the command is given up';

create table shardman.channel_changes (
    cmd_id  bigint not null,
    attempt int not null,
    n       int not null,
    src     int not null references shardman.nodes,
    dest    int not null references shardman.nodes,
    change  text not null check (change in ('open', 'cut')),
    primary key (cmd_id, attempt, n),
    foreign key (cmd_id, attempt, n) references shardman.cmd_steps on delete cascade,
    check (src <> dest)
);
create index on shardman.channel_changes (src, dest);
comment on table shardman.channel_changes is
    'lord only: channels that commands open, and those that they cut because the publisher is dead';
comment on column shardman.channel_changes.change is
    'open: nobody drops the channel while the command runs; cut: an older command that is given up does not let it go on again';

-- What is open in the journal.
update shardman.cmd_steps
   set makes = case kind
                 when 'data_table' then format('the data table of %s on node %s', args ->> 'part', args ->> 'node')
                 when 'read_only' then format('the guard against writes to %s on node %s', args ->> 'part', args ->> 'node')
                 when 'replica_identity' then format('the replica identity of %s on node %s', args ->> 'part', args ->> 'node')
                 when 'register' then
                     format('%s in the channel from node %s to node %s', args ->> 'part', args ->> 'src', args ->> 'dest')
                 when 'cut_channel' then
                     format('the cut of the channel from node %s to node %s', args ->> 'of', args ->> 'node')
               end
 where phase = 'prepare' and state in ('planned', 'started', 'done');
insert into shardman.node_returns (cmd_id, attempt, n, node, set_aside, subscribers)
select s.cmd_id, s.attempt, s.n, (s.args ->> 'node')::int,
       array(select jsonb_array_elements_text(s.args -> 'promoted')),
       array(select jsonb_array_elements_text(s.args -> 'subscribers')::int)
  from shardman.cmd_steps s where s.kind = 'returned' and s.state in ('planned', 'started');
insert into shardman.node_cleanings (cmd_id, attempt, n, node)
select s.cmd_id, s.attempt, s.n, (s.args ->> 'node')::int
  from shardman.cmd_steps s where s.kind = 'clean_node' and s.state in ('planned', 'started');
insert into shardman.standby_intents (cmd_id, attempt, n, node, standby)
select s.cmd_id, s.attempt, s.n, (s.args ->> 'node')::int, a.standby::int
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and l.status in ('waiting', 'in progress')
 cross join jsonb_array_elements_text(s.args -> 'also') as a (standby)
 where s.kind = 'standby_names';
insert into shardman.channel_changes (cmd_id, attempt, n, src, dest, change)
select s.cmd_id, s.attempt, s.n, (s.args ->> 'src')::int, (s.args ->> 'dest')::int, 'open'
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and l.status in ('waiting', 'in progress')
 where s.kind = 'channel'
union all
select s.cmd_id, s.attempt, s.n, (s.args ->> 'of')::int, (s.args ->> 'node')::int, 'cut'
  from shardman.cmd_steps s where s.kind = 'cut_channel' and s.state in ('planned', 'started', 'done');
