-- Checks that are NOT VALID. They hold for what is written from now on, and rows that are there may break them. Rows that are copied are
-- written: so a new copy gets such a check when it has its rows. And CREATE TABLE, LIKE and PARTITION OF make valid ones of them, to which
-- PostgreSQL attaches no table whose check is not: so a table gets them when its partitions are there.

create or replace function shardman.is_late(item jsonb) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$ select coalesce(item ->> 'sql' ~ ' NOT VALID$', false) $$;
comment on function shardman.is_late(jsonb) is 'whether a check of a definition is not valid';

create or replace function shardman.late_checks(rel oid) returns table (name name, sql text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.conname, pg_get_constraintdef(o.oid) from pg_constraint o
     where o.conrelid = rel and o.contype = 'c' and not o.convalidated and o.conname <> 'shardman_partition' and pg_get_constraintdef(o.oid) ~ ' NOT VALID$'
     order by o.conname
$$;
comment on function shardman.late_checks(oid) is 'the checks of a table that are not valid: not those that are not enforced';

create or replace function shardman.late_script(definition jsonb, called text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('alter table %s add constraint %I %s%s', called, c ->> 'name', c ->> 'sql', case when (c ->> 'no_inherit')::bool then ' no inherit' end)
      from jsonb_array_elements(definition -> 'checks') c where shardman.is_late(c)
$$;
comment on function shardman.late_script(jsonb, text) is 'the statements that give a table that is called so the checks of a definition that are not valid';

create or replace function shardman.drop_late_checks(rel oid, wanted oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name name;
begin
    for name in select o.conname from pg_constraint o where o.conrelid = rel and o.contype = 'c' and o.conname in (select l.name from shardman.late_checks(wanted) l) loop
        execute format('alter table %s drop constraint %I', rel::regclass, name);
    end loop;
end
$$;
comment on function shardman.drop_late_checks(oid, oid) is 'before rows are copied into a table: takes away the checks that are not valid on another one, or on itself';

create or replace function shardman.lay_late_checks(rel oid, definition jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    item jsonb;
begin
    for item in
        select c from jsonb_array_elements(definition -> 'checks') c
         where shardman.is_late(c) and not exists (select from pg_constraint o where o.conrelid = rel and o.conname = c ->> 'name')
    loop
        execute (select s from shardman.late_script(jsonb_build_object('checks', jsonb_build_array(item)), rel::regclass::text) s);
        if item ->> 'comment' is not null then
            execute format('comment on constraint %I on %s is %L', item ->> 'name', rel::regclass, item ->> 'comment');
        end if;
    end loop;
end
$$;
comment on function shardman.lay_late_checks(oid, jsonb) is 'gives a table those checks of a definition that are not valid, where it lacks them: it has its rows, or its partitions';
