-- What shardman distribute asks of a node's tables, beside what it decides by itself (model/distribution.py): all that is in their way,
-- whatever they are to become, but for foreign keys and unique keys, of which the answer depends on the other tables.

create or replace function shardman.null_obstacles(rel oid, key jsonb) returns setof jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    col   name;
    count bigint;
begin
    for col in
        select a.attname from pg_index i cross join jsonb_array_elements(key) e join pg_attribute a on a.attrelid = rel and a.attname = e ->> 'column'
         where i.indrelid = rel and i.indisprimary and not a.attnotnull and a.attnum <> all (i.indkey::int2[])
    loop
        execute format('select count(*) from %s where %I is null', rel::regclass, col) into count;
        if count > 0 then
            return next shardman.obstacle(format('%s of its rows have no %s, which the primary key is to contain', count, quote_ident(col)),
                                          format('Give them one, or delete them: UPDATE %s SET %I = ... WHERE %2$I IS NULL', rel::regclass, col));
        end if;
    end loop;
end
$$;
comment on function shardman.null_obstacles(oid, jsonb) is 'rows that would be in the way of a primary key with the columns of the key in it';

create or replace function shardman.obstacles_to(relation text, how text, expr text, partitions_count int) returns setof jsonb
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    rel     constant oid := shardman.find_relation(relation);
    found_  jsonb := shardman.kind_obstacle(rel);
    key     jsonb;
begin
    if rel is null or how = 'plain' then
        return;
    elsif found_ is not null then
        return next found_;
        return;
    end if;
    return query select shardman.role_obstacles(rel);
    if found then
        return;
    end if;
    if how = 'shared' then
        return query select o from shardman.shared_obstacles(rel) as o where o ->> 'what' not like 'the foreign key %, which is not shared';
        return;
    end if;
    key := shardman.read_key(rel, expr);
    if key ? 'problem' then
        return next shardman.obstacle(key ->> 'problem', key ->> 'hint');
        key := null;
    end if;
    return query
        select o from shardman.link_obstacles(rel) as o where o ->> 'what' not like 'the foreign key %'
        union all select shardman.dependent_obstacles(rel)
        union all select shardman.content_obstacles(rel)
        union all select shardman.elsewhere_obstacles(rel)
        union all select shardman.trust_obstacles(rel)
        union all select o from shardman.unique_obstacles(rel, key -> 'key') as o
                   where (o ->> 'what' like 'the exclusion constraint %'
                          or exists (select from jsonb_array_elements(key -> 'key') e where e ->> 'column' is null))
        union all select shardman.null_obstacles(rel, key -> 'key')
        union all select shardman.name_obstacles(rel, partitions_count);
end
$$;
comment on function shardman.obstacles_to(text, text, text, int) is
    'on the node of a plain table: what keeps it from becoming what it is to become (shared, sharded), but for foreign keys, and unique keys without a column of expr';

create or replace function shardman.drop_reference(relation text, name name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    o record;
begin
    perform shardman.need_owner(shardman.normal_name(relation));
    select c.*, pg_get_constraintdef(c.oid) as def into o
      from pg_constraint c where c.conrelid = shardman.find_relation(relation) and c.conname = drop_reference.name and c.contype = 'f';
    if not found then
        return;
    end if;
    insert into shardman.dropped_references (relation, name, columns, referred, to_columns, definition)
    select shardman.metadata_name(o.conrelid), o.conname,
           (select array_agg(a.attname order by n) from unnest(o.conkey) with ordinality as k (attnum, n)
              join pg_attribute a on a.attrelid = o.conrelid and a.attnum = k.attnum),
           shardman.metadata_name(o.confrelid),
           (select array_agg(a.attname order by n) from unnest(o.confkey) with ordinality as k (attnum, n)
              join pg_attribute a on a.attrelid = o.confrelid and a.attnum = k.attnum),
           o.def
        on conflict do nothing;
    execute format('alter table %s drop constraint %I', o.conrelid::regclass, o.conname);
end
$$;
comment on function shardman.drop_reference(text, name) is
    'for the owner of a plain table: notes a foreign key of it down in shardman.dropped_references and drops it';

create or replace function shardman.forget_reference(relation text, name name) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(shardman.normal_name(relation));
    delete from shardman.dropped_references d where d.relation = shardman.normal_name(forget_reference.relation) and d.name = forget_reference.name;
end
$$;
comment on function shardman.forget_reference(text, name) is
    'for the owner of a table: a foreign key of it that was noted down is there again, or is not wanted any more';
