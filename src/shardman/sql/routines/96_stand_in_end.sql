-- The end of a statement that was done to a stand-in (96_stand_in.sql): the sharded table comes back into its place and gets what the stand-in got, as
-- the caller; then its copies on this node, data tables and replicas alike, follow in keys and unique indexes, each under names of its own.

create or replace function shardman.take_stand_in(relation text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    stand   constant oid := shardman.find_relation(relation);
    behind  constant oid := shardman.table_behind(relation);
    changes jsonb;
    acts    jsonb;
begin
    perform shardman.need_owner(relation);
    changes := shardman.stand_in_changes(relation, stand, behind);
    acts := shardman.stand_in_triggers(relation, stand);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.put_back(relation);
    perform shardman.put_back_beside();
    if acts is not null then
        perform shardman.change_row_triggers(relation, behind, acts);
    end if;
    perform set_config('shardman.ddl_busy', '', true);
    perform shardman.note_constraints(relation, changes);
    return changes || jsonb_build_object(
        'data', (select coalesce(jsonb_agg(d.data::regclass order by d.part_name), '[]') from shardman.data_tables_here(behind) d),
        'foreign_keys', (select coalesce(jsonb_agg(format('alter table %s add constraint %I %s', d.data::regclass, f ->> 'name', shardman.reference_sql(f, d.part_name))), '[]')
                           from jsonb_array_elements(changes -> 'foreign_keys') f, shardman.data_tables_here(behind) d));
end
$$;
comment on function shardman.take_stand_in(text) is
    'for the owner of a sharded table: puts it back into its place, and returns what was done to the stand-in; data: its data tables here; foreign_keys: the '
    'statements that make them';

create or replace function shardman.finish_stand_in(relation text, given jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    changes jsonb;
    name    constant text := shardman.sql_name(relation);
    schema_ constant text := (shardman.relation_parts(relation))[1];
    values_ jsonb := coalesce(given, '{}');
    item    jsonb;
    text_   text;
begin
    if (select c.relkind from pg_class c where c.oid = shardman.find_relation(relation)) = 'r' then
        return shardman.finish_tuning(relation, given);
    end if;
    changes := shardman.take_stand_in(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    for item in select * from jsonb_array_elements(changes -> 'columns') loop
        values_ := values_ || jsonb_build_object(item ->> 'name', shardman.add_column_alike(relation, item, changes, values_ ->> (item ->> 'name')));
    end loop;
    for item in select * from jsonb_array_elements(changes -> 'numbered') loop
        -- No column is called so.
        values_ := values_ || jsonb_build_object('', coalesce(values_ -> '', '{}')
                                                     || jsonb_build_object(item ->> 'name', shardman.number_column(relation, item, values_ -> '' -> (item ->> 'name'))));
    end loop;
    for text_ in
        select format('alter table %s rename constraint %I to %I', d, r ->> 'from', r ->> 'to')
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements(changes -> 'renamed_references') r
        union all
        select format('alter table only %s rename constraint %I to %I', name, r ->> 'from', r ->> 'to') from jsonb_array_elements(changes -> 'renamed_keys') r
        union all
        select format('alter table %s drop constraint if exists %I', d, f ->> 'name')
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements(changes -> 'dropped_references') f
        union all
        select format('alter table only %s drop constraint %I', name, k ->> 'name') from jsonb_array_elements(changes -> 'dropped_keys') k
        union all
        select format('alter table %s alter column %I drop default', name, c) from jsonb_array_elements_text(changes -> 'unnumbered') c
        union all
        select format('alter index %I.%I rename to %I', schema_, r ->> 'from', r ->> 'to') from jsonb_array_elements(changes -> 'renamed_indexes') r
        union all
        select format('drop index %I.%I', schema_, i ->> 'name') from jsonb_array_elements(changes -> 'dropped_indexes') i
        union all
        select format('alter table %s alter column %I set not null', name, c) from jsonb_array_elements_text(changes -> 'not_null') c
        union all
        select format('alter table %s add constraint %I %s', name, c ->> 'name', c ->> 'sql') from jsonb_array_elements(changes -> 'checks') c
        union all
        select format('alter table only %s add constraint %I %s', name, k ->> 'name', k ->> 'sql') from jsonb_array_elements(changes -> 'keys') k
        union all
        select format('create unique index %I on only %s %s', i ->> 'name', name, i ->> 'sql') from jsonb_array_elements(changes -> 'indexes') i
        union all
        select * from jsonb_array_elements_text(changes -> 'foreign_keys')
        union all
        select format('alter table %s validate constraint %I', d, v)
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements_text(changes -> 'validated') v
    loop
        execute text_;
    end loop;
    perform shardman.keep_rows(array(select d::regclass::oid from jsonb_array_elements_text(changes -> 'data') d));
    perform set_config('shardman.ddl_busy', '', true);
    if given is null and changes ->> 'deferrable' is not null then
        raise notice 'foreign keys of % are checked at each statement: %', relation, changes ->> 'deferrable';
    end if;
    perform shardman.follow_keys(relation, changes -> 'dropped_keys', changes -> 'renamed_keys'),
            shardman.follow_uniques(relation, changes -> 'dropped_indexes', changes -> 'renamed_indexes');
    return values_;
end
$$;
comment on function shardman.finish_stand_in(text, jsonb) is
    'as the caller: gives a sharded table on this node what its stand-in got; given: values of defaults that another node has computed. Returns them';

create or replace function shardman.key_on(data oid, name text, k int) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.conname from pg_constraint o
     where o.conrelid = data and o.contype in ('p', 'u') and (o.conname = shardman.numbered_name(name, k) or shardman.is_other_name(o.conname, name, k))
$$;
comment on function shardman.key_on(oid, text, int) is 'what a key of a table is called on data table k';

create or replace function shardman.choose_identity(data oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    index constant oid := shardman.identity_index(data);
    wanted constant text := case when index is null then 'full' when (select i.indisprimary from pg_index i where i.indexrelid = index) then 'default'
                                 else 'using index ' || quote_ident((select c.relname from pg_class c where c.oid = index limit 1)) end;
begin
    if (select c.relreplident from pg_class c where c.oid = data order by age(c.xmin) limit 1) <> left(wanted, 1)::"char" then
        execute format('alter table %s replica identity %s', data::regclass, wanted);
    end if;
end
$$;
comment on function shardman.choose_identity(oid) is 'after keys of a data table have changed: by what replication tells its rows apart';

create or replace function shardman.rename_key_on(data oid, k int, former text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    called  constant name := shardman.key_on(data, former, k);
    schema_ constant text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = data limit 1);
begin
    if called is not null then
        execute format('alter table only %s rename constraint %I to %I', data::regclass, called, shardman.free_name(schema_, wanted, k));
    end if;
end
$$;
comment on function shardman.rename_key_on(oid, int, text, text) is 'gives a key of data table k the name that goes with the one that the table calls it now';

create or replace function shardman.follow_keys(relation text, dropped jsonb, renamed jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    copy   record;
    name   text;
    item   jsonb;
begin
    perform shardman.need_owner(relation);
    if not exists (select from shardman.changed_constraints c where c.relation = follow_keys.relation and c.kind = 'keys') then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    -- Columns first, and with them NOT NULL.
    perform shardman.follow_table(relation, false);
    for copy in
        select d.data, d.part_name from shardman.data_tables_here(parent) d
        union all
        select c, regexp_replace(shardman.metadata_name(c), '_data("?)$', '\1') from shardman.copies_here(relation) c
    loop
        perform shardman.rename_key_on(copy.data, shardman.part_number(copy.part_name), r ->> 'from', r ->> 'to') from jsonb_array_elements(renamed) r;
        for name in select k ->> 'name' from jsonb_array_elements(dropped) k loop
            execute coalesce(format('alter table %s drop constraint ', copy.data::regclass)
                             || quote_ident(shardman.key_on(copy.data, name, shardman.part_number(copy.part_name))), 'select');
        end loop;
        for item in select k from jsonb_array_elements(shardman.plain_keys(parent)) k loop
            perform shardman.make_index(copy.part_name, item);
        end loop;
        perform shardman.choose_identity(copy.data);
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.follow_keys(text, jsonb, jsonb) is
    'for the owner of a sharded table: its copies on this node lose these keys, call others what it calls them, and get those that it has';

create or replace function shardman.index_on(data oid, name text, k int) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = data and (c.relname = shardman.numbered_name(index_on.name, k) or shardman.is_other_name(c.relname, index_on.name, k))
       and not exists (select from pg_constraint o where o.conindid = c.oid)
     limit 1
$$;
comment on function shardman.index_on(oid, text, int) is 'what data table k calls an index of the table';

create or replace function shardman.follow_uniques(relation text, dropped jsonb, renamed jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent  constant oid := shardman.find_relation(relation);
    schema_ constant text := (shardman.relation_parts(relation))[1];
    -- One that is just being built beside writers is not known yet.
    wanted  constant jsonb := (select coalesce(jsonb_agg(i), '[]') from shardman.known_items(relation, 'indexes') i
                                where shardman.plain_uniques(parent) @> jsonb_build_array(jsonb_build_object('name', i -> 'name')));
    copy    record;
    line    text;
begin
    perform shardman.need_owner(relation);
    if wanted = '[]' and dropped = '[]' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    -- Columns first.
    perform shardman.follow_table(relation, false), shardman.need_trusted(array[parent]), shardman.need_trusted_types(wanted);
    for copy in
        select d.data, d.part_name from shardman.data_tables_here(parent) d
        union all
        select c, regexp_replace(shardman.metadata_name(c), '_data("?)$', '\1') from shardman.copies_here(relation) c
    loop
        for line in
            select format('alter index %I.%I rename to %I', schema_, o.called, shardman.free_name(schema_, r ->> 'to', o.k))
              from jsonb_array_elements(renamed) r
             cross join lateral (select x.k, shardman.index_on(copy.data, r ->> 'from', x.k) from shardman.part_number(copy.part_name) as x (k)) as o (k, called)
             where o.called is not null
            union all
            select format('drop index %I.%I', schema_, o.called)
              from jsonb_array_elements(dropped) i
             cross join lateral shardman.index_on(copy.data, i ->> 'name', shardman.part_number(copy.part_name)) as o (called)
             where o.called is not null
        loop
            execute line;
        end loop;
        perform shardman.make_index(copy.part_name, i) from jsonb_array_elements(wanted) i;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.follow_uniques(text, jsonb, jsonb) is
    'for the owner of a sharded table: its copies on this node lose these unique indexes, call others what it calls them, and get those that it has';
