-- What is wrong, and what to do about it.

create or replace view shardman.parts_in_doubt as
    select format('transactions prepared on node %s', h.node_id) as subject,
           format('%s of clients wait for node %s, which has their outcome, the first for %s: their rows are locked', count(*), c.first,
                  date_trunc('second', max(c.age))) as problem,
           format('They end by themselves when node %s answers, or when the client there ends its transaction. If that node never comes back, see what the '
                  'application knows of them, and COMMIT PREPARED or ROLLBACK PREPARED each (pg_prepared_xacts)', c.first) as hint
      from shardman.client_parts() c, shardman.local h
     where c.age > interval '5 seconds' group by h.node_id, c.first
    union all
    select format('transactions prepared on node %s', h.node_id),
           format('%s that were prepared on a node which was taken over from wait for their outcome, the first for %s: their rows are locked', count(*),
                  date_trunc('second', max(clock_timestamp() - x.prepared))),
           'They end by themselves when every node answers that may have decided on them: start those that do not, or have them taken over from'
      from pg_prepared_xacts x, shardman.local h
     where x.database = current_database() and starts_with(x.gid, 'pg_gid_') and x.prepared < clock_timestamp() - interval '5 seconds'
       and not exists (select from pg_subscription s where s.subenabled and starts_with(x.gid, format('pg_gid_%s_', s.oid)))
     group by h.node_id;
comment on view shardman.parts_in_doubt is 'this node: parts of clients'' transactions that have been prepared for so long that their client is gone, and copies of '
    'what was prepared on a node that others have taken over from';

-- The lease is as old as the snapshot: it is compared with the beginning of the statement, not with now.
create or replace view shardman.cluster_problems as
    select 'shardlord' as subject, case when l.holder is null then 'none has acted in this database yet'
                             else format('the last one (%s) gave no sign of life for %s', l.holder,
                                         date_trunc('second', statement_timestamp() - l.renewed_at)) end as problem,
           'Start one: shardman lord LORD_DSN' as hint
      from shardman.lease l, shardman.local h
     where h.lord and (l.epoch = 0 or statement_timestamp() - l.renewed_at > interval '5 seconds')
    union all
    select 'network', l.suspicion, 'Nothing is done about silent nodes meanwhile: look at the network of the shardlord''s machine; if '
           'they are really down, start them, or call shardman failover for each'
      from shardman.lease l, shardman.local h
     where h.lord and l.suspicion is not null
    union all
    select p.part_name, format('lies on node %s, which is no active worker: its rows cannot be reached', p.owner),
           'Bring its rows back from a backup or from that server'
      from shardman.partitions p join shardman.nodes n on n.id = p.owner, shardman.local h
     where h.lord and p.prv is null and n.worker_status is distinct from 'active'
    union all
    select format('command %s (%s)', c.id, c.cmd_type), format('waits for %s', c.waits_for),
           'See whether that can end by itself; shardman cancel takes the command back'
      from shardman.commands c, shardman.local h
     where h.lord and c.status = 'in progress' and c.waits_for is not null
       and c.started_at < clock_timestamp() - interval '1 minute'
    union all
    select t.relation, format('%s of %s partitions have fewer than %s replicas that follow', t.below_level, t.partitions_count, t.replevel),
           'The shardlord makes them after rebuild_after where there is room; otherwise add a node, or ask for fewer with shardman set-replevel'
      from shardman.status_tables t, shardman.local h
     where h.lord and t.below_level > 0
       and not exists (select from shardman.cmd_log c where c.status = 'in progress' and c.cmd_type = 'set_replevel')
    union all
    select format('replicas on node %s', c.node),
           format('%s do not follow their primaries, the first since %s', count(*), date_trunc('second', min(c.stale_since))),
           'They are brought up to date once the node answers, and their primaries'' nodes; shardman rm-replica gives one up'
               || coalesce((select '. Given up last because ' || f.reason from shardman.status_failovers f
                             where f.to_node = c.node order by f.cmd_id desc limit 1), '')
               || coalesce((select format('. Last tried in vain by command %s: %s', l.id, l.error) from shardman.cmd_log l
                             where l.cmd_type = 'create_replica' and l.status = 'failed'
                               and shardman.option(l.id, 'dest', 2) = c.node::text and l.ended_at > min(c.stale_since)
                             order by l.id desc limit 1), '')
      from shardman.status_copies c, shardman.local h
     where h.lord and c.role = 'stale' group by c.node
    union all
    select format('shared tables on node %s', n.id), format('%s have no copy there that is in use: %s', count(*), string_agg(t.relation, ', ' order by t.relation)),
           'They are copied once the node answers; rm_node removes one that does not come back'
      from shardman.shared_tables t cross join shardman.nodes n, shardman.local h
     where h.lord and n.worker_status = 'active'
       and not exists (select from shardman.shared_copies c where (c.relation, c.node) = (t.relation, n.id))
       and not exists (select from shardman.cmd_log c where c.status = 'in progress' and c.cmd_type in ('add_node', 'create_shared_table'))
     group by n.id
    union all
    select f.relation, format('could not be shared, and is on one node only, if it is there still: command %s: %s', f.id, f.error),
           format('Do what the error says, then select shardman.create_shared_table(%L, %s); or drop the table. This is told for a day', f.relation, f.node)
      from (select distinct on (r.opt) l.id, l.status, l.error, l.ended_at, r.opt as relation, n.opt as node
              from shardman.cmd_log l join shardman.cmd_opts r on r.cmd_id = l.id and r.name = 'relation' join shardman.cmd_opts n on n.cmd_id = l.id and n.name = 'node_id'
             where l.cmd_type = 'create_shared_table' and l.ended_at > clock_timestamp() - interval '1 day'
             order by r.opt, l.id desc) f, shardman.local h
     where h.lord and f.status = 'failed' and shardman.setting('new_tables', 'plain') = 'shared'
       and not exists (select from shardman.shared_tables t where t.relation = f.relation) and not exists (select from shardman.tables t where t.relation = f.relation)
    union all
    select d.subject, d.problem, d.hint from shardman.parts_in_doubt d
    union all
    -- Whether the other node has as much room only that knows: nodes have the same settings.
    select format('channel from node %s to node %s', h.node_id, s.to_node),
           'has one phase, as former versions made it: what is prepared on the first, and not committed yet when it dies for good, is not on the other',
           case when current_setting('server_version_num')::int >= 180000
                then 'The shardlord gives it two within a minute, when no command is at work and it is not behind. Where that does not happen, ' else '' end
           || format('shardman suspend-replicas %1$s %2$s has it made anew, in two phases: its replicas follow again after rebuild_after, and commits on node %1$s do not wait '
                     'for them meanwhile', h.node_id, s.to_node)
      from shardman.status_slots s join pg_replication_slots r on r.slot_name = s.slot_name, shardman.local h
     where s.purpose = 'channel' and s.cluster = h.cluster and not r.two_phase and shardman.has_room()
    union all
    select format('transaction %L of %s, prepared on node %s', l.gid, l.role, l.node),
           format('rolled back by command %s at %s, when others took over from the node and nobody had committed it', l.cmd_id, date_trunc('second', l.at)),
           'Tell its transaction manager, and do it again if it is needed. This is told for an hour; shardman.lost_parts has it for 30 days'
      from shardman.lost_parts l, shardman.local h
     where h.lord and l.gid is not null and l.at > clock_timestamp() - interval '1 hour'
    union all
    select format('commits of transactions over several nodes, held from node %s', h.node_id),
           format('the session of process %s there has held them for %s: clients that commit on several nodes wait', c.pid,
                  date_trunc('second', clock_timestamp() - c.since)),
           'They go on when it calls shardman.release_commits() or is gone, and after hold_commits_for seconds (shardman.settings) in any case'
      from shardman.commit_holds c, shardman.local h
     where c.failed is null and c.released is null and c.since < clock_timestamp() - interval '5 seconds'
    union all
    select format('node %s', s.node_id), s.problem,
           format('Nothing is done on it. Stop that server: where its partitions have replicas these take over, with all that was '
                  'acknowledged. Or, in the lord''s database, select shardman.accept_node(%s): it goes on with the rows it has', s.node_id)
      from shardman.sightings s join shardman.nodes n on n.id = s.node_id and n.worker_status = 'active', shardman.local h
     where h.lord and s.problem is not null
    union all
    select format('node %s', s.node_id), format('somebody else has received its metadata by its slot, at %s: %s',
                                                date_trunc('second', s.thief_at), s.thief),
           'A copy of its server runs there: stop that, or make it inert with shardman disarm'
      from shardman.sightings s, shardman.local h
     where h.lord and s.thief_at > clock_timestamp() - interval '10 minutes'
    union all
    select format('node %s', c.node),
           format('lacks a change of the schema since %s: %s (%s)', date_trunc('second', c.since), left(c.statement, 200), c.reason),
           format('It gets it by itself when that is no longer in the way. After it was put right by hand, with set shardman.ddl = ''here'': '
                  'select shardman.skip_change(%L, %s) in the lord''s database', c.id, c.node)
      from shardman.pending_changes c, shardman.local h
     where h.lord and not c.skipped
    union all
    select format('%s on node %s', c.part_name, c.node),
           format('the replica differed from its primary on node %s in at least %s rows, at %s', p.owner, c.differing,
                  date_trunc('second', c.compared_at)),
           format('With scrub_repair the shardlord brings it up to date; otherwise shardman suspend-replicas %s %s lets it', p.owner, c.node)
      from shardman.status_comparisons c join shardman.partitions p on p.part_name = c.part_name and p.prv is null, shardman.local h
     where h.lord and c.differing > 0
    union all
    select format('%s on node %s', c.relation, c.node),
           format('the copy of the shared table differed from that on node %s in at least %s rows, at %s, and was not mended: %s', c.compared_with, c.differing,
                  date_trunc('second', c.compared_at), c.unmended),
           format('shardman check --data says which rows. shardman create-shared-table %s NODE makes all copies like that of NODE', quote_literal(c.relation))
      from shardman.shared_comparisons c join shardman.shared_copies s on (s.relation, s.node) = (c.relation, c.node), shardman.local h
     where h.lord and c.differing > 0;
comment on view shardman.cluster_problems is 'lord only: what is wrong with the cluster as a whole, and what to do about it';

create or replace function shardman.may_be_away(node int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.nodes n where n.id = may_be_away.node and n.away_until is not null)
$$;
comment on function shardman.may_be_away(int) is 'whether a node is in maintenance: what is down because of that is not wrong';

-- As a function: see shardman.differences_here (views/drift.sql).
create or replace function shardman.problems_here() returns table (subject text, problem text, hint text)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off rows 10 as $$
    select 'this database' as subject, format('is a copy of node %s of cluster %s', l.node_id, l.cluster) as problem,
           'shardman disarm makes it inert; if the node is lost and this is it now, call shardman.be_the_node()' as hint
      from shardman.local l where shardman.is_copy()
    union all
    select l.relation, format('was made again after DROP TABLE and has stayed plain, on this node: %s', l.failure),
           format('Put that right, then: select shardman.restore_layout(%L, %s); or let it stay plain: select shardman.forget_layout(%1$L)', l.relation, shardman.my_id())
      from shardman.remembered() l
     where l.failure is not null and exists (select from pg_class c where c.oid = shardman.find_relation(l.relation) and c.relkind = 'r')
    union all
    -- What has just changed is being brought in line.
    select d.subject, d.problem, coalesce(d.hint, '') as hint from shardman.drift d
     where d.since is null or d.since < clock_timestamp() - interval '10 seconds'
    union all
    -- The shardlord cleans up right after a command; it deserves a moment.
    select l.subject, l.problem, l.hint from shardman.leftovers l
     where not exists (select from shardman.cmd_log c
                        where c.id = l.cmd_id and c.ended_at > clock_timestamp() - interval '30 seconds')
    union all
    select 'subscription ' || s.subscription,
           case when not s.enabled then 'is disabled'
                else 'is not running' || case when s.errors > 0 then format('; errors so far: %s', s.errors) else '' end end,
           'Until it runs this node does not hear of changes; the server''s log says why it stopped'
      from shardman.status_subscriptions s
     where s.cmd_id is null and not (s.enabled and s.running)
       and not shardman.may_be_away(substring(s.subscription from '^shardman_[^_]+_([0-9]+)_[0-9]+$')::int)
    union all
    select 'replication slot ' || s.slot_name,
           case when s.wal_status = 'lost' then 'has lost the WAL that its receiver needs'
                when not s.active then format('has no receiver, %s of WAL are kept for it',
                                              pg_catalog.pg_size_pretty(s.retained_bytes))
                else format('its receiver is %s behind', pg_catalog.pg_size_pretty(s.lag_bytes)) end,
           case when s.to_node is null then 'See the command that made it'
                when s.wal_status = 'lost' and s.purpose = 'channel'
                    then format('shardman suspend-replicas %s %s lets its replicas be brought up to date anew', shardman.my_id(), s.to_node)
                when s.wal_status = 'lost' then format('The shardlord makes it again when node %s answers', s.to_node)
                else format('Start node %s, or remove it if it does not come back; see the log of its server', s.to_node) end
      from shardman.status_slots s
     where s.wal_status = 'lost'
        or not s.active and s.cmd_id is null and not s.over_limit and not shardman.may_be_away(s.to_node)
        or not shardman.may_be_away(s.to_node) and s.lag_bytes > shardman.bytes_setting('wal_warning', '1GB')
    union all
    select 'replication slot ' || s.slot_name,
           format('keeps %s of WAL, more than wal_keep_limit', pg_catalog.pg_size_pretty(s.retained_bytes)),
           case when s.to_node is null then 'See the command that made it'
                when s.purpose = 'channel' then format('Start node %s, or mend the way to it. That of a node that is down is dropped; '
                         'shardman suspend-replicas %s %s drops it now', s.to_node, shardman.my_id(), s.to_node)
                else format('Start node %s, or remove it if it does not come back', s.to_node) end
      from shardman.status_slots s where s.over_limit and s.wal_status is distinct from 'lost'
    union all
    select format('channel to node %s', k.to_node),
           case when k.slot_name is null then format('is missing; %s partitions have replicas there', k.partitions)
                when k.synchronous then 'is synchronous, but commits do not wait for it'
                else 'commits wait for it, and need not' end,
           format('If it stays so: shardman suspend-replicas %s %s, after which the replicas are brought up to date anew',
                  k.from_node, k.to_node)
      from shardman.status_channels k, shardman.local h
     where (k.slot_name is null or k.synchronous <> k.waited_for)
       and not exists (select from shardman.cmd_log l
                        where l.status = 'in progress'
                           or l.ended_at > clock_timestamp() - interval '5 seconds')
    union all
    select format('channel from node %s to node %s', f.src, f.dest), f.fault || coalesce(format(' (%s)', f.part), ''),
           'The shardlord gives up the replicas that it feeds and brings them up to date anew'
      from shardman.channel_faults() f
     where not exists (select from shardman.cmd_log l
                        where l.status = 'in progress'
                           or l.ended_at > clock_timestamp() - interval '5 seconds')
    union all
    select 'commits', format('%s wait for replicas on node %s, the longest for %s', w.commits,
                             coalesce(nullif(array_to_string(w.for_nodes, ', '), ''), '?'), date_trunc('second', w.longest)),
           'They go on when it answers, or when the shardlord gives it up after failover_after'
      from shardman.status_waiting w where w.longest > interval '3 seconds'
    union all
    select format('%s, process %s', a.backend_type, a.pid), 'is stopped', 'Let it go on (SIGCONT), or restart the server'
      from pg_catalog.pg_stat_activity a cross join lateral shardman.process_times(a.pid) t
     where a.backend_type <> 'client backend' and t.stopped
    union all
    select 'synchronous_commit', format('is %s%s: commits do not wait for replicas', s.value, s.whose),
           'Set it to on: what is acknowledged otherwise can be lost with this node'
      from (select reset_val as value, '' as whose from pg_catalog.pg_settings where name = 'synchronous_commit'
            union
            select split_part(c, '=', 2), format(' for role %s', r.rolname)
              from pg_catalog.pg_db_role_setting d join pg_catalog.pg_roles r on r.oid = d.setrole, unnest(d.setconfig) as c
             where d.setdatabase in (0, (select oid from pg_catalog.pg_database where datname = current_database()))
               and c like 'synchronous_commit=%') as s
     where s.value not in ('on', 'remote_apply', 'true', 'yes', '1')
       and exists (select from shardman.status_channels k where k.synchronous)
    union all
    select d.relation, format('its foreign key %I to %s was dropped at %s, while the two are sharded', d.name, d.referred, date_trunc('second', d.noted_at)),
           'shardman distribute --apply goes on with that, and adds it again'
      from shardman.dropped_references d
    union all
    select 'sequence ' || q.name, format('%s %% of the numbers of this node are used', trunc(q.used * 100)),
           'Widen the type of its column'
      from (select shardman.relation_text(s.schemaname, s.sequencename) as name,
                   (s.last_value - s.min_value)::numeric / greatest(s.max_value - s.min_value, 1) as used
              from pg_catalog.pg_sequences s
             where (s.schemaname, s.sequencename) in (
                   select (shardman.relation_parts(e ->> 'name'))[1], (shardman.relation_parts(e ->> 'name'))[2]
                     from shardman.tables t, jsonb_array_elements(coalesce(t.definition -> 'sequences', '[]')) e)) as q
     where q.used > 0.8
$$;
comment on function shardman.problems_here() is 'what the view node_problems shows';

create or replace view shardman.node_problems as
    select p.subject, p.problem, p.hint from shardman.problems_here() p;
comment on view shardman.node_problems is 'this node: what is wrong here, and what to do about it';

create or replace view shardman.status_problems as
    select n.subject, n.problem, n.hint from shardman.node_problems n
    union all
    select c.subject, c.problem, c.hint from shardman.cluster_problems c;
comment on view shardman.status_problems is
    'this node: what is wrong, seen from here, and what to do about it; on the lord also what concerns the whole cluster';
