-- All that our schema is made of, one line a thing, the same however it came about.
select 'routine ' || p.oid::regprocedure as thing,
       jsonb_build_object(
           'arguments', pg_get_function_arguments(p.oid), 'result', pg_get_function_result(p.oid), 'kind', p.prokind,
           'body', p.prosrc, 'language', p.prolang::regproc::text, 'volatile', p.provolatile, 'parallel', p.proparallel,
           'strict', p.proisstrict, 'definer', p.prosecdef, 'cost', p.procost, 'rows', p.prorows,
           'settings', (select array_agg(s order by s) from unnest(p.proconfig) s), 'acl', p.proacl::text,
           'comment', obj_description(p.oid, 'pg_proc')) as what
  from pg_proc p where p.pronamespace = 'shardman'::regnamespace
union all
select 'relation ' || c.relname,
       jsonb_build_object(
           'kind', c.relkind, 'persistence', c.relpersistence, 'options', c.reloptions, 'acl', c.relacl::text, 'identity', c.relreplident,
           'security', c.relrowsecurity, 'definition', case when c.relkind = 'v' then pg_get_viewdef(c.oid)
                                                            when c.relkind = 'i' then pg_get_indexdef(c.oid) end,
           'comment', obj_description(c.oid, 'pg_class'))
  from pg_class c where c.relnamespace = 'shardman'::regnamespace and c.relkind in ('r', 'v', 'i', 'S', 'f', 'p')
union all
select format('column %s.%s', c.relname, a.attname),
       jsonb_build_object(
           -- The order of columns may differ; what replication and our queries go by is the name.
           'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull, 'identity', a.attidentity,
           'generated', a.attgenerated, 'collation', a.attcollation::regcollation::text, 'acl', a.attacl::text,
           'default', pg_get_expr(d.adbin, d.adrelid), 'comment', col_description(c.oid, a.attnum))
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relnamespace = 'shardman'::regnamespace and c.relkind in ('r', 'v', 'f', 'p', 'c')
union all
select format('constraint %s on %s%s', n.conname, n.conrelid::regclass, n.contypid::regtype),
       jsonb_build_object('definition', pg_get_constraintdef(n.oid), 'validated', n.convalidated, 'comment', obj_description(n.oid, 'pg_constraint'))
  from pg_constraint n where n.connamespace = 'shardman'::regnamespace
union all
select format('trigger %s on %s', t.tgname, t.tgrelid::regclass),
       jsonb_build_object('definition', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled, 'comment', obj_description(t.oid, 'pg_trigger'))
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where c.relnamespace = 'shardman'::regnamespace and not t.tgisinternal
union all
select 'type ' || y.typname,
       jsonb_build_object('kind', y.typtype, 'labels', (select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = y.oid),
                          'acl', y.typacl::text, 'comment', obj_description(y.oid, 'pg_type'))
  from pg_type y where y.typnamespace = 'shardman'::regnamespace and y.typtype in ('e', 'd', 'c') and y.typname !~ '^_'
union all
select 'schema', jsonb_build_object('acl', n.nspacl::text, 'comment', obj_description(n.oid, 'pg_namespace'))
  from pg_namespace n where n.nspname = 'shardman'
