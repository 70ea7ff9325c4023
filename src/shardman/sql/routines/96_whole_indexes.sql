-- shardman.create_index_concurrently: an index of a sharded table that is built beside its writers.
--
-- PostgreSQL has no CREATE INDEX CONCURRENTLY above partitions. So the table gets the index first, alone (ON ONLY), on all nodes, in the
-- caller's transaction and with his rights: it is in the catalogs, invalid, and nobody uses it. What is built on the data tables
-- is read from there, never from a text that somebody has sent. Once all copies have it, each node makes the index of the table as a
-- whole: PostgreSQL finds those that are there, and builds nothing.

create or replace function shardman.create_index_concurrently(definition text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    word   constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    found_ constant text[] := regexp_match(
        shardman.one_statement(definition), '^create\s+(unique\s+)?index\s+(?:concurrently\s+)?(?!if\s+not\s+exists\s)(?!on\s)(' || word || ')\s+on\s+(?:only\s+)?('
                                            || word || '(?:\s*\.\s*' || word || ')?)(.*)$', 'i');
    former constant text := coalesce(current_setting('shardman.ddl', true), '');
    node   int;
    nodes  int[];
    others int[];
    name   text;
    text_  text;
begin
    if found_ is null then
        raise exception 'this is not a CREATE INDEX with a name'
            using errcode = 'invalid_parameter_value', hint = 'Write it as create index acc_name_idx on acc (lower(name)), one statement, without IF NOT EXISTS.';
    end if;
    name := (parse_ident(found_[2]))[1];
    text_ := format('create %sindex %I on only %s%s', found_[1], name, shardman.sql_name(found_[3]), found_[4]);
    nodes := shardman.lock_doors(found_[3], true);
    select array_agg(n) into others from unnest(nodes) n where to_regclass(format('shardman.%I', 'door_' || n || '_' || pg_backend_pid())) is not null;
    perform set_config('shardman.ddl_path', 'public', true), set_config('shardman.ddl_nodes', array_to_string(others, ','), true);
    -- The locks that the statement needs on all nodes, without keeping anybody waiting for long.
    perform shardman.pass_gate(shardman.normal_name(found_[3]), 'CREATE INDEX');
    foreach node in array nodes loop
        if node = any (others) then
            perform shardman.through_door(node, text_, '10s');
            continue;
        end if;
        perform set_config('shardman.ddl', 'spread', true), set_config('search_path', 'public', true);
        execute text_;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('shardman.ddl', former, true);
    end loop;
    perform shardman.lock_doors(found_[3], false);
    return shardman.build_index(found_[3], name);
end
$$;
comment on function shardman.create_index_concurrently(text) is
    'CREATE INDEX CONCURRENTLY of a sharded table, for its owner: takes the statement, with a name for the index; names without a schema are in '
    'public. Returns the id of the command that builds it on all copies, shardman.build_index';

create or replace function shardman.whole_index(relation text, index_name text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('unique', i.indisunique, 'valid', i.indisvalid or i.indisunique and exists (select from shardman.known_items(whole_index.relation, 'indexes') k where k ->> 'name' = c.relname),
                              'sql', shardman.index_definition(c.oid))
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = shardman.find_relation(relation) and c.relname = index_name
       and not exists (select from pg_constraint o where o.conindid = c.oid and o.contype in ('p', 'u', 'x'))
$$;
comment on function shardman.whole_index(text, text) is 'an index that a sharded table has as a whole, or is to have; null when it has none of this name';

create or replace function shardman.index_to_build(relation text, part_name text, index_name text) returns table (text text, leftover text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    wanted constant jsonb := shardman.whole_index(relation, index_name);
    data   constant oid := shardman.find_relation(shardman.data_table(part_name));
    called constant text := shardman.numbered_name(index_name, shardman.part_number(part_name));
    state  record;
begin
    if wanted is null or data is null then
        return;
    end if;
    -- PostgreSQL computes what is constant in it as whoever opens the table.
    perform shardman.need_trusted(array[shardman.find_relation(relation)]);
    perform shardman.need_trusted_types(jsonb_build_array(wanted -> 'sql'));
    select i.indisvalid as valid, n.nspname as schema into state
      from pg_class c join pg_index i on i.indexrelid = c.oid join pg_namespace n on n.oid = c.relnamespace
     where i.indrelid = data and c.relname = called;
    if state.valid then
        return;
    end if;
    return query select format('create %sindex concurrently %I on %s %s', case when (wanted ->> 'unique')::bool then 'unique ' else '' end, called,
                               data::regclass, wanted ->> 'sql'),
                        case when state.valid is not null then format('drop index concurrently %I.%I', state.schema, called) end;
end
$$;
comment on function shardman.index_to_build(text, text, text) is
    'the statement that builds an index of a table on one copy, by what the table has in this node''s catalogs, and before it the one that drops what an '
    'earlier try has left; no row where nothing is to be done';

create or replace function shardman.index_to_drop(part_name text, index_name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('drop index concurrently %I.%I', n.nspname, c.relname)
      from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
     where i.indrelid = shardman.find_relation(shardman.data_table(part_name)) and not c.relispartition
       and c.relname = shardman.numbered_name(index_name, shardman.part_number(part_name))
$$;
comment on function shardman.index_to_drop(text, text) is 'the statement that takes from one copy what was built there of an index; null where nothing was';

create or replace function shardman.drop_begun_index(relation text, index_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parts constant text[] := shardman.relation_parts(relation);
begin
    if not (shardman.whole_index(relation, index_name) ->> 'valid')::bool then
        execute format('drop index %I.%I', parts[1], index_name);
    end if;
end
$$;
comment on function shardman.drop_begun_index(text, text) is 'drops the index of a table that was never built, on this node';

create or replace function shardman.make_whole_index(relation text, index_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    wanted constant jsonb := shardman.whole_index(relation, index_name);
begin
    if wanted is null or (wanted ->> 'valid')::bool then
        return;
    end if;
    -- Above foreign tables PostgreSQL has no other than this.
    if (wanted ->> 'unique')::bool then
        return;
    end if;
    perform shardman.need_trusted(array[shardman.find_relation(relation)]);
    perform shardman.need_trusted_types(jsonb_build_array(wanted -> 'sql'));
    perform shardman.drop_begun_index(relation, index_name);
    execute format('create index %I on %s %s', index_name, shardman.sql_name(relation), wanted ->> 'sql');
end
$$;
comment on function shardman.make_whole_index(text, text) is
    'on a node all of whose copies have it: the index of a table as a whole, in place of that which was never built';

create or replace function shardman.record_index(relation text, index_name text, item jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.tables t set definition = d.definition, create_sql = shardman.parent_script(d.definition)
      from (select x.relation, k.kind, x.definition || jsonb_build_object(k.kind, (
                       select jsonb_agg(i) from (select i from jsonb_array_elements(coalesce(x.definition -> k.kind, '[]')) i where i ->> 'name' <> record_index.index_name
                                                 union all
                                                 select jsonb_build_object('name', record_index.index_name, 'unique', item -> 'unique', 'sql', item -> 'sql',
                                                                           'identity', false, 'clustered', false, 'comment', null)) as u (i))) as definition
              from shardman.tables x cross join (select case when (item ->> 'unique')::bool then 'indexes' else 'shared_indexes' end as kind) as k) as d
     where d.relation = t.relation and t.relation = record_index.relation
$$;
comment on function shardman.record_index(text, text, jsonb) is 'lord only: copies of the table''s partitions that are made from now on get this index';

create or replace function shardman.lay_whole_indexes(relation text, items jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    item jsonb;
begin
    for item in
        select i from jsonb_array_elements(items) i
         where not exists (select from pg_index x join pg_class c on c.oid = x.indexrelid where x.indrelid = rel and c.relname = i ->> 'name')
    loop
        perform shardman.need_trusted(array[rel]);
        perform shardman.need_trusted_types(jsonb_build_array(item -> 'sql'));
        execute format('create index %I on %s %s', item ->> 'name', rel::regclass, item ->> 'sql');
        if item ->> 'comment' is not null then
            execute format('comment on index %I.%I is %L', (shardman.relation_parts(relation))[1], item ->> 'name', item ->> 'comment');
        end if;
    end loop;
end
$$;
comment on function shardman.lay_whole_indexes(text, jsonb) is
    'on a node where a table was sharded, once the plain table is gone, which had their names: the indexes of the table as a whole, of those of '
    'its data tables; nothing is built';
