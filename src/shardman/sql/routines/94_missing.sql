-- A partition whose rows are not there raises an error. Without anything in it, it would be empty, without a word: a count
-- over the table would lack its rows, on every node. So when a transaction ends that took data table or route out of one
-- (DROP, DETACH), what belongs there is put in, and where that is not there: a route whose server cannot be reached, and
-- whose error says so. Where the event triggers are not (a superuser's alone can be made), the reconciler does it, seconds later.

create or replace function shardman.make_missing_server() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_foreign_server where srvname = 'shardman_missing') then
        -- A service that is in no file: libpq names it, and connects nowhere.
        perform shardman.make_server('shardman_missing', format('service %L',
            'the rows of this partition are not on its node: see shardman.drift there, and shardman failover'));
        create user mapping for public server shardman_missing options (user 'nobody', password 'none');
        comment on server shardman_missing is 'leads nowhere: what a partition has whose rows are not there';
    end if;
end
$$;
comment on function shardman.make_missing_server() is 'makes the foreign server of partitions whose rows are not there';

create or replace function shardman.fill_missing(part text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.attached_to(part) is null then
        perform shardman.make_missing_server();
        perform shardman.drop_route(part);
        perform shardman.make_attached_route(part, 'shardman_missing');
    end if;
end
$$;
comment on function shardman.fill_missing(text) is 'puts into an empty partition what raises an error whenever its rows are asked for';

create or replace function shardman.is_exchange() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(current_setting('shardman.exchanging', true), '') = 'on' and shardman.may_administer()
$$;
comment on function shardman.is_exchange() is
    'whether this transaction exchanges all partitions of a table (shardman.split_swap): what it takes out it puts in itself';

create or replace function shardman.on_emptied() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    p shardman.partitions;
    t shardman.tables;
begin
    delete from shardman.emptied e where e.part_name = new.part_name;
    if shardman.is_exchange() then
        return null;
    end if;
    select * into p from shardman.partitions x where x.part_name = new.part_name and x.prv is null;
    if not found or not shardman.is_member() or shardman.is_copy() then
        return null;
    end if;
    select * into t from shardman.tables x where x.relation = p.relation;
    -- Without the table itself, or with another one of its name, whoever asks gets an error.
    if not coalesce(shardman.is_parent_of(t.definition, shardman.find_relation(t.relation)), false) then
        return null;
    end if;
    -- To event triggers this is part of what the user's statement does.
    perform set_config('shardman.ddl_busy', 'on', true);
    if shardman.find_relation(p.part_name) is null then
        perform shardman.make_partition(t.definition, t.relation, p.part_name, t.partitions_count, shardman.part_number(p.part_name));
    end if;
    if shardman.attached_to(p.part_name) is null
       and exists (select from pg_inherits i where i.inhrelid = shardman.find_relation(p.part_name)
                                               and i.inhparent = shardman.find_relation(t.relation)) then
        begin
            perform shardman.fill_partition(p.part_name, p.owner);
        exception when others then
            -- Its server went, say. The reconciler exchanges it.
            perform shardman.fill_missing(p.part_name);
        end;
    end if;
    perform set_config('shardman.ddl_busy', '', true);
    return null;
end
$$;
comment on function shardman.on_emptied() is
    'at the end of a transaction that took something out of a partition: puts in what belongs there, or what raises an error. Where '
    'this fails the transaction does';

create or replace function shardman.on_taken_out() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    part text;
begin
    if shardman.is_exchange() then
        return;
    end if;
    if tg_event = 'sql_drop' then
        select t.relation into part
          from pg_event_trigger_dropped_objects() d join shardman.tables t on shardman.is_called(t.relation, shardman.relation_text(d.schema_name, d.object_name))
         where d.object_type = 'table' and not d.is_temporary and not shardman.is_put_away(t.relation) limit 1;
        if found and shardman.is_member() and not shardman.is_copy() and coalesce(current_setting('shardman.ddl', true), '') = ''
           -- What a shardlord does is a SELECT of a superuser's to whoever looks from here.
           and (current_query() !~* '^\s*select' or not shardman.may_administer()) then
            perform shardman.refuse_drop(part);
        end if;
        perform shardman.refuse_lone_drops();
        perform shardman.note_lost_statistics();
        insert into shardman.emptied
        select p.part_name
          from pg_event_trigger_dropped_objects() d
         cross join lateral (values (d.object_name), (regexp_replace(d.object_name, '_(data|fdw)$', ''))) as n (name)
          join shardman.partitions p on p.prv is null and p.part_name = shardman.relation_text(d.schema_name, n.name)
         where d.object_type in ('table', 'foreign table') and not d.is_temporary
            on conflict do nothing;
        return;
    end if;
    insert into shardman.emptied
    select p.part_name
      from pg_event_trigger_ddl_commands() d
      join pg_class c on c.oid = d.objid and c.relkind = 'p' join pg_namespace n on n.oid = c.relnamespace
      join shardman.partitions p on p.prv is null and p.part_name = shardman.relation_text(n.nspname, c.relname)
     where d.classid = 'pg_class'::regclass and not exists (select from pg_inherits i where i.inhparent = d.objid)
        on conflict do nothing;
    -- A table that lacks a whole partition cannot be helped: its name is taken.
    select p.part_name into part
      from pg_event_trigger_ddl_commands() d
      join pg_class c on c.oid = d.objid and c.relkind = 'p' join pg_namespace n on n.oid = c.relnamespace
      join shardman.tables t on shardman.is_called(t.relation, shardman.relation_text(n.nspname, c.relname))
      join shardman.partitions p on p.relation = t.relation and p.prv is null
      join pg_class x on x.oid = shardman.find_relation(p.part_name) and not x.relispartition
     where d.classid = 'pg_class'::regclass and shardman.is_parent_of(t.definition, d.objid)
     limit 1;
    if part is not null and shardman.is_member() then
        raise exception '% cannot be detached: the sharded table would lack its rows, without a word', part
            using errcode = 'object_in_use', hint = 'Read it by its name, or move it with shardman.move_part.';
    end if;
end
$$;
comment on function shardman.on_taken_out() is
    'remembers partitions out of which something was dropped or detached, until the transaction ends; raises where a whole partition is '
    'detached from its table';

do $$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.emptied'::regclass and tgname = 'at_end') then
        create constraint trigger at_end after insert on shardman.emptied deferrable initially deferred
            for each row execute function shardman.on_emptied();
        alter table shardman.emptied enable always trigger at_end;
    end if;
end
$$;
