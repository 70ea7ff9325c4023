-- What happens on a node when metadata arrives. These triggers fire in the apply worker only. They are deferred to the
-- end of its transaction: the locks that they take are held for an instant, and all rows of the transaction are there.

create or replace function shardman.is_being_exchanged(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_locks k
                    where k.pid is null and k.locktype = 'relation' and k.granted and k.mode = 'AccessExclusiveLock'
                      and k.database = (select oid from pg_database where datname = current_database())
                      and k.relation = shardman.find_relation(is_being_exchanged.relation))
$$;
comment on function shardman.is_being_exchanged(text) is
    'whether a transaction that is prepared on this node holds the whole table: who waits for it holds up the metadata that decide about it';

create or replace function shardman.on_metadata() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    once constant text := format('%s %s', tg_table_name, pg_current_xact_id());
begin
    if tg_table_name in ('tables', 'partitions')
       and (shardman.is_being_exchanged(to_jsonb(coalesce(new, old)) ->> 'relation') or shardman.is_being_exchanged(to_jsonb(old) ->> 'relation')) then
        -- It is what the metadata say as soon as that is committed.
        return null;
    end if;
    if tg_table_name <> 'tables' then
        -- The first row of a transaction stands for all.
        if current_setting('shardman.done_for_' || tg_table_name, true) = once then
            return null;
        end if;
        perform set_config('shardman.done_for_' || tg_table_name, once, true);
    end if;
    -- An error here would end the stream of metadata, for good.
    begin
        if tg_table_name = 'partitions' then
            perform shardman.reconcile_parts(array(select p.part_name from shardman.partitions p where p.changed_at >= now() and p.prv is null));
        elsif tg_table_name = 'tables' then
            if tg_op <> 'DELETE' then
                -- Only one of the tables that this is a trigger of has the column.
                perform shardman.reconcile(to_jsonb(new) ->> 'relation');
            end if;
        else
            perform shardman.mend_servers();
            perform shardman.mend_shared();
        end if;
    exception when others or query_canceled then
        begin
            perform shardman.note_problem('metadata', sqlerrm);
        exception when others then
            raise warning 'shardman: %', sqlerrm;
        end;
    end;
    return null;
end
$$;
comment on function shardman.on_metadata() is 'brings the node in line with metadata that has arrived; whatever happens, it raises nothing';

create or replace function shardman.stamp_partition() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    new.changed_at := clock_timestamp();
    return new;
end
$$;
comment on function shardman.stamp_partition() is 'writes down when this node heard of it, by its own clock';

create or replace function shardman.forget_table() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.note_problem('former table ' || old.relation, 'is not sharded any more, its objects are still here');
    return null;
end
$$;
comment on function shardman.forget_table() is 'remembers a table that left the metadata, for shardman.drop_former_tables';

create or replace function shardman.say_metadata_changed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('shardman', 'metadata');
    return null;
end
$$;
comment on function shardman.say_metadata_changed() is
    'on the lord: tells the shardlord to read the metadata again. Where they arrive by replication this trigger does not fire';

create or replace function shardman.keep_settings() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- A row of one's own here would stand in the way of the lord's, and with it of all metadata behind it.
    -- The shardlord copies all of the lord's when the node joins.
    if shardman.is_member() and not (select l.lord from shardman.local l) and current_setting('application_name') !~ '^shardman lord ' then
        raise exception 'settings are those of the cluster, and this worker has a copy of them' using errcode = 'read_only_sql_transaction',
            hint = 'Write to shardman.settings in the lord''s database; see shardman.nodes.';
    end if;
    return null;
end
$$;
comment on function shardman.keep_settings() is 'raises where somebody writes to the copy of the settings that a worker has';

do $$
declare
    tab text;
begin
    foreach tab in array array['nodes', 'tables', 'partitions', 'settings', 'shared_tables', 'shared_copies'] loop
        if not exists (select from pg_catalog.pg_trigger where tgrelid = ('shardman.' || tab)::regclass and tgname = 'changed') then
            execute format('create trigger changed after insert or update or delete or truncate on shardman.%I '
                           'for each statement execute function shardman.say_metadata_changed()', tab);
        end if;
    end loop;
    foreach tab in array array['nodes', 'node_secrets', 'road_secret', 'tables', 'partitions', 'settings', 'shared_tables', 'shared_copies'] loop
        if not exists (select from pg_catalog.pg_trigger where tgrelid = ('shardman.' || tab)::regclass and tgname = 'on_metadata') then
            execute format('create constraint trigger on_metadata after insert or update or delete on shardman.%I '
                           'deferrable initially deferred for each row execute function shardman.on_metadata()', tab);
            execute format('alter table shardman.%I enable replica trigger on_metadata', tab);
        end if;
    end loop;
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.partitions'::regclass and tgname = 'stamp') then
        create trigger stamp before insert or update on shardman.partitions for each row execute function shardman.stamp_partition();
        alter table shardman.partitions enable always trigger stamp;
    end if;
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.tables'::regclass and tgname = 'forget') then
        create trigger forget after delete on shardman.tables for each row execute function shardman.forget_table();
        alter table shardman.tables enable always trigger forget;
    end if;
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.settings'::regclass and tgname = 'kept') then
        create trigger kept before insert or update or delete on shardman.settings for each statement execute function shardman.keep_settings();
    end if;
end
$$;
