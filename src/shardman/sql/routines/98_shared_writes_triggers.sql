-- The triggers by which a shared table is written through, and the function of each table that they call, which belongs to the
-- table's owner (98_shared_writes.sql).

create or replace function shardman.rows_at_once(rel oid) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when exists (select from pg_constraint o where o.conrelid = rel and o.confrelid = rel and o.contype = 'f') then 1000000000000 else 1000 end
$$;
comment on function shardman.rows_at_once(oid) is
    'how many rows of a shared table are sent at once; of one whose rows refer to each other all of a statement''s are: before the last '
    'one is there the first may not be right';

create or replace function shardman.keys_act_on(rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint o
                    where o.conrelid = rel and o.contype = 'f' and (o.confupdtype in ('c', 'n', 'd') or o.confdeltype in ('c', 'n', 'd')))
$$;
comment on function shardman.keys_act_on(oid) is 'whether foreign keys of a table write to it: one statement may then change a row more than once';

create or replace function shardman.rows_as_they_are(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select array_agg(x.r) from (select y.r, (row_number() over () - 1) / $1 as n '
                  'from (select distinct t::text as r from shardman_new d join only %s t on %s) as y) as x group by x.n',
                  rel::regclass, (select string_agg(format('t.%s %s d.%1$s', k.col, k.op), ' and ' order by k.n) from shardman.shared_key(rel) k))
$$;
comment on function shardman.rows_as_they_are(oid) is
    'in a trigger, the rows of shardman_new as they are now, $1 at once: each once, and without those that have been deleted or given another key since';

create or replace function shardman.shared_body(relation text) returns text
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select replace($body$
declare
    size  bigint;
    rows_ text[];
begin
    if shardman.is_arriving() then
        if tg_when = 'AFTER' and tg_op = 'DELETE' then
            perform shardman.count_shared_acted(tg_relid, 'delete', (select count(*) from shardman_old));
        elsif tg_when = 'AFTER' and tg_level = 'ROW' then
            perform shardman.count_shared_acted(tg_relid, 'key', 1);
        end if;
        return null;
    end if;
    size := shardman.rows_at_once(tg_relid);
    if tg_when = 'BEFORE' then
        perform shardman.lock_shared(<relation>);
    elsif tg_op = 'TRUNCATE' then
        perform shardman.send_shared(<relation>, 'truncate', '{}');
    elsif tg_level = 'ROW' then
        perform shardman.send_shared(<relation>, 'key', array[old::text, new::text]);
    elsif tg_op = 'UPDATE' and shardman.keys_act_on(tg_relid) then
        for rows_ in execute shardman.rows_as_they_are(tg_relid) using size loop
            perform shardman.send_shared(<relation>, 'update', rows_);
        end loop;
    elsif tg_op = 'DELETE' then
        for rows_ in select array_agg(x.r) from (select (d.*)::text as r, (row_number() over () - 1) / size as n from shardman_old as d) as x group by x.n loop
            perform shardman.send_shared(<relation>, 'delete', rows_);
        end loop;
    else
        for rows_ in select array_agg(x.r) from (select (d.*)::text as r, (row_number() over () - 1) / size as n from shardman_new as d) as x group by x.n loop
            perform shardman.send_shared(<relation>, lower(tg_op), rows_);
        end loop;
    end if;
    return null;
end
$body$, '<relation>', quote_literal(relation))
$$;
comment on function shardman.shared_body(text) is 'the text of the trigger function of a shared table';

create or replace function shardman.shared_trigger_forms() returns table (name text, form text)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    values ('A_shardman_lock', 'before insert or update or delete or truncate <on> for each statement <do>'),
           ('A_shardman_key', 'after update <on> for each row when (<changed>) <do>'),
           ('shardman_insert', 'after insert <on> referencing new table as shardman_new for each statement <do>'),
           ('shardman_update', 'after update <on> referencing new table as shardman_new for each statement <do>'),
           ('shardman_delete', 'after delete <on> referencing old table as shardman_old for each statement <do>'),
           ('shardman_truncate', 'after truncate <on> for each statement <do>')
$$;
comment on function shardman.shared_trigger_forms() is 'the triggers of a copy of a shared table: their names, and what follows them';

create or replace function shardman.shared_triggers(relation text) returns table (name text, statement text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (
        select shardman.name_here(relation) as tab, shardman.sql_name(shardman.shared_function(relation)) || '()' as func,
               (select format('(%s) is distinct from (%s)', string_agg('old.' || k.col, ', ' order by k.n), string_agg('new.' || k.col, ', ' order by k.n))
                  from shardman.shared_key(shardman.find_relation(relation)) k) as changed
    )
    select t.name, format('create or replace trigger %I %s', t.name,
                          replace(replace(replace(t.form, '<on>', 'on ' || me.tab), '<changed>', me.changed), '<do>', 'execute function ' || me.func))
      from me cross join shardman.shared_trigger_forms() t
$$;
comment on function shardman.shared_triggers(text) is 'the triggers of a copy of a shared table, and the statements that make them';

create or replace function shardman.shared_lacks(relation text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    func constant oid := shardman.find_function(shardman.shared_function(relation));
begin
    return (
        select case when rel is null then 'the table is missing'
                    when c.relkind <> 'r' then 'another relation has the name of the table'
                    when not exists (select from pg_index i where i.indrelid = rel and i.indisprimary) then 'the table has no primary key'
                    when f.oid is null or f.proowner <> c.relowner or not f.prosecdef or f.prosrc <> shardman.shared_body(shared_lacks.relation)
                         then 'its trigger function is not what it must be'
                    when shardman.names_other_key(rel) then 'its trigger for changed keys names other columns'
                    when exists (select from shardman.own_triggers(rel) o where o.definition = o.plain) then 'its own triggers would act on what arrives'
                    else (select 'it lacks triggers: ' || string_agg(w.name, ', ' order by w.name)
                            from shardman.shared_trigger_forms() w
                           where not exists (select from pg_trigger g where g.tgrelid = rel and g.tgname = w.name and g.tgenabled = 'O' and g.tgfoid = func))
                    end
          from (values (1)) as one left join pg_class c on c.oid = rel left join pg_proc f on f.oid = func);
end
$$;
comment on function shardman.shared_lacks(text) is 'what the copy of a shared table on this node lacks; null where it has all';

create or replace view shardman.shared_state as
    -- Looked at once for each copy of this node: offset keeps the planner from asking of other nodes' too, and for each use.
    select c.relation, x.problem
      from (select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node offset 0) as c
     cross join lateral (select shardman.shared_lacks(c.relation) as problem offset 0) as x;
comment on view shardman.shared_state is 'this node: its copies of shared tables; problem is null where all is well';

create or replace function shardman.lay_shared_function(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    func   constant text := shardman.sql_name(shardman.shared_function(relation));
    owner_ constant name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = shardman.find_relation(relation));
begin
    execute format('create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp '
                   'set datestyle = ''ISO'' set intervalstyle = ''postgres'' set extra_float_digits = 3 set bytea_output = ''hex'' as %L',
                   func, shardman.shared_body(relation));
    execute format('alter function %s() owner to %I', func, owner_);
    execute format('revoke all on function %s() from public', func);
    execute format('comment on function %s() is %L', func, 'pg_shardman: writes to the shared table ' || relation || ' go to all its copies');
end
$$;
comment on function shardman.lay_shared_function(text) is 'makes the trigger function of a shared table what it must be';

create or replace function shardman.arm_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    item text;
begin
    insert into shardman.shared_locks select shardman.shared_lock_name(relation), k from unnest(array['turn', 'work']) k on conflict do nothing;
    if shardman.shared_lacks(relation) is null then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.lay_shared_function(relation);
    for item in select t.statement from shardman.shared_triggers(relation) t loop
        execute item;
    end loop;
    perform shardman.guard_triggers(rel);
    for item in select g.tgname from pg_trigger g join shardman.shared_triggers(relation) w on w.name = g.tgname where g.tgrelid = rel and g.tgenabled <> 'O' loop
        execute format('alter table %s enable trigger %I', rel::regclass, item);
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.arm_shared(text) is 'gives the copy of a shared table on this node its triggers; safe to repeat';
