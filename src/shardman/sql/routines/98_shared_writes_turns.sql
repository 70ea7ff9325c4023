-- Whose turn it is to write to a shared table: the locks that its writers take on nodes (98_shared_writes.sql says why).

create or replace function shardman.take_shared_lock(relation text, kind text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set row_security = on as $$
-- With row_security off, as whoever restores a dump has it, the policy of the locks would be an error.
declare
    name constant text := shardman.shared_lock_name(relation);
begin
    perform from shardman.shared_locks l where (l.relation, l.kind) = (name, take_shared_lock.kind) for update;
    if not found then
        raise exception '% is just being shared or unshared', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
    end if;
exception when query_canceled then
    -- Whoever calls shardman.make_way has that lock, by shardman.hold_way; row locks do not have it.
    if exists (select from pg_locks k where k.locktype = 'relation' and k.relation = 'shardman.shared_locks'::regclass and k.granted
                  and k.mode = 'ShareUpdateExclusiveLock' and k.database = (select d.oid from pg_database d where d.datname = current_database())) then
        raise exception 'the definition of % is just being changed', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
    end if;
    raise;
end
$$;
comment on function shardman.take_shared_lock(text, text) is 'takes a lock of a shared table on this node, to the end of the transaction, as its owner';

create or replace function shardman.await_shared_lock(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    begin
        perform shardman.take_shared_lock(relation, 'work');
        raise exception 'free' using errcode = 'SHM10';
    exception when sqlstate 'SHM10' then
        -- Given back with the block: another session of this writer's is going to take it.
        null;
    end;
end
$$;
comment on function shardman.await_shared_lock(text) is 'waits until nobody is at work on the copy of a shared table on this node';

create or replace function shardman.wait_for_turn(relation text, nodes int[], me int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    node int;
begin
    if nodes[1] = me then
        perform shardman.take_shared_lock(relation, 'turn');
    else
        perform shardman.pass_shared(nodes[1], relation, 'turn', nodes, '{}');
    end if;
    foreach node in array nodes loop
        if node <> me then
            perform shardman.pass_shared(node, relation, 'free', nodes, '{}');
        end if;
    end loop;
    perform shardman.take_shared_lock(relation, 'work');
end
$$;
comment on function shardman.wait_for_turn(text, int[], int) is 'waits until no other transaction of the cluster writes to a shared table, and takes its locks';

create or replace function shardman.wait_in_trigger(relation text, nodes int[], me int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.wait_for_turn(relation, nodes, me);
exception when query_canceled then
    -- Other rows of the statement are on other nodes, and a trigger there has the table until this one is done. Where the statement was sent it is written
    -- down who has waited for whom, with only one to name; a statement from another node is not shown what is newer than itself.
    if current_setting('application_name') not like 'postgres_fdw from %' and coalesce(shardman.deadlock_of(pg_backend_pid()), ';') like '%;%' then
        raise;
    end if;
    raise exception 'a trigger of a sharded table waited for % in a circle: each node that has rows of the statement writes to it, and only one can', relation
        using errcode = 'SHM12', detail = sqlerrm,
              hint = format('Let the statement change rows of one node, or let the trigger write to a sharded table: unshare %s and shard it.', relation);
end
$$;
comment on function shardman.wait_in_trigger(text, int[], int) is
    'shardman.wait_for_turn within a trigger: says what it was if the shardlord has ended the wait, as it ends circles';

create or replace function shardman.lock_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    held   constant text := coalesce(current_setting('shardman.shared_locked', true), '');
    copies record;
begin
    -- The setting is the user's to change. Who does so waits for others where he need not have, or they for him.
    if relation = any (string_to_array(held, chr(10))) then
        return;
    elsif shardman.is_made_here_and_now(shardman.find_relation(relation)) then
        -- Nobody else sees it, nor its locks, which are taken over another connection.
        perform set_config('shardman.shared_locked', held || chr(10) || relation, true);
        return;
    end if;
    select * into copies from shardman.shared_nodes(relation);
    if copies.me is null then
        raise exception '% is a shared table, and this database is no node of its cluster any more', relation
            using errcode = 'object_not_in_prerequisite_state',
                  hint = format('As a plain table it can be written: DROP FUNCTION %s() CASCADE.', shardman.sql_name(shardman.shared_function(relation)));
    elsif copies.me <> all (copies.nodes) then
        raise exception 'the copy of % on this node is not used: it is just being made or dropped', relation
            using errcode = 'serialization_failure', hint = 'Repeat the transaction, or write through another node.';
    end if;
    -- The first depth is this table's own trigger.
    if pg_trigger_depth() > 1 then
        perform shardman.wait_in_trigger(relation, copies.nodes, copies.me);
    else
        perform shardman.wait_for_turn(relation, copies.nodes, copies.me);
    end if;
    perform set_config('shardman.shared_locked', held || chr(10) || relation, true);
end
$$;
comment on function shardman.lock_shared(text) is 'before a statement that writes to a shared table: waits for all other writers of the cluster';
