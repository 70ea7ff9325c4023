-- Where a node differs from its metadata. shardman.reconcile acts on the column "action".

create or replace view shardman.table_state as
    with wanted as (
        select t.relation, t.definition, t.partitions_count as count, shardman.find_relation(t.relation) as parent
          from shardman.tables t offset 0
    )
    select w.relation, w.parent,
           case when w.parent is null and w.count > (select count(*) from shardman.partitions p where p.relation = w.relation and p.prv is null)
                    then 'the table is missing, as are some of its partitions in the metadata'
                when w.parent is null then 'the table is missing'
                when not shardman.is_parent_of(w.definition, w.parent) then 'another relation has the name of the table'
                else (select 'its sequences are missing or have another node''s range: ' || string_agg(s.name, ', ' order by s.name)
                        from (select q ->> 'name' as name,
                                     (q ->> 'base')::numeric + l.node_id * (q ->> 'width')::numeric + 1 as low
                                from jsonb_array_elements(coalesce(w.definition -> 'sequences', '[]')) q) as s
                        left join pg_catalog.pg_sequence x on x.seqrelid = shardman.find_relation(s.name)
                       where x.seqmin is distinct from s.low)
                end as problem
      from wanted w, shardman.local l
     where l.node_id is not null;
comment on view shardman.table_state is 'this node: parents and sequences of the sharded tables; problem is null where all is well';

create or replace view shardman.partition_state as
    with wanted as (
        select t.relation, t.parts[1] as schema_name, t.parts[2] as relname, n.oid as namespace, c.oid as parent,
               coalesce(c.relkind = 'p' and not c.relispartition, false) as made
          from (select relation, shardman.relation_parts(relation) as parts from shardman.tables offset 0) as t
          left join pg_catalog.pg_namespace n on n.nspname = t.parts[1]
          left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.parts[2]
    ), placed as (
        select p.relation, p.part_name, p.owner, p.changed_at, w.parent, w.made, m.k, slot.oid as slot,
               slot.relkind = 'p' and slot_in.inhparent = w.parent as slot_is_ours,
               data.oid as data, route.oid as route,
               child.inhrelid as child, server.srvname::text as server
          from shardman.partitions p
          join wanted w on w.relation = p.relation
         cross join lateral (select substring(p.part_name from '_([0-9]+)"?$')::int as k) as m
          left join pg_catalog.pg_class slot on slot.relnamespace = w.namespace and slot.relname = (w.relname || '_' || m.k)::name
          left join pg_catalog.pg_inherits slot_in on slot_in.inhrelid = slot.oid
          left join pg_catalog.pg_inherits child on child.inhparent = slot.oid
          left join pg_catalog.pg_class data on data.relnamespace = w.namespace and data.relname = (w.relname || '_' || m.k || '_data')::name
          left join pg_catalog.pg_class route on route.relnamespace = w.namespace and route.relname = (w.relname || '_' || m.k || '_fdw')::name
          left join pg_catalog.pg_foreign_table f on f.ftrelid = child.inhrelid
          left join pg_catalog.pg_foreign_server server on server.oid = f.ftserver
         where p.prv is null
    ), judged as (
        select p.*,
               case when not p.made then 'no parent'
                    when p.slot is null then 'make slot'
                    when not coalesce(p.slot_is_ours, false) then 'taken'
                    when p.child not in (p.data, p.route) or p.child is not null and p.data is null and p.route is null then 'stranger'
                    when p.owner = l.node_id then
                        case when p.child = p.data then null
                             when p.data is null then 'no data'
                             when p.child is null then 'attach data'
                             else 'fence' end
                    when p.child is null then 'make route'
                    when p.child = p.data then 'fence'
                    when p.server is distinct from 'shardman_node_' || p.owner then 'exchange route' end as state
          from placed p, shardman.local l
         where l.node_id is not null
    )
    -- What concerns the whole table is said in table_state.
    select j.relation, j.part_name, j.k, j.owner, j.changed_at, j.slot, j.child, j.server,
           case when j.state in ('make slot', 'attach data', 'make route', 'exchange route') then j.state end as action,
           case j.state
               when 'make slot' then 'the slot is missing'
               when 'taken' then 'another relation has its name'
               when 'stranger' then 'the slot has neither its data table nor its route'
               when 'no data' then 'the data table is missing, and the primary belongs here'
               when 'attach data' then 'the data table is not in its slot'
               when 'make route' then 'the route is missing'
               when 'exchange route' then format('the route leads to %s, the primary is on node %s', j.server, j.owner)
               when 'fence' then case when j.child = j.data then format('the data table is in the slot, and the primary belongs to node %s', j.owner)
                                      else 'the route is in the slot, and the primary belongs here' end
           end as problem,
           case j.state
               when 'taken' then 'Rename that relation or drop it; the partition appears by itself then'
               when 'stranger' then 'Detach what is there'
               when 'no data' then 'Bring it back from a backup, or from a copy that was set aside'
               when 'fence' then 'A running command ends it; if none runs, look at both copies before you detach one'
               when 'make slot' then 'shardman.reconcile() makes it'
               else 'shardman.reconcile() mends it once no transaction holds the partition' end as hint
      from judged j;
comment on view shardman.partition_state is
    'this node: every partition and what is in its slot; problem is null where all is well, action is what shardman.reconcile does about it';

-- As a function, so that nobody pays for JIT: the planner thinks it dearer than it is, and compiling takes seconds.
create or replace function shardman.differences_here()
returns table (subject text, problem text, since timestamptz, hint text)
language sql volatile set search_path = pg_catalog set jit = off rows 10 as $$
    with found as (
        select s.relation as subject, s.problem, null::timestamptz as since,
               'shardman.reconcile() makes what is missing; see what it says' as hint
          from shardman.table_state s where s.problem is not null
        union all
        select s.part_name, s.problem, s.changed_at,
               coalesce(case when s.action = 'exchange route'
                             then 'Until it is exchanged statements are forwarded; it waits for ' || shardman.older_transactions(s.changed_at) end,
                        s.hint)
          from shardman.partition_state s where s.problem is not null
    )
    select coalesce(f.subject, p.subject), concat_ws(': ', f.problem, p.message), least(p.since, f.since),
           coalesce(f.hint, 'shardman.reconcile() tries again')
      from found f full join shardman.problems p on p.subject = f.subject
$$;

create or replace view shardman.drift as
    select d.subject, d.problem, d.since, d.hint from shardman.differences_here() d;
comment on view shardman.drift is 'this node: where it differs from the metadata, why, since when, and what to do';
