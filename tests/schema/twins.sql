-- What clients find in the catalogs about the tables, views, functions and types of some schemas: text, one line each.
with shown as (
    -- On a cluster the parents: no partitions, and no replicas, which have the constraint shardman_partition.
    select c.*, n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = any (%(schemas)s) and c.relkind in ('r', 'p') and not c.relispartition
       and not exists (select from pg_constraint o where o.conrelid = c.oid and o.conname = 'shardman_partition')
), attributes as (
    select s.relname, s.oid as rel, a.*, row_number() over (partition by s.oid order by a.attnum) as place
      from shown s join pg_attribute a on a.attrelid = s.oid where a.attnum > 0 and not a.attisdropped
)
select concat_ws(' ', 'table', s.nspname, s.relname, pg_get_userbyid(s.relowner),
                 'rls', s.relrowsecurity, s.relforcerowsecurity, obj_description(s.oid, 'pg_class'),
                 (select string_agg(x::text, ',' order by x::text) from unnest(s.relacl) x))
  from shown s
union all
select concat_ws(' ', 'column', relname, place, quote_ident(attname), format_type(atttypid, atttypmod), case when attnotnull then 'not null' end,
                 case when attgenerated = '' then 'default' else 'generated' end, pg_get_expr(d.adbin, d.adrelid),
                 attcollation::regcollation, attstorage, nullif(coalesce(attstattarget, -1), -1),
                 -- The newest minor releases keep a value of their own there.
                 (select array_agg(o) from unnest(attoptions) o where o !~ '^pg_attver='), attacl::text,
                 col_description(rel, attnum))
  from attributes left join pg_attrdef d on d.adrelid = rel and d.adnum = attnum
union all
-- The foreign keys of a sharded table are of its data tables (docs/weak-sides.md), as are what NOT NULL is called from 18 on.
select concat_ws(' ', 'constraint', s.relname, quote_ident(o.conname), pg_get_constraintdef(o.oid), o.convalidated, obj_description(o.oid, 'pg_constraint'))
  from shown s join pg_constraint o on o.conrelid = s.oid
 where o.contype in ('c', 'p', 'u', 'x') or o.contype = 'f' and s.relname ~ %(shared)s
union all
select concat_ws(' ', 'index', s.relname, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON '), i.indisprimary,
                 obj_description(i.indexrelid, 'pg_class'))
  from shown s join pg_index i on i.indrelid = s.oid
union all
select concat_ws(' ', 'statistics', s.relname, n.nspname, e.stxname, pg_get_userbyid(e.stxowner), pg_get_statisticsobjdef_columns(e.oid), e.stxkind::text,
                 nullif(coalesce(e.stxstattarget, -1), -1), obj_description(e.oid, 'pg_statistic_ext'))
  from shown s join pg_statistic_ext e on e.stxrelid = s.oid join pg_namespace n on n.oid = e.stxnamespace
union all
select concat_ws(' ', 'policy', s.relname, p.polname, p.polcmd, p.polpermissive, pg_get_expr(p.polqual, s.oid),
                 pg_get_expr(p.polwithcheck, s.oid), (select string_agg(r::regrole::text, ',' order by r) from unnest(p.polroles) r),
                 obj_description(p.oid, 'pg_policy'))
  from shown s join pg_policy p on p.polrelid = s.oid
union all
-- Those of a sharded table are on its data tables, of which each worker has some.
select distinct concat_ws(' ', 'trigger', s.relname, t.tgname, t.tgenabled, f.proname, obj_description(t.oid, 'pg_trigger'))
  from shown s join pg_trigger t on t.tgrelid = s.oid
       or t.tgrelid in (select d.inhrelid from pg_inherits p join pg_inherits d on d.inhparent = p.inhrelid where p.inhparent = s.oid)
  join pg_proc f on f.oid = t.tgfoid
 where not t.tgisinternal and t.tgname !~ '^(!|A_|~)?shardman_'
union all
select concat_ws(' ', 'view', c.relname, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'), c.relacl::text)
  from pg_class c where c.relkind = 'v' and c.relnamespace::regnamespace::text = any (%(schemas)s)
union all
select concat_ws(' ', 'function', pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'), p.proacl::text)
  from pg_proc p where p.pronamespace::regnamespace::text = any (%(schemas)s) and p.proname !~ '_shared$'
union all
select concat_ws(' ', 'type', t.typname, t.typtype, obj_description(t.oid, 'pg_type'),
                 (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
                 (select string_agg(pg_get_constraintdef(o.oid), ',' order by o.conname) from pg_constraint o where o.contypid = t.oid))
  from pg_type t where t.typnamespace::regnamespace::text = any (%(schemas)s) and t.typtype in ('e', 'd')
order by 1
