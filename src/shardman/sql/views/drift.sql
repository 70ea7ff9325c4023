-- Where a node differs from its metadata. shardman.reconcile acts on the column "action".

create or replace view shardman.table_state as
    with wanted as (
        select t.relation, t.definition, t.partitions_count as count, shardman.find_relation(t.relation) as parent
          from shardman.tables t offset 0
    )
    select w.relation, w.parent,
           case when w.parent is null and w.count > (select count(*) from shardman.partitions p where p.relation = w.relation and p.prv is null)
                    then 'the table is missing, as are some of its partitions in the metadata'
                when w.parent is null then coalesce(
                    (select format('it is called %s here: shardman exec --nodes %s ''alter table %s rename to %I''', x.name, shardman.my_id(), x.name,
                                   (shardman.relation_parts(w.relation))[2])
                       from (select shardman.renamed_to(w.relation) as name) as x where x.name is not null),
                    'the table is missing')
                when not shardman.is_parent_of(w.definition, w.parent) then 'another relation has the name of the table'
                else coalesce((select 'its sequences are missing or have another node''s range: ' || string_agg(s.name, ', ' order by s.name)
                        from (select q ->> 'name' as name,
                                     (q ->> 'base')::numeric + l.node_id * (q ->> 'width')::numeric + 1 as low, q as spec
                                from jsonb_array_elements(coalesce(w.definition -> 'sequences', '[]')) q) as s
                        left join pg_catalog.pg_sequence x on x.seqrelid = shardman.find_relation(shardman.owned_here(w.relation, s.name))
                       where x.seqmin is distinct from s.low and not shardman.is_retyped(s.spec, x.seqrelid)),
                      (select 'the table lacks its keys: ' || string_agg(k.name, ', ' order by k.name)
                         from (select l.name from shardman.keys_lacking(w.definition, w.parent) l union all
                               select l.name from shardman.uniques_lacking(w.definition, w.parent) l) as k
                        where not shardman.is_dropped(w.definition ->> 'relation', k.name)),
                      (select 'the table lacks its extended statistics: ' || string_agg(s ->> 'name', ', ' order by s ->> 'name')
                         from shardman.statistics_lacking(w.relation, w.parent) s))
                end as problem
      from wanted w, shardman.local l
     where l.node_id is not null;
comment on view shardman.table_state is 'this node: parents and sequences of the sharded tables; problem is null where all is well';

create or replace view shardman.partition_relations as
    with wanted as (
        select t.relation, t.parts[2] as relname, n.oid as namespace, c.oid as parent,
               coalesce(c.relkind = 'p' and not c.relispartition, false) as made
          from (select relation, shardman.relation_parts(relation) as parts from shardman.tables offset 0) as t
          left join pg_catalog.pg_namespace n on n.nspname = t.parts[1]
          left join pg_catalog.pg_class c on c.oid = shardman.find_relation(t.relation)
    )
    select p.relation, p.part_name, m.k, p.owner, p.changed_at, w.parent, w.made,
           part.oid as partition_oid, part.relkind = 'p' as partitioned,
           data.oid as data, data.reltuples as data_rows, route.oid as route
      from shardman.partitions p
      join wanted w on w.relation = p.relation
     -- offset 0: the number is looked for once, not in each of the joins, where it is most of the time of thousands.
     cross join lateral (select substring(p.part_name from '_([0-9]+)"?$')::int as k offset 0) as m
      left join pg_catalog.pg_class part on part.relnamespace = w.namespace and part.relname = (w.relname || '_' || m.k)::name
      left join pg_catalog.pg_class data on data.relnamespace = w.namespace and data.relname = (w.relname || '_' || m.k || '_data')::name
      left join pg_catalog.pg_class route on route.relnamespace = w.namespace and route.relname = (w.relname || '_' || m.k || '_fdw')::name
     where p.prv is null;
comment on view shardman.partition_relations is
    'this node: the relations that have the names of the partitions, of their data tables and their routes, and of the tables '
    '(made: that is a partitioned table). Found by joins over all of them: a function for each would take ten times as long';

create or replace view shardman.partition_state as
    with placed as (
        select p.relation, p.part_name, p.owner, p.changed_at, p.made, p.k, p.partition_oid,
               p.partitioned and partition_in.inhparent = p.parent as partition_is_ours, p.data, p.route,
               child.inhrelid as child, server.srvname::text as server
          from shardman.partition_relations p
          -- offset 0: by their indexes, one by one. In the transaction that makes thousands of them the planner believes that
          -- the catalogs are as small as before, and would read them as a whole for each partition, for minutes.
          left join lateral (select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = p.partition_oid offset 0) as partition_in on true
          left join lateral (select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = p.partition_oid offset 0) as child on true
          left join lateral (select f.ftserver from pg_catalog.pg_foreign_table f where f.ftrelid = child.inhrelid offset 0) as f on true
          left join pg_catalog.pg_foreign_server server on server.oid = f.ftserver
    ), judged as (
        select p.*,
               case when not p.made then 'no parent'
                    when p.partition_oid is null then 'make partition'
                    when not coalesce(p.partition_is_ours, false) then 'taken'
                    when p.child not in (p.data, p.route) or p.child is not null and p.data is null and p.route is null then 'stranger'
                    when p.owner = l.node_id then
                        case when p.child = p.data then null
                             when p.data is null then case when p.child is null then 'fill missing' else 'no data' end
                             when p.child is null or p.server = 'shardman_missing' then 'attach data'
                             else 'cut-over' end
                    when p.child is null then 'make route'
                    when p.child = p.data then 'cut-over'
                    when p.server is distinct from 'shardman_node_' || p.owner then 'exchange route' end as state
          from placed p, shardman.local l
         where l.node_id is not null
    )
    -- What concerns the whole table is said in table_state.
    select j.relation, j.part_name, j.k, j.owner, j.changed_at, j.partition_oid, j.child, j.server,
           case when j.state in ('make partition', 'attach data', 'fill missing', 'make route', 'exchange route') then j.state end as action,
           case j.state
               when 'make partition' then 'the partition is missing'
               when 'taken' then 'another relation has its name'
               when 'stranger' then 'the partition has neither its data table nor its route'
               when 'no data' then 'the data table is missing, and the primary belongs here: whoever asks for its rows gets an error'
               when 'fill missing' then 'the data table is missing, and the primary belongs here: answers lack its rows'
               when 'attach data' then 'the data table is not in its partition'
               when 'make route' then 'the route is missing'
               when 'exchange route' then format('the route leads to %s, the primary is on node %s', j.server, j.owner)
               when 'cut-over' then case when j.child = j.data then format('the data table is in the partition, and the primary belongs to node %s', j.owner)
                                      else 'the route is in the partition, and the primary belongs here' end
           end as problem,
           case j.state
               when 'taken' then 'Rename that relation or drop it; the partition appears by itself then'
               when 'stranger' then 'Detach what is there'
               when 'no data' then format('Where a replica has its rows, shardman failover %s --part-name %s brings them back; otherwise '
                                          'bring the table back from a backup, or from a copy that was set aside', j.owner, j.part_name)
               when 'cut-over' then 'A running command ends it; if none runs, look at both copies before you detach one'
               when 'make partition' then 'shardman.reconcile() makes it'
               else 'shardman.reconcile() mends it once no transaction holds the partition' end as hint
      from judged j;
comment on view shardman.partition_state is
    'this node: every partition and what is in it; problem is null where all is well, action is what shardman.reconcile does about it';

-- As a function, so that nobody pays for JIT: the planner thinks it dearer than it is, and compiling takes seconds.
create or replace function shardman.differences_here()
returns table (subject text, problem text, since timestamptz, hint text)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off rows 10 as $$
    with found as (
        select s.relation as subject, s.problem, null::timestamptz as since,
               'shardman.reconcile() makes what is missing; see what it says' as hint
          from shardman.table_state s where s.problem is not null
        union all
        select s.relation, s.problem, null, 'shardman.create_shared_table(...), naming a node whose copy is right, makes all copies like that one'
          from shardman.shared_state s where s.problem is not null
        union all
        select s.part_name, string_agg(s.problem, ', ' order by s.problem), null,
               'shardman.reconcile() mends it once no transaction holds what it refers to'
          from shardman.reference_state() s group by s.part_name
        union all
        select s.part_name, s.problem, null, 'shardman.reconcile() mends it once no transaction holds it' from shardman.row_trigger_state() s
        union all
        select s.part_name, s.problem, s.changed_at,
               coalesce(case when s.action = 'exchange route'
                             then 'Until it is exchanged statements are forwarded; it waits for ' || shardman.older_transactions(s.changed_at) end,
                        s.hint)
          from shardman.partition_state s where s.problem is not null
    )
    select coalesce(f.subject, p.subject), concat_ws(': ', f.problem, p.message), least(p.since, f.since),
           coalesce(f.hint,
                    case when p.subject like 'foreign keys of %'
                         then 'Delete or mend the rows that refer to nothing: a trigger that returns NULL keeps them when a foreign key deletes. Tried again after five minutes' end,
                    'shardman.reconcile() tries again')
      from found f full join shardman.problems p on p.subject = f.subject
$$;

create or replace view shardman.drift as
    select d.subject, d.problem, d.since, d.hint from shardman.differences_here() d;
comment on view shardman.drift is 'this node: where it differs from the metadata, why, since when, and what to do';
