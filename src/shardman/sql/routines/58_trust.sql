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

create or replace function shardman.does_what_it_is_told(func oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Functions of PostgreSQL's or an extension's that run what their arguments say (query_to_xml, pg_input_is_valid), or act on the server
    -- (pg_read_file, lo_export, dblink_exec): whoever has written the expression decides what they do, with the rights of who runs it.
    select (p.oid < 16384 or exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'))
       and (p.provolatile = 'v' and p.proname !~ '^(random|random_normal|clock_timestamp|timeofday|gen_random_uuid|uuid_?(v|generate_v)[0-9]\w*)$'
            or p.pronamespace = 'pg_catalog'::regnamespace and p.provolatile <> 'i'
               and (p.proname ~ '_to_xml|^pg_input_' or p.proargtypes::oid[] && array['cstring'::regtype::oid, 'internal'::regtype::oid]))
      from pg_proc p where p.oid = func
$$;
comment on function shardman.does_what_it_is_told(oid) is
    'whether a function that comes with PostgreSQL or an extension does whatever its arguments say: the cluster must not run it in an expression of somebody else''s';

create or replace function shardman.row_parts(rels oid[]) returns table (rel oid, what text, classid oid, objid oid, expression text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select o.conrelid, 'constraint ' || quote_ident(o.conname), 'pg_constraint'::regclass::oid, o.oid, o.conbin::text
      from unnest(rels) r join pg_constraint o on o.conrelid = r and o.contype in ('c', 'x')
    union all
    select a.attrelid, 'generated column ' || quote_ident(a.attname), 'pg_attrdef'::regclass, f.oid, f.adbin::text
      from unnest(rels) r join pg_attribute a on a.attrelid = r and a.attgenerated <> ''
      join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    union all
    select i.indrelid, 'index ' || quote_ident(c.relname), 'pg_class'::regclass, c.oid, concat(i.indexprs::text, i.indpred::text)
      from unnest(rels) r join pg_index i on i.indrelid = r join pg_class c on c.oid = i.indexrelid
    union all
    -- Run by whoever analyzes the table, and what is constant in them by whoever plans a query.
    select s.stxrelid, 'statistics ' || quote_ident(s.stxname), 'pg_statistic_ext'::regclass, s.oid, s.stxexprs::text
      from unnest(rels) r join pg_statistic_ext s on s.stxrelid = r
    union all
    select r, 'key', 'pg_class'::regclass, p.partrelid, p.partexprs::text from unnest(rels) r join pg_partitioned_table p on p.partrelid = r
    union all
    -- Not those that replication leaves out: it is what copies rows.
    select t.tgrelid, 'trigger ' || quote_ident(t.tgname), 'pg_trigger'::regclass, t.oid, t.tgqual::text
      from unnest(rels) r join pg_trigger t on t.tgrelid = r and not t.tgisinternal and t.tgenabled in ('A', 'R')
$$;
comment on function shardman.row_parts(oid[]) is 'what of these tables has expressions that are run when rows are written, or read to be compared, and these as PostgreSQL stores them';

create or replace function shardman.row_code(rels oid[]) returns table (rel oid, what text, code text, owner oid, way_out text, func oid)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with rels as materialized (select distinct unnest(rels) as oid),
    -- Without the bytes of constants: those of many partitions are the same then, and are taken apart once.
    parts as materialized (
        select p.rel, p.what, p.classid, p.objid, regexp_replace(p.expression, '\[[ 0-9-]*\]', '', 'g') as expression
          from shardman.row_parts((select array_agg(r.oid) from rels r)) p
    ), words as materialized (
        -- PostgreSQL notes down no dependency on what is its own, and of a type none on what is in it.
        select distinct e.expression, m[1] as label, m[2]::bigint::oid as oid
          from (select distinct p.expression from parts p where p.expression <> '') e
         cross join lateral regexp_matches(e.expression, ':(\w+) (\d{1,10})\M', 'g') as m where m[2]::bigint between 1 and 4294967295
    ), kinds as materialized (
        select distinct u.rel, u.what, t.oid
          from (select a.attrelid, 'type of a column', a.atttypid
                  from rels r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
                union
                select p.rel, p.what, y.oid
                  from words n join pg_type y on y.oid = n.oid join parts p on p.expression = n.expression
                 where n.oid >= 16384) as u (rel, what, kind)
         cross join lateral shardman.types_inside(array[u.kind]) as t (oid) where t.oid >= 16384
    ), calls (rel, what, func) as (
        select p.rel, p.what, d.refobjid
          from parts p join pg_depend d on d.classid = p.classid and d.objid = p.objid and d.refclassid = 'pg_proc'::regclass
        union all
        select p.rel, p.what, o.oprcode::oid
          from parts p join pg_depend d on d.classid = p.classid and d.objid = p.objid and d.refclassid = 'pg_operator'::regclass
          join pg_operator o on o.oid = d.refobjid
        union all
        select k.rel, 'domain ' || format_type(k.oid, null), d.refobjid
          from kinds k join pg_constraint o on o.contypid = k.oid
          join pg_depend d on d.classid = 'pg_constraint'::regclass and d.objid = o.oid and d.refclassid = 'pg_proc'::regclass
    )
    select c.rel, c.what, 'the function ' || p.oid::regprocedure, p.proowner,
           format('alter function %s owner to current_user', p.oid::regprocedure), p.oid
      from calls c join pg_proc p on p.oid = c.func where p.oid >= 16384
    union all
    -- It may get another check at any time.
    select k.rel, k.what, 'the domain ' || format_type(t.oid, null), t.typowner,
           format('alter domain %s owner to current_user', format_type(t.oid, null)), null
      from kinds k join pg_type t on t.oid = k.oid and t.typtype = 'd'
    union all
    -- GiST and ANALYZE ask a range type how far values are apart.
    select k.rel, k.what, 'the function ' || p.oid::regprocedure || ' of the type ' || format_type(k.oid, null), p.proowner,
           format('alter function %s owner to current_user', p.oid::regprocedure), null
      from kinds k join pg_range g on g.rngtypid = k.oid join pg_proc p on p.oid in (g.rngsubdiff, g.rngcanonical) and p.oid >= 16384
    union all
    -- JSON of a value is made by a cast, if the type has one.
    select k.rel, p.what, 'a cast of the type ' || format_type(k.oid, null) || ' to json', t.typowner,
           format('alter type %s owner to current_user', format_type(k.oid, null)), null
      from parts p join kinds k on k.rel = p.rel join pg_type t on t.oid = k.oid and t.typtype in ('e', 'r', 'm')
     where p.expression like '%{JSONCONSTRUCTOREXPR%'
        or exists (select from words f join pg_proc j on j.oid = f.oid
                    where f.expression = p.expression and f.label ~ 'funcid$' and j.pronamespace = 'pg_catalog'::regnamespace and j.proname ~ '^(to_jsonb?|row_to_json|array_to_json|jsonb?_build_\w+)$')
    union all
    select p.rel, p.what, 'the function ' || f.oid::regprocedure, null, '', null
      from (select w.* from words w where w.label ~ 'funcid$' and shardman.does_what_it_is_told(w.oid) offset 0) as f join parts p on p.expression = f.expression
    union all
    -- What it is made of may be anything.
    select w.ev_class, 'rule ' || quote_ident(w.rulename), 'the rule ' || quote_ident(w.rulename), null, '', null
      from rels r join pg_rewrite w on w.ev_class = r.oid and w.ev_type <> '1' and w.ev_enabled in ('A', 'R')
$$;
comment on function shardman.row_code(oid[]) is
    'what of the user''s own runs when rows of these tables are written, what for, and how a superuser takes it over. Owner null: nobody can';

create or replace function shardman.untrusted_code(rels oid[]) returns table (rel oid, what text, code text, owner name, way_out text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select c.rel, c.what, c.code, r.rolname, c.way_out
      from shardman.row_code(rels) c left join pg_roles r on r.oid = c.owner
     where c.owner is null or not r.rolsuper and r.oid <> shardman.our_role()
     order by 2, 3
$$;
comment on function shardman.untrusted_code(oid[]) is
    'of shardman.row_code that whose owner is neither a superuser nor the cluster''s role, so that the cluster must not run it; owner null: it does whatever the table''s owner says';

create or replace function shardman.why_untrusted(owner name) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when owner is null then 'does whatever the owner of the table says' else format('belongs to %s, who is no superuser', quote_ident(owner)) end
$$;
comment on function shardman.why_untrusted(name) is 'of shardman.untrusted_code: the end of a sentence';

create or replace function shardman.trusting(what text, way_out text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when way_out = '' then format('Drop the %s', what) else format('A superuser who trusts it takes it over on every node: %s', way_out) end
$$;
comment on function shardman.trusting(text, text) is 'of shardman.untrusted_code: what is to be done about it';

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
               format('the cluster would run %s (%s) with its own rights, and it %s',
                      u.code, string_agg(distinct u.what, ', ' order by u.what), shardman.why_untrusted(u.owner)),
               shardman.trusting(min(u.what), u.way_out))
      from shardman.untrusted_code(array[rel]) u group by u.code, u.owner, u.way_out
    union all
    select shardman.obstacle(format('the cluster would run a cast for the foreign key %I with its own rights, and that belongs to no superuser', o.conname),
                             format('Give its columns the types of those that it refers to, or drop it: ALTER TABLE %s DROP CONSTRAINT %I', o.conrelid::regclass, o.conname))
      from pg_constraint o where o.contype = 'f' and o.conrelid = rel and o.conparentid = 0 and not shardman.compares_plainly(o.oid)
$$;
comment on function shardman.trust_obstacles(oid) is 'code of a table that the cluster must not run';

create or replace function shardman.refuse_untrusted(rels oid[], spared text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_ record;
begin
    select u.* into found_ from shardman.untrusted_code(rels) u where u.what !~ spared limit 1;
    if found then
        raise exception 'the cluster does not run % (% of %), for it %',
              found_.code, found_.what, shardman.metadata_name(found_.rel), shardman.why_untrusted(found_.owner)
            using errcode = 'SHM09', hint = shardman.trusting(found_.what, found_.way_out) || '.';
    end if;
end
$$;
comment on function shardman.refuse_untrusted(oid[], text) is
    'raises SHM09 where these tables have code that the cluster must not run, but for that of what matches a pattern: it does not run here';

create or replace function shardman.need_trusted(rels oid[]) returns void
language sql stable set search_path = pg_catalog, pg_temp as $$ select shardman.refuse_untrusted(rels, '^$') $$;
comment on function shardman.need_trusted(oid[]) is
    'raises SHM09 where the cluster must not write rows into these tables. Whoever calls it holds a lock on them';

-- What is constant in an index or a statistics object of the owner's is computed by whoever plans a query. Of checks that holds
-- only where PostgreSQL looks whether they exclude what a query asks for.
create or replace function shardman.need_trusted_to_read(rel oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('constraint_exclusion') <> 'off' then
        raise exception 'checks are looked at while rows are read' using errcode = 'assert_failure';
    end if;
    perform shardman.refuse_untrusted(array[rel], '^constraint ');
end
$$;
comment on function shardman.need_trusted_to_read(oid) is
    'raises SHM09 where the cluster must not read the rows of a table. Whoever calls it has constraint_exclusion off, and holds a lock on it';

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
