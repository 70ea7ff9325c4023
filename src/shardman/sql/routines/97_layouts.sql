-- DROP TABLE of sharded tables, and what becomes of a table that is made again under the name of one that was dropped.
--
-- In the sender's transaction a sharded table is put away on all nodes: into a schema of ours, where nobody looks, with its indexes and sequences.
-- To the metadata it is a table that was called otherwise (84_renaming.sql), so that moves, replicas and statements under way find it, and
-- rollback brings it back; the command drop_table, which the statement submits, ends it. What PostgreSQL then drops where the statement was sent
-- is a stand-in without columns; on other nodes there is nothing left to drop.
--
-- Each node writes down how the table lay. A table of that name that is made on a worker is laid so again by the command restore_layout, as soon
-- as it has the keys that it had, and so have those that refer to it: programs make tables first, load them, and add their keys then.

create or replace function shardman.away(relation text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select shardman.relation_text('shardman_dropped', (shardman.relation_parts(relation))[2])
$$;
comment on function shardman.away(text) is 'what a sharded table is called from DROP TABLE until the command drop_table has dropped it';

create or replace function shardman.is_put_away(relation text) returns bool
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.renamed_tables r
                    where r.former = is_put_away.relation and r.wanted = shardman.away(r.former) and shardman.called_here(r.former) = r.wanted)
$$;
comment on function shardman.is_put_away(text) is 'whether a table of the metadata was dropped by DROP TABLE, and is only there until the command drop_table has dropped it';

create or replace function shardman.references_elsewhere(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select r from unnest(shardman.references_to(relation)) r
                  where not shardman.is_put_away(r)
                    -- The metadata hear a moment later that one has gone, or its column.
                    and exists (select from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
                                 where t.relation = r and f ->> 'to' = references_elsewhere.relation and not shardman.is_dropped(r, f ->> 'name')
                                   and not exists (select from jsonb_array_elements_text(f -> 'columns') as c (name)
                                                    where not exists (select from pg_attribute a where a.attrelid = shardman.find_relation(r) and a.attname = c.name and not a.attisdropped)))
                    and r <> all (coalesce(string_to_array(current_setting('shardman.ddl_dropping', true), chr(10)), '{}')))
$$;
comment on function shardman.references_elsewhere(text) is 'shardman.references_to, but for tables and foreign keys that are dropped, or are just being';

-- What is remembered -------------------------------------------------------------------------------------

create or replace function shardman.remembers() returns interval
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return shardman.setting('remember_layouts', '1 h')::interval;
exception when invalid_datetime_format or datetime_field_overflow or invalid_parameter_value then
    return interval '1 h';
end
$$;
comment on function shardman.remembers() is 'for how long it is remembered how a table lay that was dropped: the setting remember_layouts, an hour by default';

create or replace function shardman.remembered() returns setof shardman.layouts
language sql stable set search_path = pg_catalog, pg_temp as $$
    select l.* from shardman.layouts l where l.dropped_at > clock_timestamp() - shardman.remembers()
$$;
comment on function shardman.remembered() is 'the layouts that this node remembers still';

create or replace function shardman.sharded_layout(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object(
               'kind', 'sharded', 'expr', t.expr, 'partitions_count', t.partitions_count, 'replevel', t.replevel,
               'beside', (select coalesce(jsonb_agg(o.relation order by o.relation), '[]') from shardman.tables o
                           where o.colocation = t.colocation and o.relation <> t.relation),
               'keys', (select coalesce(jsonb_agg(k ->> 'sql'), '[]') from shardman.known_items(t.relation, 'keys') k),
               'refers', (select coalesce(jsonb_agg(jsonb_build_object('to', f -> 'to', 'columns', f -> 'columns', 'sql', f -> 'sql')), '[]')
                            from shardman.known_references(t.relation) f))
      from shardman.tables t where t.relation = sharded_layout.relation
$$;
comment on function shardman.sharded_layout(text) is 'how a sharded table lies, as shardman.layouts has it';

create or replace function shardman.shared_layout(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object(
               'kind', 'shared', 'keys', (select coalesce(jsonb_agg(k ->> 'sql'), '[]') from jsonb_array_elements(t.definition -> 'keys') k),
               'refers', (select coalesce(jsonb_agg(jsonb_build_object('to', f -> 'to', 'sql', f -> 'sql')), '[]')
                            from jsonb_array_elements(t.definition -> 'foreign_keys') f))
      from shardman.shared_tables t where t.relation = shared_layout.relation
$$;
comment on function shardman.shared_layout(text) is 'how a shared table lies, as shardman.layouts has it';

create or replace function shardman.remember_layout(relation text, layout jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.layouts l where l.dropped_at < clock_timestamp() - shardman.remembers();
    insert into shardman.layouts as l (relation, layout) select relation, remember_layout.layout
     where shardman.remembers() > interval '0' and remember_layout.layout is not null
        on conflict on constraint layouts_pkey do update set layout = excluded.layout, dropped_at = excluded.dropped_at, failure = null;
$$;
comment on function shardman.remember_layout(text, jsonb) is 'within DROP TABLE, on each node: writes down how the table lay';

create or replace function shardman.drop_layouts(relations text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.layouts l where l.relation = any (relations)
$$;
comment on function shardman.drop_layouts(text[]) is 'this node forgets how tables lay that were dropped';

-- DROP TABLE ---------------------------------------------------------------------------------------------

create or replace function shardman.in_order_of_drops(tables text[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    left_  text[] := tables;
    order_ text[] := '{}';
    next_  text;
begin
    while cardinality(left_) > 0 loop
        select n into next_ from unnest(left_) n
         order by exists (select from unnest(left_) o cross join lateral shardman.known_references(o) f where o <> n and f ->> 'to' = n), n limit 1;
        order_ := order_ || next_;
        left_ := array_remove(left_, next_);
    end loop;
    return order_;
end
$$;
comment on function shardman.in_order_of_drops(text[]) is 'sharded tables, those that refer to others of them first';

create or replace function shardman.start_drop(tables text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    order_ constant text[] := shardman.in_order_of_drops(tables);
    wanted constant int[] := shardman.other_nodes();
    nodes  int[];
begin
    perform shardman.need_owner(t) from unnest(order_) t;
    nodes := shardman.open_doors(wanted);
    if nodes <> wanted then
        raise exception 'node % is away, and a sharded table is dropped on all nodes or on none', (select min(n) from unnest(wanted) n where n <> all (nodes))
            using errcode = 'connection_failure', hint = 'Start it, or remove it with shardman.rm_node, and try again.';
    end if;
    perform set_config('shardman.ddl_dropping', array_to_string(order_, chr(10)), true), set_config('shardman.ddl_drop_nodes', array_to_string(nodes, ','), true);
    perform shardman.submit('drop_table', json_build_object('relation', t, 'aside', false, 'follow', true)) from unnest(order_) t;
end
$$;
comment on function shardman.start_drop(text[]) is
    'before DROP TABLE of sharded tables, as the cluster''s role: opens doors to all other nodes, and submits what ends the tables when they are put away';

create or replace function shardman.on_drop_gate() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_dropping', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.pass_drop_gate();
    end if;
end
$$;
comment on function shardman.on_drop_gate() is 'before DROP TABLE of sharded tables, as the caller: puts them away on all nodes';

create or replace function shardman.put_all_away(tables text[], nodes int[], cascades bool, wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name  text;
    mode_ text;
    node  int;
begin
    -- The gates of all before the first is put away: its foreign keys go then, which needs the others' data tables, and who reads these
    -- may be on his way from a node where nobody has been stopped yet.
    foreach mode_ in array '{only access exclusive,access exclusive,copies}'::text[] loop
        perform shardman.close_gate(t, array[mode_], nodes, wait) from unnest(tables) t;
    end loop;
    perform set_config('lock_timeout', wait, true);
    foreach name in array tables loop
        perform shardman.put_away(name, cascades);
        foreach node in array nodes loop
            perform shardman.through_door(node, format('select shardman.put_away(%L, %L)', name, cascades), wait);
        end loop;
    end loop;
end
$$;
comment on function shardman.put_all_away(text[], int[], bool, text) is 'one try to put sharded tables away on all nodes: raises where a lock is not had within wait';

create or replace function shardman.pass_drop_gate() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tables   constant text[] := string_to_array(current_setting('shardman.ddl_dropping', true), chr(10));
    nodes    constant int[] := coalesce(string_to_array(nullif(current_setting('shardman.ddl_drop_nodes', true), ''), ',')::int[], '{}');
    cascades constant bool := coalesce(shardman.plain_words(shardman.statement_now()) ~* '\mcascade$', false);
    mine     constant text := current_setting('lock_timeout');
    wait     numeric := 50;
begin
    -- See shardman.pass_gate.
    perform set_config('synchronous_commit', 'local', true);
    loop
        begin
            perform shardman.put_all_away(tables, nodes, cascades, round(wait) || 'ms');
            exit;
        exception when lock_not_available or deadlock_detected or serialization_failure then
            perform shardman.need_time_left(tables, 'drop', statement_timestamp(), sqlerrm);
        end;
        wait := least(500, wait * 1.2);
        perform pg_sleep(random() * 0.05);
    end loop;
    perform set_config('lock_timeout', mine, true);
    perform shardman.stand_in_for_dropped(t) from unnest(tables) t;
end
$$;
comment on function shardman.pass_drop_gate() is 'puts the sharded tables that a DROP TABLE names away, trying again for half a minute';

create or replace function shardman.dependent_views(relation text) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
    select distinct w.ev_class::regclass
      from pg_depend d join pg_rewrite w on w.oid = d.objid
     where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'n'
       and d.refobjid in (select shardman.find_relation(relation)
                          union select l.part from shardman.leaves(shardman.find_relation(relation)) l
                          union select l.leaf from shardman.leaves(shardman.find_relation(relation)) l)
$$;
comment on function shardman.dependent_views(text) is 'the views on this node that are made of a sharded table';

create or replace function shardman.need_droppable(relation text, cascades bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    view_  oid;
    found_ text[];
begin
    if cascades then
        -- One may go with another.
        for view_ in select * from shardman.dependent_views(relation) loop
            execute coalesce((select format('drop %s %s cascade', case c.relkind when 'm' then 'materialized view' else 'view' end, c.oid::regclass)
                                from pg_class c where c.oid = view_), 'select');
        end loop;
    end if;
    found_ := shardman.dependents(relation);
    if cardinality(found_) > 0 then
        raise exception 'cannot drop table % because other objects depend on it', relation
            using errcode = 'dependent_objects_still_exist', detail = format('On node %s: %s.', shardman.my_id(), array_to_string(found_, ', ')),
                  hint = case when cascades then 'Drop these first.' else 'Drop these first, or views of it by DROP ... CASCADE.' end;
    end if;
    found_ := shardman.asides_of(relation);
    if cardinality(found_) > 0 then
        raise exception '%, which a failover has set aside, may have rows of % that are nowhere else', array_to_string(found_, ', '), relation
            using errcode = 'dependent_objects_still_exist', hint = format('Drop all of it: select shardman.drop_table(%L, aside => true).', relation);
    end if;
    if to_regclass(shardman.sql_name(shardman.away(relation))) is not null then
        raise exception 'a table % that was dropped before is not gone yet', relation
            using errcode = 'object_in_use', hint = 'Try again when the command drop_table is done, which shardman.commands has.';
    end if;
end
$$;
comment on function shardman.need_droppable(text, bool) is 'raises where a sharded table cannot be dropped on this node; cascades: its views are dropped';

create or replace function shardman.put_away(relation text, cascades bool) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    data oid;
begin
    perform shardman.need_known(relation);
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true), set_config('shardman.exchanging', 'on', true);
    -- Those that refer to it are put away before it, if they are.
    for data in select l.leaf from shardman.leaves(shardman.find_relation(relation)) l where l.kind <> 'route' loop
        perform shardman.drop_references(data), shardman.lay_row_triggers(data, '[]');
    end loop;
    perform shardman.need_droppable(relation, cascades);
    perform shardman.remember_layout(relation, shardman.sharded_layout(relation));
    if to_regnamespace('shardman_dropped') is null then
        create schema shardman_dropped;
        comment on schema shardman_dropped is 'tables that DROP TABLE has put away, until the command drop_table has dropped them';
    end if;
    -- Its indexes and sequences go with it, so their names are free.
    execute format('alter table %s set schema shardman_dropped', shardman.name_here(relation));
    insert into shardman.renamed_tables as r (former, wanted) select relation, shardman.away(relation)
        on conflict on constraint renamed_tables_pkey do update set wanted = excluded.wanted;
    perform set_config('shardman.exchanging', '', true), set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.put_away(text, bool) is
    'within DROP TABLE, on each node, for the owner of a sharded table, behind the gate: puts it away, remembers how it lay, and lets nothing of it refer to others';

create or replace function shardman.stand_in_for_dropped(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    execute format('create table %s ()', shardman.sql_name(relation));
    execute format('alter table %s owner to %I', shardman.sql_name(relation), (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = parent));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.stand_in_for_dropped(text) is 'within DROP TABLE, where it was sent: an empty table of the name, for PostgreSQL to drop';

create or replace function shardman.drop_text(tables text[], query text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- What else it names is this node's alone.
    select format('drop table if exists %s%s', (select string_agg(shardman.name_here(t), ', ' order by n) from unnest(tables) with ordinality as u (t, n)),
                  case when shardman.plain_words(query) ~* '\mcascade$' then ' cascade' else '' end)
$$;
comment on function shardman.drop_text(text[], text) is 'a DROP TABLE of those of its tables that are shared';

create or replace function shardman.on_drop_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    dropped constant text[] := string_to_array(nullif(current_setting('shardman.ddl_dropping', true), ''), chr(10));
    node    int;
begin
    if dropped is null or current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array shardman.other_nodes() loop
        if to_regclass(format('shardman.%I', 'door_' || node || '_' || pg_backend_pid())) is not null then
            execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
        end if;
    end loop;
    perform set_config('shardman.ddl_busy', '', true), set_config('shardman.ddl_dropping', '', true);
    perform shardman.say_remembered(dropped);
end
$$;
comment on function shardman.on_drop_end() is 'the end of DROP TABLE of sharded tables, on the node where it was sent';

create or replace function shardman.say_remembered(dropped text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.remembers() > interval '0' then
        raise notice '% is dropped on all nodes; a table of that name that is made within % will lie as it did', array_to_string(dropped, ', '), shardman.remembers()
            using hint = 'shardman.forget_layout(...) lets it stay plain.';
    end if;
end
$$;
comment on function shardman.say_remembered(text[]) is 'tells who drops tables that it is remembered how they lay';

-- CREATE TABLE -------------------------------------------------------------------------------------------

create or replace function shardman.restores_layout(rel oid) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name constant text := shardman.metadata_name(rel);
begin
    if not exists (select from shardman.remembered() l where l.relation = name) then
        return false;
    end if;
    update shardman.layouts l set failure = null where l.relation = name;
    perform shardman.submit('restore_layout', json_build_object('relation', name, 'node_id', shardman.my_id()));
    raise notice '% will be % again, as it was, when it has the keys that it had', name, (select l.layout ->> 'kind' from shardman.layouts l where l.relation = name)
        using hint = 'The command restore_layout in shardman.commands does it; shardman.cancel_cmd lets the table stay plain.';
    return true;
end
$$;
comment on function shardman.restores_layout(oid) is 'after CREATE TABLE: lets a table lie as one of its name did that was dropped; whether it does';

create or replace function shardman.linked_layouts(relation text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive known as materialized (
        select l.relation, l.layout from shardman.remembered() l
    ), edges (a, b) as materialized (
        select k.relation, r ->> 'to' from known k cross join jsonb_array_elements(k.layout -> 'refers') r
        union select k.relation, b from known k cross join jsonb_array_elements_text(k.layout -> 'beside') b
    ), linked (relation) as (
        select k.relation from known k where k.relation = linked_layouts.relation
        union
        select k.relation from linked l join edges e on l.relation in (e.a, e.b) join known k on k.relation in (e.a, e.b)
    )
    select l.relation from linked l
$$;
comment on function shardman.linked_layouts(text) is 'a table that was dropped, and those that were and referred to it, or it to them, or lay beside it, and so on';

create or replace function shardman.lacks_of_layout(rel oid, layout jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(x.what), '[]') from (
        select k as what from jsonb_array_elements_text(layout -> 'keys') k
         where not exists (select from pg_constraint o where o.conrelid = rel and o.contype in ('p', 'u', 'x') and pg_get_constraintdef(o.oid) = k)
        union all
        select format('a foreign key to %s', r ->> 'to') from jsonb_array_elements(layout -> 'refers') r
         where not exists (select from pg_constraint o
                            where o.conrelid = rel and o.contype = 'f' and shardman.metadata_name(o.confrelid) = r ->> 'to'
                              and case when r ? 'columns' then shardman.column_names(rel, o.conkey) = r -> 'columns'
                                       else pg_get_constraintdef(o.oid) = r ->> 'sql' end)) as x
$$;
comment on function shardman.lacks_of_layout(oid, jsonb) is 'keys and foreign keys that a table had which was dropped, and that this one of its name has not';

create or replace function shardman.layout_state(relation text) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'relation', l.relation, 'layout', l.layout, 'here', c.oid is not null,
               'lacks', case when c.oid is not null then shardman.lacks_of_layout(c.oid, l.layout) end,
               'version', case when c.oid is not null then shardman.catalog_state(l.relation) end,
               -- Who has written to it, or has just loaded it.
               'held', exists (select from pg_locks k where k.locktype = 'relation' and k.relation = c.oid and k.pid <> pg_backend_pid()
                                  and k.database = (select d.oid from pg_database d where d.datname = current_database())
                                  and k.mode not in ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock')),
               'known', exists (select from shardman.tables t where t.relation = l.relation union all
                                select from shardman.shared_tables s where s.relation = l.relation)) order by l.relation), '[]')
      from shardman.linked_layouts(relation) as i (relation) join shardman.layouts l on l.relation = i.relation
      left join pg_class c on c.oid = shardman.find_relation(l.relation) and c.relkind = 'r' and shardman.shared_name(c.oid) is null
$$;
comment on function shardman.layout_state(text) is
    'on the node where a table was made again: how it lay, and those that it is linked with, whether they are here as plain tables, and what they lack still';

create or replace function shardman.references_to_part(tables text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('relation', t, 'to', shardman.metadata_name(o.confrelid), 'name', o.conname, 'definition', pg_get_constraintdef(o.oid)) order by t, o.conname), '[]')
      from unnest(tables) t join pg_constraint o on o.conrelid = shardman.find_relation(t) and o.contype = 'f'
     where o.confrelid <> o.conrelid and shardman.metadata_name(o.confrelid) = any (tables)
$$;
comment on function shardman.references_to_part(text[]) is 'the foreign keys between plain tables that are to be sharded: PostgreSQL has none above foreign tables';

create or replace function shardman.join_plain(relation text, name text, definition text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_constraint o where o.conrelid = shardman.find_relation(relation) and o.conname = join_plain.name) then
        execute format('alter table %s add constraint %I %s', shardman.sql_name(relation), name, definition);
    end if;
    perform shardman.forget_reference(relation, name);
end
$$;
comment on function shardman.join_plain(text, text, text) is 'gives a table that has stayed plain a foreign key again that was noted down';

create or replace function shardman.share_followers(laid text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.setting('new_tables', 'plain') <> 'shared' then
        return;
    end if;
    perform shardman.submit('create_shared_table', json_build_object('relation', f.name, 'node_id', shardman.my_id()))
       from (with recursive followers (rel, depth) as (
                 select shardman.find_relation(l), 0 from unnest(laid) l
                 union
                 select o.conrelid, f.depth + 1 from followers f join pg_constraint o on o.confrelid = f.rel and o.contype = 'f' and o.conrelid <> f.rel
                  where f.depth < 20 and shardman.shared_name(o.conrelid) is null
             )
             select shardman.metadata_name(f.rel) as name, max(f.depth) as depth from followers f where f.depth > 0 group by 1) as f
      -- They are new, and came too early. What was plain before stays that.
      where exists (select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id and (o.name, o.opt) = ('relation', f.name)
                     where l.cmd_type = 'create_shared_table' and l.status = 'failed' and l.ended_at > clock_timestamp() - shardman.remembers())
        and not exists (select from shardman.remembered() r where r.relation = f.name)
      order by f.depth;
end
$$;
comment on function shardman.share_followers(text[]) is
    'tables lie again as they did: has new ones shared that refer to them, and could not be before, those first to which others refer';

create or replace function shardman.note_layout_failure(relation text, failure text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.layouts l set failure = note_layout_failure.failure where l.relation = note_layout_failure.relation
$$;
comment on function shardman.note_layout_failure(text, text) is 'writes down why a table that was made again has stayed plain, for status';
