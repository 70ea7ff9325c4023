-- The keys of a sharded table, on its parent. PostgreSQL refuses them above foreign tables, but not with ALTER TABLE ONLY, which
-- leaves the partitions alone. So they say what holds and make nothing hold: that do the keys of the data tables. Their indexes
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

create or replace function shardman.mend_keys(definition jsonb, parent oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    k record;
begin
    -- What DDL has dropped here, before the metadata know.
    for k in select * from shardman.keys_lacking(definition, parent) l
             where case when definition ->> 'relation' is null then true else not shardman.is_dropped(definition ->> 'relation', l.name) end loop
        execute format('alter table only %s add constraint %I %s', parent::regclass, k.name, k.sql);
        if k.comment is not null then
            execute format('comment on constraint %I on %s is %L', k.name, parent::regclass, k.comment);
        end if;
    end loop;
end
$$;
comment on function shardman.mend_keys(jsonb, oid) is 'gives a parent its keys; all its partitions have to be there';

create or replace function shardman.drop_keys(parent oid) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    keys constant jsonb := (select jsonb_agg(jsonb_build_object('name', o.conname, 'sql', pg_get_constraintdef(o.oid),
                                                                 'parent_comment', obj_description(o.oid, 'pg_constraint')))
                              from pg_constraint o where o.conrelid = parent and o.contype in ('p', 'u'));
    k    jsonb;
begin
    for k in select * from jsonb_array_elements(keys) loop
        execute format('alter table only %s drop constraint %I', parent::regclass, k ->> 'name');
    end loop;
    return keys;
end
$$;
comment on function shardman.drop_keys(oid) is
    'takes its keys from a parent, until shardman.mend_keys: a partition made below them would have them as well, and then no route. '
    'Returns them';
