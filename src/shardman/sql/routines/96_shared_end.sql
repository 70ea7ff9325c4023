-- What DDL has made of a shared table, on each node: refused where the table could not be shared so, or where it has come to this node only; otherwise
-- the table gets back what we need on it, and the lord writes down what it is now.

create or replace function shardman.shared_ddl_obstacles(relation text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select shardman.find_relation(relation) as rel)
    select o from me, shardman.shared_obstacles(me.rel) as o
     -- Those are ours.
     where o ->> 'what' not like 'there is a function %'
       -- It is to have one when the transaction ends.
       and o ->> 'what' <> format('%s has no primary key, by which other nodes would find its rows', relation)
       and o ->> 'what' not in (select format('the constraint %s has never been validated, rows that break it could not be moved', l.name) from shardman.late_checks(me.rel) l)
    union all
    select shardman.obstacle(format('the copies of %s would give %s the same numbers', relation, quote_ident(s.column_name)),
                             'ALTER TABLE ... ADD COLUMN ... serial, or GENERATED ... AS IDENTITY, makes a sequence with each node''s own numbers')
      from me, shardman.owned_sequences(me.rel) s
     where shardman.range_here(s.seq) is null
       and not exists (select from shardman.sequence_specs(relation) k where shardman.find_relation(shardman.owned_here(relation, k ->> 'name')) = s.seq)
$$;
comment on function shardman.shared_ddl_obstacles(text) is 'what a shared table has that none may have, after it was changed';

create or replace function shardman.keep_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    arrives constant bool := coalesce(current_setting('shardman.ddl', true), '') = 'spread';
    problem jsonb;
begin
    select o into problem from shardman.shared_ddl_obstacles(relation) o limit 1;
    if problem is not null then
        raise exception '%', problem ->> 'what' using errcode = 'feature_not_supported', hint = (problem ->> 'hint') || '.';
    end if;
    if not shardman.has_primary_key(shardman.find_relation(relation)) then
        perform shardman.note_keyless(relation) where not arrives;
        return;
    end if;
    -- Its trigger function goes with the table's owner, and what was disabled is not.
    perform shardman.arm_shared(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.own_statistics(shardman.find_relation(relation));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.keep_shared(text) is
    'after DDL of a shared table, on each node: raises where it can be shared no longer, and gives it what it lacks for being written through';

create or replace function shardman.refuse_late_sequence(relation text, seq oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.metadata_name(seq) not in (select s ->> 'name' from shardman.sequence_specs(relation) s) then
        raise exception '% is shared, and only this node has %', relation, seq::regclass
            using errcode = 'feature_not_supported',
                  hint = format('A sequence that belongs to a table when that is shared is on all nodes, each with numbers of its own: unshare %s, '
                                'and share it again when the sequence is OWNED BY its column.', relation);
    end if;
end
$$;
comment on function shardman.refuse_late_sequence(text, oid) is 'raises where a sequence of this node alone is given to a shared table';

create or replace function shardman.on_shared_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    arrives constant bool := coalesce(current_setting('shardman.ddl', true), '') = 'spread';
    rel     oid;
    changed text;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    for rel, changed in
        select distinct r.rel, shardman.shared_name(r.rel)
          from pg_event_trigger_ddl_commands() d
         cross join lateral (select coalesce(case when d.object_type = 'sequence' and tg_tag in ('ALTER SEQUENCE', 'ALTER TABLE') then shardman.table_of_sequence(d.objid) end,
                                             shardman.ddl_relation_of(d.classid, d.objid)) as rel offset 0) as r
         where r.rel is not null and shardman.shared_name(r.rel) is not null
    loop
        if changed = any (shardman.ddl_shared()) or arrives then
            perform shardman.note_name(changed, rel);
            perform shardman.number_shared(changed, rel, array(select d.objid from pg_event_trigger_ddl_commands() d where d.command_tag = 'CREATE SEQUENCE'), arrives)
              where tg_tag = 'ALTER TABLE';
            perform shardman.keep_shared(changed);
            perform shardman.keep_sequences(changed, not arrives);
        else
            perform shardman.refuse_late_sequence(changed, d.objid) from pg_event_trigger_ddl_commands() d
              where tg_tag = 'ALTER SEQUENCE' and shardman.table_of_sequence(d.objid) = rel;
            perform shardman.refuse_shared_ddl(changed);
        end if;
    end loop;
end
$$;
comment on function shardman.on_shared_ddl() is 'after DDL: refuses what is about a shared table and is not sent to all copies';

create or replace function shardman.on_shared_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    node int;
begin
    if shardman.ddl_shared() is null then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}') loop
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
    end loop;
    perform shardman.close_bare_door();
    perform set_config('shardman.ddl_busy', '', true);
    perform shardman.keep_change(shardman.change_sent(shardman.shared_statement(tg_tag), tg_tag, (shardman.ddl_shared())[1], shardman.ddl_shared()));
    foreach name in array shardman.ddl_shared() loop
        if not shardman.submit_name(name) then
            perform shardman.submit(case tg_tag when 'DROP TABLE' then 'drop_table' else 'refresh_table' end,
                                    case tg_tag when 'DROP TABLE' then json_build_object('relation', name, 'aside', false, 'follow', true)
                                                else json_build_object('relation', name) end);
        end if;
        -- Their foreign keys name its columns.
        perform shardman.submit('refresh_table', json_build_object('relation', r)) from unnest(shardman.references_to(name)) r
          where tg_tag = 'ALTER TABLE' and shardman.plain_words(shardman.statement_now()) ~* '\mrename\M';
    end loop;
    if tg_tag = 'DROP TABLE' then
        perform shardman.say_remembered(shardman.ddl_shared());
    end if;
    perform set_config('shardman.ddl_shared', '', true);
end
$$;
comment on function shardman.on_shared_end() is 'the end of DDL of a shared table, on the node where it was sent: closes the doors, and lets the lord write it down';

create or replace function shardman.forget_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.remember_layout(relation, shardman.shared_layout(relation));
    -- The lord's command does the same to the metadata a moment later. Until then a new table of that name would be taken for the copy.
    delete from shardman.shared_copies c where c.relation = forget_shared.relation;
    perform shardman.forget_made_now(relation);
    -- Its locks go with that command: this transaction has one of them, on the first node over another connection.
    perform shardman.drop_shared_function(relation);
end
$$;
comment on function shardman.forget_shared(text) is 'within DROP TABLE: what this node has of a shared table besides the table';

create or replace function shardman.refuse_shared_drop() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    -- What is dropped is gone from the catalogs by now.
    tables constant text[] := array(select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node and not l.leaving
                                     where shardman.find_relation(c.relation) is null and c.relation <> all (coalesce(shardman.ddl_shared(), '{}')) order by 1);
begin
    if tables <> '{}' then
        raise exception 'this would drop what is shared, on this node only: %', array_to_string(tables, ', ')
            using errcode = 'feature_not_supported',
                  hint = format('Drop it first, on all nodes, by a statement of its own: DROP TABLE %s.', array_to_string(tables, ', '));
    end if;
end
$$;
comment on function shardman.refuse_shared_drop() is
    'after something was dropped: raises where shared tables as a whole went with it (DROP SCHEMA, DROP OWNED), and says what drops them everywhere';

create or replace function shardman.on_shared_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone record;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    for gone in
        select distinct c.relation, d.object_type
          from pg_event_trigger_dropped_objects() d
          join shardman.shared_copies c on shardman.is_called(c.relation, shardman.relation_text(d.address_names[1], d.address_names[2]))
          join shardman.local l on l.node_id = c.node and not l.leaving
         -- Of a trigger, a policy, a rule or a constraint the names begin with those of its table.
         -- Those of foreign keys that refer to it come and go with the other table.
         where (d.address_names[3] like 'RI\_ConstraintTrigger\_%') is not true and d.object_type in ('table', 'trigger', 'policy', 'rule', 'table constraint', 'table column', 'default value')
        union all
        select t.relation, d.object_type
          from pg_event_trigger_dropped_objects() d
         cross join shardman.shared_tables t cross join jsonb_array_elements((t.definition -> 'statistics') || (t.definition -> 'indexes')) s
         -- By themselves, or with a function that is in them.
         where d.object_type = case when s ? 'unique' then 'index' else 'statistics object' end and shardman.shared_name(shardman.find_relation(t.relation)) = t.relation
           and (shardman.statistics_schema(s, t.relation), s ->> 'name') = (d.schema_name, d.object_name)
        union all
        select c.relation, d.object_type
          from pg_event_trigger_dropped_objects() d join shardman.shared_copies c on c.relation = shardman.whose_part(d.object_type, d.schema_name, d.object_name)
          join shardman.local l on l.node_id = c.node
         -- Parts of a table before the table.
         order by 2 desc, 1
    loop
        if not (gone.relation = any (coalesce(shardman.ddl_shared(), '{}')) or coalesce(current_setting('shardman.ddl', true), '') = 'spread') then
            perform shardman.refuse_shared_drop();
            perform shardman.refuse_shared_ddl(gone.relation);
        elsif gone.object_type = 'table' then
            perform shardman.forget_shared(gone.relation);
        end if;
    end loop;
end
$$;
comment on function shardman.on_shared_drop() is 'after something was dropped: refuses it where that was a shared table, or a part of one, on this node only';

create or replace function shardman.redefine_shared(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The ranges of sequences are those of the first day, or of that of their type.
    select shardman.define_shared(c.oid)
           || jsonb_build_object('sequences', shardman.sequences_now(t.relation, t.definition -> 'sequences', true))
           || jsonb_strip_nulls(jsonb_build_object('former', t.definition -> 'former', 'lock', t.definition -> 'lock'))
      from shardman.shared_tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
     where t.relation = redefine_shared.relation and shardman.shared_lacks(relation) is null
$$;
comment on function shardman.redefine_shared(text) is 'on a node with a copy of a shared table: its definition as it is now; null where that cannot be said';
