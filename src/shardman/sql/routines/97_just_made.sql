-- An index or a statistics object that was dropped has no table any more. Of which it was the metadata say, but not of one that was made a
-- moment ago, in the same transaction perhaps. So whose those are that there are is kept before a drop of them.

create or replace function shardman.parts_here() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with tables as materialized (
        select t.relation, shardman.find_relation(t.relation) as rel from shardman.tables t
        union all
        select c.relation, shardman.find_relation(c.relation) from shardman.shared_copies c join shardman.local l on l.node_id = c.node and not l.leaving
    ), rels as (
        select relation, rel from tables
        union all
        select t.relation, l.leaf from tables t cross join lateral shardman.leaves(t.rel) l where l.kind = 'data'
    ), parts as (
        select r.relation, 'index' as kind, n.nspname, c.relname as name, case when c.relkind = 'I' then shardman.index_definition(c.oid) end as sql
          from rels r join pg_index i on i.indrelid = r.rel join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
        union all
        select r.relation, 'statistics object', n.nspname, e.stxname, null
          from rels r join pg_statistic_ext e on e.stxrelid = r.rel join pg_namespace n on n.oid = e.stxnamespace
    )
    select case when shardman.is_member() and not shardman.is_copy() then
               (select coalesce(jsonb_object_agg(format('%s %I.%I', kind, nspname, name), jsonb_build_object('relation', relation, 'sql', sql)), '{}') from parts)::text else '' end
$$;
comment on function shardman.parts_here() is 'of which sharded and shared tables the indexes and statistics objects of this node are';

create or replace function shardman.keep_parts() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    for try in 1..20 loop
        begin
            perform set_config('shardman.ddl_parts', shardman.parts_here(), true);
            exit;
        exception when internal_error then
            -- Others drop one while it is described.
            if try = 20 then
                raise;
            end if;
            perform pg_sleep(0.01);
        end;
    end loop;
end
$$;
comment on function shardman.keep_parts() is 'before a drop of indexes or statistics objects: keeps whose they are';

create or replace function shardman.whose_part(kind text, schema_name text, name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Not all that is dropped has both names.
    select nullif(current_setting('shardman.ddl_parts', true), '')::jsonb -> (kind || ' ' || quote_ident(schema_name) || '.' || quote_ident(name)) ->> 'relation'
$$;
comment on function shardman.whose_part(text, text, text) is 'within a drop: the sharded or shared table of which an index or a statistics object was, by what shardman.keep_parts has kept';

create or replace function shardman.indexes_before(relation text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.value ->> 'sql' from jsonb_each(nullif(current_setting('shardman.ddl_parts', true), '')::jsonb) p
     where p.value ->> 'relation' = indexes_before.relation and p.value ->> 'sql' is not null
$$;
comment on function shardman.indexes_before(text) is 'the definitions of the indexes that a sharded table had before the drop of indexes that is just being made';
