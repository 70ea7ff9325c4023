-- The keys of a sharded table, on its parent, and its unique indexes. PostgreSQL refuses them above foreign tables, but not with ONLY, which
-- leaves the partitions alone. So they say what holds and make nothing hold: that do those of the data tables. Their indexes
-- stay invalid, and the planner takes no notice of them. But whoever reads the catalogs finds the key (psql, information_schema,
-- drivers, ORMs), and a query that groups by it may select the other columns.

create or replace function shardman.keys_lacking(definition jsonb, parent oid) returns table (name text, sql text, comment text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select k ->> 'name', k ->> 'sql', k ->> 'parent_comment'
      from jsonb_array_elements(definition -> 'keys') k
     where k ->> 'sql' ~ '^(PRIMARY KEY|UNIQUE) ' and k ->> 'sql' !~ ' WITHOUT OVERLAPS\)'
       -- PostgreSQL has no keys of tables that are partitioned by an expression.
       and not exists (select from jsonb_array_elements(definition -> 'key') e where e ->> 'column' is null)
       and not exists (select from pg_constraint o
                        where o.conrelid = parent
                          and case when k ->> 'sql' ~ '^PRIMARY' then o.contype = 'p' else o.contype = 'u' and o.conname = k ->> 'name' end)
$$;
comment on function shardman.keys_lacking(jsonb, oid) is 'the keys of a definition that a parent can have and has not';

create or replace function shardman.uniques_lacking(definition jsonb, parent oid) returns table (name text, sql text, comment text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select i ->> 'name', i ->> 'sql', i ->> 'comment'
      from jsonb_array_elements(definition -> 'indexes') i
     where (i ->> 'unique')::bool
       and not exists (select from jsonb_array_elements(definition -> 'key') e where e ->> 'column' is null)
       and case when exists (select from pg_class c join pg_class p on p.oid = parent and p.relnamespace = c.relnamespace where c.relname = i ->> 'name')
                then false
                -- What data tables here lack, a change of the schema brings, or has just taken away.
                else not exists (select from shardman.data_tables_here(parent) d
                                  where not shardman.has_index(d.data, i ->> 'name', shardman.part_number(d.part_name))) end
$$;
comment on function shardman.uniques_lacking(jsonb, oid) is
    'the unique indexes of a definition that a parent can have and has not, and for which its name is free. Of a plain table that is being sharded they are there until it is gone';

create or replace function shardman.make_key(statement text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute statement;
    return true;
exception when undefined_column then
    return false;
end
$$;
comment on function shardman.make_key(text) is
    'runs a statement that gives a parent a key or unique index; false where it has gone with a column of the table, before the metadata know or in one statement with others';

create or replace function shardman.mend_keys(definition jsonb, parent oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    k record;
begin
    -- What DDL has dropped here, before the metadata know. Without a relation the caller need not be able to read that.
    for k in select * from shardman.keys_lacking(definition, parent) l
             where case when definition ->> 'relation' is null then true else not shardman.is_dropped(definition ->> 'relation', l.name) end loop
        if shardman.make_key(format('alter table only %s add constraint %I %s', parent::regclass, k.name, k.sql)) and k.comment is not null then
            execute format('comment on constraint %I on %s is %L', k.name, parent::regclass, k.comment);
        end if;
    end loop;
    for k in select * from shardman.uniques_lacking(definition, parent) l
             where case when definition ->> 'relation' is null then true else not shardman.is_dropped(definition ->> 'relation', l.name) end loop
        if definition ->> 'relation' is not null then
            perform shardman.need_trusted(array[parent]), shardman.need_trusted_types(jsonb_build_array(k.sql));
        end if;
        if shardman.make_key(format('create unique index %I on only %s %s', k.name, parent::regclass, k.sql)) and k.comment is not null then
            execute format('comment on index %I.%I is %L', (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = parent),
                           k.name, k.comment);
        end if;
    end loop;
end
$$;
comment on function shardman.mend_keys(jsonb, oid) is 'gives a parent its keys and unique indexes; all its partitions have to be there';

create or replace function shardman.drop_keys(parent oid) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    keys constant jsonb := (select jsonb_agg(jsonb_build_object('name', o.conname, 'sql', pg_get_constraintdef(o.oid),
                                                                 'parent_comment', obj_description(o.oid, 'pg_constraint')))
                              from pg_constraint o where o.conrelid = parent and o.contype in ('p', 'u'));
    uniques constant jsonb := shardman.plain_uniques(parent);
    line text;
begin
    for line in
        select format('alter table only %s drop constraint %I', parent::regclass, k ->> 'name') from jsonb_array_elements(keys) k
        union all
        select format('drop index %I.%I', n.nspname, u ->> 'name')
          from jsonb_array_elements(uniques) u, pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = parent
    loop
        execute line;
    end loop;
    return nullif(coalesce(keys, '[]') || uniques, '[]');
end
$$;
comment on function shardman.drop_keys(oid) is
    'takes its keys and unique indexes from a parent, until shardman.mend_keys: a partition made below them would have them as well, and then no route. '
    'Returns them';
