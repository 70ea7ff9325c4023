-- The commands. On the lord a call is a row in cmd_log; on a worker it is handed to the lord through
-- postgres_fdw, inside the caller's transaction, so a rolled-back call submits nothing.

create or replace function shardman.my_id() returns int
language sql stable parallel safe as $$ select node_id from shardman.local $$;
comment on function shardman.my_id() is 'the id of this node; null when the database is in no cluster';

create or replace function shardman.submit(cmd_type text, opts text[], secret text default null) returns bigint
language plpgsql set search_path = pg_catalog as $$
declare
    here shardman.local;
    id_  bigint;
begin
    select * into here from shardman.local;
    if here.cluster is null then
        raise exception 'this database is not part of a cluster'
            using hint = 'Make it the lord''s with "shardman init", or connect to a node of the cluster.';
    elsif not here.lord then
        insert into shardman.lord_inbox (cmd_type, opts, secret, submitted_by)
        values (submit.cmd_type, submit.opts, submit.secret, session_user)
        returning id into id_;
        return id_;
    end if;
    return shardman.accept(submit.cmd_type, submit.opts, submit.secret, session_user);
end
$$;
comment on function shardman.submit(text, text[], text) is 'hands a command to the lord and returns its id';

create or replace function shardman.accept(cmd_type text, opts text[], secret text, submitted_by text) returns bigint
language plpgsql set search_path = pg_catalog as $$
declare
    id_ bigint;
begin
    perform shardman.must_be_lord();
    insert into shardman.cmd_log (cmd_type, submitted_by) values (accept.cmd_type, accept.submitted_by) returning id into id_;
    insert into shardman.cmd_opts (cmd_id, opt)
    select id_, o.opt from unnest(accept.opts) with ordinality as o (opt, n) order by o.n;
    if accept.secret is not null then
        insert into shardman.cmd_secrets (cmd_id, connstring) values (id_, accept.secret);
    end if;
    perform pg_notify('shardman', 'command');
    return id_;
end
$$;
comment on function shardman.accept(text, text[], text, text) is 'lord only: writes a command down and wakes the shardlord';

create or replace function shardman.accept_because(cmd_type text, opts text[], because text) returns bigint
language plpgsql set search_path = pg_catalog as $$
declare
    id_ constant bigint := shardman.accept(accept_because.cmd_type, accept_because.opts, null, session_user);
begin
    update shardman.cmd_log l set reason = accept_because.because where l.id = id_;
    return id_;
end
$$;
comment on function shardman.accept_because(text, text[], text) is
    'lord only: submits a command of the shardlord''s own and writes down why';

-- What a worker's postgres_fdw inserts into; the worker's foreign table of it is shardman.lord_inbox.
create or replace view shardman.inbox as
    select null::bigint as id, null::text as cmd_type, null::text[] as opts, null::text as secret, null::text as submitted_by
     where false;
comment on view shardman.inbox is 'lord only: a command is submitted by inserting it here';

create or replace function shardman.inbox_insert() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    -- Then the null that a worker sent has been read as a word.
    if current_setting('array_nulls') = 'off' then
        new.opts := array_replace(new.opts, 'NULL', null);
    end if;
    if new.cmd_type = 'cancel' then
        new.id := case when shardman.cancel_here(new.opts[1]::bigint) then 1 else 0 end;
    else
        new.id := shardman.accept(new.cmd_type, new.opts, new.secret, new.submitted_by);
    end if;
    return new;
end
$$;
create or replace trigger inbox_insert instead of insert on shardman.inbox
    for each row execute function shardman.inbox_insert();

create or replace function shardman.need(argument text, name text) returns void
language plpgsql immutable set search_path = pg_catalog as $$
begin
    if argument is null then
        raise exception '% must not be null', name using errcode = 'null_value_not_allowed', hint = format('Give a value for %s.', name);
    end if;
end
$$;

create or replace function shardman.need_zone(zone text) returns void
language plpgsql immutable set search_path = pg_catalog as $$
begin
    if btrim(zone, E' \t\n\r') = '' then
        raise exception 'zone is empty' using errcode = 'invalid_parameter_value', hint = 'Give null for a node that is a zone of its own.';
    end if;
end
$$;

create or replace function shardman.add_node(connstring text, zone text default null) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(connstring, 'connstring');
    perform shardman.need_zone(zone);
    return shardman.submit('add_node',
        array[shardman.format_connstring(shardman.parse_connstring(connstring) - shardman.secret_parameters()), zone],
        connstring);
end
$$;
comment on function shardman.add_node(text, text) is
    'adds a server to the cluster as a worker; connstring: any libpq connection string that reaches it from every node; zone: what it '
    'may fail together with, say a rack: copies of a partition go to different zones where they can';

create or replace function shardman.set_zone(node_id int, zone text) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need_zone(zone);
    return shardman.submit('set_zone', array[node_id::text, zone]);
end
$$;
comment on function shardman.set_zone(int, text) is
    'says what a worker may fail together with; null: with no other; rebalance then moves copies to different zones where they can';

create or replace function shardman.drain_node(node_id int, drain bool default true) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('drain_node', array[node_id::text, coalesce(drain, true)::text]);
end
$$;
comment on function shardman.drain_node(int, bool) is
    'moves all copies of partitions off a worker, say before rm_node, and places no new ones on it; with drain => false it may have some again';

create or replace function shardman.rm_node(node_id int, force bool default false) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('rm_node', array[node_id::text, coalesce(force, false)::text]);
end
$$;
comment on function shardman.rm_node(int, bool) is
    'removes a worker; without force it must hold no partitions; its data stay on it';

create or replace function shardman.create_hash_partitions(
    node_id int, relation text, expr text, partitions_count int, rebalance bool default true) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    perform shardman.need(relation, 'relation');
    perform shardman.need(expr, 'expr');
    perform shardman.need(partitions_count::text, 'partitions_count');
    if partitions_count not between 1 and 4096 then
        raise exception 'partitions_count is %, it must be from 1 to 4096', partitions_count
            using errcode = 'invalid_parameter_value', hint = 'Choose a few partitions for each node you may ever have.';
    elsif btrim(expr, E' \t\n\r') = '' then
        raise exception 'expr is empty' using errcode = 'invalid_parameter_value', hint = 'Name the column to shard by.';
    end if;
    return shardman.submit('create_hash_partitions',
        array[node_id::text, shardman.normal_name(relation), expr, partitions_count::text, coalesce(rebalance, true)::text]);
end
$$;
comment on function shardman.create_hash_partitions(int, text, text, int, bool) is
    'shards the table relation, which lies on worker node_id, by the hash of expr (a column, several, or an immutable '
    'expression) into partitions_count partitions; with rebalance they are spread over all workers at once';

create or replace function shardman.move_part(part_name text, dest int, src int default null) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('move_part', array[shardman.normal_name(part_name), dest::text, src::text]);
end
$$;
comment on function shardman.move_part(text, int, int) is
    'moves a copy of a partition from worker src (default: where the primary is) to worker dest while it is read and written';

create or replace function shardman.rebalance(relation text, by text default 'number') returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(relation, 'relation');
    if by is distinct from 'number' and by is distinct from 'bytes' then
        raise exception 'rebalance cannot even out by %', coalesce(by, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Use number (of partitions) or bytes.';
    end if;
    return shardman.submit('rebalance', array[shardman.normal_name(relation), by]);
end
$$;
comment on function shardman.rebalance(text, text) is
    'spreads the partitions of a table evenly over the workers by the fewest moves; by: number of partitions, or bytes';

create or replace function shardman.create_replica(part_name text, dest int) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('create_replica', array[shardman.normal_name(part_name), dest::text]);
end
$$;
comment on function shardman.create_replica(text, int) is 'makes a further copy of a partition on worker dest';

create or replace function shardman.rm_replica(part_name text, node int) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(node::text, 'node');
    return shardman.submit('rm_replica', array[shardman.normal_name(part_name), node::text]);
end
$$;
comment on function shardman.rm_replica(text, int) is 'drops the replica of a partition on a worker';

create or replace function shardman.switch_primary(part_name text, node int) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(part_name, 'part_name');
    perform shardman.need(node::text, 'node');
    return shardman.submit('switch_primary', array[shardman.normal_name(part_name), node::text]);
end
$$;
comment on function shardman.switch_primary(text, int) is
    'makes the replica of a partition on a worker the primary and the primary a replica; copies nothing';

create or replace function shardman.suspend_replicas(src int, dest int) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(src::text, 'src');
    perform shardman.need(dest::text, 'dest');
    return shardman.submit('suspend_replicas', array[src::text, dest::text]);
end
$$;
comment on function shardman.suspend_replicas(int, int) is
    'commits on worker src wait no more for the replicas on worker dest, which are brought up to date later; the shardlord does it '
    'by itself when the two have not reached each other for failover_after seconds';

create or replace function shardman.set_replevel(relation text, replevel int) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(replevel::text, 'replevel');
    if replevel < 0 then
        raise exception 'replevel is %, it must not be negative', replevel
            using errcode = 'invalid_parameter_value', hint = 'Give the number of replicas of each partition beside its primary.';
    end if;
    return shardman.submit('set_replevel', array[shardman.normal_name(relation), replevel::text]);
end
$$;
comment on function shardman.set_replevel(text, int) is 'brings every partition of a table to this many replicas';

create or replace function shardman.set_sync(relation text, sync bool) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(relation, 'relation');
    perform shardman.need(sync::text, 'sync');
    return shardman.submit('set_sync', array[shardman.normal_name(relation), sync::text]);
end
$$;
comment on function shardman.set_sync(text, bool) is 'whether commits wait until every replica of a table''s partitions has them';

create or replace function shardman.failover(node_id int, accept_data_loss bool default false) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.need(node_id::text, 'node_id');
    return shardman.submit('failover', array[node_id::text, coalesce(accept_data_loss, false)::text]);
end
$$;
comment on function shardman.failover(int, bool) is
    'promotes the replicas of a dead worker''s partitions; the shardlord does it by itself after failover_after seconds; with '
    'accept_data_loss also replicas that may lack acknowledged writes, where there is nothing else';

create or replace function shardman.cancel_here(cmd_id bigint) returns bool
language plpgsql set search_path = pg_catalog as $$
begin
    perform shardman.must_be_lord();
    -- What nobody has begun needs nobody to take it back. What was put back is left to a shardlord that acts, if one does.
    update shardman.cmd_log l
       set status = 'canceled', cancel_requested = true, ended_at = clock_timestamp()
     where l.id = cmd_id and l.status = 'waiting'
       and (l.attempt = 0
            or not exists (select from shardman.lease e
                            where e.epoch > 0 and e.renewed_at > clock_timestamp() - interval '5 seconds'));
    if found then
        -- What it has left behind, if anything, is undone by the next shardlord, who needs it.
        delete from shardman.cmd_secrets s
         where s.cmd_id = cancel_here.cmd_id
           and not exists (select from shardman.cmd_steps t
                            where t.cmd_id = s.cmd_id and t.phase = 'prepare' and t.state in ('started', 'done'));
        return true;
    end if;
    update shardman.cmd_log
       set cancel_requested = true
     where id = cmd_id and status in ('waiting', 'in progress') and not switched;
    if found then
        perform pg_notify('shardman', 'cancel');
    end if;
    return found;
end
$$;
comment on function shardman.cancel_here(bigint) is 'lord only: asks the shardlord to take a command back';

create or replace function shardman.cancel_cmd(cmd_id bigint) returns bool
language plpgsql set search_path = pg_catalog as $$
declare
    answer bigint;
begin
    perform shardman.need(cmd_id::text, 'cmd_id');
    if (select lord from shardman.local) then
        return shardman.cancel_here(cmd_id);
    end if;
    insert into shardman.lord_inbox (cmd_type, opts, submitted_by)
    values ('cancel', array[cmd_id::text], session_user) returning id into answer;
    return answer = 1;
end
$$;
comment on function shardman.cancel_cmd(bigint) is
    'cancels a waiting or running command, undoing what it has begun; false when it has ended or is past its point of no return';

create or replace function shardman.cmd_wait(cmd_id bigint, timeout interval default null) returns shardman.cmd_status
language plpgsql
set search_path = pg_catalog
-- Whoever waits for a command must not be what the command waits for: its transaction is older than
-- what the command changes, but sees nothing but the log.
set application_name = 'shardman wait' as $$
declare
    begun  constant timestamptz := clock_timestamp();
    now_   shardman.cmd_status;
    pause  double precision := 0.005;
begin
    perform shardman.need(cmd_id::text, 'cmd_id');
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'cmd_wait cannot see the command end in a % transaction', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state', hint = 'Call it in a read committed transaction of its own.';
    end if;
    loop
        select status into now_ from shardman.cmd_log where id = cmd_id;
        -- A worker learns of a new command a moment after its submission.
        if now_ is null and clock_timestamp() > begun + interval '5 seconds' then
            raise exception 'there is no command %', cmd_id
                using errcode = 'no_data_found', hint = 'See shardman.commands for those there are; a call that was not committed submits nothing.';
        end if;
        if now_ not in ('waiting', 'in progress') or clock_timestamp() > begun + timeout then
            return now_;
        end if;
        perform pg_sleep(pause);
        -- What took long may take longer: one part in fifty of the time is the price of asking rarely.
        pause := greatest(0.005, least(0.2, 0.02 * extract(epoch from clock_timestamp() - begun)));
    end loop;
end
$$;
comment on function shardman.cmd_wait(bigint, interval) is
    'waits until a command has ended, or for timeout, and returns its status; call it outside the transaction that submitted the command';

create or replace function shardman.setting(name text, default_value text) returns text
language sql stable parallel safe as $$
    select coalesce((select s.value from shardman.settings s where s.name = setting.name), default_value)
$$;
comment on function shardman.setting(text, text) is 'a setting of the cluster';

create or replace function shardman.bytes_setting(name text, default_value text) returns bigint
language plpgsql stable set search_path = pg_catalog as $$
begin
    return pg_size_bytes(shardman.setting(bytes_setting.name, bytes_setting.default_value));
exception when invalid_parameter_value or numeric_value_out_of_range then
    return pg_size_bytes(bytes_setting.default_value);
end
$$;
comment on function shardman.bytes_setting(text, text) is
    'a setting of the cluster that is a size, as in 10GB; the default where it makes no sense';
