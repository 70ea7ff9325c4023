-- What plain DDL has changed of a sharded table's keys, unique indexes and foreign keys, until the metadata know: each node writes it down
-- (shardman.changed_constraints), so that nothing makes again what was dropped, and a new definition is made of both.

create or replace function shardman.known_references(relation text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select f from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
     where t.relation = known_references.relation
       and not exists (select from shardman.changed_constraints c where c.relation = known_references.relation and c.name = f ->> 'name')
    union all
    select c.item from shardman.changed_constraints c
     where c.relation = known_references.relation and c.kind = 'foreign_keys' and c.item is not null
$$;
comment on function shardman.known_references(text) is 'the foreign keys of a sharded table, by the metadata and what DDL has changed since';

create or replace function shardman.known_items(relation text, kind text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select k from shardman.tables t cross join jsonb_array_elements(t.definition -> known_items.kind) k
     where t.relation = known_items.relation
       and not exists (select from shardman.changed_constraints c where c.relation = known_items.relation and c.name = k ->> 'name')
    union all
    select c.item from shardman.changed_constraints c where c.relation = known_items.relation and c.kind = known_items.kind and c.item is not null
$$;
comment on function shardman.known_items(text, text) is 'the keys or indexes (kind: as in a definition) of a sharded table, by the metadata and what DDL has changed since';

create or replace function shardman.note_constraints(relation text, changes jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.changed_constraints as c (relation, name, kind, item)
    select distinct on (x.item ->> 'name') note_constraints.relation, x.item ->> 'name', x.kind, case when x.added then x.item end
      from (select 'keys', k, true from jsonb_array_elements(changes -> 'keys') k
            union all select 'keys', k, false from jsonb_array_elements(changes -> 'dropped_keys') k
            union all select 'indexes', i, true from jsonb_array_elements(changes -> 'indexes') i
            union all select 'indexes', i, false from jsonb_array_elements(changes -> 'dropped_indexes') i
            union all select 'indexes', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_indexes') r
            union all select 'indexes', i || jsonb_build_object('name', r -> 'to'), true
                        from jsonb_array_elements(changes -> 'renamed_indexes') r, shardman.known_items(relation, 'indexes') i where i -> 'name' = r -> 'from'
            union all select 'foreign_keys', f, true from jsonb_array_elements(changes -> 'foreign_keys') f
            union all select 'foreign_keys', f, false from jsonb_array_elements(changes -> 'dropped_references') f
            union all select 'keys', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_keys') r
            union all select 'keys', k || jsonb_build_object('name', r -> 'to')
                             , true from jsonb_array_elements(changes -> 'renamed_keys') r, shardman.known_items(relation, 'keys') k where k -> 'name' = r -> 'from'
            union all select 'foreign_keys', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_references') r
            union all select 'foreign_keys', f || jsonb_build_object('name', r -> 'to'), true
                        from jsonb_array_elements(changes -> 'renamed_references') r, shardman.known_references(relation) f where f -> 'name' = r -> 'from') as x (kind, item, added)
     order by x.item ->> 'name', x.added desc
        on conflict on constraint changed_constraints_pkey do update set kind = excluded.kind, item = excluded.item
$$;
comment on function shardman.note_constraints(text, jsonb) is 'writes down which keys, unique indexes and foreign keys DDL has changed on this node';

create or replace function shardman.forget_constraints() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.changed_constraints c
     where not exists (select from shardman.tables t where t.relation = c.relation)
        -- What has gone with a column, before the metadata knew of it.
        or c.kind in ('keys', 'indexes') and c.item is not null and shardman.find_relation(c.relation) is not null
           and not exists (select from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = shardman.find_relation(c.relation) and x.relname = c.name)
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind = 'row_triggers'
                      and coalesce(t.definition -> 'row_triggers' ->> 'change', md5('[]')) = c.item ->> 'change')
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind = 'statistics' and shardman.are_known(c.item, t.definition -> 'statistics', c.name))
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind not in ('row_triggers', 'statistics')
                      and c.item ->> 'sql' is not distinct from (select k ->> 'sql' from jsonb_array_elements(t.definition -> c.kind) k where k ->> 'name' = c.name))
$$;
comment on function shardman.forget_constraints() is 'forgets what the metadata know by now';

create or replace function shardman.is_dropped(relation text, name text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.changed_constraints c where (c.relation, c.name) = (is_dropped.relation, is_dropped.name) and (c.item is null or c.kind = 'indexes'))
$$;
comment on function shardman.is_dropped(text, text) is
    'whether DDL has dropped a key, foreign key or unique index that the metadata still have, or given an index the name of one';

create or replace function shardman.redefined_indexes(t shardman.tables, parent oid, data oid, k int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e || jsonb_build_object(
                                  'identity', coalesce((select x.oid from pg_class x where x.relname = shardman.index_on(data, e ->> 'name', k) and x.relnamespace = d.relnamespace)
                                                       = shardman.identity_index(data), false),
                                  'comment', case when p.oid is null then e ->> 'comment' else obj_description(p.oid, 'pg_class') end) order by n), '[]')
      from jsonb_array_elements(
               shardman.kept_items((select coalesce(jsonb_agg(x order by m), '[]') from jsonb_array_elements(t.definition -> 'indexes') with ordinality as w (x, m)
                                     where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, k)
               || (select coalesce(jsonb_agg(c.item order by c.name), '[]')
                     from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'indexes' and c.item is not null and shardman.index_on(data, c.name, k) is not null)) with ordinality as u (e, n)
      join pg_class d on d.oid = data
      left join pg_class p on p.relname = e ->> 'name' and p.oid in (select i.indexrelid from pg_index i where i.indrelid = parent)
$$;
comment on function shardman.redefined_indexes(shardman.tables, oid, oid, int) is
    'the indexes of a definition, but for those that PostgreSQL keeps above all partitions, as they are now; data: data table k of this node';

create or replace function shardman.redefined_keys(t shardman.tables, parent oid, data oid, k int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e || jsonb_build_object('identity', coalesce(i.identity, false)) order by n), '[]')
      from jsonb_array_elements(
               shardman.kept_items((select coalesce(jsonb_agg(x order by m), '[]') from jsonb_array_elements(t.definition -> 'keys') with ordinality as w (x, m)
                                     where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, k)
               || (select coalesce(jsonb_agg('{"options": null, "clustered": false, "comment": null}' || c.item), '[]')
                     from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'keys' and c.item is not null and shardman.key_on(data, c.name, k) is not null)) with ordinality as u (e, n)
     cross join lateral (select (select o.conindid from pg_constraint o where o.conrelid = data and o.contype in ('p', 'u', 'x')
                                    and (o.conname = shardman.numbered_name(e ->> 'name', k) or shardman.is_other_name(o.conname, e ->> 'name', k))) = shardman.identity_index(data)
                                as identity) as i
$$;
comment on function shardman.redefined_keys(shardman.tables, oid, oid, int) is 'the keys of a definition as they are now; data: data table k of this node';

create or replace function shardman.redefined_references(t shardman.tables, data oid, parent oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.kept_references((select coalesce(jsonb_agg(x), '[]') from jsonb_array_elements(coalesce(t.definition -> 'foreign_keys', '[]')) x
                                      where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, parent)
           || (select coalesce(jsonb_agg(c.item order by c.name), '[]')
                 from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'foreign_keys' and c.item is not null)
$$;
comment on function shardman.redefined_references(shardman.tables, oid, oid) is 'the foreign keys of a definition as they are now; data: a data table of this node';
