-- DDL: what changes a sharded table on one node changes it on all, in the same transaction, as who sent it.
--
-- PostgreSQL calls event triggers before and after each such statement. Before it three of ours act, in the order of their
-- names: the first keeps the caller's search_path, for the second cannot see it; the second, with the cluster's rights,
-- reads which table the statement is about and opens doors to the other nodes (foreign tables, made and dropped within the
-- transaction); the third, with the caller's rights, closes the gate. After it two: one sends the statement through the
-- doors, as the caller, through his road login; the other lets replicas follow, drops the doors, and tells the lord.
--
-- The gate (95_gate.sql) is what keeps this from hanging.
--
-- The setting shardman.ddl is 'spread' in what comes from another node, and 'here' where somebody wants this node alone changed.
--
-- What a crash leaves: nothing, before the first node commits. Nodes commit one after the other, so a crash in that instant
-- can leave them apart: each has written down what it has, and those that lack it get it (96_healing.sql).

-- With what the caller changed we have no more to do than to read it, so these names have no schema of ours in them.
create or replace function shardman.ddl_path() returns event_trigger
language plpgsql as $$
begin
    -- What the functions below do is DDL as well.
    if pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.=) 'on' then
        return;
    end if;
    perform pg_catalog.set_config('shardman.ddl_path', pg_catalog.current_setting('search_path'), true),
            pg_catalog.set_config('shardman.ddl_strings', pg_catalog.current_setting('standard_conforming_strings'), true),
            pg_catalog.set_config('shardman.ddl_words', pg_catalog.jsonb_object_agg(s, pg_catalog.current_setting(s))::pg_catalog.text, true)
       from pg_catalog.unnest(array['DateStyle', 'IntervalStyle', 'TimeZone', 'transform_null_equals', 'array_nulls', 'xmloption', 'backslash_quote', 'check_function_bodies',
                                       case when pg_catalog.current_query() operator(pg_catalog.~*) '\mmoney\M' then 'lc_monetary' end]) s
      where s is not null;
end
$$;
comment on function shardman.ddl_path() is
    'before DDL, as the caller: keeps his search_path, by which its names are to be read, and the settings by which its constants are';

create or replace function shardman.has_object(kind text, parts text[], rel oid, out here bool, out own bool)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select count(*) > 0, coalesce(bool_or(f.of = rel), false)
      from (select i.indrelid as of from pg_class c left join pg_index i on i.indexrelid = c.oid
             where kind = 'INDEX' and c.relname = parts[2]::name and c.relnamespace = (select n.oid from pg_namespace n where n.nspname = parts[1]::name)
            union all
            select s.stxrelid from pg_statistic_ext s
             where kind = 'STATISTICS' and s.stxname = parts[2]::name and s.stxnamespace = (select n.oid from pg_namespace n where n.nspname = parts[1]::name)) f
$$;
comment on function shardman.has_object(text, text[], oid) is
    'whether this node has an index or a statistics object of a name, or what takes the name, and whether it is that of a table';

create or replace function shardman.decide_if_not_exists(query text, tag text, path text) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    kind  constant text := substr(tag, 8);
    head  constant text := '^(create\s+(?:unique\s+)?(?:index|statistics)\s+(?:concurrently\s+)?)if\s+not\s+exists\s+';
    word  constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    text_ text := shardman.one_statement(query);
    named constant text := (regexp_match(shardman.one_statement(query), head || '(' || word || '(?:\s*\.\s*' || word || ')?)', 'i'))[2];
    rel   constant oid := case when named is not null then shardman.ddl_relation(query, tag, path) end;
    parts text[];
    found_ record;
begin
    if rel is null or shardman.sharded_name(rel) is null and shardman.shared_name(rel) is null then
        return (query);
    end if;
    parts := parse_ident(named);
    if cardinality(parts) = 1 then
        perform set_config('search_path', path, true);
        parts := array[case when kind operator(pg_catalog.=) 'INDEX' then (select n.nspname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
                                                     where c.oid operator(pg_catalog.=) rel)
                            else pg_catalog.current_schema() end::pg_catalog.text] operator(pg_catalog.||) parts;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    end if;
    found_ := shardman.has_object(kind, parts, rel);
    if found_.here and not found_.own then
        return null;
    elsif not found_.here then
        text_ := regexp_replace(text_, head, '\1', 'i');
        perform set_config('shardman.ddl_statement', text_, true);
        return text_;
    end if;
    return (query);
end
$$;
comment on function shardman.decide_if_not_exists(text, text, text) is
    'before CREATE INDEX and STATISTICS IF NOT EXISTS of a sharded or shared table: whether there is one, this node says for all, as another may have something else of that name. '
    'The statement as others get it; null: nobody is to make it';

create or replace function shardman.on_ddl_start() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    query  text;
    target text;
    tables text[];
    wanted int[];
    nodes  int[];
begin
    if current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_target', '', true), set_config('shardman.ddl_shared', '', true), set_config('shardman.ddl_dropping', '', true),
            set_config('shardman.ddl_now', '', true), set_config('shardman.ddl_parts', '', true);
    perform shardman.keep_parts() where tg_tag in ('DROP INDEX', 'DROP STATISTICS');
    query := shardman.take_statement(tg_tag, 'ddl');
    perform shardman.lend_copies(shardman.statement_here(), true) where tg_tag in ('GRANT', 'REVOKE');
    if tg_tag in ('ALTER TRIGGER', 'DROP TRIGGER') then
        perform shardman.refuse_hidden(query, tg_tag, current_setting('shardman.ddl_path', true));
    end if;
    -- What our own routines do is a SELECT to whoever looks from here.
    if coalesce(query, '') !~* '^(\s|--|/\*|alter|create|drop|grant|revoke|comment|set\s+constraints)' or current_setting('shardman.ddl', true) <> '' then
        return;
    end if;
    if exists (select from shardman.renamed_tables) then
        perform shardman.await_name(r) from unnest(shardman.ddl_relations(query, tg_tag, current_setting('shardman.ddl_path', true))) r;
    end if;
    if tg_tag in ('CREATE INDEX', 'CREATE STATISTICS') then
        query := shardman.decide_if_not_exists(query, tg_tag, current_setting('shardman.ddl_path', true));
        if query is null then
            return;
        end if;
    end if;
    tables := case when tg_tag in ('GRANT', 'REVOKE') then shardman.granted_tables(query, current_setting('shardman.ddl_path', true))
                   else array[shardman.sharded_name(shardman.ddl_relation(query, tg_tag, current_setting('shardman.ddl_path', true)))] end;
    if tg_tag = 'DROP TABLE' then
        tables := array(select distinct shardman.sharded_name(r) from unnest(shardman.ddl_relations(query, tg_tag, current_setting('shardman.ddl_path', true))) r
                         where shardman.sharded_name(r) is not null);
        if cardinality(tables) > 0 then
            perform shardman.start_drop(tables);
        end if;
        tables := '{}';
    end if;
    -- Of several the first stands for all: what is sent is the statement.
    target := tables[1];
    if target is null then
        perform shardman.refuse_reference_to_sharded(query, tg_tag, current_setting('shardman.ddl_path', true)) where tg_tag = 'ALTER TABLE';
        perform shardman.start_shared_ddl(query, tg_tag, current_setting('shardman.ddl_path', true));
    end if;
    if target is null then
        return;
    end if;
    -- Who may not change it gets PostgreSQL's word for that, and not that of the first door. GRANT can be anybody's with the option for it.
    if tg_tag not in ('GRANT', 'REVOKE') then
        perform shardman.need_owner(target);
    elsif not shardman.may_spread() then
        perform shardman.refuse_grantor(t) from unnest(tables) t;
        return;
    end if;
    perform shardman.need_plain_strings(query);
    perform shardman.await_new_copies() where tg_tag not in ('GRANT', 'REVOKE', 'COMMENT', 'ALTER SEQUENCE');
    perform shardman.need_one_sender(tables);
    perform shardman.await_new_tables();
    perform shardman.await_types(target, query) where tg_tag = 'ALTER TABLE';
    perform shardman.need_possible(target, query, tg_tag, current_setting('shardman.ddl_path', true));
    wanted := shardman.other_nodes();
    nodes := shardman.open_doors(wanted);
    perform set_config('shardman.ddl_target', target, true), set_config('shardman.ddl_tables', array_to_string(tables, chr(10)), true);
    perform set_config('shardman.ddl_nodes', array_to_string(nodes, ','), true),
            set_config('shardman.ddl_wanted', array_to_string(wanted || shardman.my_id(), ','), true),
            set_config('shardman.ddl_change', gen_random_uuid()::text, true);
end
$$;
comment on function shardman.on_ddl_start() is
    'before DDL, as the cluster''s role: where it is about a sharded table, opens doors to the other nodes and says so to those that follow';

create or replace function shardman.follow_rights(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Behind the gate all partitions are ours. Where there was none, as for GRANT, to lock one after the other would make a circle with
    -- writers: what needs a lock, such as a policy that another statement has made, is the reconciler's then.
    perform shardman.mend_rights(relation, lock_free => not shardman.is_held(shardman.find_relation(relation)));
end
$$;
comment on function shardman.follow_rights(text) is 'within DDL: gives partitions and data tables on this node the rights of the table';

create or replace function shardman.follow_copies(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    busy constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
begin
    -- Who may grant rights on a table need not own it.
    if shardman.is_callers(relation) then
        -- What one copy loses is no statement that begins: the next one follows the same.
        perform set_config('shardman.ddl_busy', 'on', true);
        perform shardman.follow_table(relation, false);
        perform set_config('shardman.ddl_busy', busy, true);
    end if;
    perform shardman.follow_rights(relation);
end
$$;
comment on function shardman.follow_copies(text) is 'shardman.follow_table, for the owner of the table, and shardman.follow_rights';

create or replace function shardman.on_ddl_spread() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_target', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.spread_ddl(shardman.statement_now(), tg_tag);
    end if;
end
$$;
comment on function shardman.on_ddl_spread() is 'after DDL on a sharded table, as the caller: the same on the other nodes';

create or replace function shardman.give_keys_back(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- As the caller: he can set this to what he likes.
    taken constant jsonb := nullif(current_setting('shardman.ddl_keys', true), '');
begin
    perform set_config('shardman.ddl_keys', '', true), set_config('shardman.ddl_busy', 'on', true);
    perform shardman.mend_keys(jsonb_build_object(
        'keys', (select coalesce(jsonb_agg(k), '[]') from jsonb_array_elements(taken) k where not k ? 'unique'),
        'indexes', (select coalesce(jsonb_agg(k), '[]') from jsonb_array_elements(taken) k where k ? 'unique'), 'key', '[]'::jsonb), shardman.find_relation(relation));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.give_keys_back(text) is 'gives a table the keys that the gate took from it for a statement, as the caller';

create or replace function shardman.spread_ddl(query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    target constant text := current_setting('shardman.ddl_target', true);
    keys   constant bool := current_setting('shardman.ddl_keys', true) <> '';
    casts  constant bool := shardman.is_cast(query, tag);
    stand  constant bool := shardman.table_behind(target) is not null and not casts;
    sent   constant text := shardman.sent_statement(query, tag);
    tables constant text[] := string_to_array(current_setting('shardman.ddl_tables', true), chr(10));
    node   int;
    name   text;
    given  jsonb;
begin
    perform shardman.need_own_sequences(target, query, tag);
    if stand then
        given := shardman.finish_stand_in(target, null);
    elsif casts then
        perform shardman.cast_here(target, query, tag);
    end if;
    if keys then
        perform shardman.give_keys_back(target);
    end if;
    perform shardman.need_no_moment(target, query);
    perform shardman.ask_same_words(target, string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[]);
    foreach node in array coalesce(string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[], '{}') loop
        -- The note first: who repeats a change there waits by it for the end of this transaction.
        perform shardman.through_door(node, format('select shardman.note_change(%L)', shardman.change_sent(sent, tag, target, tables)), '10s');
        if tag in ('ALTER INDEX', 'DROP INDEX') then
            perform shardman.through_door(node, format('select shardman.need_of_same_table(%L, %L, %L, %L)', target, sent, tag,
                                                        current_setting('shardman.ddl_path', true)), '10s');
        end if;
        perform shardman.send_on(node, sent);
        if stand then
            perform shardman.through_door(node, format('select shardman.finish_stand_in(%L, %L)', target, given), '10s');
        end if;
        -- Of what was dropped PostgreSQL says there only what it was called.
        foreach name in array tables loop
            perform shardman.through_door(node, format('select shardman.follow_copies(%L)', name), '10s');
        end loop;
        if keys then
            perform shardman.through_door(node, format('select shardman.give_keys_back(%L)', target), '10s');
        end if;
    end loop;
end
$$;
comment on function shardman.spread_ddl(text, text) is 'sends a statement to all other nodes';

create or replace function shardman.on_ddl_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    target  constant text := nullif(current_setting('shardman.ddl_target', true), '');
    changed record;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.lend_copies(shardman.statement_here(), false) where tg_tag in ('GRANT', 'REVOKE');
    if tg_tag = 'ALTER TABLE' and coalesce(current_setting('shardman.ddl', true), '') <> 'here' then
        perform shardman.note_name(shardman.of_partitions(d.objid), d.objid) from pg_event_trigger_ddl_commands() d
          where d.classid = 'pg_class'::regclass and shardman.of_partitions(d.objid) is not null;
    end if;
    for changed in
        select s.relation, bool_or(d.object_type = 'table column') as renamed
          from pg_event_trigger_ddl_commands() d
         cross join lateral (select coalesce((select i.indrelid from pg_index i where i.indexrelid = d.objid), d.objid)) as o (rel)
         cross join lateral (select shardman.sharded_name(o.rel) offset 0) as s (relation)
         where d.classid = 'pg_class'::regclass and tg_tag in ('ALTER TABLE', 'ALTER INDEX', 'CREATE INDEX') and s.relation is not null
           and shardman.table_behind(s.relation) is null
         group by 1
    loop
        perform shardman.follow_table(changed.relation, changed.renamed);
        perform shardman.keep_sequences(changed.relation, false);
    end loop;
    if coalesce(current_setting('shardman.ddl', true), '') <> 'here' then
        perform shardman.note_statistics(s.relation, e.stxrelid), shardman.follow_statistics(s.relation)
           from pg_event_trigger_ddl_commands() d join pg_statistic_ext e on d.classid = 'pg_statistic_ext'::regclass and e.oid = d.objid
          cross join lateral (select shardman.sharded_name(e.stxrelid) offset 0) as s (relation) where s.relation is not null;
    end if;
    if tg_tag = 'ALTER SEQUENCE' and coalesce(current_setting('shardman.ddl', true), '') <> 'here' then
        perform shardman.keep_sequences(s.relation, target is not null)
           from pg_event_trigger_ddl_commands() d cross join lateral (select shardman.sharded_name(shardman.table_of_sequence(d.objid)) offset 0) as s (relation)
          where d.classid = 'pg_class'::regclass and s.relation is not null;
    end if;
    if target is not null then
        perform shardman.finish_ddl(target, tg_tag);
    end if;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.on_ddl_end() is
    'after DDL, as the cluster''s role: lets copies on this node follow the table; on the node where the statement was sent closes the '
    'doors and lets the lord write down what the table is now';

create or replace function shardman.finish_ddl(target text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    granted constant text[] := shardman.granted_tables(shardman.statement_now(), current_setting('shardman.ddl_path', true));
    tables  constant text[] := case when cardinality(granted) > 0 then granted else array[target] end;
    node    int;
begin
    perform shardman.need_same_everywhere(target);
    perform shardman.keep_change(shardman.change_sent(shardman.sent_statement(shardman.statement_now(), tag), tag, target, tables));
    perform shardman.follow_table(target, false);
    perform shardman.keep_sequences(target, false);
    perform shardman.follow_rights(t) from unnest(tables) t;
    foreach node in array string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[] loop
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
    end loop;
    perform set_config('shardman.ddl_target', '', true);
    perform shardman.submit('refresh_table', json_build_object('relation', t)) from unnest(tables) t where not shardman.submit_name(t);
end
$$;
comment on function shardman.finish_ddl(text, text) is 'the end of DDL on the node where it was sent';

create or replace function shardman.let_owners_in() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
begin
    for owner_ in
        select distinct c.relowner from shardman.tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
         where shardman.is_ordinary(c.relowner)
           and not (has_table_privilege(c.relowner, 'shardman.ddl', 'insert') and has_table_privilege(c.relowner, 'shardman.ddl', 'select'))
    loop
        execute format('grant usage on schema shardman to %I', pg_get_userbyid(owner_));
        execute format('grant insert, select on shardman.ddl to %I', pg_get_userbyid(owner_));
    end loop;
end
$$;
comment on function shardman.let_owners_in() is
    'lets the owners of sharded tables call what the gate and the doors need, which does nothing that they could not do themselves';
