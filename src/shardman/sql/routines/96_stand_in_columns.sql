-- New columns of a sharded table whose default is computed, and columns that get numbers.
--
-- A default is computed once where the statement was sent, and travels as a value; one that gives each row another is set first,
-- and then the rows of the primaries are written, which replicas get as they get any write. Numbers of a new sequence come so, from each node's own range.

create or replace function shardman.default_kind(col jsonb) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stable_ bool;
begin
    if col ->> 'generated' is not null or col ->> 'default' is null or shardman.is_constant(col ->> 'default') then
        return 'constant';
    end if;
    -- PostgreSQL knows best: it computes a value once for the rows that are there, or for each of them.
    create temporary table shardman_default (x int);
    execute 'alter table pg_temp.shardman_default add column ' || shardman.column_sql(col || '{"name": "y", "not_null": false}');
    select a.atthasmissing into stable_ from pg_attribute a where a.attrelid = to_regclass('pg_temp.shardman_default') and a.attname = 'y';
    drop table pg_temp.shardman_default;
    return case when stable_ then 'stable' else 'volatile' end;
end
$$;
comment on function shardman.default_kind(jsonb) is
    'as the caller: whether the default of a new column is the same always (constant), in a transaction (stable), or another for each row (volatile)';

create or replace function shardman.fill_column(relation text, col jsonb, changes jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data text;
begin
    -- On one server no trigger acts for a new column.
    perform shardman.rest_row_triggers(relation, true);
    for data in select * from jsonb_array_elements_text(changes -> 'data') loop
        execute format('update only %s set %I = default', data, col ->> 'name');
    end loop;
    perform shardman.rest_row_triggers(relation, false);
end
$$;
comment on function shardman.fill_column(text, jsonb, jsonb) is 'gives each row of the primaries on this node its own value of a default; replicas get it as any other write';

create or replace function shardman.make_column_sequence(relation text, col jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec constant jsonb := col -> 'sequence';
    name constant text := shardman.sql_name(spec ->> 'name');
    who  text;
begin
    execute format('create sequence %s as %s increment %s minvalue %s maxvalue %s start %4$s cache %6$s owned by %7$s.%8$I', name, spec ->> 'type', spec ->> 'increment',
                   spec ->> 'low', spec ->> 'high', spec ->> 'cache', shardman.sql_name(relation), col ->> 'name');
    for who in select * from jsonb_array_elements_text(spec -> 'users') loop
        execute format('grant usage on sequence %s to %s', name, case when who = '' then 'public' else quote_ident(who) end);
    end loop;
end
$$;
comment on function shardman.make_column_sequence(text, jsonb) is 'as the caller: the sequence of a new column, with this node''s range';

create or replace function shardman.range_of_spec(spec jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('low', r.low, 'high', r.high) from shardman.sequence_range(spec) r
$$;
comment on function shardman.range_of_spec(jsonb) is 'shardman.sequence_range, for who may not read what it reads: the numbers of this node';

create or replace function shardman.number_column(relation text, col jsonb, given jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec  jsonb := col -> 'sequence';
    type  constant regtype := (spec ->> 'type')::regtype;
    top   numeric;
    kept  constant text := (select shardman.metadata_name(o.seq) from shardman.owned_sequences(shardman.find_relation(relation)) o where o.column_name = col ->> 'name' limit 1);
begin
    if kept is not null then
        -- It had numbers before, and goes on with its ranges.
        execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', shardman.next_value(kept));
        return given;
    elsif given is null then
        -- Rows of other nodes as well: the table is in its place again, and their partitions never were elsewhere.
        execute format('select greatest(0, max(%I)) from %s', col ->> 'name', shardman.sql_name(relation)) into top;
        given := jsonb_build_object('name', spec -> 'name', 'base', shardman.base_above(top, type),
                                    'width', shardman.range_width(shardman.base_above(top, type), type));
    end if;
    spec := spec || given;
    perform shardman.make_column_sequence(relation, col || jsonb_build_object('sequence', spec || shardman.range_of_spec(spec)));
    execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', shardman.next_value(spec ->> 'name'));
    return given;
end
$$;
comment on function shardman.number_column(text, jsonb, jsonb) is
    'as the caller: a column that is there gets a sequence, as an identity column has one, above all numbers that are in it; given: name, base and width that another node has '
    'found. Returns them';

create or replace function shardman.numbers_here(relation_ text) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(o.column_name, jsonb_build_object('name', shardman.metadata_name(o.seq)) || shardman.range_here(o.seq)), '{}')
      from shardman.owned_sequences(shardman.find_relation(relation_)) o where shardman.range_here(o.seq) is not null
$$;
comment on function shardman.numbers_here(text) is 'by column, what shardman.number_column takes, of the sequences that a table has';

create or replace function shardman.add_column_alike(relation text, col jsonb, changes jsonb, given text) returns text
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' as $$
declare
    kind  constant text := case when col ? 'sequence' then 'sequence' else shardman.default_kind(col) end;
    head  constant text := format('alter table %s add column ', shardman.sql_name(relation));
    ends  constant text := case when (col ->> 'not_null')::bool then ' not null' else '' end;
    plain constant jsonb := col || '{"not_null": false}';
    value text := given;
begin
    if kind = 'constant' or kind = 'volatile' and not (changes ->> 'replicated')::bool then
        execute head || shardman.column_sql(plain) || ends;
        return null;
    elsif kind = 'sequence' then
        -- For a moment, and NOT NULL wants something.
        value := '0';
        execute head || shardman.column_sql(plain || jsonb_build_object('default', value)) || ends;
        perform shardman.make_column_sequence(relation, col);
    elsif kind = 'stable' or ends <> '' then
        if value is null then
            -- As it is written out: a cast to text may say something else.
            execute format('select case num_nulls(v) when 0 then quote_literal(concat(v)) else ''NULL'' end from (select (%s)::%s as v) x', col ->> 'default', col ->> 'type') into value;
        end if;
        execute head || shardman.column_sql(plain || jsonb_build_object('default', value || '::' || (col ->> 'type'))) || ends;
    else
        execute head || shardman.column_sql(plain || '{"default": null}');
    end if;
    -- Replicas have no defaults: they get the column as it is now.
    perform shardman.follow_copies(relation);
    execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', col ->> 'default');
    if kind <> 'stable' then
        perform shardman.fill_column(relation, col, changes);
    end if;
    return value;
end
$$;
comment on function shardman.add_column_alike(text, jsonb, jsonb, text) is
    'as the caller: adds a column whose values are the same on all copies; given: the value that another node has computed. Returns it';
