-- What shardman distribute reads of a node's database. Names of columns and constraints are written as in SQL.

-- name: tables
-- Those of the user's own; what our partitions consist of, and what belongs to an extension, is none.
select shardman.metadata_name(c.oid) as name, c.relkind = 'p' and s.relation is null as partitioned,
       case when s.relation is not null then 'sharded' when h.relation is not null then 'shared' else 'plain' end as state,
       s.expr as by, s.partitions_count as partitions,
       coalesce((select g.relation from shardman.tables g
                  where (to_jsonb(g) ->> 'colocation') = (to_jsonb(s) ->> 'colocation') order by g.relation limit 1), s.relation) as "group",
       (select coalesce(sum(pg_total_relation_size(i.relid)), 0)::bigint from pg_partition_tree(c.oid) i)
           + case when c.relkind = 'r' then pg_total_relation_size(c.oid) else 0 end as bytes,
       greatest(c.reltuples, 0)::bigint as rows,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'name', quote_ident(a.attname), 'type', format_type(a.atttypid, null), 'nullable', not a.attnotnull,
                   -- As shardman.probed_key finds out, of an expression too.
                   'shardable', t.typtype in ('b', 'r') and not t.typcategory in ('E', 'X') and t.typname not in ('json', 'xml', 'point')
                                and coalesce(l.collisdeterministic, true)) order by a.attnum), '[]')
          from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_collation l on l.oid = a.attcollation
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
       (select coalesce(jsonb_agg(jsonb_build_object(
                   'name', quote_ident(x.relname), 'primary', i.indisprimary, 'constraint', o.oid is not null,
                   'simple', i.indexprs is null and i.indpred is null and coalesce(o.contype in ('p', 'u') and not o.condeferrable, true)
                             and i.indnatts = i.indnkeyatts and i.indoption::text !~ '[^0 ]'
                             and coalesce(not (to_jsonb(i) ->> 'indnullsnotdistinct')::bool, true),
                   'columns', (select coalesce(jsonb_agg(quote_ident(a.attname) order by k.n), '[]')
                                 from unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
                                 join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum and k.attnum > 0
                                where k.n <= i.indnkeyatts)) order by not i.indisprimary, x.relname), '[]')
          from pg_index i join pg_class x on x.oid = i.indexrelid
          left join pg_constraint o on o.conindid = i.indexrelid and o.contype in ('p', 'u') and o.conrelid = c.oid
         where i.indrelid = c.oid and i.indisunique and i.indisvalid) as keys
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  left join shardman.tables s on s.relation = shardman.metadata_name(c.oid) and c.relkind = 'p'
  left join shardman.shared_tables h on h.relation = shardman.metadata_name(c.oid)
 where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'shardman')
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
   and not exists (select from shardman.partitions p
                    where shardman.metadata_name(c.oid) in (p.part_name, shardman.data_table(p.part_name), shardman.route_table(p.part_name)))
   and c.relname !~ '_aside_c[0-9]{1,18}$'
 order by 1

-- name: foreign_keys
select quote_ident(o.conname) as name, shardman.metadata_name(o.conrelid) as "table", shardman.metadata_name(o.confrelid) as target,
       pg_get_constraintdef(o.oid) as definition, false as dropped,
       o.convalidated and coalesce((to_jsonb(o) ->> 'conenforced')::bool, true) as sound,
       array(select quote_ident(a.attname) from unnest(o.conkey) with ordinality as k (attnum, n)
               join pg_attribute a on a.attrelid = o.conrelid and a.attnum = k.attnum order by n) as columns,
       array(select quote_ident(a.attname) from unnest(o.confkey) with ordinality as k (attnum, n)
               join pg_attribute a on a.attrelid = o.confrelid and a.attnum = k.attnum order by n) as target_columns,
       array(select quote_ident(a.attname)
               from unnest(case when o.confupdtype in ('c', 'n', 'd') then o.conkey
                                when o.confdeltype in ('n', 'd') then coalesce(o.confdelsetcols, o.conkey) end) as k (attnum)
               join pg_attribute a on a.attrelid = o.conrelid and a.attnum = k.attnum) as writes
  from pg_constraint o join pg_class c on c.oid = o.conrelid
 where o.contype = 'f' and o.conparentid = 0 and not c.relispartition and shardman.metadata_name(o.conrelid) = any (%(tables)s)
union all
select quote_ident(d.name), d.relation, d.referred, d.definition, true, true,
       array(select quote_ident(c) from unnest(d.columns) with ordinality as u (c, n) order by n),
       array(select quote_ident(c) from unnest(d.to_columns) with ordinality as u (c, n) order by n), '{}'
  from shardman.dropped_references d
 where not exists (select from pg_constraint o where o.contype = 'f' and o.conname = d.name and o.conrelid = shardman.find_relation(d.relation))
 order by 2, 1

-- name: obstacles
select o ->> 'what' as what, o ->> 'hint' as hint, o ->> 'do' as "do" from shardman.obstacles_to(%s, %s, %s, %s) as o

-- name: has_statements
select shardman.relation_text(n.nspname, c.relname) as name
  from pg_extension e join pg_class c on c.relname = 'pg_stat_statements' and c.relkind = 'v' join pg_namespace n on n.oid = c.relnamespace
 where e.extname = 'pg_stat_statements' and e.extnamespace = n.oid
   and current_setting('shared_preload_libraries') ~ 'pg_stat_statements'

-- name: workers
select count(*) as count from shardman.nodes where worker_status = 'active'

-- name: normal
select shardman.normal_name(%s) as name

-- name: drop_key
select shardman.drop_reference(%s, (parse_ident(%s))[1]::name)

-- name: forget_key
select shardman.forget_reference(%s, (parse_ident(%s))[1]::name)

-- name: sql_name
select shardman.sql_name(%s) as name

-- name: has_key
select true as has from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
 where t.relation = %s and quote_ident(f ->> 'name') = %s

-- name: objects
select coalesce(jsonb_agg(to_jsonb(o)), '[]') as objects from shardman.spread_objects() o

-- name: make_objects
select shardman.make_objects(%s) as failed
