-- A table that is made, and referred to, in one transaction, while new tables are to be shared: migration tools write both into one
-- migration. A foreign key of a sharded or shared table needs the table on every node, so there it is shared within the
-- transaction, in front of the statement that refers to it: each other node makes its copy, as the caller, with the rows that are there so
-- far, and all have the triggers of a shared table. Each writes down in its own metadata that the table is shared, and which nodes have
-- copies; so from COMMIT on it is written through like any other, and until then by this transaction alone, which needs no locks.
--
-- The command that shares each new table (shardman.on_new_table) finds it so, and writes the same into the lord's metadata. What comes
-- from there takes the place of what nodes had written down themselves.
--
-- Rollback leaves nothing, and what some nodes have committed the others get, as any change of the schema (96_healing.sql): the copy
-- with the rows that were there when it was made. The command compares all copies afterwards.

create or replace function shardman.is_made_now(relation text) returns bool
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.shared_tables s where s.relation = is_made_now.relation and s.definition ? 'made_now')
$$;
comment on function shardman.is_made_now(text) is 'whether a table was shared in the transaction that has made it, and the lord''s metadata do not have it yet';

create or replace function shardman.made_now_owner(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pg_get_userbyid(c.relowner)::text from pg_class c
     where c.oid = shardman.find_relation(relation) and shardman.is_made_now(relation) and shardman.is_a_copy(relation)
$$;
comment on function shardman.made_now_owner(text) is
    'who owns the copy of a table on this node that was shared in the transaction that has made it; null where there is none';

create or replace function shardman.shared_by_all() returns int[]
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(select n.id from shardman.nodes n where n.worker_status = 'active' order by n.id)
$$;
comment on function shardman.shared_by_all() is 'the nodes that get a copy of each new shared table';

create or replace function shardman.made_now_sequences(own jsonb, ranges jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- Numbers alone: what becomes of them is run by the cluster's role.
    select coalesce(jsonb_agg(s || coalesce((select jsonb_build_object('base', (r ->> 'base')::numeric, 'width', (r ->> 'width')::numeric)
                                               from jsonb_array_elements(ranges) r where r ->> 'column' = s ->> 'column'), '{}') order by n), '[]')
      from jsonb_array_elements(own) with ordinality as u (s, n)
$$;
comment on function shardman.made_now_sequences(jsonb, jsonb) is 'the sequences of a definition with the ranges that another node has found';

create or replace function shardman.need_shareable(relation text) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel       constant oid := shardman.find_relation(relation);
    described constant jsonb := shardman.describe_shared(relation);
    problem   jsonb := described -> 'obstacles' -> 0;
begin
    if problem is null and exists (select from pg_trigger g where g.tgrelid = rel and not g.tgisinternal) then
        problem := shardman.obstacle(format('%s has triggers, and was made in this transaction', relation),
                                     'Make it and its triggers in a transaction, or a migration, of its own');
    elsif problem is null and exists (select from shardman.shared_tables s where need_shareable.relation in (s.definition ->> 'lock', s.definition ->> 'former')) then
        problem := shardman.obstacle(format('another shared table was called %s', relation), 'Make it in a transaction, or a migration, of its own');
    end if;
    if problem is not null then
        raise exception '%', problem ->> 'what' using errcode = 'feature_not_supported', hint = (problem ->> 'hint') || '.',
            detail = format('A foreign key is to refer to %s, which was made in this transaction, so it is shared here and now.', relation);
    end if;
    return described -> 'definition';
end
$$;
comment on function shardman.need_shareable(text) is 'the definition of a table that was made in this transaction; raises where it cannot be shared';

create or replace function shardman.share_now(relation text, above text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    defined jsonb;
    other   text;
begin
    for other in select distinct shardman.metadata_name(o.confrelid) from pg_constraint o
                  where o.conrelid = shardman.find_relation(relation) and o.contype = 'f' and o.confrelid <> o.conrelid loop
        -- In a circle they wait for each other: what is in the way is said below.
        if other <> all (above) then
            perform shardman.await_shared(other, above || relation);
        end if;
    end loop;
    defined := shardman.need_shareable(relation);
    perform shardman.arm_now(relation, shardman.my_id(), defined -> 'sequences');
    perform set_config('shardman.ddl_now', (coalesce(nullif(current_setting('shardman.ddl_now', true), ''), '[]')::jsonb
                                            || jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'definition', defined)))::text, true);
end
$$;
comment on function shardman.share_now(text, text[]) is
    'before a foreign key to it is made: shares a table that this transaction has made, and before it those to which it refers, on this node; '
    'shardman.send_now does so on all others. above: the tables for whose sake';

create or replace function shardman.arm_now(relation text, home int, ranges jsonb) returns bool
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    nodes   constant int[] := shardman.shared_by_all();
    here    constant bool := shardman.my_id() = any (nodes);
    defined jsonb;
begin
    perform shardman.need_owner(relation);
    if shardman.setting('new_tables', 'plain') <> 'shared' then
        raise exception 'new tables are not shared in this cluster' using errcode = 'object_not_in_prerequisite_state',
            hint = format('Share it when it is there: select shardman.create_shared_table(%L, %s).', relation, home);
    end if;
    -- Where a node gets it later, the lord's metadata may have come before it.
    if here and not exists (select from shardman.shared_tables s join pg_class c on c.oid = shardman.find_relation(s.relation)
                             where s.relation = arm_now.relation and s.definition ->> 'owner' = pg_get_userbyid(c.relowner)) then
        perform shardman.need_shareable(relation);
    end if;
    defined := shardman.define_shared(shardman.find_relation(relation));
    perform shardman.need_trusted_types(defined);
    defined := defined || jsonb_build_object('made_now', true, 'sequences', shardman.made_now_sequences(defined -> 'sequences', ranges));
    insert into shardman.shared_tables (relation, initial_node, definition) values (arm_now.relation, home, defined) on conflict do nothing;
    insert into shardman.shared_copies (relation, node) select arm_now.relation, n from unnest(nodes) n on conflict do nothing;
    if here then
        perform set_config('shardman.ddl_busy', 'on', true);
        -- The first shared table of all.
        perform shardman.mend_servers() from unnest(nodes) n where n <> shardman.my_id() and to_regclass(shardman.shared_door(n, 'insert')) is null limit 1;
        perform shardman.let_shared_owners_in();
        perform shardman.set_shared_ranges(defined);
        perform shardman.arm_shared(relation);
        perform set_config('shardman.ddl_busy', '', true);
    end if;
    return here;
end
$$;
comment on function shardman.arm_now(text, int, jsonb) is
    'for the owner of a table that was made in this transaction: it is shared, as this node has it, from now on. home: the node where it was made; ranges: the '
    'sequences of its definition there. Returns false on a lord that is no worker, which writes it down only';

create or replace function shardman.arm_arrived(relation text, home int, ranges jsonb) returns bool
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    sender constant oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
    if shardman.is_ordinary(sender) and shardman.road_cluster(sender) is null then
        raise exception 'this comes from other nodes with ALTER TABLE ... ADD FOREIGN KEY, and nobody calls it' using errcode = 'insufficient_privilege',
            hint = format('To share a table: select shardman.create_shared_table(%L, %s).', relation, home);
    end if;
    return shardman.arm_now(relation, home, ranges);
end
$$;
comment on function shardman.arm_arrived(text, int, jsonb) is 'shardman.arm_now, which only the cluster''s role may call, for who comes from another node';

create or replace function shardman.make_now(definition jsonb, rows text[], home int) returns void
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' as $$
declare
    name   constant text := shardman.sql_name(definition ->> 'relation');
    serial constant jsonb := (select coalesce(jsonb_agg(s), '[]') from jsonb_array_elements(definition -> 'sequences') s
                               where not exists (select from jsonb_array_elements(definition -> 'identities') i where i ->> 'column' = s ->> 'column'));
    statement text;
begin
    if shardman.is_a_copy(definition ->> 'relation') then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    for statement in
        select format('create sequence %s as %s increment %s cache %s', shardman.sql_name(s ->> 'name'), s ->> 'type', s ->> 'increment', s ->> 'cache') from jsonb_array_elements(serial) s
        union all
        -- A lord that is no worker has none of the tables to which it refers.
        select * from shardman.shared_script(case when (shardman.shared_nodes('')).me = any (shardman.shared_by_all()) then definition
                                                  else definition || '{"foreign_keys": []}' end)
        union all
        select format('alter sequence %s owned by %s.%I', shardman.sql_name(s ->> 'name'), name, s ->> 'column') from jsonb_array_elements(serial) s
        union all
        select * from shardman.parent_extras(definition, definition ->> 'relation')
    loop
        execute statement;
    end loop;
    execute coalesce(shardman.shared_change(shardman.find_relation(definition ->> 'relation'), 'insert'), 'select') using rows;
    perform shardman.lay_late_checks(shardman.find_relation(definition ->> 'relation'), definition);
    perform set_config('shardman.ddl_busy', '', true);
    if not shardman.arm_arrived(definition ->> 'relation', home, definition -> 'sequences') then
        perform set_config('shardman.ddl_busy', 'on', true);
        execute format('drop table %s', name);
        perform set_config('shardman.ddl_busy', '', true);
    end if;
end
$$;
comment on function shardman.make_now(jsonb, text[], int) is
    'as the caller, through a door: makes the copy of a table that he has made on another node (home) in this transaction, with these rows. A lord that is no '
    'worker only writes down what it is';

create or replace function shardman.open_bare_door(tables jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    -- Who has no sharded table has no way there, and needs none.
    bare constant int := (select n.id from shardman.nodes n where n.lord and n.id <> all (shardman.shared_by_all()) and tables is not null
                             and exists (select from shardman.tables t where shardman.is_callers(t.relation)));
begin
    if bare is not null then
        perform shardman.open_door(bare);
    end if;
    perform set_config('shardman.ddl_now_door', coalesce(bare::text, ''), true);
end
$$;
comment on function shardman.open_bare_door(jsonb) is
    'for DDL of shared tables before which these are made: a lord that is no worker hears of them, for foreign keys of sharded tables may refer to them next';

create or replace function shardman.close_bare_door() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('shardman.ddl_now_door', true) <> '' then
        execute format('drop foreign table if exists shardman.%I', 'door_' || current_setting('shardman.ddl_now_door') || '_' || pg_backend_pid());
        perform set_config('shardman.ddl_now_door', '', true);
    end if;
end
$$;
comment on function shardman.close_bare_door() is 'ends shardman.open_bare_door';

create or replace function shardman.give_now(node int, change jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.through_door(node, format('select shardman.note_change(%L)', change), '10s');
    perform shardman.through_door(node, change ->> 'statement', '10s');
exception when duplicate_table or undefined_table or undefined_object or undefined_function or invalid_schema_name or insufficient_privilege then
    -- PostgreSQL does not say where.
    raise exception 'node %: %', node, sqlerrm using errcode = sqlstate, hint = 'A foreign key is to refer to a new table, which all nodes get for that. Make it possible there.';
end
$$;
comment on function shardman.give_now(int, jsonb) is 'has one other node make a table; what is in the way there is said with its number';

create or replace function shardman.send_now(nodes int[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' set extra_float_digits = 3 set bytea_output = 'hex' as $$
declare
    wanted constant int[] := string_to_array(current_setting('shardman.ddl_wanted', true), ',')::int[];
    home   int;
    item   jsonb;
    change jsonb;
    node   int;
    rows_  text[];
    lacks  int;
begin
    for item in select i from jsonb_array_elements(coalesce(nullif(current_setting('shardman.ddl_now', true), ''), '[]')::jsonb) i loop
        home := (shardman.shared_nodes(item -> 'definition' ->> 'relation')).me;
        lacks := (select n from unnest((shardman.shared_nodes(item -> 'definition' ->> 'relation')).nodes) n where n <> home and n <> all (nodes) limit 1);
        if lacks is not null then
            raise exception 'node % has no copy in use of what refers to %, which is made on all nodes or on none', lacks, item -> 'definition' ->> 'relation'
                using errcode = 'object_not_in_prerequisite_state', hint = 'Start it, or remove it with shardman.rm_node, and try again.';
        end if;
        execute format('select coalesce(array_agg(concat(t.*)), ''{}'') from (select * from only %s limit 10001) t', shardman.sql_name(item -> 'definition' ->> 'relation')) into rows_;
        if cardinality(rows_) > 10000 then
            raise exception '% has more than 10000 rows, and was made in this transaction', item -> 'definition' ->> 'relation'
                using errcode = 'feature_not_supported', hint = 'Make it, and fill it, in a transaction of its own, and what refers to it in the next.';
        end if;
        change := jsonb_build_object('id', item ->> 'id', 'tag', 'CREATE TABLE', 'target', '', 'tables', '{}'::text[], 'made_at', statement_timestamp(),
                                     'path', current_setting('shardman.ddl_path', true), 'nodes', wanted,
                                     'statement', format('select shardman.make_now(%L, %L, %s)', item -> 'definition', rows_, home));
        foreach node in array nodes loop
            perform shardman.give_now(node, change);
        end loop;
        perform shardman.note_change(change);
    end loop;
    perform set_config('shardman.ddl_now', '', true);
end
$$;
comment on function shardman.send_now(int[]) is 'at the gate, as the caller: has other nodes make the tables that shardman.share_now has shared here';

create or replace function shardman.need_recorded(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.is_made_now(relation) then
        raise exception '% is just being shared, and cannot get another name meanwhile', relation using errcode = 'object_not_in_prerequisite_state',
            hint = 'Rename it before a foreign key refers to it, or in a later transaction.';
    end if;
end
$$;
comment on function shardman.need_recorded(text) is 'raises where the lord''s metadata do not have a table yet that was shared in the transaction that has made it';

create or replace function shardman.forget_made_now(relation text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.shared_tables s where s.relation = forget_made_now.relation and s.definition ? 'made_now'
       and not exists (select from shardman.local l where l.lord)
$$;
comment on function shardman.forget_made_now(text) is 'within DROP TABLE: what this node has written down itself of a shared table. The lord''s metadata go by a command';

create or replace function shardman.on_shared_table() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if pg_trigger_depth() > 1 then
        return new;
    end if;
    -- Who has written it down himself may be just committing: that is waited for.
    insert into shardman.shared_tables (relation, initial_node, definition) values (new.relation, new.initial_node, new.definition)
        on conflict on constraint shared_tables_pkey do update set initial_node = excluded.initial_node, definition = excluded.definition;
    return null;
end
$$;
comment on function shardman.on_shared_table() is 'where metadata arrive: takes the place of what this node had written down itself of a shared table';

create or replace function shardman.on_shared_copy() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if pg_trigger_depth() > 1 then
        return new;
    end if;
    insert into shardman.shared_copies (relation, node) values (new.relation, new.node) on conflict do nothing;
    return null;
end
$$;
comment on function shardman.on_shared_copy() is 'shardman.on_shared_table, of the nodes that have copies';

do $$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.shared_tables'::regclass and tgname = 'arrives') then
        create trigger arrives before insert on shardman.shared_tables for each row execute function shardman.on_shared_table();
        alter table shardman.shared_tables enable replica trigger arrives;
        create trigger arrives before insert on shardman.shared_copies for each row execute function shardman.on_shared_copy();
        alter table shardman.shared_copies enable replica trigger arrives;
    end if;
end
$$;
