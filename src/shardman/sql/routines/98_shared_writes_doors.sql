-- Doors: the foreign tables by which owners of shared tables reach other nodes' copies, and the servers of the locks
-- (98_shared_writes.sql).

create or replace function shardman.shared_owners() returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relowner from shardman.shared_tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
    union
    -- Those as well whose table is not here yet: what they make elsewhere is sent here. To a lord that is no worker nothing is.
    select r.oid from shardman.shared_tables t join pg_roles r on r.rolname = t.definition ->> 'owner'
     where not exists (select from shardman.nodes n where n.id = shardman.my_id() and n.lord and n.worker_status is null)
$$;
comment on function shardman.shared_owners() is 'the owners of shared tables, here and by the metadata';

create or replace function shardman.owns_shared(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(pg_has_role(current_user, (select c.relowner from pg_class c where c.oid = shardman.find_relation(shardman.shared_of_lock(relation))), 'usage'), false)
$$;
comment on function shardman.owns_shared(text) is 'whether this role owns the shared table whose locks are kept under a name';

create or replace function shardman.let_shared_owners_in() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
    thing  regclass;
begin
    for owner_ in select o from shardman.shared_owners() o where shardman.is_ordinary(o) loop
        if not has_schema_privilege(owner_, 'shardman', 'usage') then
            execute format('grant usage on schema shardman to %I', pg_get_userbyid(owner_));
        end if;
        if not has_table_privilege(owner_, 'shardman.shared_locks', 'update') then
            execute format('grant select, update on shardman.shared_locks to %I', pg_get_userbyid(owner_));
        end if;
        for thing in select c.oid from pg_class c
                      where c.relnamespace = 'shardman'::regnamespace and c.relname ~ '^(ddl|shared_(inbox|(door|lock)_[0-9]+))$' loop
            if not has_table_privilege(owner_, thing, 'insert') then
                execute format('grant insert on %s to %I', thing, pg_get_userbyid(owner_));
            end if;
        end loop;
    end loop;
end
$$;
comment on function shardman.let_shared_owners_in() is 'lets the owners of shared tables do what the triggers of their tables do, and DDL';

create or replace function shardman.lock_server(node int) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$ select shardman.node_server(node) || '_c0' $$;
comment on function shardman.lock_server(int) is 'the foreign server by which locks of shared tables are taken on a node: a connection of its own. No command has the number';

create or replace function shardman.mend_lock_server(node shardman.nodes) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    server constant text := shardman.lock_server(node.id);
    found_ constant pg_foreign_server := (select s from pg_foreign_server s where s.srvname = server);
    change constant text := shardman.options_change((found_).srvoptions, shardman.wanted_server(node));
begin
    if (found_).oid is null then
        perform shardman.make_server(server, change);
        return true;
    elsif change is not null then
        perform shardman.need_our_server(server);
        execute format('alter server %I options (%s)', server, change);
    end if;
    return false;
end
$$;
comment on function shardman.mend_lock_server(shardman.nodes) is 'the server of shardman.lock_server, as it must be; whether it was made';

create or replace function shardman.mend_shared_doors() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    node_  shardman.nodes;
    kind   text;
    gone   record;
    made   bool := false;
begin
    for node_ in select n.* from shardman.reachable_nodes() n join pg_foreign_server s on s.srvname = shardman.node_server(n.id)
                  where n.id in (select c.node from shardman.shared_copies c)
                    and shardman.my_id() in (select c.node from shardman.shared_copies c) loop
        made := shardman.mend_lock_server(node_) or made;
        foreach kind in array array['turn', 'insert'] loop
            if to_regclass(shardman.shared_door(node_.id, kind)) is null then
                execute format('create foreign table %s (relation text, op text, nodes int[], rows text[]) server %I '
                               'options (schema_name ''shardman'', table_name ''shared_inbox'', batch_size ''1'')', shardman.shared_door(node_.id, kind),
                               case kind when 'turn' then shardman.lock_server(node_.id) else shardman.node_server(node_.id) end);
                execute format('comment on foreign table %s is %L', shardman.shared_door(node_.id, kind),
                               case kind when 'turn' then 'locks' else 'changes' end || ' of shared tables go through it to node ' || node_.id);
            end if;
        end loop;
    end loop;
    for gone in select c.oid, substring(c.relname from '[0-9]+$')::int as node, c.relname ~ '_lock_' as lock
                  from pg_class c where c.relnamespace = 'shardman'::regnamespace and c.relkind = 'f' and c.relname ~ '^shared_(door|lock)_[0-9]+$' loop
        if gone.node not in (select x.node from shardman.shared_copies x) or shardman.my_id() not in (select x.node from shardman.shared_copies x) then
            execute format('drop foreign table %s', gone.oid::regclass);
            if gone.lock then
                perform shardman.try_sql(format('drop user mapping if exists for %I server %I', m.usename, m.srvname))
                   from pg_user_mappings m where m.srvname = shardman.lock_server(gone.node) and m.umuser <> 0;
                perform shardman.drop_server(shardman.lock_server(gone.node));
            end if;
        end if;
    end loop;
    return made;
end
$$;
comment on function shardman.mend_shared_doors() is 'doors to each node with copies of shared tables, and to no other; whether a server was made, which needs user mappings';

create or replace function shardman.shared_without_locks() returns table (relation text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relation from shardman.shared_copies c
     where c.node = shardman.my_id() and 2 > (select count(*) from shardman.shared_locks l where l.relation = shardman.shared_lock_name(c.relation))
$$;
comment on function shardman.shared_without_locks() is 'this node: its copies of shared tables for which nobody could wait';

create or replace function shardman.mend_shared() returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    lacking text[];
    tab     text;
    failed  text[] := '{}';
    problem text;
begin
    begin
        perform shardman.let_shared_owners_in();
    exception when others then
        perform shardman.note_problem('shared tables', sqlerrm);
        failed := failed || 'shared tables'::text;
    end;
    lacking := array(select s.relation from shardman.shared_state s where s.problem is not null);
    foreach tab in array lacking loop
        perform shardman.try_follow_name(tab);
    end loop;
    foreach tab in array lacking || array(select l.relation from shardman.shared_without_locks() l) loop
        begin
            if shardman.is_behind_name(tab) then
                continue;
            elsif shardman.find_relation(tab) is null then
                raise exception '%', shardman.shared_lacks(tab);
            elsif shardman.is_made_now(tab) and not shardman.is_a_copy(tab) then
                -- Who shares a table of his own by himself does not get others' tables of that name.
                raise exception 'it is no copy of the shared table of that name' using hint = 'Rename or drop one of them.';
            end if;
            perform shardman.arm_shared(tab);
        exception
            when lock_not_available or deadlock_detected then
                null;
            when others then
                get stacked diagnostics problem = message_text;
                perform shardman.note_problem(tab, problem);
                failed := failed || tab;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_shared() is 'rights, locks and triggers of shared tables on this node; returns what failed, which is recorded';

do $$
begin
    if not exists (select from pg_catalog.pg_policy where polrelid = 'shardman.shared_locks'::regclass) then
        create policy owners on shardman.shared_locks using (shardman.owns_shared(relation));
    end if;
end
$$;
