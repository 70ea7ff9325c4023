-- What must be the same on every node, and on every copy of a partition: `shardman check` and `shardman status` compare it.
-- Sets, not one function a table: a node may have thousands of copies, and status looks each time.

create or replace function shardman.shaped_relations() returns table (relation text, kind text, name text, rel oid, called text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with wanted as (
        select t.relation, t.parts[2] as relname, n.oid as namespace, n.nspname
          from (select relation, shardman.relation_parts(relation) as parts from shardman.tables offset 0) as t
          join pg_namespace n on n.nspname = t.parts[1]
    )
    select w.relation, 'table', w.relation, c.oid, format('%I.%I', n.nspname, c.relname)
      from wanted w join pg_class c on c.oid = shardman.find_relation(w.relation) join pg_namespace n on n.oid = c.relnamespace
    union all
    select w.relation, 'copy', p.part_name, d.oid, format('%I.%I', w.nspname, d.relname)
      from wanted w
      join shardman.partitions p on p.relation = w.relation and p.owner = shardman.my_id() and p.stale_since is null
     -- By its index, one by one: see shardman.partition_state.
     cross join lateral (
           select c.oid, c.relname from pg_class c
            where c.relnamespace = w.namespace
              and c.relname = (w.relname || '_' || substring(p.part_name from '_([0-9]+)"?$') || '_data')::name offset 0) as d
$$;
comment on function shardman.shaped_relations() is
    'this node: its sharded tables (kind table) and the data tables of its copies that are in use or follow (kind copy, named as the '
    'partition); called: as PostgreSQL writes it in definitions';

create or replace function shardman.schema_items() returns table (rel oid, aspect text, item text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with s as materialized (select * from shardman.shaped_relations())
    select s.rel, 'columns',
           concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                     case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end,
                     case when a.attnotnull then 'not null' end,
                     case when a.attgenerated <> '' then 'generated as ' || pg_get_expr(d.adbin, d.adrelid)
                          -- Rows are written through the table: only its defaults count.
                          when s.kind = 'table' then 'default ' || pg_get_expr(d.adbin, d.adrelid) end)
      from s join pg_attribute a on a.attrelid = s.rel and a.attnum > 0 and not a.attisdropped
      join pg_type t on t.oid = a.atttypid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    union all
    select s.rel, 'constraints', replace(pg_get_constraintdef(o.oid), ' NO INHERIT', '')
      from s join pg_constraint o on o.conrelid = s.rel
     -- Foreign keys are primaries' alone: see shardman.reference_state.
     where o.contype in ('c', 'p', 'u', 'x') and o.conname <> 'shardman_partition'
    union all
    select s.rel, 'indexes',
           concat_ws(' ', case when x.indisunique then 'unique' end, case when not x.indisvalid then 'invalid' end, 'index',
                     substr(pg_get_indexdef(x.indexrelid),
                            length(format('CREATE %sINDEX %I ON %s%s ', case when x.indisunique then 'UNIQUE ' else '' end, i.relname,
                                          case s.kind when 'table' then 'ONLY ' else '' end, s.called)) + 1))
      from s join pg_index x on x.indrelid = s.rel join pg_class i on i.oid = x.indexrelid
     where not exists (select from pg_constraint o where o.conindid = x.indexrelid and o.contype in ('p', 'u', 'x'))
    union all
    -- Those of data tables are primaries' alone: see shardman.row_trigger_state.
    select s.rel, 'triggers',
           replace(pg_get_triggerdef(g.oid), ' ON ' || s.called || ' ', ' ')
           || case g.tgenabled when 'O' then '' when 'D' then ' (disabled)' when 'R' then ' (replica)' else ' (always)' end
      from s join pg_trigger g on g.tgrelid = s.rel join pg_proc f on f.oid = g.tgfoid
     where s.kind = 'table' and not g.tgisinternal and g.tgparentid = 0 and f.pronamespace <> 'shardman'::regnamespace
    union all
    select s.rel, 'rules', replace(pg_get_ruledef(r.oid), s.called, '') || case r.ev_enabled when 'O' then '' else ' (' || r.ev_enabled::text || ')' end
      from s join pg_rewrite r on r.ev_class = s.rel
    union all
    select s.rel, 'extended statistics',
           concat_ws(' ', case when s.kind = 'table' then quote_ident(e.stxname) end, (select string_agg(k::text, '' order by k) from unnest(e.stxkind) as k),
                     pg_get_statisticsobjdef_columns(e.oid), 'target ' || nullif((to_jsonb(e) ->> 'stxstattarget')::int, -1),
                     case when s.kind = 'table' then 'is ' || quote_literal(obj_description(e.oid, 'pg_statistic_ext')) end)
      from s join pg_statistic_ext e on e.stxrelid = s.rel
    union all
    select s.rel, 'storage', 'unlogged' from s join pg_class c on c.oid = s.rel where c.relpersistence <> 'p'
    union all
    select s.rel, 'storage', concat_ws(' ', nullif(t.kind, 'option'), quote_ident(nullif(t.col, '')), nullif(t.name, ''), 'is', t.value)
      from s join shardman.tuning t on t.rel = s.rel where s.kind = 'copy'
    union all
    -- What others have made, but decides which rows a table takes and what is in them.
    select distinct s.rel, 'types',
           concat_ws(' ', format_type(t.oid, null),
                     (select 'enum ' || string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
                     case when t.typtype = 'd' then 'domain over ' || format_type(t.typbasetype, t.typtypmod) end,
                     (select string_agg(pg_get_constraintdef(o.oid), ', ' order by o.conname) from pg_constraint o where o.contypid = t.oid and o.contype = 'c'),
                     (select '(' || string_agg(quote_ident(f.attname) || ' ' || format_type(f.atttypid, f.atttypmod), ', ' order by f.attnum) || ')'
                        from pg_attribute f where f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped and t.typtype = 'c'))
      from s join pg_attribute a on a.attrelid = s.rel and a.attnum > 0 and not a.attisdropped
      join pg_type c on c.oid = a.atttypid left join pg_type l on l.oid = c.typelem
      join pg_type t on t.oid in (c.oid, c.typelem, c.typbasetype, l.typbasetype) and t.typtype in ('e', 'd', 'c')
     where s.kind = 'table' and t.typnamespace <> 'pg_catalog'::regnamespace
    union all
    select distinct s.rel, 'functions', concat_ws(' ', p.oid::regprocedure::text, l.lanname, md5(coalesce(p.prosrc, '')))
      from s cross join lateral (
           select 'pg_constraint'::regclass as classid, o.oid as objid from pg_constraint o where o.conrelid = s.rel
           union all
           select 'pg_attrdef'::regclass, d.oid from pg_attrdef d where d.adrelid = s.rel
           union all
           select 'pg_policy'::regclass, y.oid from pg_policy y where y.polrelid = s.rel) as u
      join pg_depend d on d.classid = u.classid and d.objid = u.objid and d.refclassid = 'pg_proc'::regclass
      join pg_proc p on p.oid = d.refobjid join pg_language l on l.oid = p.prolang
     where s.kind = 'table' and p.pronamespace not in ('pg_catalog'::regnamespace, 'shardman'::regnamespace)
       -- Those of an extension are of its version.
       and l.lanname not in ('c', 'internal')
    union all
    -- Those of triggers are there before a row comes.
    select distinct s.rel, 'functions', concat_ws(' ', shardman.trigger_function(i), coalesce(md5(p.prosrc), 'is missing'))
      from s cross join lateral jsonb_array_elements(shardman.known_row_triggers(s.relation) -> 'items') i
      left join pg_proc p on p.oid = to_regprocedure(shardman.trigger_function(i))
     where s.kind = 'table'
    union all
    select s.rel, 'comments', concat_ws(' ', 'of', o.what, o.name, 'is', quote_literal(o.said))
      from s cross join lateral (
           select 'the table', null, obj_description(s.rel, 'pg_class')
           union all
           select 'column', quote_ident(a.attname), col_description(s.rel, a.attnum)
             from pg_attribute a where a.attrelid = s.rel and a.attnum > 0 and not a.attisdropped
           union all
           select 'constraint', quote_ident(c.conname), obj_description(c.oid, 'pg_constraint') from pg_constraint c where c.conrelid = s.rel
           union all
           select 'index', i.indexrelid::regclass::text, obj_description(i.indexrelid, 'pg_class') from pg_index i where i.indrelid = s.rel
           union all
           select 'policy', quote_ident(p.polname), obj_description(p.oid, 'pg_policy') from pg_policy p where p.polrelid = s.rel) as o (what, name, said)
     where s.kind = 'table' and o.said is not null
    union all
    -- What belongs to a table follows the rights on it, on each node for itself: see 57_rights.sql.
    select s.rel, 'rights', 'owner ' || pg_get_userbyid(c.relowner) from s join pg_class c on c.oid = s.rel where s.kind = 'table'
    union all
    select s.rel, 'rights',
           concat_ws(' ', p.privilege, '(' || quote_ident(p.column_name) || ')', 'to',
                     case p.grantee when 0 then 'public' else pg_get_userbyid(p.grantee)::text end, case when p.grantable then 'with grant option' end)
      from s cross join lateral shardman.privileges_of(s.rel) p
     -- 17 and newer have it; an older node cannot.
     where s.kind = 'table' and p.privilege <> 'MAINTAIN'
    union all
    select s.rel, 'policies', case when c.relrowsecurity then 'enabled' else 'not enabled' end || case when c.relforcerowsecurity then ', forced' else '' end
      from s join pg_class c on c.oid = s.rel where s.kind = 'table'
    union all
    select s.rel, 'policies',
           concat_ws(' ', quote_ident(p.name), p.head, 'to',
                     (select string_agg(case r when 0 then 'public' else pg_get_userbyid(r)::text end, ', ' order by pg_get_userbyid(r))
                        from unnest(p.roles) r),
                     'using (' || p.using_ || ')', 'with check (' || p.check_ || ')')
      from s cross join lateral shardman.policies_of(s.rel) p where s.kind = 'table'
$$;
comment on function shardman.schema_items() is
    'this node: everything about shardman.shaped_relations that must be the same elsewhere, as texts to compare, by aspect';

create or replace function shardman.shapes() returns table (relation text, kind text, aspect text, items text[], names text[])
language sql stable set search_path = pg_catalog, pg_temp set jit = off rows 100 as $$
    with items as materialized (
        select i.rel, i.aspect, array_agg(i.item order by i.item collate "C") as items from shardman.schema_items() i group by 1, 2
    ), found as (
        select s.relation, s.kind, s.name, a.aspect, coalesce(i.items, '{}') as items
          from shardman.shaped_relations() s
         cross join unnest(array['columns', 'constraints', 'indexes', 'triggers', 'rules', 'extended statistics', 'storage', 'rights',
                                 'policies', 'comments', 'types', 'functions']) as a (aspect)
          left join items i on i.rel = s.rel and i.aspect = a.aspect
    )
    select f.relation, f.kind, f.aspect, f.items, array_agg(f.name order by f.name) from found f group by 1, 2, 3, 4
$$;
comment on function shardman.shapes() is
    'this node: what its sharded tables (kind table) and copies of partitions (kind copy) look like; those that look the same are one row';
