-- Unsharding: the shadow, a plain table under another name, and what it has beside rows (83_unsharding.sql).

create or replace function shardman.need_trusted_plain(shadow text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('lock table %s in row exclusive mode', shardman.sql_name(shadow));
    perform shardman.need_trusted(array[shardman.find_relation(shadow)]);
end
$$;
comment on function shardman.need_trusted_plain(text) is
    'raises SHM09 where rows must not be written into the plain table; what it found stays true until the transaction ends';

create or replace function shardman.make_plain(relation text, shadow text, definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab  constant text := shardman.sql_name(shadow);
    item text;
begin
    if shardman.find_relation(shadow) is not null then
        return;
    end if;
    perform shardman.need_trusted_types(definition);
    execute format('create table %s (like %s including all excluding indexes excluding statistics excluding identity)%s%s', tab,
                   shardman.sql_name(relation), ' using ' || quote_ident(nullif(definition -> 'storage' ->> 'access_method', 'heap')),
                   shardman.storage_sql(definition));
    perform shardman.drop_late_checks(shardman.find_relation(shadow), shardman.find_relation(relation));
    for item in
        select format('alter table %s add constraint %I %s no inherit', tab, c ->> 'name', c ->> 'sql')
          from jsonb_array_elements(definition -> 'checks') c where (c ->> 'no_inherit')::bool and not shardman.is_late(c)
        union all
        select format('comment on constraint %I on %s is %L', c ->> 'name', tab, c ->> 'comment')
          from jsonb_array_elements(definition -> 'checks') c where (c ->> 'no_inherit')::bool and c ->> 'comment' is not null and not shardman.is_late(c)
        union all
        select shardman.column_tuning(definition, tab)
        union all
        select format('comment on table %s is %L', tab, d) from obj_description(shardman.find_relation(relation), 'pg_class') as d where d is not null
    loop
        execute item;
    end loop;
    -- Nobody else's before it has the rows, whatever the default privileges are.
    perform shardman.leave_to_owner(shardman.find_relation(shadow));
end
$$;
comment on function shardman.make_plain(text, text, jsonb) is
    'makes a plain table like a sharded one, empty, without keys and indexes, which only the cluster may use';

create or replace function shardman.plain_items(definition jsonb) returns table (i int, item jsonb)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select u.n::int, u.e from jsonb_array_elements((definition -> 'keys') || (definition -> 'indexes') || coalesce(definition -> 'shared_indexes', '[]'))
           with ordinality as u (e, n)
$$;
comment on function shardman.plain_items(jsonb) is 'the keys and indexes of a definition, numbered';

create or replace function shardman.make_plain_indexes(shadow text, definition jsonb, cmd_id bigint, owner_ oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab    constant oid := shardman.find_relation(shadow);
    schema constant text := (shardman.relation_parts(shadow))[1];
    here   record;
    name   text;
    line   text;
begin
    -- Who owns the table builds its indexes: code of the user's must not run as the cluster's role before it was looked at.
    perform shardman.give_to(tab, owner_);
    for here in select x.i, x.item from shardman.plain_items(definition) x loop
        name := shardman.unshard_name(cmd_id, 'ix' || here.i);
        if shardman.find_relation(shardman.relation_text(schema, name)) is not null then
            continue;
        end if;
        for line in
            select format('create %sindex %I on %s %s', case when (here.item ->> 'unique')::bool then 'unique ' end, name, tab::regclass, here.item ->> 'sql')
             where here.item ? 'unique'
            union all
            select format('alter table %s add constraint %I %s', tab::regclass, name, here.item ->> 'sql') where not here.item ? 'unique'
            union all
            select format('alter index %I.%I set (', schema, name) || string_agg(o, ', ') || ')'
              from jsonb_array_elements_text(nullif(here.item -> 'options', 'null')) o where not here.item ? 'unique'
            having count(*) > 0
            union all
            select format('comment on constraint %I on %s is %L', name, tab::regclass, coalesce(here.item ->> 'parent_comment', here.item ->> 'comment'))
             where not here.item ? 'unique' and coalesce(here.item ->> 'parent_comment', here.item ->> 'comment') is not null
            union all
            select format('comment on index %I.%I is %L', schema, name, here.item ->> 'comment')
             where here.item ? 'unique' and here.item ->> 'comment' is not null
            union all
            select format('alter table %s cluster on %I', tab::regclass, name) where (here.item ->> 'clustered')::bool
            union all
            select format('alter table %s replica identity using index %I', tab::regclass, name)
             where (here.item ->> 'identity')::bool and definition -> 'replica_identity' ->> 'kind' = 'index'
        loop
            execute line;
        end loop;
    end loop;
    if definition -> 'replica_identity' ->> 'kind' = 'full' then
        execute format('alter table %s replica identity full', tab::regclass);
    end if;
    perform shardman.lay_late_checks(tab, definition);
    perform shardman.make_plain_statistics(tab, schema, x.s, shardman.unshard_name(cmd_id, 'st' || x.i))
       from jsonb_array_elements(definition -> 'statistics') with ordinality as x (s, i);
    perform shardman.give_to(tab, shardman.our_role());
end
$$;
comment on function shardman.make_plain_indexes(text, jsonb, bigint, oid) is
    'keys, indexes and statistics objects of a plain table, under names of the command; safe to repeat. owner_: who is to own it';

create or replace function shardman.make_plain_statistics(tab oid, schema text, item jsonb, name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    if exists (select from pg_statistic_ext where stxrelid = tab and stxname = name) then
        return;
    end if;
    for line in
        select format('create statistics %I.%I %s on %s from %s', schema, name, '(' || (item ->> 'kinds') || ')', item ->> 'sql', tab::regclass)
        union all
        select format('alter statistics %I.%I set statistics %s', schema, name, item ->> 'target') where item ->> 'target' is not null
        union all
        select format('comment on statistics %I.%I is %L', schema, name, item ->> 'comment') where item ->> 'comment' is not null
    loop
        execute line;
    end loop;
end
$$;
comment on function shardman.make_plain_statistics(oid, text, jsonb, text) is 'a statistics object of a definition on a plain table';
