-- Code that belongs to a table and runs whenever a row is written: checks, domains, generated columns, indexes, keys,
-- triggers. Whatever copies or replicates rows does so as the cluster's role, so such code must belong to a superuser or to
-- that role: its owner can replace it at any time. SET ROLE would not hold it, for a function may RESET it, and one that
-- is deferred runs when the transaction ends.

create or replace function shardman.our_role() returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$ select nspowner from pg_namespace where nspname = 'shardman' $$;
comment on function shardman.our_role() is 'the role that the cluster acts as on this node';

create or replace function shardman.types_inside(kinds oid[]) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive inside (oid) as (
        select unnest(kinds)
        union
        select v.oid
          from inside i join pg_type t on t.oid = i.oid
         cross join lateral (select t.typbasetype union all select t.typelem
                              union all select rngsubtype from pg_range where rngtypid = t.oid
                              union all select rngtypid from pg_range where rngmultitypid = t.oid
                              union all select a.atttypid from pg_attribute a
                                         where a.attrelid = t.typrelid and t.typrelid <> 0 and a.attnum > 0 and not a.attisdropped) as v (oid)
         where v.oid <> 0
    )
    select oid from inside
$$;
comment on function shardman.types_inside(oid[]) is 'these types and all that they are made of';

create or replace function shardman.row_code(rels oid[]) returns table (rel oid, what text, code text, owner oid, way_out text, func oid)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with rels as materialized (select distinct unnest(rels) as oid),
    kinds as materialized (
        select distinct a.attrelid as rel, t.oid
          from rels r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
         cross join lateral shardman.types_inside(array[a.atttypid]) as t (oid) where t.oid >= 16384
    ), parts (rel, what, classid, objid) as materialized (
        select o.conrelid, 'constraint ' || quote_ident(o.conname), 'pg_constraint'::regclass::oid, o.oid
          from rels r join pg_constraint o on o.conrelid = r.oid and o.contype in ('c', 'x')
        union all
        select k.rel, 'domain ' || format_type(k.oid, null), 'pg_constraint'::regclass, o.oid
          from kinds k join pg_constraint o on o.contypid = k.oid
        union all
        select a.attrelid, 'generated column ' || quote_ident(a.attname), 'pg_attrdef'::regclass, f.oid
          from rels r join pg_attribute a on a.attrelid = r.oid and a.attgenerated <> ''
          join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
        union all
        select i.indrelid, 'index ' || quote_ident(c.relname), 'pg_class'::regclass, c.oid
          from rels r join pg_index i on i.indrelid = r.oid join pg_class c on c.oid = i.indexrelid
        union all
        -- ANALYZE computes them.
        select s.stxrelid, 'statistics ' || quote_ident(s.stxname), 'pg_statistic_ext'::regclass, s.oid from rels r join pg_statistic_ext s on s.stxrelid = r.oid
        union all
        select r.oid, 'key', 'pg_class'::regclass, p.partrelid from rels r join pg_partitioned_table p on p.partrelid = r.oid
    ), made (rel, what, oid) as materialized (
        -- What they make on their way: a cast to a domain runs its checks.
        select distinct p.rel, p.what, t.oid
          from parts p join pg_depend d on d.classid = p.classid and d.objid = p.objid and d.objsubid = 0 and d.refclassid = 'pg_type'::regclass
         cross join lateral shardman.types_inside(array[d.refobjid]) as t (oid) where t.oid >= 16384 and p.what not like 'domain %'
        union
        -- An index of an expression has columns of its own.
        select i.indrelid, 'index ' || quote_ident(c.relname), t.oid
          from rels r join pg_index i on i.indrelid = r.oid join pg_class c on c.oid = i.indexrelid
          join pg_attribute a on a.attrelid = i.indexrelid and a.atttypid >= 16384
         cross join lateral shardman.types_inside(array[a.atttypid]) as t (oid) where t.oid >= 16384
    ), calls (rel, what, func) as (
        -- What tells how far two values of a range are apart: a GiST index asks it wherever it puts one, and ANALYZE, which acts as the
        -- owner of the table, and so for a replica as the cluster.
        select m.rel, m.what, g.rngsubdiff::oid from made m join pg_range g on m.oid in (g.rngtypid, g.rngmultitypid)
        union all
        select k.rel, 'type of a column', g.rngsubdiff::oid from kinds k join pg_range g on k.oid in (g.rngtypid, g.rngmultitypid)
        union all
        select p.rel, p.what, d.refobjid
          from parts p join pg_depend d on d.classid = p.classid and d.objid = p.objid and d.refclassid = 'pg_proc'::regclass
        union all
        select p.rel, p.what, o.oprcode::oid
          from parts p join pg_depend d on d.classid = p.classid and d.objid = p.objid and d.refclassid = 'pg_operator'::regclass
          join pg_operator o on o.oid = d.refobjid
        union all
        -- Not those that replication leaves out: it is what copies rows.
        select t.tgrelid, 'trigger ' || quote_ident(t.tgname), t.tgfoid
          from rels r join pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal and t.tgenabled in ('A', 'R')
    )
    select c.rel, c.what, 'the function ' || p.oid::regprocedure, p.proowner,
           format('alter function %s owner to current_user', p.oid::regprocedure), p.oid
      from calls c join pg_proc p on p.oid = c.func where p.oid >= 16384
    union all
    -- It may get another check at any time.
    select k.rel, k.what, 'the domain ' || format_type(t.oid, null), t.typowner,
           format('alter domain %s owner to current_user', format_type(t.oid, null)), null
      from (select k.rel, 'type of a column' as what, k.oid from kinds k
            union select m.rel, m.what, m.oid from made m where not exists (select from kinds k where (k.rel, k.oid) = (m.rel, m.oid))) as k
      join pg_type t on t.oid = k.oid and t.typtype = 'd'
$$;
comment on function shardman.row_code(oid[]) is
    'the user''s own functions and domains that run when rows of these tables are written, what for, and how a superuser takes one over';

create or replace function shardman.untrusted_code(rels oid[]) returns table (rel oid, what text, code text, owner name, way_out text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select c.rel, c.what, c.code, r.rolname, c.way_out
      from shardman.row_code(rels) c join pg_roles r on r.oid = c.owner
     where not r.rolsuper and r.oid <> shardman.our_role()
     order by 2, 3
$$;
comment on function shardman.untrusted_code(oid[]) is
    'of shardman.row_code that whose owner is neither a superuser nor the cluster''s role, so that the cluster must not run it';

-- Whoever owns a table may put a view of its name into its place, and the functions of a view run as who reads it.
create or replace function shardman.table_itself(relation text) returns oid
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    found_ constant oid := shardman.find_relation(relation);
begin
    if found_ is null then
        raise exception '% is not on this node', relation using errcode = 'undefined_table', hint = 'See what "shardman check" says.';
    end if;
    -- With the lock nobody takes the name from it until the transaction ends.
    execute format('lock table only %s in access share mode', found_::regclass);
    if shardman.find_relation(relation) is distinct from found_ or not exists (select from pg_class c where c.oid = found_ and c.relkind in ('r', 'p')) then
        raise exception '% is no table on this node', relation using errcode = 'wrong_object_type', hint = 'See what "shardman check" says.';
    end if;
    return found_;
end
$$;
comment on function shardman.table_itself(text) is
    'a table whose rows the cluster is about to read by its name: raises where a view has that. What it found stays true until the transaction ends';

create or replace function shardman.compares_plainly(constraint_ oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A value that refers is made one of the operator's type first: by nothing, by reading and writing it, or by a cast's function.
    select bool_and(f.base = p.oprright or (select y.typtype = 'p' from pg_type y where y.oid = p.oprright) or greatest(f.base, p.oprright) < 16384
                    or exists (select from pg_cast c left join pg_proc x on x.oid = c.castfunc left join pg_roles r on r.oid = x.proowner
                                where (c.castsource, c.casttarget) = (f.base, p.oprright)
                                  and (c.castmethod <> 'f' or r.rolsuper or r.oid = shardman.our_role())))
      from pg_constraint o cross join unnest(o.conkey, o.conpfeqop) as u (col, op)
      join pg_operator p on p.oid = u.op
      join pg_attribute a on a.attrelid = o.conrelid and a.attnum = u.col
     cross join lateral (select shardman.base_type(a.atttypid) as base offset 0) f
     where o.oid = constraint_
$$;
comment on function shardman.compares_plainly(oid) is
    'whether a foreign key compares values without running code of somebody who is no superuser: a cast of his between types of columns';

create or replace function shardman.need_plain_comparison(constraint_ oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not shardman.compares_plainly(constraint_) then
        raise exception 'the cluster does not look through rows for the foreign key %, which compares by a cast that belongs to no superuser',
              (select quote_ident(o.conname) from pg_constraint o where o.oid = constraint_)
            using errcode = 'SHM09', hint = 'Give its columns the types of those that they refer to.';
    end if;
end
$$;
comment on function shardman.need_plain_comparison(oid) is 'raises SHM09 where rows must not be compared by a foreign key as the cluster''s role';

create or replace function shardman.trust_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(
               format('the cluster would run %s (%s) with its own rights, and it belongs to %s, who is no superuser',
                      u.code, string_agg(u.what, ', ' order by u.what), quote_ident(u.owner)),
               format('A superuser who trusts it takes it over on every node: %s', u.way_out))
      from shardman.untrusted_code(array[rel]) u group by u.code, u.owner, u.way_out
    union all
    select shardman.obstacle(format('the cluster would run a cast for the foreign key %I with its own rights, and that belongs to no superuser', o.conname),
                             format('Give its columns the types of those that it refers to, or drop it: ALTER TABLE %s DROP CONSTRAINT %I', o.conrelid::regclass, o.conname))
      from pg_constraint o where o.contype = 'f' and o.conrelid = rel and o.conparentid = 0 and not shardman.compares_plainly(o.oid)
$$;
comment on function shardman.trust_obstacles(oid) is 'code of a table that the cluster must not run';

create or replace function shardman.need_trusted(rels oid[]) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_ record;
begin
    select u.* into found_ from shardman.untrusted_code(rels) u limit 1;
    if found then
        raise exception 'the cluster does not run % (% of %), for it belongs to %, who is no superuser',
              found_.code, found_.what, shardman.metadata_name(found_.rel), quote_ident(found_.owner)
            using errcode = 'SHM09', hint = format('A superuser who trusts it takes it over on every node: %s.', found_.way_out);
    end if;
end
$$;
comment on function shardman.need_trusted(oid[]) is
    'raises SHM09 where the cluster must not write rows into these tables. Whoever calls it holds a lock on them';

-- A literal of a user's type is read, and with it the domains inside are checked, when the statement that has it is parsed: as
-- whoever parses it, long before any row is written. So before texts of a table (defaults, checks, policies, indexes) become
-- statements of the cluster's role, the types that they name are looked at, on the node where that is: somebody else's may have the
-- name there.
create or replace function shardman.types_named(texts jsonb) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select distinct to_regtype(m[1])::oid
      from jsonb_path_query(texts, 'strict $.**') as v
     cross join regexp_matches(v #>> '{}', '::\s*((?:"(?:[^"]|"")+"|[^\W\d][\w$]*)\.(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))', 'g') as m
     where jsonb_typeof(v) = 'string' and to_regtype(m[1]) is not null
$$;
comment on function shardman.types_named(jsonb) is 'the types with a schema that expressions, as PostgreSQL writes them, cast to: those that are not its own';

create or replace function shardman.untrusted_types(texts jsonb) returns table (named text, code text, owner name, way_out text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format_type(n.oid, null), format_type(t.oid, null), r.rolname,
           format('alter %s %s owner to current_user', case t.typtype when 'd' then 'domain' else 'type' end, format_type(t.oid, null))
      from shardman.types_named(texts) as n (oid)
     cross join lateral shardman.types_inside(array[n.oid]) as i (oid)
      join pg_type t on t.oid = i.oid join pg_roles r on r.oid = t.typowner
     where t.oid >= 16384 and not r.rolsuper and r.oid <> shardman.our_role()
       and (t.typtype = 'd' or exists (select from pg_range g where g.rngtypid = t.oid and g.rngcanonical::oid >= 16384))
     order by 1, 2
$$;
comment on function shardman.untrusted_types(jsonb) is
    'types that texts of a table name, and what in them runs when a literal is read and belongs to neither a superuser nor the cluster';

create or replace function shardman.need_trusted_types(texts jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_ record;
begin
    select u.* into found_ from shardman.untrusted_types(texts) u limit 1;
    if found then
        raise exception 'the cluster does not read a value of the type %, for % in it belongs to %, who is no superuser',
              found_.named, found_.code, quote_ident(found_.owner)
            using errcode = 'SHM09', hint = format('A superuser who trusts it takes it over on every node: %s.', found_.way_out);
    end if;
end
$$;
comment on function shardman.need_trusted_types(jsonb) is 'raises SHM09 where texts of a table must not become statements of the cluster''s on this node';

create or replace function shardman.owner_wanted(data oid, parent oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when c.relkind = 'r' and not c.relispartition then shardman.our_role() else p.relowner end
      from pg_class c, pg_class p where c.oid = data and p.oid = parent
$$;
comment on function shardman.owner_wanted(oid, oid) is
    'who owns what belongs to a sharded table: its owner, but for a replica, and a copy that is being made. Nobody reads those by the '
    'table, and who could change them could stop the channel that feeds them, with the replicas of others';

create or replace function shardman.give_to(rel oid, owner_ oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    here pg_class;
begin
    select * into here from pg_class where oid = rel;
    if owner_ is null or here.relowner = owner_ then
        return;
    end if;
    perform shardman.need_role(o.owner) from unnest(array[here.relowner, owner_]) as o (owner);
    if owner_ = shardman.our_role() and here.relkind = 'r' then
        execute format('lock table only %s in access exclusive mode', rel::regclass);
        perform shardman.need_trusted(array[rel]);
    end if;
    execute format('alter %s %s owner to %I', case here.relkind when 'f' then 'foreign table' else 'table' end, rel::regclass,
                   pg_get_userbyid(owner_));
end
$$;
comment on function shardman.give_to(oid, oid) is 'changes the owner of a table; the cluster''s role takes none whose code it must not run';
