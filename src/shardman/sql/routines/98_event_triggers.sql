-- Our event triggers. Only a superuser can make them; where none laid this schema they are made by select shardman.make_event_triggers().

create or replace function shardman.event_triggers() returns table (name text, event text, function text, tags text[], always bool)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with kinds (of_tables, alone, others, rights) as (values (
        array['ALTER TABLE', 'ALTER INDEX', 'CREATE INDEX', 'DROP INDEX', 'CREATE POLICY', 'ALTER POLICY', 'DROP POLICY', 'GRANT', 'REVOKE', 'COMMENT',
              'ALTER SEQUENCE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'DROP TRIGGER', 'CREATE STATISTICS', 'ALTER STATISTICS', 'DROP STATISTICS'],
        array['ALTER TABLE', 'ALTER INDEX', 'CREATE INDEX', 'CREATE POLICY', 'ALTER POLICY', 'COMMENT', 'ALTER SEQUENCE', 'ALTER FOREIGN TABLE',
              'CREATE TABLE', 'CREATE FOREIGN TABLE',
              'CREATE TRIGGER', 'ALTER TRIGGER', 'CREATE RULE', 'ALTER RULE', 'CREATE STATISTICS', 'ALTER STATISTICS'],
        array(select v || ' ' || k from unnest(array['CREATE', 'ALTER', 'DROP']) v,
                     unnest(array['VIEW', 'FUNCTION', 'PROCEDURE', 'ROUTINE', 'AGGREGATE', 'TYPE', 'DOMAIN', 'SCHEMA', 'EXTENSION']) k
               where v || k <> 'CREATEROUTINE') || 'COMMENT'::text,
        array['GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES']))
    select t.* from kinds k cross join lateral (
        -- PostgreSQL 15 and 16 tell none of it.
        select v.* from (values ('shardman_ddl_path_of_index', 'ddl_command_start', 'ddl_path', array['REINDEX'], false),
                                ('shardman_reindex', 'ddl_command_start', 'on_reindex', array['REINDEX'], false)) as v
         where current_setting('server_version_num')::int >= 170000
        union all values
        -- Of one event they act in the order of their names.
        ('shardman_ddl_path', 'ddl_command_start', 'ddl_path', k.of_tables || array['DROP TABLE', 'CREATE TABLE', 'ALTER DEFAULT PRIVILEGES'] || array_remove(k.others, 'COMMENT'), false),
        ('shardman_ddl_start', 'ddl_command_start', 'on_ddl_start', k.of_tables || 'DROP TABLE'::text, false),
        ('shardman_ddl_target', 'ddl_command_start', 'on_ddl_gate', k.of_tables, false),
        ('shardman_ddl_table', 'ddl_command_start', 'on_table_start', array['CREATE TABLE'], false),
        ('shardman_drop_gate', 'ddl_command_start', 'on_drop_gate', array['DROP TABLE'], false),
        ('shardman_ddl_0_lone', 'ddl_command_end', 'on_lone_ddl', k.alone, false),
        ('shardman_ddl_1_spread', 'ddl_command_end', 'on_ddl_spread', k.of_tables, false),
        ('shardman_ddl_2_end', 'ddl_command_end', 'on_ddl_end', k.of_tables, false),
        ('shardman_shared_gate', 'ddl_command_start', 'on_shared_gate', k.of_tables || 'DROP TABLE'::text, false),
        ('shardman_shared', 'ddl_command_end', 'on_shared_ddl', k.alone, false),
        ('shardman_new_table', 'ddl_command_end', 'on_new_table', array['CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE'], false),
        ('shardman_new_sequence', 'ddl_command_end', 'on_new_sequence', array['CREATE SEQUENCE'], false),
        ('shardman_shared_1_spread', 'ddl_command_end', 'on_shared_spread', k.of_tables || 'DROP TABLE'::text, false),
        ('shardman_shared_2_end', 'ddl_command_end', 'on_shared_end', k.of_tables || 'DROP TABLE'::text, false),
        ('shardman_shared_3_dropped', 'ddl_command_end', 'on_drop_end', array['DROP TABLE'], false),
        ('shardman_shared_drop', 'sql_drop', 'on_shared_drop', null, false),
        ('shardman_other_0_dropped', 'sql_drop', 'on_other_dropped', array(select o from unnest(k.others) o where o like 'DROP%'), false),
        ('shardman_other_1_doors', 'ddl_command_end', 'on_other_ddl', k.others || k.rights, false),
        ('shardman_other_2_spread', 'ddl_command_end', 'on_other_spread', k.others || k.rights, false),
        ('shardman_other_3_end', 'ddl_command_end', 'on_other_end', k.others || k.rights, false),
        ('shardman_owned_start', 'ddl_command_start', 'on_owned_start', array['DROP OWNED'], false),
        ('shardman_owned_end', 'ddl_command_end', 'on_owned_end', array['DROP OWNED'], false),
        ('shardman_rewrite', 'table_rewrite', 'on_rewrite', null, false),
        -- Also where metadata arrive.
        ('shardman_dropped', 'sql_drop', 'on_taken_out', null, true),
        ('shardman_detached', 'ddl_command_end', 'on_taken_out', array['ALTER TABLE'], true)) as t
$$;
comment on function shardman.event_triggers() is 'the event triggers that a node has, what they call, and for which statements (null: all)';

create or replace function shardman.make_event_triggers() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    t record;
begin
    -- Of an older version, or for other statements.
    for t in
        select e.evtname from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid
         where e.evtname ~ '^shardman_' and p.pronamespace = 'shardman'::regnamespace
           and not exists (select from shardman.event_triggers() w
                            where w.name = e.evtname and w.event = e.evtevent and w.function = p.proname and w.tags is not distinct from e.evttags)
    loop
        execute format('drop event trigger %I', t.evtname);
    end loop;
    for t in
        select * from shardman.event_triggers() w where not exists (select from pg_event_trigger e where e.evtname = w.name)
    loop
        execute format('create event trigger %I on %s %s execute function shardman.%I()', t.name, t.event,
                       (select 'when tag in (' || string_agg(quote_literal(u), ', ') || ')' from unnest(t.tags) u), t.function);
        if t.always then
            execute format('alter event trigger %I enable always', t.name);
        end if;
    end loop;
end
$$;
comment on function shardman.make_event_triggers() is
    'makes our event triggers, which only a superuser can: by them DDL of a sharded table changes all nodes, and what is dropped is put back at '
    'once. What they call belongs to the cluster''s role and acts for whoever sends DDL, superusers too: who has that role has theirs';

do $$
begin
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        perform shardman.make_event_triggers();
    end if;
end
$$;
