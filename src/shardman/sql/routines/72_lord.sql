-- Which database is the lord's, and how another one becomes it. The upper half of an epoch is the lord's term: it grows with
-- each promotion, the lower half with each shardlord. So no shardlord of a former lord's database ever gets ahead.

create or replace function shardman.subscription_way(subscription oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    -- With its password in it, a superuser's alone to see.
    if has_column_privilege('pg_subscription', 'subconninfo', 'select') then
        return (select s.subconninfo from pg_subscription s where s.oid = subscription);
    end if;
    return null;
end
$$;
comment on function shardman.subscription_way(oid) is 'the connection string of a subscription; null where this role may not see it';

create or replace function shardman.next_term(epoch bigint) returns bigint
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select ((epoch >> 32) + 1) << 32
$$;
comment on function shardman.next_term(bigint) is 'the first epoch of the term after the one that an epoch belongs to';

create or replace function shardman.must_be_lord() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Held to the end of the transaction: what is accepted is there when the lord steps down.
    lock table shardman.accepting in row share mode;
    if not (select l.lord from shardman.local l) then
        raise exception 'this database is not the lord''s any more' using errcode = 'SHM04',
            hint = 'Another node is, or will be in a moment: try again on a node of the cluster.';
    end if;
end
$$;
comment on function shardman.must_be_lord() is 'raises SHM04 unless this is the lord''s database; it stays so until the transaction ends';

create or replace function shardman.newest_epoch() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select greatest((select l.epoch from shardman.local l), (select e.epoch from shardman.lease e))
$$;
comment on function shardman.newest_epoch() is 'the newest epoch that this database has heard of';

create or replace function shardman.copy_position() returns numeric
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.setting('lord_term', '0')::numeric * 18446744073709551616
           + coalesce(max(pg_replication_origin_progress(format('pg_%s', s.oid), true) - '0/0'), 0)
      from pg_subscription s join pg_database d on d.oid = s.subdbid and d.datname = current_database()
     where s.subname = (select format('shardman_meta_%s_%s', l.cluster, l.node_id) from shardman.local l)
$$;
comment on function shardman.copy_position() is
    'how new this worker''s copy of the metadata is: term and position in the lord''s WAL, comparable between the workers';

create or replace function shardman.step_down(epoch_ bigint) returns pg_lsn
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Commands that are being accepted are awaited, new ones refused.
    lock table shardman.accepting in exclusive mode;
    update shardman.local set lord = false, epoch = greatest(epoch, epoch_);
    -- In the old term: whoever takes the lease here now is refused everywhere.
    update shardman.lease set epoch = epoch + 1;
    return pg_current_wal_insert_lsn();
end
$$;
comment on function shardman.step_down(bigint) is
    'this database is the lord''s no more: commands are refused, and its shardlord''s epoch is over';

create or replace function shardman.stay_lord(epoch_ bigint) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.local set lord = true;
    update shardman.lease set epoch = greatest(epoch, epoch_);
$$;
comment on function shardman.stay_lord(bigint) is
    'takes shardman.step_down back: another node was to become the lord, and did not. The next shardlord acts in the new term';

create or replace function shardman.become_lord(epoch_ bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    me   constant int := shardman.my_id();
    tab  text;
    last bigint;
begin
    update shardman.local set lord = true, epoch = epoch_ where epoch <= epoch_;
    if not found then
        raise exception 'epoch % is over', epoch_ using errcode = 'SHM01';
    end if;
    -- A lord that was nothing else leaves the cluster.
    update shardman.nodes n set lord = false, worker_status = coalesce(n.worker_status, 'removed') where n.lord and n.id <> me;
    update shardman.nodes n set lord = true where n.id = me;
    delete from shardman.settings s where s.name = 'advertise';
    insert into shardman.settings as s values ('lord_term', epoch_ >> 32)
        on conflict (name) do update set value = excluded.value;
    perform shardman.ensure_road_secret();
    update shardman.lease set epoch = epoch_, holder = null, pid = null;
    -- An id is never used twice, not even one that was given and got lost.
    foreach tab in array array['shardman.cmd_log', 'shardman.cmd_opts'] loop
        execute format('select coalesce(max(id), 0) from %s', tab) into last;
        perform setval(pg_get_serial_sequence(tab, 'id'), last + 1000);
    end loop;
    drop foreign table if exists shardman.lord_inbox;
end
$$;
comment on function shardman.become_lord(bigint) is 'makes this copy of the metadata the lord''s; the other nodes follow it when its shardlord acts';

create or replace function shardman.lord_joins(node_id int, cmd_id bigint, zone text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    former shardman.nodes;
begin
    -- The row that only a lord has leaves the cluster, as when another node becomes the lord: its id means the lord, whichever
    -- node that is.
    update shardman.nodes n set lord = false, worker_status = 'removed' where n.lord and n.worker_status is null
    returning * into former;
    if not found then
        raise exception 'the lord''s database is a worker already' using hint = 'See shardman.nodes.';
    end if;
    insert into shardman.nodes (id, connstring, worker_status, lord, added_by, options, system_id, zone, roads)
    values (lord_joins.node_id, former.connstring, 'active', true, lord_joins.cmd_id, former.options, former.system_id, lord_joins.zone,
            former.roads);
    update shardman.node_secrets s set node_id = lord_joins.node_id where s.node_id = former.id;
    update shardman.local set node_id = lord_joins.node_id;
end
$$;
comment on function shardman.lord_joins(int, bigint, text) is 'lord only: makes the lord''s database a worker too, in the place of its former row';

create or replace function shardman.expect_copy(tables text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tab text;
begin
    foreach tab in array tables loop
        execute format('create temp table %I (like shardman.%I) on commit drop', 'incoming_' || tab, tab);
    end loop;
end
$$;
comment on function shardman.expect_copy(text[]) is 'makes temporary tables for the lord''s metadata';

create or replace function shardman.merge_copy(tables text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
-- As the apply worker: no foreign key is checked, and what has changed is followed at the end of the transaction.
set session_replication_role = replica as $$
declare
    tab text;
begin
    foreach tab in array tables loop
        execute format('delete from shardman.%1$I t where not exists (select from pg_temp.%2$I i '
                       'where to_jsonb(i) - ''changed_at'' = to_jsonb(t) - ''changed_at'')', tab, 'incoming_' || tab);
    end loop;
    foreach tab in array tables loop
        execute format('insert into shardman.%1$I select i.* from pg_temp.%2$I i where not exists (select from shardman.%1$I t '
                       'where to_jsonb(i) - ''changed_at'' = to_jsonb(t) - ''changed_at'')', tab, 'incoming_' || tab);
    end loop;
    -- A row that was replaced is not gone.
    delete from shardman.problems p using shardman.tables t where p.subject = 'former table ' || t.relation;
end
$$;
comment on function shardman.merge_copy(text[]) is
    'makes this node''s metadata equal to what the temporary tables hold; rows that are equal are not touched';
