-- The gate in front of DDL of a sharded table (95_ddl.sql): all locks that the statement needs, on all nodes.
--
-- The gate is what keeps this from hanging. On all nodes at the same instant it locks the table alone, without its partitions, against
-- all who come in by its name; then, on each node, its partitions, then its replicas, whose channels have nothing to deliver any
-- more. What the statement locks is free then. A lock that is not had within a moment is given back with all others, and the
-- gate begins anew.
--
-- Why at the same instant: whoever has begun to use the table goes on, for he stands before us in his node's queue, unless he comes to
-- another node for the first time to write there. There PostgreSQL wants a lock on the table as well, to check the bounds of the partition, and
-- he stands behind us. The closer together we ask, the fewer are on their way; then all give back what they have, and the next try
-- finds others. Not against writers first: who has read the table and then writes would wait for us, and we for him, every time.

create or replace function shardman.ddl_lock_modes(tag text, query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when tag in ('GRANT', 'REVOKE', 'COMMENT', 'ALTER SEQUENCE') or tag = 'ALTER INDEX' and query ~* '\mrename\s+to\M' then ''
                when tag = 'CREATE INDEX' then 'only exclusive,share,copies,look'
                -- Readers and writers go on.
                when tag like '% STATISTICS' then 'only share update exclusive,share update exclusive,statistics'
                when shardman.renames_table(tag, query) then 'only access exclusive'
                else 'only access exclusive,access exclusive,copies,look' end
           || case when tag = 'ALTER TABLE' and query ~* '\malter\s+(column\s+)?("([^"]|"")+"|[^\W\d][\w$]*)\s+(set\s+data\s+)?type\s' then ',keys' else '' end
$$;
comment on function shardman.ddl_lock_modes(text, text) is
    'what the gate locks for a statement of a kind, one after the other on all nodes; keys: and what it takes away meanwhile; statistics: and what it makes before; '
    'look: it sees all copies';

create or replace function shardman.hold_table(relation text, mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_known(relation);
    if mode = 'copies' then
        perform shardman.hold_copies(relation);
    elsif mode = 'look' then
        perform shardman.need_new_look(relation);
    elsif mode = 'stand-in' then
        perform shardman.make_stand_in(relation);
    elsif mode = 'identities' then
        perform shardman.make_identities(relation);
    elsif mode = 'statistics' then
        perform shardman.hold_statistics(relation);
    elsif mode = 'tuning' then
        perform shardman.make_tuning_stand_in(relation);
    elsif starts_with(mode, 'numbers ') then
        perform shardman.free_sequence(relation, substr(mode, 9));
    elsif starts_with(mode, 'refers ') then
        perform shardman.hold_named(substr(mode, 8));
    elsif starts_with(mode, 'beside ') then
        perform shardman.hold_beside(relation, substr(mode, 8));
    elsif starts_with(mode, 'referred ') then
        perform shardman.hold_referred_to(relation, substr(mode, 10));
    elsif mode = 'keys' then
        -- PostgreSQL would make those of the retyped columns anew, on the partitions as well. They come back at the statement's end.
        perform set_config('shardman.ddl_busy', 'on', true);
        perform set_config('shardman.ddl_keys', shardman.drop_keys(shardman.find_relation(relation))::text, true),
                set_config('shardman.ddl_busy', '', true);
    elsif starts_with(mode, 'only ') then
        execute format('lock table only %s in %s mode', shardman.name_here(relation), substr(mode, 6));
    else
        execute format('lock table %s in %s mode', shardman.name_here(relation), mode);
    end if;
end
$$;
comment on function shardman.hold_table(text, text) is
    'a part of the gate on this node: locks a sharded table, the table only or with its partitions, or the copies that are in none';

create or replace function shardman.copies_here(relation text) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Once each, also those that are there twice, see shardman.find_relation.
    select distinct c.oid
      from (select distinct p.part_name from shardman.partitions p where p.relation = copies_here.relation) as p
      join pg_class c on c.oid = shardman.find_relation(shardman.data_table(p.part_name))
     where c.relkind = 'r'
       and exists (select from pg_constraint o where o.conrelid = c.oid and o.conname = 'shardman_partition' and o.contype = 'c')
       -- Both say what is true now, whatever the snapshot shows.
       and to_regclass(shardman.sql_name(shardman.data_table(p.part_name)))::oid = c.oid and pg_partition_root(c.oid) is null
     order by c.oid
$$;
comment on function shardman.copies_here(text) is 'the data tables of a sharded table on this node that are in no partition: replicas, and copies that are being made';

create or replace function shardman.hold_copy(copy oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- While we wait for the lock a move may give it another name, or drop it.
    while pg_table_is_visible(copy) is not null loop
        begin
            execute format('lock table only %s in access exclusive mode', copy::regclass);
            return;
        exception when undefined_table then
            null;
        end;
    end loop;
end
$$;
comment on function shardman.hold_copy(oid) is 'locks a data table that is in no partition, under whatever name, unless it is gone';

-- DDL looks on another node in the snapshot of its first statement there. A copy that is made between that and the locks of the gate it would not
-- see, and had to be repeated. So it stands here before it looks there, and who makes a copy stands on all nodes. Neither waits for the
-- other for long: what one misses then the next function finds.

create or replace function shardman.await_new_copies() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    mine constant text := current_setting('lock_timeout');
begin
    perform set_config('lock_timeout', '5s', true);
    lock table shardman.copies_begin in share mode;
    perform set_config('lock_timeout', mine, true);
exception when lock_not_available or deadlock_detected then
    null;
end
$$;
comment on function shardman.await_new_copies() is 'before DDL looks at other nodes: waits for copies that are just being made; those that come later wait for the end of the transaction';

create or replace function shardman.hold_off_ddl(timeout_ms int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('lock_timeout', timeout_ms::text, true);
    lock table shardman.copies_begin in row exclusive mode;
end
$$;
comment on function shardman.hold_off_ddl(int) is 'before a copy is made: DDL that begins here waits until the transaction ends. Raises lock_not_available where some goes on for longer';

create or replace function shardman.need_new_look(relation text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    moved text;
begin
    perform shardman.need_owner(relation);
    -- What PostgreSQL's caches know is true now, for with the locks of the gate the session has heard of all; a query sees what was there when the
    -- transaction began.
    select p.part_name into moved
      from (select distinct x.part_name from shardman.partitions x where x.relation = need_new_look.relation) as p
     cross join lateral (select to_regclass(shardman.sql_name(shardman.data_table(p.part_name)))::oid as oid) as now_
     where now_.oid is not null and not exists (select from pg_class c where c.oid = now_.oid)
        -- Or an index of a copy: we have locked those, so both sizes are of the same instant.
        or pg_partition_root(now_.oid) is null
           and pg_indexes_size(now_.oid) <> (select coalesce(sum(pg_relation_size(i.indexrelid, fork)), 0)
                                               from pg_index i cross join unnest(array['main', 'fsm', 'vm', 'init']) fork where i.indrelid = now_.oid)
     limit 1;
    if moved is not null then
        raise exception 'a copy of partition %, or an index of it, was made since this transaction began on node %', moved, shardman.my_id()
            using errcode = 'transaction_rollback', hint = 'Repeat the transaction.';
    end if;
end
$$;
comment on function shardman.need_new_look(text) is
    'behind the locks of DDL: raises transaction_rollback, for no other try in this transaction finds more, where a copy is there, or an '
    'index of one, that the snapshot in which the transaction looks does not show';

create or replace function shardman.hold_copies(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    copy   oid;
begin
    perform shardman.need_owner(relation);
    for copy in select * from shardman.copies_here(relation) loop
        perform shardman.hold_copy(copy);
    end loop;
end
$$;
comment on function shardman.hold_copies(text) is
    'locks replicas of a table on this node, for its owner, who has no right on them: what feeds them has delivered all that it had begun';

create or replace function shardman.hold_asked() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    asked constant jsonb := nullif(current_setting('shardman.ddl_hold', true), '')::jsonb;
    holders_of constant text := asked ->> 'holders_of';
begin
    if asked is null then
        return null;
    end if;
    perform set_config('lock_timeout', asked ->> 'wait', true);
    if holders_of is not null and asked ->> 'mode' = 'before holders' then
        execute format('lock table only %s in access share mode', shardman.name_here(asked ->> 'relation'));
        perform shardman.stand_before_holder(asked ->> 'relation', holders_of, false);
        return true;
    end if;
    perform shardman.stand_before_holder(asked ->> 'relation', holders_of, true) where holders_of is not null;
    perform shardman.hold_table(asked ->> 'relation', asked ->> 'mode');
    perform shardman.need_holder_behind(asked ->> 'relation', holders_of) where holders_of is not null;
    return true;
exception when lock_not_available or deadlock_detected then
    perform shardman.dismiss_holder(asked ->> 'relation', holders_of) where holders_of is not null;
    return false;
end
$$;
comment on function shardman.hold_asked() is 'shardman.hold_table with what the setting shardman.ddl_hold says; whether the lock was had';

create or replace function shardman.hold_at_once(relation text, mode text, nodes int[], wait text, holders_of text default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_async_append = on as $$
declare
    asked constant text := jsonb_build_object('relation', relation, 'mode', mode, 'wait', wait, 'holders_of', holders_of)::text;
    doors constant text := (select string_agg(format(' union all select statement from shardman.%I', 'door_' || n || '_' || pg_backend_pid()), '')
                              from unnest(nodes) n);
    held  bool;
    node  int;
begin
    perform set_config('shardman.ddl_hold', asked, true);
    foreach node in array nodes loop
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_hold'', %L, true)', asked), wait);
    end loop;
    -- Asynchronous scans: all are sent before the first answer is waited for, and before this node's own lock.
    execute format('select bool_and(h.held::bool) from (select shardman.hold_asked()::text%s) as h (held)', doors) into held;
    if not held then
        raise exception '% is in use', relation using errcode = 'lock_not_available';
    end if;
end
$$;
comment on function shardman.hold_at_once(text, text, int[], text, text) is
    'shardman.hold_table on this node and others at the same time; raises where a lock is not had within wait; holders_of: on the others before their holders for this session';

create or replace function shardman.close_gate(relation text, modes text[], nodes int[], wait text, holders_of text default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mode_ text;
    node  int;
begin
    foreach mode_ in array modes loop
        if mode_ = 'only access exclusive' then
            perform shardman.hold_at_once(relation, 'before holders', nodes, wait, holders_of) where holders_of is not null;
            perform shardman.hold_at_once(relation, mode_, nodes, wait, holders_of);
            continue;
        end if;
        perform set_config('lock_timeout', wait, true);
        perform shardman.hold_table(relation, mode_);
        foreach node in array nodes loop
            perform shardman.through_door(node, format('select shardman.hold_table(%L, %L)', relation, mode_), wait);
        end loop;
    end loop;
end
$$;
comment on function shardman.close_gate(text, text[], int[], text, text) is
    'one try: raises where a lock is not had within wait. holders_of: as for shardman.hold_at_once';

create or replace function shardman.on_ddl_gate() returns event_trigger
language plpgsql as $$
declare
    target constant pg_catalog.text := pg_catalog.current_setting('shardman.ddl_target', true);
begin
    if pg_catalog.length(target) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.pass_gate(target, tg_tag);
    end if;
end
$$;
comment on function shardman.on_ddl_gate() is 'before DDL on a sharded table, as the caller, who may have no way into our schema unless it is his: closes the gate';

create or replace function shardman.need_time_left(tables text[], purpose text, begun timestamptz, failed text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    patience constant interval := '30 s';
begin
    if clock_timestamp() > begun + patience then
        raise exception '% is in use: no moment was found in % to % it', array_to_string(tables, ', '), patience, purpose
            using errcode = 'lock_not_available', detail = failed,
                  hint = 'Try again; a statement or transaction that uses it for long is in pg_stat_activity of its node.';
    end if;
end
$$;
comment on function shardman.need_time_left(text[], text, timestamptz, text) is
    'between two tries to close a gate: raises when they have gone on for half a minute. purpose: a verb; failed: what the last try said';

create or replace function shardman.await_routes(relation text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- What this transaction itself is in the way of is not waited for, nor what somebody else is for longer.
    while current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '3 s'
      and exists (select from shardman.partitions p, pg_foreign_table f, pg_foreign_server s
                   where p.relation = await_routes.relation and p.prv is null
                     and p.changed_at between clock_timestamp() - interval '10 s' and now()
                     and f.ftrelid = shardman.find_relation(shardman.route_table(p.part_name))
                     and s.oid = f.ftserver and s.srvname <> shardman.node_server(p.owner)) loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_routes(text) is
    'before DDL: until the routes of partitions that have just moved are exchanged. Rows that the transaction changes after the table would reach the '
    'new node through another session than the DDL, and wait for its locks';

create or replace function shardman.pass_gate(relation text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    modes  constant text[] := shardman.gate_modes(relation, tag, shardman.statement_now(), current_setting('shardman.ddl_path', true));
    nodes  constant int[] := string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[];
    mine   constant text := current_setting('lock_timeout');
    begun  timestamptz;
    holders_of text;
    -- Short first: most transactions are, and every try holds up all others.
    longest numeric := 30;
    wait    numeric := 30;
begin
    perform shardman.send_now(nodes);
    if modes is null then
        return;
    end if;
    -- This transaction holds the replicas' locks until it has ended on all nodes. If its end on one waited for replicas on
    -- another, with rows that it has written as well, it would wait for itself.
    perform set_config('synchronous_commit', 'local', true);
    perform shardman.await_routes(relation);
    holders_of := shardman.hold_entrances(relation, shardman.statement_now(), tag);
    begun := clock_timestamp();
    loop
        begin
            perform shardman.close_gate(relation, modes, nodes, round(wait) || 'ms', holders_of);
            exit;
        exception when lock_not_available or deadlock_detected or serialization_failure then
            perform shardman.need_time_left(array[relation], 'change', begun, sqlerrm);
        when transaction_rollback then
            raise exception '%', sqlerrm using errcode = 'serialization_failure', hint = 'Repeat the transaction.';
        end;
        -- Most tries fail of a circle, in which to wait longer only holds others up; some of a long statement, for which only a long wait helps.
        longest := least(500, longest * 1.1);
        wait := case when random() < 0.15 then longest else 30 * power(longest / 30, (random() * random())::numeric) end;
        perform pg_sleep(random() * 0.05);
    end loop;
    perform set_config('lock_timeout', mine, true);
    if shardman.is_cast(shardman.statement_now(), tag) then
        perform shardman.set_aside_for_cast(relation);
    end if;
end
$$;
comment on function shardman.pass_gate(text, text) is 'closes the gate for a kind of statement, trying again for half a minute';
