-- Objects of ours that carry their purpose in their names (see names.py), on this node.

create or replace view shardman.our_objects as
    with named as (
        select 'replication slot' as kind, s.slot_name::text as name
          from pg_catalog.pg_get_replication_slots() s
         where s.datoid = (select oid from pg_catalog.pg_database where datname = current_database())
        union all
        select 'publication', pubname::text from pg_catalog.pg_publication
        union all
        select 'subscription', subname::text from pg_catalog.pg_subscription
         where subdbid = (select oid from pg_catalog.pg_database where datname = current_database())
        union all
        select 'prepared transaction', gid from pg_catalog.pg_prepared_xacts where database = current_database()
    ), parsed as (
        select kind, name,
               regexp_match(name, '^shardman_meta_([a-z0-9]{6})(?:_([0-9]{1,9}))?$') as meta,
               regexp_match(name, '^shardman_([a-z0-9]{6})_c([0-9]{1,18})(?:_|$)') as command,
               regexp_match(name, '^shardman_([a-z0-9]{6})_([0-9]{1,9})_([0-9]{1,9})$') as channel
          from named where name like 'shardman\_%'
    )
    select kind, name, coalesce(meta[1], command[1], channel[1]) as cluster, command[2]::bigint as cmd_id,
           meta[2]::int as meta_node, channel[2]::int as channel_from, channel[3]::int as channel_to
      from parsed where coalesce(meta, command, channel) is not null
    union all
    select 'foreign server', srvname::text, (select l.cluster from shardman.local l),
           (regexp_match(srvname, '_c([0-9]{1,18})$'))[1]::bigint, null, null, null
      from pg_catalog.pg_foreign_server where srvname ~ '^shardman_node_[0-9]+(_c[1-9][0-9]{0,17})?$'
    union all
    -- Set aside (x_aside_c5), built beside the real one (shardman_c5_x), or a helper (shardman.log_c5).
    select 'table', shardman.relation_text(n.nspname, c.relname), (select l.cluster from shardman.local l),
           coalesce((regexp_match(c.relname, '_aside_c([0-9]{1,18})$'))[1],
                    (regexp_match(c.relname, '^shardman_c([0-9]{1,18})_'))[1],
                    (regexp_match(c.relname, '_c([0-9]{1,18})$'))[1])::bigint, null, null, null
      from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'f')
       and (c.relname ~ '_aside_c[0-9]{1,18}$' or c.relname ~ '^shardman_c[0-9]{1,18}_'
            or n.nspname = 'shardman' and c.relname ~ '_c[0-9]{1,18}$')
    union all
    select 'function', p.oid::regprocedure::text, (select l.cluster from shardman.local l),
           (regexp_match(p.proname, '_c([0-9]{1,18})$'))[1]::bigint, null, null, null
      from pg_catalog.pg_proc p
     where p.pronamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = 'shardman')
       and p.proname ~ '_c[0-9]{1,18}$'
    union all
    select 'trigger', t.tgname || ' on ' || shardman.metadata_name(t.tgrelid), (select l.cluster from shardman.local l),
           (regexp_match(t.tgname, '_c([0-9]{1,18})(_|$)'))[1]::bigint, null, null, null
      from pg_catalog.pg_trigger t
     where not t.tgisinternal and t.tgname ~ '^~?shardman_.*_c[0-9]{1,18}(_|$)';
comment on view shardman.our_objects is
    'this node: what shardman has made under names of its own, and for which command or channel';

-- As functions: see shardman.differences_here (views/drift.sql).
create or replace function shardman.leftovers_here()
returns table (subject text, kind text, name text, cmd_id bigint, problem text, hint text)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off rows 10 as $$
    with here as (
        select * from shardman.local
    ), objects as (
        select o.*, l.cmd_type, l.status, l.id is not null as known,
               coalesce(l.status in ('waiting', 'in progress'), false) as running,
               -- A channel has one name for its publication, its slot and its subscription.
               exists (select from pg_catalog.pg_replication_slots s where s.slot_name = o.name and s.active)
               or exists (select from pg_catalog.pg_stat_subscription s where s.subname = o.name and s.pid is not null) as in_use
          from shardman.our_objects o left join shardman.cmd_log l on l.id = o.cmd_id
    )
    select o.kind || ' ' || o.name as subject, o.kind, o.name, o.cmd_id,
           case when o.cmd_id is not null and o.cluster = here.cluster
                then format('left by command %s%s', o.cmd_id,
                            case when o.known then format(' (%s, %s)', o.cmd_type, o.status) else ', which is unknown' end)
                when o.cluster is distinct from here.cluster then 'belongs to another cluster'
                else 'belongs to no node that there is' end as problem,
           case when o.cmd_id is not null and o.cluster = here.cluster
                then 'The shardlord removes it once every node that the command concerned is up; if it stays, drop it by hand'
                when o.in_use then 'Something receives by it now: see from where (pg_stat_replication, pg_stat_subscription) before you drop it'
                else 'Drop it by hand if nothing else uses it' end as hint
      from objects o, here
     where here.cluster is not null
       and not case
           when o.cluster is distinct from here.cluster then false
           -- What add_node found, and what a node that was declared dead had, is the user's: see shardman.set_aside.
           when o.cmd_id is not null
               then o.running or (o.kind = 'table' and coalesce(o.cmd_type in ('add_node', 'failover', 'rm_node'), false))
           when o.channel_from is not null then exists (
               select from shardman.partitions p join shardman.partitions r using (part_name)
                where p.prv is null and r.prv is not null and r.stale_since is null and p.owner = o.channel_from and r.owner = o.channel_to)
               or exists (select from shardman.cmd_log l
                           where l.status = 'in progress'
                             and l.cmd_type in ('create_replica', 'rm_replica', 'set_replevel', 'switch_primary', 'suspend_replicas', 'move_part', 'failover', 'rm_node'))
           when o.kind = 'foreign server' then exists (
               select from shardman.nodes n
                where shardman.node_server(n.id) = o.name
                  -- What a removed node held is kept from being looked for elsewhere.
                  and (n.worker_status is distinct from 'removed'
                       or exists (select from shardman.partitions p where p.owner = n.id)))
           when o.kind = 'publication' then here.lord
           when here.lord then exists (
               select from shardman.nodes n
                where n.id = o.meta_node and n.worker_status is distinct from 'removed')
               -- A node that is being added or taken away.
               or exists (select from shardman.cmd_log l
                           where l.cmd_type in ('add_node', 'rm_node') and l.status = 'in progress')
           else o.meta_node = here.node_id
       end
$$;
comment on function shardman.leftovers_here() is 'what the view leftovers shows';

create or replace view shardman.leftovers as
    select l.subject, l.kind, l.name, l.cmd_id, l.problem, l.hint from shardman.leftovers_here() l;
comment on view shardman.leftovers is
    'this node: objects of ours that no running command and no member of the cluster needs';

create or replace view shardman.locked_relations as
    with locked as materialized (
        select distinct l.relation
          from pg_catalog.pg_locks l join pg_catalog.pg_database d on d.oid = l.database
         where d.datname = current_database() and l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
           and l.pid is distinct from pg_catalog.pg_backend_pid()
    )
    select relation from locked
    union select i.indrelid from locked join pg_catalog.pg_index i on i.indexrelid = locked.relation
    union select c.oid from locked join pg_catalog.pg_class c on c.reltoastrelid = locked.relation;
comment on view shardman.locked_relations is
    'this node: tables that somebody has, or wants, for himself alone, by their own locks or an index''s; to ask for their size waits for him';

create or replace view shardman.set_aside as
    select n.nspname::text as schema_name, c.relname::text as table_name, l.id as cmd_id, l.cmd_type, l.ended_at as since,
           case when c.oid not in (select k.relation from shardman.locked_relations k)
                then pg_catalog.pg_total_relation_size(c.oid) end as bytes,
           (select p.part_name from shardman.partitions p
             where p.prv is null and shardman.aside_name(p.part_name, l.id) = c.relname
               and (shardman.relation_parts(p.part_name))[1] = n.nspname) as part_name,
           nullif(c.reltuples, -1)::bigint as rows
      from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      join shardman.cmd_log l on l.id = (regexp_match(c.relname, '_aside_c([0-9]{1,18})$'))[1]::bigint
     where c.relkind = 'r' and l.cmd_type in ('add_node', 'failover', 'rm_node');
comment on view shardman.set_aside is
    'this node: tables that were put aside because what they hold may be nowhere else; drop them, or let shardman clean do '
    'it, when nobody needs them; part_name: the partition they were a copy of, where the cluster has one';
