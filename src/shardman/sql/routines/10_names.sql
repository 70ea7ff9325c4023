-- Names of relations, as the metadata writes them: what regclass prints with search_path = public.
--
-- Users call these, and what rests on them, in sessions of their own. So what a function's result or its text depends on is
-- set for the function: quote_all_identifiers where a name of the metadata is made, standard_conforming_strings where a
-- literal has a backslash.

create or replace function shardman.relation_parts(relation text) returns text[]
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    parts text[];
begin
    -- Most names need no parsing, and none of these a subtransaction, which would take longest.
    if relation ~ '^[a-z_][a-z0-9_]*$' then
        return array['public', relation];
    elsif relation ~ '^[a-z_][a-z0-9_]*[.][a-z_][a-z0-9_]*$' then
        return string_to_array(relation, '.');
    end if;
    begin
        parts := parse_ident(relation);
    exception when invalid_parameter_value then
        raise exception '"%" is not a name of a relation', relation
            using errcode = 'invalid_name',
                  hint = 'Write it as in SQL: accounts, app.orders, "Weird Name".';
    end;
    if cardinality(parts) = 1 then
        return array['public', parts[1]];
    elsif cardinality(parts) = 2 then
        return parts;
    end if;
    raise exception '"%" has too many dots for a name of a relation', relation
        using errcode = 'invalid_name', hint = 'Write it as schema.name or name.';
end
$$;
comment on function shardman.relation_parts(text) is 'schema and name of a relation written as in SQL; public where no schema is given';

create or replace function shardman.relation_text(schema_name text, relname text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select case when schema_name = 'public' then quote_ident(relname)
                else quote_ident(schema_name) || '.' || quote_ident(relname) end
$$;
comment on function shardman.relation_text(text, text) is 'a relation''s name as the metadata writes it';

create or replace function shardman.normal_name(relation text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text(p[1], p[2]) from (select shardman.relation_parts(relation) as p) as r
$$;
comment on function shardman.normal_name(text) is 'a relation''s name, however the user wrote it, as the metadata writes it';

create or replace function shardman.suffixed(relation text, suffix text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text(p[1], p[2] || suffix) from (select shardman.relation_parts(relation) as p) as r
$$;
comment on function shardman.suffixed(text, text) is
    'the relation beside this one whose name is longer by suffix: suffixed(''app.orders'', ''_3'') is app.orders_3';

create or replace function shardman.data_table(part_name text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.suffixed(part_name, '_data')
$$;
comment on function shardman.data_table(text) is 'the table that holds the rows of a partition, on a node that has a copy';

create or replace function shardman.route_table(part_name text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.suffixed(part_name, '_fdw')
$$;
comment on function shardman.route_table(text) is 'the foreign table through which a node without the primary reaches a partition';

create or replace function shardman.node_server(node_id int) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select 'shardman_node_' || node_id
$$;
comment on function shardman.node_server(int) is 'the foreign server of a node; a server with a suffix behind it is one of a running move';

create or replace function shardman.called_here(relation text) returns text
language sql stable strict security definer parallel safe set search_path = pg_catalog, pg_temp as $$
    -- What the metadata know by now is called as they say.
    select coalesce((select r.wanted from shardman.renamed_tables r cross join lateral (select shardman.relation_parts(r.wanted) as p) as w
                      where r.former = called_here.relation
                        and exists (select from shardman.tables t where t.relation = r.former union all select from shardman.shared_tables s where s.relation = r.former)
                        and not exists (select from shardman.tables t where t.relation = r.wanted union all select from shardman.shared_tables s where s.relation = r.wanted)
                        and exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = w.p[1] and c.relname = w.p[2])
                        -- Once its partitions are called after it, only the metadata are missing, for a moment.
                        and not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = w.p[1] and c.relname = w.p[2] || '_0'
                                           and c.relispartition)), relation)
$$;
comment on function shardman.called_here(text) is
    'what a sharded or shared table of the metadata is called on this node: otherwise, from an ALTER TABLE that has renamed it until the metadata follow';

create or replace function shardman.known_as(relation text) returns text
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select coalesce((select r.former from shardman.renamed_tables r where r.wanted = relation and shardman.called_here(r.former) = relation limit 1), relation)
$$;
comment on function shardman.known_as(text) is 'the opposite of shardman.called_here: by what name the metadata know what is called so on this node';

create or replace function shardman.find_relation(relation text) returns oid
language plpgsql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    here constant text := (select shardman.called_here(x.former) from shardman.renamed_tables x where x.former = find_relation.relation);
    p    constant text[] := shardman.relation_parts(coalesce(here, relation));
begin
    -- In PL/pgSQL, which keeps the plan: an SQL function is planned again in each statement that calls it.
    -- In REPEATABLE READ, as on every node that DDL is sent on to, what has been changed by somebody else after the snapshot, and then by
    -- this transaction, is there twice. The second is its own.
    return (select c.oid from pg_class c
             where c.relname = p[2] and c.relnamespace = (select n.oid from pg_namespace n where n.nspname = p[1])
             order by age(c.xmin) limit 1);
end
$$;
comment on function shardman.find_relation(text) is 'the oid of a relation of this database by its name in the metadata; null when there is none';
