-- What would not mean the same on every node. A statement's part on another node runs in a session of postgres_fdw's: its
-- TimeZone is GMT, its search_path pg_catalog, its dates are ISO, and it commits when this node commits, one after the other.

create or replace function shardman.follows_session(func oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.oid < 16384 and p.provolatile <> 'i'
       and p.proname not in ('now', 'transaction_timestamp', 'statement_timestamp', 'clock_timestamp')
       and (p.proname in ('current_setting', 'current_schema', 'current_schemas', 'current_database', 'session_user', 'to_tsvector', 'to_tsquery',
                          'plainto_tsquery', 'phraseto_tsquery', 'websearch_to_tsquery', 'to_regclass', 'to_regtype')
            or exists (select from unnest(p.prorettype || p.proargtypes::oid[]) as a (type) join pg_type t on t.oid = a.type
                        where t.typcategory in ('D', 'T')))
      from pg_proc p where p.oid = func
$$;
comment on function shardman.follows_session(oid) is
    'whether a function of PostgreSQL''s own may give something else in a session with another TimeZone, DateStyle or search_path';

-- An expression is read as PostgreSQL keeps it (pg_node_tree): of its own functions pg_depend says nothing.
create or replace function shardman.asks_session(tree text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(bool_or(f.found_), false) from (
        select shardman.follows_session(m[1]::oid) from regexp_matches(tree, ':funcid (\d+)', 'g') as m
        union all
        select shardman.follows_session(o.oprcode) from regexp_matches(tree, ':opno (\d+)', 'g') as m join pg_operator o on o.oid = m[1]::oid
        union all
        -- A cast to or from text.
        select shardman.follows_session(t.typoutput) or t.typcategory in ('D', 'T') and exists (select from pg_proc p where p.oid = t.typoutput and p.provolatile <> 'i')
          from regexp_matches(tree, '\{COERCEVIAIO :arg \{[A-Z]+ (?:(?![{}]).)*?:(?:vartype|funcresulttype|opresulttype|resulttype|typeId) (\d+)', 'g') as m
          join pg_type t on t.oid = m[1]::oid
        union all
        select t.typcategory in ('D', 'T') and exists (select from pg_proc p where p.oid = t.typinput and p.provolatile <> 'i')
          from regexp_matches(tree, '\{COERCEVIAIO :arg \{[^{}]*\} :resulttype (\d+)', 'g') as m join pg_type t on t.oid = m[1]::oid
        union all
        -- CURRENT_DATE, CURRENT_TIME, LOCALTIME, LOCALTIMESTAMP; SESSION_USER, CURRENT_CATALOG, CURRENT_SCHEMA.
        select m[1]::int in (0, 1, 2, 5, 6, 7, 8, 12, 13, 14) from regexp_matches(tree, '\{SQLVALUEFUNCTION :op (\d+)', 'g') as m
    ) as f (found_)
$$;
comment on function shardman.asks_session(text) is 'whether an expression, as a catalog keeps it, may be true in one session and false in another';

create or replace function shardman.session_checks(rel oid) returns table (name text, of_column text, what text, way_out text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.conname, null, format('the check %I', o.conname), format('ALTER TABLE %s DROP CONSTRAINT %I', shardman.metadata_name(rel), o.conname)
      from pg_constraint o where o.conrelid = rel and o.contype = 'c' and shardman.asks_session(o.conbin::text)
    union all
    select distinct on (o.oid) o.conname, a.attname, format('the check %I of the domain %s', o.conname, format_type(o.contypid, null)),
           format('ALTER DOMAIN %s DROP CONSTRAINT %I', format_type(o.contypid, null), o.conname)
      from pg_attribute a cross join lateral shardman.types_inside(array[a.atttypid]) as t (oid) join pg_constraint o on o.contypid = t.oid
     where a.attrelid = rel and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384 and shardman.asks_session(o.conbin::text)
$$;
comment on function shardman.session_checks(oid) is
    'the checks of a table, and of the domains of its columns, that may be true in one session and false in another, and how each is dropped';

create or replace function shardman.refuse_session_check(what text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% depends on the session''s TimeZone or the like, which on another node is not the client''s', what
        using errcode = 'feature_not_supported', hint = 'Write it so that it says the same everywhere, with AT TIME ZONE for example.';
end
$$;
comment on function shardman.refuse_session_check(text) is 'raises what a check gets that would not mean the same on every node';

create or replace function shardman.need_same_everywhere(relation_ text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    rel    constant oid := shardman.find_relation(relation_);
    before constant jsonb := (select t.definition from shardman.tables t where t.relation = relation_);
    found_ record;
begin
    select c.what into found_ from shardman.session_checks(rel) c
     where not exists (select from jsonb_array_elements(before -> case when c.of_column is null then 'checks' else 'columns' end) as x
                        where x ->> 'name' = coalesce(c.of_column, c.name)) limit 1;
    if found then
        perform shardman.refuse_session_check(found_.what);
    end if;
end
$$;
comment on function shardman.need_same_everywhere(text) is 'after DDL: raises where a sharded table has got a check that would not mean the same on every node';

create or replace function shardman.session_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('%s depends on the session''s TimeZone or the like, which on another node is not the client''s', c.what),
                             format('%s, and write it so that it says the same everywhere, with AT TIME ZONE for example', c.way_out))
      from shardman.session_checks(rel) c
    union all
    select shardman.obstacle(format('the sequence %s begins anew at its end (CYCLE), and each node would give numbers of others then', shardman.metadata_name(o.seq)),
                             format('ALTER SEQUENCE %s NO CYCLE', shardman.metadata_name(o.seq)))
      from shardman.owned_sequences(rel) o join pg_sequence s on s.seqrelid = o.seq where s.seqcycle
$$;
comment on function shardman.session_obstacles(oid) is 'what of a table would not mean the same on several nodes: of sharded and of shared ones';

create or replace function shardman.elsewhere_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select * from shardman.session_obstacles(rel)
    union all
    select * from shardman.row_trigger_obstacles(rel)
    union all
    -- Every node checks what is deferred when it commits, after others have. A replica's rows are written one by one.
    select shardman.obstacle(format('the key %I is DEFERRABLE, and nodes that commit one after the other cannot take back what others have committed', o.conname),
                             format('ALTER TABLE %s DROP CONSTRAINT %I, and make it NOT DEFERRABLE', shardman.metadata_name(rel), o.conname))
      from pg_constraint o where o.conrelid = rel and o.contype in ('p', 'u', 'x') and o.condeferrable
    union all
    select shardman.obstacle(format('%s has a generated column and no key to tell its rows apart: on this version of PostgreSQL they could not be changed while they are replicated',
                                    shardman.metadata_name(rel)),
                             'Give it a primary key, or a unique index of columns that are NOT NULL')
     where current_setting('server_version_num')::int >= 180000 and shardman.identity_index(rel) is null
       and exists (select from pg_attribute where attrelid = rel and attnum > 0 and not attisdropped and attgenerated <> '')
$$;
comment on function shardman.elsewhere_obstacles(oid) is 'what of a table that is to be sharded would not mean the same, or would not hold, on several nodes';

create or replace function shardman.searching_functions(rel oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    with code (func) as (
        select c.func from shardman.row_code(array[rel]) c where c.func is not null
        union
        select d.refobjid from pg_policy y join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = y.oid and d.refclassid = 'pg_proc'::regclass
         where y.polrelid = rel
    )
    select coalesce(array_agg(p.oid::regprocedure::text order by 1), '{}')
      from code c join pg_proc p on p.oid = c.func join pg_language l on l.oid = p.prolang
     where p.oid >= 16384 and l.lanname not in ('c', 'internal') and p.prosqlbody is null
       and not exists (select from unnest(p.proconfig) as s where s like 'search\_path=%')
$$;
comment on function shardman.searching_functions(oid) is
    'the user''s functions that a table calls and that look for their names by the session''s search_path, which on other nodes is pg_catalog';
