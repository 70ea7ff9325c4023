-- Partitions of one table are made to be as the metadata say (60_reconcile.sql): slots, routes, and what is attached where.

create or replace function shardman.make_attached_route(part_name text, server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from shardman.late_checks(shardman.find_relation(part_name))) then
        -- PARTITION OF would make valid ones of its checks, and the planner leave out rows that break them.
        perform shardman.make_route(part_name, server);
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name), shardman.sql_name(shardman.route_table(part_name)));
        return;
    end if;
    perform shardman.need_our_server(server);
    execute format('create foreign table %s partition of %s default server %I %s',
                   shardman.sql_name(shardman.route_table(part_name)), shardman.sql_name(part_name), server,
                   shardman.route_options(part_name));
    if (select pg_get_userbyid(relowner) <> current_user from pg_class where oid = shardman.find_relation(part_name)) then
        execute format('alter foreign table %s owner to %I', shardman.sql_name(shardman.route_table(part_name)),
                       (select pg_get_userbyid(relowner) from pg_class where oid = shardman.find_relation(part_name)));
    end if;
    perform shardman.leave_to_owner(shardman.find_relation(shardman.route_table(part_name)));
end
$$;
comment on function shardman.make_attached_route(text, text) is 'a route, made in its partition at once';

create or replace function shardman.drop_route(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.route_taken(part_name) is not null then
        raise exception 'this node has %, which is no route', shardman.route_taken(part_name)
            using errcode = 'duplicate_table', hint = 'Rename it or drop it, if it is not needed.';
    end if;
    execute format('drop foreign table if exists %s', shardman.sql_name(shardman.route_table(part_name)));
end
$$;

create or replace function shardman.leads_nowhere(part text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver
                    where f.ftrelid = shardman.attached_to(part) and s.srvname = 'shardman_missing')
$$;
comment on function shardman.leads_nowhere(text) is 'whether a partition has what stands for rows that are not there';

create or replace function shardman.fill_partition(part text, owner int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if owner <> shardman.my_id() then
        perform shardman.drop_route(part);
        perform shardman.make_attached_route(part, shardman.node_server(owner));
    elsif shardman.find_relation(shardman.data_table(part)) is not null then
        if shardman.leads_nowhere(part) then
            perform shardman.drop_route(part);
        end if;
        perform shardman.attach_data(part);
    else
        perform shardman.fill_missing(part);
    end if;
end
$$;
comment on function shardman.fill_partition(text, int) is
    'puts into an empty partition, or into one with a route, what belongs there while owner has the primary; where its rows are not there, '
    'what raises an error';

create or replace function shardman.mend_partition(part text, action_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ int;
begin
    execute format('lock table only %s in access exclusive mode', shardman.sql_name(part));
    -- Under the lock, look again: it may have been another's work meanwhile.
    select s.owner into owner_ from shardman.partition_state s where s.part_name = part and s.action = action_;
    if found then
        perform shardman.fill_partition(part, owner_);
    end if;
end
$$;
comment on function shardman.mend_partition(text, text) is 'does for one partition that is there what shardman.partition_state says';

create or replace function shardman.mend_rank(parts text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    part text;
begin
    foreach part in array parts loop
        execute format('lock table only %s in access exclusive mode', shardman.sql_name(part));
    end loop;
    foreach part in array parts loop
        perform shardman.mend_partition(part, 'exchange route');
    end loop;
end
$$;
comment on function shardman.mend_rank(text[]) is
    'exchanges the routes of partitions that go together, all or none: over the old route of one and the new one of another a transaction would be '
    'two on their node, and the row that it refers to not there yet';

create or replace function shardman.make_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    t      shardman.tables;
    state  record;
    failed text[] := '{}';
begin
    select * into t from shardman.tables where relation = relation_;
    for state in
        select s.part_name, s.k, s.owner from shardman.partition_state s
         where s.relation = relation_ and (parts is null or s.part_name = any (parts)) and s.action = 'make partition'
         order by s.k
    loop
        begin
            perform shardman.make_partition(t.definition, t.relation, state.part_name, t.partitions_count, state.k);
            perform shardman.fill_partition(state.part_name, state.owner);
        exception
            when lock_not_available or deadlock_detected then
                null;
            when others then
                perform shardman.note_problem(state.part_name, sqlerrm);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.make_partitions(text, text[]) is
    'makes the partitions that a table here has lost, with what belongs into them; returns those that failed';

create or replace function shardman.mend_existing_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    begun  constant timestamptz := clock_timestamp();
    oldest constant timestamptz := shardman.oldest_transaction();
    state  record;
    failed text[] := '{}';
    held   timestamptz;
begin
    for state in
        select s.part_name, s.action, case when s.action = 'exchange route' then shardman.rank_of(s.part_name) end as rank
          from shardman.partition_state s
         where (relation_ is null or s.relation = relation_) and (parts is null or s.part_name = any (parts))
           and s.action <> 'make partition' and (s.action <> 'exchange route' or coalesce(oldest >= s.changed_at, true))
         -- where some cannot be had, the others come next.
         order by random()
    loop
        -- What we lock stays locked until the transaction ends: who waits behind the first lock must not wait for all
        -- the others too. And nobody waits for us for long while we wait for others.
        exit when clock_timestamp() > held + interval '150 milliseconds' or clock_timestamp() > begun + interval '1 second';
        begin
            if cardinality(state.rank) > 1 then
                perform shardman.mend_rank(state.rank);
            else
                perform shardman.mend_partition(state.part_name, state.action);
            end if;
            if held is null then
                held := clock_timestamp();
                perform set_config('lock_timeout', '50ms', true);
            end if;
        exception
            when lock_not_available or deadlock_detected then
                -- Somebody uses it: no problem, only a difference that is left for the next time.
                null;
            when others then
                perform shardman.note_problem(state.part_name, sqlerrm);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_existing_partitions(text, text[]) is
    'puts data tables and routes into partitions, and exchanges routes that lead elsewhere; returns the partitions that failed';

create or replace function shardman.mend_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    failed text[] := '{}';
    table_ text;
begin
    for table_ in
        select s.relation from shardman.partition_state s
         where (relation_ is null or s.relation = relation_) and (parts is null or s.part_name = any (parts))
           and s.action = 'make partition' group by s.relation order by s.relation
    loop
        failed := failed || shardman.make_partitions(table_, parts);
    end loop;
    return failed || shardman.mend_existing_partitions(relation_, parts);
end
$$;
comment on function shardman.mend_partitions(text, text[]) is
    'mends what differs of the partitions of a table (null: of all) or of those named; returns those that failed, whose '
    'failures are recorded';
