-- name: laid
-- Our routines and views, and where their rows are: laying one anew writes its row anew, even if nothing has changed.
-- What a command makes for itself bears its number (see the view our_objects) and is not ours to drop.
select 'pg_proc' as catalog, p.oid::bigint as oid, p.ctid::text as place
  from pg_catalog.pg_proc p
 where p.pronamespace = pg_catalog.to_regnamespace('shardman') and p.proname !~ '_c[0-9]{1,18}$'
   -- Nor is what an extension has there.
   and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
                      and d.deptype = 'e')
union all
select 'pg_class', c.oid::bigint, r.ctid::text
  from pg_catalog.pg_class c join pg_catalog.pg_rewrite r on r.ev_class = c.oid and r.rulename = '_RETURN'
 where c.relnamespace = pg_catalog.to_regnamespace('shardman') and c.relkind = 'v'

-- name: named
-- All that has one name, whatever its arguments.
select 'pg_proc' as catalog, p.oid::bigint as oid
  from pg_catalog.pg_proc p where p.pronamespace = 'shardman'::pg_catalog.regnamespace and p.proname = %(name)s
union all
select 'pg_class', c.oid::bigint
  from pg_catalog.pg_class c
 where c.relnamespace = 'shardman'::pg_catalog.regnamespace and c.relkind = 'v' and c.relname = %(name)s

-- name: users
-- Some routines and views of ours and all that would go with them: whether it is ours as well.
with recursive gone (classid, objid) as (
    select o.classid, o.objid
      from (select 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, o::oid from unnest(%(routines)s::bigint[]) as o
            union all select 'pg_catalog.pg_class'::pg_catalog.regclass::oid, o::oid from unnest(%(views)s::bigint[]) as o) as o (classid, objid)
    union
    -- A view depends on what it uses through its rule.
    select case when r.oid is null then d.classid else 'pg_catalog.pg_class'::pg_catalog.regclass end, coalesce(r.ev_class, d.objid)
      from gone g
      join pg_catalog.pg_depend d on d.refclassid = g.classid and d.refobjid = g.objid
      left join pg_catalog.pg_rewrite r on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and r.oid = d.objid
)
select pg_catalog.pg_describe_object(g.classid, g.objid, 0) as what, t.oid is not null as is_trigger,
       coalesce(p.pronamespace, c.relnamespace, y.typnamespace, tc.relnamespace)
           is not distinct from 'shardman'::pg_catalog.regnamespace as ours
  from gone g
  left join pg_catalog.pg_proc p on g.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = g.objid
  left join pg_catalog.pg_class c on g.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = g.objid
  left join pg_catalog.pg_type y on g.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and y.oid = g.objid
  left join pg_catalog.pg_trigger t on g.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass and t.oid = g.objid
  left join pg_catalog.pg_class tc on tc.oid = t.tgrelid
 -- A view before its row type: that is what a person knows.
 order by c.oid is null, 1

-- name: drop
-- The statements that drop some routines and views with what depends on them.
select pg_catalog.format('drop routine if exists %%s cascade', p.oid::pg_catalog.regprocedure) as statement
  from pg_catalog.pg_proc p where p.oid = any (%(routines)s::bigint[])
union all
select pg_catalog.format('drop view if exists %%s cascade', c.oid::pg_catalog.regclass)
  from pg_catalog.pg_class c where c.oid = any (%(views)s::bigint[])
