-- Transactions of clients over several nodes, by two-phase commit with presumed abort (Mohan, Lindsay, Obermarck 1986). The
-- first node's part is not prepared: its commit, with the row that it writes here, is the decision. All other parts are prepared
-- before it and committed after it. What a client leaves, the shardlord ends: see lord/watchers/client_transactions.py.
--
-- Whoever may use a sharded table calls first_part and other_part. A row counts for parts of the same role only, so
-- nobody decides on what is another's.

create or replace function shardman.caller() returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;
comment on function shardman.caller() is 'as whom the session acts, also within functions that act as the nodes'' role';

create or replace function shardman.transaction_place() returns table (cluster text, node int)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select l.cluster, l.node_id from shardman.local l
     where l.node_id is not null and not l.leaving and current_setting('max_prepared_transactions')::int > 0
$$;
comment on function shardman.transaction_place() is
    'for clients: which node this is; nothing where it can have no part of a transaction over several nodes';

create or replace function shardman.uses_other_nodes() returns bool
language plpgsql set search_path = pg_catalog, pg_temp set client_min_messages = error as $$
declare
    -- The extension's own, in whatever schema it is.
    schema_ constant name := (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'postgres_fdw');
    looks   constant text := format('select exists (select from %I.postgres_fdw_get_connections())', schema_);
    found_  bool;
begin
    execute looks into found_;
    if found_ then
        -- What stays is in use in this transaction; the others are of earlier ones.
        execute format('select %I.postgres_fdw_disconnect_all()', schema_);
        execute looks into found_;
    end if;
    return found_;
end
$$;
comment on function shardman.uses_other_nodes() is
    'whether this transaction has used another node through postgres_fdw, so that it could not be prepared, and its commit is not one act';

create or replace function shardman.first_part(token text, nodes int[]) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gid_ text;
begin
    if token !~ '^[0-9a-f]{32}$' then
        raise exception 'a token has 32 hexadecimal digits' using errcode = 'invalid_parameter_value', hint = 'shardman.connect makes one.';
    end if;
    -- Until this is decided. Nobody holds its other parts up, so whoever closes the gates on all nodes waits for no circle.
    lock table shardman.commit_gate in row share mode;
    if shardman.uses_other_nodes() then
        raise exception 'this part of the transaction has used other nodes through this one' using errcode = 'feature_not_supported';
    end if;
    select format('shardman_%s_x%s_%s_%s', p.cluster, p.node, pg_current_xact_id(), token) into strict gid_ from shardman.transaction_place() p;
    insert into shardman.client_transactions (gid, role, nodes) values (gid_, shardman.caller(), first_part.nodes);
    return gid_;
end
$$;
comment on function shardman.first_part(text, int[]) is
    'for clients, in the part on the first node: writes down that this transaction is committed when this part is; returns the name by which the other parts are to be '
    'prepared. token: random; nodes: those of the other parts';

create or replace function shardman.other_part(gid text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into shardman.client_transactions (gid, role, nodes) values (other_part.gid, shardman.caller(), '{}');
end
$$;
comment on function shardman.other_part(text) is 'for clients, in a part on another node, right before PREPARE TRANSACTION: writes down that it was here';

create or replace function shardman.client_parts() returns table (gid text, role name, first int, xid xid8, age interval)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select x.gid, x.owner, m[1]::int, m[2]::xid8, clock_timestamp() - x.prepared
      from pg_prepared_xacts x cross join shardman.local l
     cross join regexp_match(x.gid, '^shardman_' || l.cluster || '_x([0-9]{1,9})_([0-9]{1,19})_[0-9a-f]{32}$') as m
     where x.database = current_database() and m is not null
$$;
comment on function shardman.client_parts() is 'parts of clients'' transactions that are prepared on this node; first: the node that knows the outcome, xid: by which it does';

create or replace function shardman.client_outcome(gid text, role name, xid xid8) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    underway bool;
begin
    -- First whether it is under way, then, with another snapshot, what came of it. After a crash another transaction may have its
    -- number, as none of it had reached the disk: so the number says nothing else.
    begin
        underway := pg_xact_status(xid) = 'in progress';
    exception when invalid_parameter_value then
        underway := false;
    end;
    if exists (select from shardman.client_transactions t where (t.gid, t.role) = (client_outcome.gid, client_outcome.role)) then
        return 'committed';
    end if;
    return case when underway then 'in progress' else 'aborted' end;
end
$$;
comment on function shardman.client_outcome(text, name, xid8) is 'on the first node of a client''s transaction: what has become of it';

create or replace function shardman.forget_client_transactions(prepared text[], decided pg_snapshot, older interval) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with gone as (
        delete from shardman.client_transactions t
         where t.at < clock_timestamp() - older and t.gid <> all (prepared)
           -- Its own node's row is the outcome; others only say that a part was there.
           and case when t.nodes = '{}' then true else pg_visible_in_snapshot(split_part(t.gid, '_', 4)::xid8, decided) end
        returning 1)
    select count(*) from gone
$$;
comment on function shardman.forget_client_transactions(text[], pg_snapshot, interval) is
    'forgets how transactions of clients ended that no node has a part of. decided: a snapshot of this node; prepared: the names of all parts that were prepared on any '
    'node after it was taken';

create or replace function shardman.let_clients_in() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    users constant oid[] := array(select r.oid from shardman.mapped_roles() as m (name) join pg_roles r on r.rolname = m.name where shardman.is_ordinary(r.oid));
    role_ oid;
begin
    foreach role_ in array users loop
        if not has_schema_privilege(role_, 'shardman', 'usage') then
            execute format('grant usage on schema shardman to %I', pg_get_userbyid(role_));
            insert into shardman.clients_let_in (role) values (role_) on conflict do nothing;
        end if;
    end loop;
    if shardman.lacks_tables() then
        return;
    end if;
    for role_ in delete from shardman.clients_let_in c where c.role <> all (users) returning c.role loop
        if exists (select from pg_roles r where r.oid = role_) then
            execute format('revoke all on schema shardman from %I', pg_get_userbyid(role_));
            perform shardman.try_sql(format('revoke all on %s from %I', x.name, pg_get_userbyid(role_)))
               from (select distinct c.oid::regclass as name from pg_class c cross join aclexplode(c.relacl) a
                      where c.relnamespace = 'shardman'::regnamespace and a.grantee = role_) as x;
        end if;
    end loop;
end
$$;
comment on function shardman.let_clients_in() is
    'lets the roles that use sharded tables call what a client needs to commit on several nodes, and no others. All functions here act as who calls them, or check '
    'who he is';
