-- What is done with commands that were submitted: they are taken back, and waited for.

create or replace function shardman.cancel_here(cmd_id bigint, requested_by text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.must_be_lord();
    if not exists (select from shardman.cmd_log l
                    where l.id = cancel_here.cmd_id and l.status in ('waiting', 'in progress') and not l.switched) then
        return false;
    end if;
    insert into shardman.cancel_requests (cmd_id, requested_by) values (cancel_here.cmd_id, cancel_here.requested_by);
    perform pg_notify('shardman', 'cancel');
    perform shardman.cancel_unattended(cancel_here.cmd_id);
    return true;
end
$$;
comment on function shardman.cancel_here(bigint, text) is 'lord only: asks the shardlord to take a command back';

create or replace function shardman.cancel_unattended(cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from shardman.lease e where e.epoch > 0 and e.renewed_at > clock_timestamp() - interval '5 seconds') then
        return;
    end if;
    -- What nobody has begun needs nobody to take it back, and nobody else writes the row while no shardlord acts.
    update shardman.cmd_log l
       set status = 'canceled', error_code = 'canceled', result = shardman.canceled_by(l.id), ended_at = clock_timestamp()
     where l.id = cancel_unattended.cmd_id and l.status = 'waiting';
    if found then
        -- What it has left behind, if anything, is undone by the next shardlord, who needs it.
        delete from shardman.cmd_secrets s
         where s.cmd_id = cancel_unattended.cmd_id
           and not exists (select from shardman.cmd_steps t
                            where t.cmd_id = s.cmd_id and t.phase = 'prepare' and t.state in ('started', 'done'));
    end if;
end
$$;
comment on function shardman.cancel_unattended(bigint) is 'lord only: takes a command back that waits while no shardlord acts';

create or replace function shardman.canceled_by(cmd_id bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('Canceled by %s.', string_agg(distinct r.requested_by, ', '))
      from shardman.cancel_requests r where r.cmd_id = canceled_by.cmd_id having count(*) > 0
$$;
comment on function shardman.canceled_by(bigint) is 'who has asked that a command is taken back, as a sentence; null: nobody has';

create or replace function shardman.cancel_cmd(cmd_id bigint) returns bool
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    answer bigint;
begin
    perform shardman.need(cmd_id::text, 'cmd_id');
    if (select lord from shardman.local) then
        return shardman.cancel_here(cmd_id, session_user);
    end if;
    insert into shardman.lord_inbox (cmd_type, options, submitted_by)
    values ('cancel', json_build_object('cmd_id', cmd_id), session_user) returning id into answer;
    return answer = 1;
end
$$;
comment on function shardman.cancel_cmd(bigint) is
    'asks that a waiting or running command is taken back, undoing what it has begun; false when it has ended or is past its '
    'point of no return';

create or replace function shardman.cmd_wait(cmd_id bigint, timeout interval default null) returns shardman.cmd_status
language plpgsql
set search_path = pg_catalog, pg_temp
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
