-- Transactions of clients over several nodes, by two-phase commit with presumed abort (Mohan, Lindsay, Obermarck 1986). The
-- first node's part is not prepared: its commit, with the row that it writes here, is the decision. All other parts are prepared
-- before it and committed after it. What a client leaves, the shardlord ends: see lord/watchers/client_transactions.py.
--
-- Whoever may use a sharded table calls first_part and other_part. A row counts for parts of the same role only, so
-- nobody decides on what is another's.
--
-- Both are a part of each such commit, so what they ask is in PL/pgSQL, which keeps plans for a session (functions of SQL do so from
-- PostgreSQL 18 on), and in few statements: to call a function with settings costs as much as to look into an index.

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

create or replace function shardman.decisions_arrive() returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    -- Nodes without replicas are done here.
    if not exists (select from pg_get_replication_slots()) then
        return false;
    end if;
    -- Channels of a former version carry none.
    return (select coalesce(bool_and(exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = 'shardman.client_decisions'::regclass)), false)
              from shardman.local l join pg_publication p on starts_with(p.pubname, format('shardman_%s_%s_', l.cluster, l.node_id))
              join pg_replication_slots s on s.slot_name = p.pubname and s.database = current_database());
end
$$;
comment on function shardman.decisions_arrive() is
    'whether there are channels from this node, and all of them carry what clients'' transactions over several nodes have decided here';

create or replace function shardman.may_use_other_nodes() returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    -- There is this setting once the library is loaded, which whatever uses a foreign table does.
    return current_setting('postgres_fdw.application_name', true) is not null;
end
$$;
comment on function shardman.may_use_other_nodes() is 'whether anything in this session may have used another node through postgres_fdw: quicker than to ask that';

create or replace function shardman.need_first_word() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever may use one sharded table could fill these tables otherwise, here and on all nodes to which decisions go, in one statement.
    if exists (select from shardman.client_transactions t where t.xact = pg_current_xact_id()) then
        raise exception 'this transaction is a part of one over several nodes already' using errcode = 'invalid_transaction_state',
            hint = 'Call shardman.first_part, or shardman.other_part, once in a transaction.';
    end if;
end
$$;
comment on function shardman.need_first_word() is 'raises where this transaction has written down already that it is a part of one over several nodes';

create or replace function shardman.most_parts() returns int
language sql stable set search_path = pg_catalog, pg_temp as $$ select 1000 $$;
comment on function shardman.most_parts() is 'on how many nodes a transaction of a client may be, at most';

create or replace function shardman.first_part(token text, nodes int[]) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gid_     text;
    said_    bool;
    arrives_ constant bool := shardman.decisions_arrive();
    role_    constant name := shardman.caller();
begin
    if token !~ '^[0-9a-f]{32}$' then
        raise exception 'a token has 32 hexadecimal digits' using errcode = 'invalid_parameter_value', hint = 'shardman.connect makes one.';
    end if;
    if cardinality(nodes) > shardman.most_parts() then
        raise exception 'a transaction is on % nodes at most', shardman.most_parts() using errcode = 'program_limit_exceeded',
            hint = 'Name each node once that has another part.';
    end if;
    -- Until this is decided. Nobody holds its other parts up, so whoever closes the gates on all nodes waits for no circle.
    lock table shardman.commit_gate in row share mode;
    if shardman.may_use_other_nodes() and shardman.uses_other_nodes() then
        raise exception 'this part of the transaction has used other nodes through this one' using errcode = 'feature_not_supported';
    end if;
    -- As transaction_place() has it.
    select format('shardman_%s_%s%s_%s_%s', l.cluster, case when arrives_ then 'y' else 'z' end, l.node_id, pg_current_xact_id(), token),
           exists (select from shardman.client_transactions t where t.xact = pg_current_xact_id())
      into strict gid_, said_ from shardman.local l
     where l.node_id is not null and not l.leaving and current_setting('max_prepared_transactions')::int > 0;
    if said_ then
        perform shardman.need_first_word();
    end if;
    insert into shardman.client_transactions (gid, role, nodes) values (gid_, role_, first_part.nodes);
    if arrives_ then
        insert into shardman.client_decisions (gid, role) values (gid_, role_);
    end if;
    return gid_;
end
$$;
comment on function shardman.first_part(text, int[]) is
    'for clients, in the part on the first node: writes down that this transaction is committed when this part is; returns the name by which the other parts are to be '
    'prepared: y before the number of this node where its channels carry the decision, z where not; x was that of former versions. token: random; nodes: those of the other parts';

create or replace function shardman.part_ticket(gid text, role name, node int, xid text) returns text
language sql stable cost 1000 set search_path = pg_catalog, pg_temp as $$
    select format('%s:%s:%s', node, xid, encode(sha256(convert_to(concat_ws(E'\n', s.secret, gid, role, node, xid, s.secret), 'UTF8')), 'hex'))
      from shardman.road_secret s
$$;
comment on function shardman.part_ticket(text, name, int, text) is
    'says that a transaction of a node is a part of this one and this role''s: only the nodes can make it, so nobody decides on what is another''s';

create or replace function shardman.prepared_arrives() returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_get_replication_slots() s where s.two_phase) then
        return false;
    end if;
    return exists (select from pg_replication_slots s, shardman.local l
                    where s.two_phase and s.database = current_database() and starts_with(s.slot_name, format('shardman_%s_%s_', l.cluster, l.node_id)));
end
$$;
comment on function shardman.prepared_arrives() is 'whether what is prepared on this node is prepared on nodes with its replicas as well';

create or replace function shardman.has_room() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Cut-overs come one after the other; each prepares at most two on a node, and all of them may have to be held here.
    select current_setting('max_prepared_transactions')::int >= 8 * (select count(*) from shardman.nodes where worker_status = 'active')
$$;
comment on function shardman.has_room() is
    'whether this node has room for what is prepared on all nodes, so that its channels to replicas may bring it. Without that they would stand still';

create or replace function shardman.await_room() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- Each node may have to hold what is prepared on all of them. A quarter is for others than clients of ours.
    most  constant int := greatest(1, current_setting('max_prepared_transactions')::int * 3 / 4
                                      / (select greatest(1, count(*)) from shardman.nodes where worker_status = 'active')::int);
    until constant timestamptz := clock_timestamp() + interval '5 s';
begin
    while (select count(*) from pg_prepared_xacts x where not starts_with(x.gid, 'pg_gid_')) >= most loop
        if clock_timestamp() > until then
            raise exception 'there are % prepared transactions on this node already, as many as nodes with its replicas have room for', most
                using errcode = 'configuration_limit_exceeded', hint = 'Repeat the transaction later, or raise max_prepared_transactions on all nodes.';
        end if;
        perform pg_sleep(0.01);
    end loop;
end
$$;
comment on function shardman.await_room() is
    'waits until fewer parts are prepared here than all nodes with replicas of this one have room for: their channels would stand still otherwise';

create or replace function shardman.is_part_name(gid text) returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (select gid ~ format('^shardman_%s_[xyz][0-9]{1,9}_[0-9]{1,19}_[0-9a-f]{32}$', l.cluster) from shardman.local l);
end
$$;
comment on function shardman.is_part_name(text) is 'whether this is a name that shardman.first_part gives';

create or replace function shardman.need_part_name(gid text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.is_part_name(gid) is not true then
        raise exception 'this is no name of a transaction over several nodes: %', coalesce(gid, 'null') using errcode = 'invalid_parameter_value',
            hint = 'shardman.first_part gives one.';
    end if;
end
$$;
comment on function shardman.need_part_name(text) is 'raises for a name that nobody was given: who reads these names takes them apart';

create or replace function shardman.other_part(gid text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    role_ constant name := shardman.caller();
begin
    perform shardman.need_part_name(other_part.gid);
    perform shardman.need_first_word();
    insert into shardman.client_transactions (gid, role, nodes) values (other_part.gid, role_, '{}');
    if not shardman.prepared_arrives() then
        return null;
    end if;
    perform shardman.await_room();
    return shardman.part_ticket(other_part.gid, role_, (select p.node from shardman.transaction_place() p), pg_current_xact_id()::xid::text);
end
$$;
comment on function shardman.other_part(text) is
    'for clients, in a part on another node, right before PREPARE TRANSACTION: writes down that it was here; returns what shardman.decide is to be told of it, if anything';

create or replace function shardman.decide(gid text, parts text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_part_name(decide.gid);
    if not exists (select from shardman.client_transactions t
                    where (t.gid, t.role, t.xact) = (decide.gid, shardman.caller(), pg_current_xact_id())) then
        raise exception 'this transaction is not the first part of %', decide.gid using errcode = 'invalid_transaction_state',
            hint = 'Call shardman.first_part in it before.';
    end if;
    -- A ticket has a node, a transaction and 64 digits.
    if cardinality(parts) > shardman.most_parts() or (select bool_or(octet_length(p.ticket) > 128) from unnest(parts) as p (ticket)) then
        raise exception 'these are no tickets of parts' using errcode = 'invalid_parameter_value',
            hint = 'shardman.other_part returns one for each.';
    end if;
    insert into shardman.client_decisions as d (gid, role, parts) values (decide.gid, shardman.caller(), decide.parts)
    on conflict on constraint client_decisions_pkey do update set parts = excluded.parts;
end
$$;
comment on function shardman.decide(text, text[]) is
    'for clients, in the part on the first node, when all others are prepared: writes down what shardman.other_part has returned for them';

create or replace function shardman.client_parts() returns table (gid text, role name, first int, xid xid8, age interval)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select x.gid, x.owner, m[1]::int, m[2]::xid8, clock_timestamp() - x.prepared
      from pg_prepared_xacts x cross join shardman.local l
     cross join regexp_match(x.gid, '^shardman_' || l.cluster || '_[xyz]([0-9]{1,9})_([0-9]{1,19})_[0-9a-f]{32}$') as m
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
    if split_part(gid, '_', 3) ^@ 'y' and xid < (select l.decides_from from shardman.local l) then
        return 'elsewhere';
    end if;
    if exists (select from shardman.client_transactions t where (t.gid, t.role) = (client_outcome.gid, client_outcome.role)) then
        return 'committed';
    end if;
    return case when underway then 'in progress' else 'aborted' end;
end
$$;
comment on function shardman.client_outcome(text, name, xid8) is 'on the first node of a client''s transaction: what has become of it; elsewhere: this node was taken over from since, so others know';

create or replace function shardman.decide_anew() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.local set decides_from = pg_current_xact_id()
$$;
comment on function shardman.decide_anew() is
    'on a node that all was taken over from: what transactions of clients have decided here until now counts only where it has arrived';

create or replace function shardman.decision_arrived(gid text, role name, first int) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    hears bool;
begin
    -- First whether anything may still come, then, with another snapshot, what has.
    select exists (select from pg_subscription s, shardman.local l
                    where s.subenabled and s.subname = format('shardman_%s_%s_%s', l.cluster, decision_arrived.first, l.node_id)
                      and s.subdbid = (select d.oid from pg_database d where d.datname = current_database())) into hears;
    if exists (select from shardman.client_decisions d where (d.gid, d.role) = (decision_arrived.gid, decision_arrived.role)) then
        return 'committed';
    end if;
    return case when hears then 'in progress' else 'aborted' end;
end
$$;
comment on function shardman.decision_arrived(text, name, int) is
    'on another node than the first one of a client''s transaction: whether the decision has come here; aborted: it has not, and does not come any more';

create or replace function shardman.parts_decided(of_node int, xids text[]) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select split_part(p.ticket, ':', 2) from shardman.client_decisions d cross join unnest(d.parts) as p (ticket)
     where starts_with(p.ticket, of_node || ':') and split_part(p.ticket, ':', 2) = any (xids)
       and p.ticket = shardman.part_ticket(d.gid, d.role, of_node, split_part(p.ticket, ':', 2))
$$;
comment on function shardman.parts_decided(int, text[]) is 'which of these transactions of a node are parts of transactions that this node knows to be committed';

create or replace function shardman.prepared_from(of_node int) returns table (gid text, xid text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select x.gid, m[2] from shardman.local l
      join pg_subscription s on s.subname = format('shardman_%s_%s_%s', l.cluster, of_node, l.node_id) and not s.subenabled
       and s.subdbid = (select d.oid from pg_database d where d.datname = current_database())
      join pg_prepared_xacts x on x.database = current_database()
     cross join regexp_match(x.gid, '^pg_gid_([0-9]+)_([0-9]+)$') as m
     where m[1] = s.oid::text
$$;
comment on function shardman.prepared_from(int) is
    'what a channel that is cut has left prepared on this node; xid: the number of the transaction on the node where the channel came from';

create or replace function shardman.deciding() returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select k.virtualtransaction from pg_locks k
     where k.locktype = 'relation' and k.relation = 'shardman.commit_gate'::regclass and k.mode = 'RowShareLock' and k.granted
       and k.database = (select d.oid from pg_database d where d.datname = current_database())
$$;
comment on function shardman.deciding() is 'the transactions on this node that may decide on parts on others';

create or replace function shardman.end_deciding(those text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.end_session(k.pid) from pg_locks k
     where k.locktype = 'relation' and k.relation = 'shardman.commit_gate'::regclass and k.mode = 'RowShareLock'
       and k.database = (select d.oid from pg_database d where d.datname = current_database()) and k.virtualtransaction = any (those)
$$;
comment on function shardman.end_deciding(text[]) is 'ends the sessions of transactions that may decide on parts on others';

create or replace function shardman.forget_client_transactions(prepared text[], decided pg_snapshot, older interval) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with gone as (
        delete from shardman.client_transactions t
         where t.at < clock_timestamp() - older and t.gid <> all (prepared)
           -- Its own node's row is the outcome; others only say that a part was there.
           and case when t.nodes = '{}' then true else pg_visible_in_snapshot(split_part(t.gid, '_', 4)::xid8, decided) end
        returning 1
    ), also as (
        -- One that came from another node came so long ago that it was decided on before.
        delete from shardman.client_decisions d
         where d.at < clock_timestamp() - older and d.gid <> all (prepared)
           -- Former versions took any name.
           and case when not shardman.is_part_name(d.gid) then true
                    when ltrim(split_part(d.gid, '_', 3), 'xyz') = (select l.node_id from shardman.local l)::text
                    then pg_visible_in_snapshot(split_part(d.gid, '_', 4)::xid8, decided) else true end)
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
