-- name: digests
-- One number for the content of each replicated table. Times are left out: each node has its own.
select 'nodes' as name, coalesce(sum(hashtextextended(
           row(id, connstring, worker_status, lord, added_by, options, system_id, zone, draining, away_until)::text, 0)), 0)::text as digest
  from shardman.nodes
union all
select 'tables', coalesce(sum(hashtextextended(
           row(relation, expr, partitions_count, create_sql, initial_node, definition, replevel, sync)::text, 0)), 0)::text
  from shardman.tables
union all
select 'partitions', coalesce(sum(hashtextextended(
           row(part_name, owner, prv, nxt, relation, extract(epoch from stale_since))::text, 0)), 0)::text
  from shardman.partitions
union all
select 'settings', coalesce(sum(hashtextextended(row(name, value)::text, 0)), 0)::text
  from shardman.settings
union all
select 'cmd_log', coalesce(sum(hashtextextended(
           row(id, cmd_type, status, error, result, parent, submitted_by)::text, 0)), 0)::text
  from shardman.cmd_log
union all
select 'cmd_opts', coalesce(sum(hashtextextended(row(id, cmd_id, opt)::text, 0)), 0)::text
  from shardman.cmd_opts

-- name: placed
select p.part_name, part.oid is not null as partition, data.oid is not null as data,
       coalesce((select array_agg(case c.oid when data.oid then 'data' when route.oid then 'route'
                                  else shardman.relation_text(n.nspname, c.relname) end order by c.oid)
                   from pg_catalog.pg_inherits i
                   join pg_catalog.pg_class c on c.oid = i.inhrelid
                   join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                  where i.inhparent = part.oid), '{}') as attached,
       server.name as server, (regexp_match(server.name, '^shardman_node_([0-9]+)$'))[1]::int as leads_to
  from (select distinct part_name from shardman.partitions) as p,
       lateral (select shardman.find_relation(p.part_name) as oid offset 0) as part,
       lateral (select shardman.find_relation(shardman.data_table(p.part_name)) as oid offset 0) as data,
       lateral (select shardman.find_relation(shardman.route_table(p.part_name)) as oid offset 0) as route
  left join lateral (
       select s.srvname::text as name
         from pg_catalog.pg_foreign_table f join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
        where f.ftrelid = route.oid) as server on true

-- name: ranges
select q.name, s.seqmin, s.seqmax
  from shardman.tables t
 cross join lateral jsonb_to_recordset(coalesce(t.definition -> 'sequences', '[]')) as q (name text)
  left join pg_catalog.pg_sequence s on s.seqrelid = shardman.find_relation(shardman.owned_here(t.relation, q.name))

-- name: faults
select subject, problem, hint from shardman.drift
union all
select subject, problem, hint from shardman.leftovers
union all
select subject, problem, hint from shardman.parts_in_doubt
union all
select 'synchronous_standby_names', 'commits on this node do not wait for ' || c.name, 'set_replevel with the table''s level puts it right'
  from unnest(shardman.synchronous_channels(shardman.my_id())) as c (name)
 where strpos(current_setting('synchronous_standby_names'), '"' || c.name || '"') = 0

union all
select format('channel from node %s to node %s', f.src, f.dest), f.fault || coalesce(format(' (%s)', f.part), ''),
       'The shardlord gives up the replicas that it feeds and brings them up to date anew'
  from shardman.channel_faults() f

-- name: busy
-- What the arguments of running commands name: partitions and relations.
select distinct o.opt as name
  from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id
 where l.status = 'in progress' and o.opt is not null
