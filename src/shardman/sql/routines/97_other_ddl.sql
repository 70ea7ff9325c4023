-- DDL of views, functions, types, domains, schemas and extensions, sent to one node: made, changed and dropped on all, in the
-- caller's transaction and as he, like that of sharded tables (95_ddl.sql), but without a gate. What such an object needs may be on
-- this node only, a plain table say. Then it stays here, and a notice says so; but where a sharded table uses it, the statement is
-- refused.
--
-- All happens when the statement has been done here, for only then PostgreSQL says what it was about. With the cluster's rights the
-- first of three triggers opens doors to the other nodes; the second sends the statement, as the caller; the third closes the doors.

create or replace function shardman.other_pattern(tag text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when tag in ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES') then '^' || replace(lower(tag), ' ', '\s+') || '\s'
                when tag = 'COMMENT' then '^comment\s+on\s+(?:view|function|procedure|routine|aggregate|type|domain|schema)\M'
                else format('^%s\s+(?:or\s+replace\s+)?(?:recursive\s+)?%s\M', lower(split_part(tag, ' ', 1)), lower(split_part(tag, ' ', 2))) end
$$;
comment on function shardman.other_pattern(text) is 'how a statement of a kind begins that can be sent to other nodes: not those of temporary objects';

create or replace function shardman.other_statement(query text, tag text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when tag = 'DROP SCHEMA' and s ~* '\mcascade$'
                then format('select shardman.drop_schemas(%L)', regexp_replace(regexp_replace(s, '^drop\s+schema\s+(if\s+exists\s+)?', '', 'i'), '\s+cascade$', '', 'i'))
                else s end
      from shardman.one_statement(query) s
     where s ~* shardman.other_pattern(tag)
       -- Tables of a schema would be plain ones on each node.
       and not (tag = 'CREATE SCHEMA' and s ~* '^create.*\m(create|grant)\M')
$$;
comment on function shardman.other_statement(text, text) is 'a statement as it is sent to other nodes; null where it is not';

create or replace function shardman.other_now() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(nullif(current_setting('shardman.ddl_other_statement', true), ''), current_query())
$$;
comment on function shardman.other_now() is 'the statement of DDL of what is in no table that is under way; the whole query where that cannot be told from it';

create or replace function shardman.drop_schemas(names text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    schemas constant regnamespace[] := array(select distinct to_regnamespace(m[1]) from regexp_matches(names, '("(?:[^"]|"")+"|[^\W\d][\w$]*)', 'g') m
                                              where to_regnamespace(m[1]) is not null);
    dropped int;
    thing   text;
    more    text;
begin
    loop
        dropped := 0;
        -- All names at once: one that went with another has none any more.
        foreach thing in array array(
            select format('view %s', c.oid::regclass) from pg_class c where c.relnamespace = any (schemas) and c.relkind = 'v'
            union all
            select format('routine %s', p.oid::regprocedure) from pg_proc p where p.pronamespace = any (schemas)
            union all
            select format('type %s', t.oid::regtype) from pg_type t left join pg_class c on c.oid = t.typrelid
             where t.typnamespace = any (schemas) and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c')
        loop
            begin
                execute 'drop ' || thing;
                dropped := dropped + 1;
            exception when dependent_objects_still_exist or undefined_object or undefined_function or undefined_table then
                null;  -- Another of them comes first, or it went with one.
            end;
        end loop;
        exit when dropped = 0;
    end loop;
    foreach thing in array schemas loop
        execute format('drop schema %s', thing);
    end loop;
exception when dependent_objects_still_exist then
    get stacked diagnostics more = pg_exception_detail;
    raise exception 'node % has more in the schema %, and that would be dropped on another node only: %', shardman.my_id(), thing, more
        using errcode = 'dependent_objects_still_exist', hint = 'Drop that first. To drop the schema on one node alone: set shardman.ddl = ''here''.';
end
$$;
comment on function shardman.drop_schemas(text) is
    'what DROP SCHEMA … CASCADE on another node means here: views, routines and types go with the schema; raises where it has anything else, which nobody has named';

create or replace function shardman.spreads_schema(schema_name text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when schema_name is null then s.value = 'all' else schema_name !~ '^pg_|^information_schema$|^shardman$'
           and (s.value = 'all' or schema_name = any (regexp_split_to_array(s.value, '\s*,\s*'))) end
      from (select shardman.setting('spread_ddl', 'all') as value) as s
$$;
comment on function shardman.spreads_schema(text) is
    'whether DDL of what is in a schema, or of the schema, is sent to all nodes: by the setting spread_ddl, all, none, or schemas with commas between';

create or replace function shardman.may_spread() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper or has_table_privilege(r.oid, 'shardman.ddl', 'insert')
      from pg_roles r where r.rolname = (select shardman.caller())
$$;
comment on function shardman.may_spread() is
    'whether the caller has a way to other nodes: a superuser, or an owner of a sharded table. Not current_user: that is whose function asks';

create or replace function shardman.barred_lord() returns int
language sql stable set search_path = pg_catalog, pg_temp as $$
    select n.id from shardman.nodes n join pg_roles r on r.rolname = (select shardman.caller())
     where n.lord and n.worker_status is null and shardman.is_ordinary(r.oid) and not exists (select from shardman.tables t where shardman.is_callers(t.relation))
$$;
comment on function shardman.barred_lord() is
    'a lord that is no worker, for a caller who owns shared tables and no sharded one: it has none of his, and he no way there. Null for others';

create or replace function shardman.tables_using(classid_ oid, objid_ oid) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive used (classid, objid) as (
        select classid_, objid_ where classid_ in ('pg_type'::regclass, 'pg_proc'::regclass)
        union
        -- Arrays and domains of a type.
        select 'pg_type'::regclass::oid, t.oid from used u join pg_type t on u.classid = 'pg_type'::regclass and u.objid in (t.typelem, t.typbasetype)
    )
    select distinct n.relation
      from used u join pg_depend d on d.refclassid = u.classid and d.refobjid = u.objid
     cross join lateral (select shardman.ddl_relation_of(d.classid, d.objid) as rel offset 0) r
     cross join lateral (select coalesce(shardman.sharded_name(r.rel), shardman.part_of(r.rel)) as relation offset 0) n
     where n.relation is not null
$$;
comment on function shardman.tables_using(oid, oid) is 'the sharded tables that use a type or a function: in columns, defaults, checks, policies, indexes';

create or replace function shardman.on_other_dropped() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not shardman.is_own_ddl() then
        perform set_config('shardman.ddl_dropped', (
            select coalesce(bool_and(not d.is_temporary and shardman.spreads_schema(coalesce(d.schema_name, case when d.object_type = 'schema' then d.object_name end))), false)
              from pg_event_trigger_dropped_objects() d where d.original)::text, true);
    end if;
end
$$;
comment on function shardman.on_other_dropped() is 'within a drop: keeps whether what is dropped is of those schemas of which all nodes have the same';

create or replace function shardman.on_other_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    statement text;
    using_    text[];
    wanted    bool;
    others    int[];
    nodes     int[];
begin
    -- While our routines are laid anew, what is called below may not be there.
    if current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    -- The caller can set these to what he likes, and what follows believes them.
    perform set_config('shardman.ddl_other', '', true), set_config('shardman.ddl_using', '', true);
    if shardman.is_own_ddl() or not shardman.is_member() or shardman.is_copy() then
        return;
    end if;
    statement := shardman.other_statement(shardman.take_statement(tg_tag, 'ddl_other'), tg_tag);
    if tg_tag in ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES') then
        wanted := statement is not null and shardman.spreads_rights(statement, tg_tag);
    elsif starts_with(tg_tag, 'DROP') then
        wanted := coalesce(nullif(current_setting('shardman.ddl_dropped', true), ''), 'false')::bool;
        perform set_config('shardman.ddl_dropped', '', true);
    else
        select bool_and(shardman.spreads_schema(coalesce(d.schema_name, (select s.nspname from pg_namespace s where s.oid = d.objid and d.classid = 'pg_namespace'::regclass)))),
               array(select distinct t from pg_event_trigger_ddl_commands() c, shardman.tables_using(c.classid, c.objid) t where tg_tag <> 'COMMENT' and not c.in_extension and c.schema_name is distinct from 'shardman')
          into wanted, using_
          -- What the script of an extension does comes with the extension.
          from pg_event_trigger_ddl_commands() d where not d.in_extension;
        if tg_tag = 'ALTER DOMAIN' and cardinality(using_) > 0 and current_query() ~* '\madd\M' and exists (
               select from pg_event_trigger_ddl_commands() d join pg_constraint o on o.contypid = d.objid where shardman.asks_session(o.conbin::text)) then
            perform shardman.refuse_session_check('the check of the domain');
        end if;
        if tg_tag = 'ALTER SCHEMA' and exists (
               select from (select relation from shardman.tables union all select relation from shardman.shared_tables) t
                where to_regnamespace(quote_ident((shardman.relation_parts(t.relation))[1])) is null) then
            raise exception 'a schema that has sharded or shared tables cannot be renamed'
                using errcode = 'feature_not_supported', hint = 'Leave it as it is.';
        end if;
    end if;
    if wanted is not true or statement is null or not shardman.may_spread() then
        if cardinality(using_) > 0 then
            raise exception '% uses this, and it would be changed on this node only', using_[1]
                using errcode = 'feature_not_supported',
                      hint = 'Send the statement by itself, as the owner of a sharded table or a superuser. To change this node alone: set shardman.ddl = ''here''.';
        elsif wanted and statement is null and tg_tag ~ '^(CREATE|ALTER|DROP)\M' and shardman.may_spread() then
            raise notice 'only this node has it: it came with others in one query, or from within a routine'
                using hint = 'Send it by itself. set shardman.ddl = ''here'' where one node is meant.';
        end if;
        return;
    end if;
    perform shardman.need_plain_strings(statement);
    -- Other nodes take this transaction's snapshot with what is sent now.
    perform shardman.await_new_tables();
    others := array(select n from unnest(shardman.other_nodes()) n where n is distinct from shardman.barred_lord());
    nodes := shardman.open_doors(others);
    perform set_config('shardman.ddl_other', tg_tag, true), set_config('shardman.ddl_other_statement', statement, true);
    perform set_config('shardman.ddl_nodes', array_to_string(nodes, ','), true),
            set_config('shardman.ddl_wanted', array_to_string(others || shardman.my_id(), ','), true),
            set_config('shardman.ddl_change', gen_random_uuid()::text, true);
    perform set_config('shardman.ddl_bare', coalesce((select n.id::text from shardman.nodes n where n.lord and n.worker_status is null), ''), true);
    perform set_config('shardman.ddl_using', array_to_string(using_, E'\n'), true);
end
$$;
comment on function shardman.on_other_ddl() is
    'after DDL of what is in no table, as the cluster''s role: opens doors to the other nodes, where all are to have it; refuses it where '
    'a sharded table uses what only this node would have changed';

create or replace function shardman.on_other_spread() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.current_setting('shardman.ddl_other', true) operator(pg_catalog.=) tg_tag
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.spread_other(shardman.other_now(), tg_tag);
    end if;
end
$$;
comment on function shardman.on_other_spread() is 'after DDL of what is in no table, as the caller: the same on the other nodes';

create or replace function shardman.send_other(node int, query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.through_door(node, format('select shardman.note_change(%L)', shardman.change_sent(query, tag, '', '{}')), '10s');
    begin
        perform shardman.through_door(node, shardman.read_alike(shardman.one_statement(query), current_setting('shardman.ddl_words', true)), '10s');
    exception when duplicate_schema or duplicate_object or duplicate_function or duplicate_table then
        -- Who makes what some nodes have wants it where it is missing.
        if not starts_with(tag, 'CREATE') then
            raise;
        end if;
        raise notice 'node % is left as it is: %', node, sqlerrm;
    -- Something else may have the name there.
    when undefined_table or undefined_function or undefined_object or undefined_column or invalid_schema_name or wrong_object_type then
        if not starts_with(tag, 'DROP') then
            raise exception using errcode = 'no_data_found', message = format('node %s: %s', node, sqlerrm);
        end if;
    end;
end
$$;
comment on function shardman.send_other(int, text, text) is
    'sends a statement to another node; no_data_found where that lacks what it needs. What is to be dropped need not be there, and what is to be made may be';

create or replace function shardman.spread_other(query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    nodes  int[] := string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[];
    wanted constant int[] := string_to_array(current_setting('shardman.ddl_wanted', true), ',')::int[];
    bare   constant int := nullif(current_setting('shardman.ddl_bare', true), '')::int;
    node   int;
begin
    -- A lord that is no worker has no shared tables, and so nothing that is made of them. First, for all others note down who is to have the change.
    if bare = any (nodes) then
        nodes := array_remove(nodes, bare);
        begin
            perform shardman.send_other(bare, query, tag);
        exception when no_data_found then
            perform set_config('shardman.ddl_wanted', array_to_string(array_remove(wanted, bare), ','), true);
        end;
    end if;
    foreach node in array nodes loop
        perform shardman.send_other(node, query, tag);
    end loop;
exception when no_data_found then
    if current_setting('shardman.ddl_using', true) <> '' then
        raise exception 'this cannot be done on all nodes, and sharded tables use it: %', sqlerrm
            using errcode = 'feature_not_supported', hint = 'Make there what it needs.';
    end if;
    perform set_config('shardman.ddl_change', '', true);
    raise notice 'only this node has it: %', sqlerrm
        using hint = 'Make there what it needs, and then this again. set shardman.ddl = ''here'' where one node is meant.';
end
$$;
comment on function shardman.spread_other(text, text) is
    'sends a statement to all other nodes, or, where a worker lacks what it needs, to none';

create or replace function shardman.on_other_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    using_ constant text := current_setting('shardman.ddl_using', true);
    node   int;
begin
    if coalesce(current_setting('shardman.ddl_other', true), '') <> tg_tag or current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[] loop
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
    end loop;
    if current_setting('shardman.ddl_change', true) <> '' then
        perform shardman.keep_change(shardman.change_sent(shardman.other_now(), tg_tag, '', '{}'));
    end if;
    perform set_config('shardman.ddl_other', '', true), set_config('shardman.ddl_using', '', true), set_config('shardman.ddl_busy', '', true);
    -- Types and functions may have other names now.
    if starts_with(tg_tag, 'ALTER') or starts_with(tg_tag, 'DROP') then
        perform shardman.submit('refresh_table', json_build_object('relation', t))
           from (select unnest(string_to_array(using_, E'\n')) where starts_with(tg_tag, 'ALTER')
                 union select * from shardman.without_functions()) as u (t);
    end if;
end
$$;
comment on function shardman.on_other_end() is 'the end of DDL of what is in no table, on the node where it was sent';
