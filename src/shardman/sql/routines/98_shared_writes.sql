-- Writes to a shared table, in the writer's own transaction.
--
-- Before a statement its trigger takes a row lock ("turn") on the first of the table's nodes: a table has one writer at a time in
-- the whole cluster, and who waits does so on one node, where PostgreSQL sees a circle. After the statement triggers send what has
-- changed, rows as text, through a foreign table (a door) for each other node to the view shardman.shared_inbox there, whose
-- trigger writes it into the table, and holds another lock there ("work") as long as its transaction is open.
--
-- What a session on another node sees is of the instant of its first statement (postgres_fdw asks for REPEATABLE READ), so it must
-- not begin before the last writer has ended there: it would find rows that were changed since, 40001. So the first lock, and the
-- look whether "work" is free on each node, go through connections of their own (servers shardman_node_N_c0), for which there are doors too.
--
-- The trigger function of a table belongs to the table's owner and acts as him, so what is sent arrives as him, by his road
-- login (73_roads.sql): he can do there no more than he could do himself. Whoever writes needs his rights on the node where he is.
-- What has arrived is not sent on: shardman.is_arriving() says so, which an ordinary role cannot feign in a session of its own.
--
-- Every message says which nodes have copies, as its sender knows it. Where that is not what the receiver knows, the statement
-- fails and can be repeated: so no copy is left out while the metadata are on their way.
--
-- Rows go by statement: INSERT and DELETE of rows that refer to each other are right only together. Of an UPDATE, rows whose
-- primary key changes go one by one, before foreign keys act on it here (the trigger's name is sorted before PostgreSQL's own):
-- the foreign keys act by themselves on each node. What they did to rows of another shared table is sent as well, for nothing tells
-- it from a statement, and comes behind what they act on: rows that are not found any more were theirs, by the count of those that
-- they have deleted, or given another key, in the same transaction there (shardman.shared_acted).
--
-- What a crash leaves: nothing, before the first node commits. Nodes commit one after the other, so a crash in that instant
-- can leave copies apart: they are compared in the background (lord/watchers/shared_scrub.py), and create_shared_table makes them the same.

create or replace function shardman.is_arriving() returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    sender oid;
begin
    if current_setting('shardman.shared', true) is distinct from 'arrives' then
        return false;
    end if;
    sender := (select r.oid from pg_roles r where r.rolname = session_user);
    return not shardman.is_ordinary(sender) or shardman.road_cluster(sender) is not null;
end
$$;
comment on function shardman.is_arriving() is
    'whether what is written to a shared table comes from another node: in a session of a road login, or of the nodes'' role';

create or replace function shardman.shared_nodes(relation text, out nodes int[], out me int)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select array(select c.node from shardman.shared_copies c where c.relation = shardman.shared_now(shared_nodes.relation) order by c.node),
           (select l.node_id from shardman.local l where not l.leaving and not shardman.is_copy())
$$;
comment on function shardman.shared_nodes(text) is 'the nodes that have copies of a shared table, as this node knows it, and which one this is; null on a copy of a node';

create or replace function shardman.shared_door(node int, op text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select format('shardman.%I', case when op in ('turn', 'free') then 'shared_lock_' else 'shared_door_' end || node)
$$;
comment on function shardman.shared_door(int, text) is 'the foreign table through which locks, or changes, of shared tables go to a node';

create or replace function shardman.pass_shared(node int, relation text, op text, nodes int[], rows text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('insert into %s values ($1, $2, $3, $4)', shardman.shared_door(node, op)) using relation, op, nodes, rows;
exception when sqlclient_unable_to_establish_sqlconnection or connection_failure then
    raise exception 'node % cannot be reached, and a shared table is written on all nodes or on none', node
        using errcode = 'connection_failure', detail = sqlerrm, hint = 'Start it, or remove it with shardman.rm_node, and try again.';
end
$$;
comment on function shardman.pass_shared(int, text, text, int[], text[]) is 'sends a change of a shared table to a node';

create or replace function shardman.send_shared(relation text, op text, rows text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    copies record;
    node   int;
begin
    select * into copies from shardman.shared_nodes(relation);
    foreach node in array copies.nodes loop
        if node <> copies.me then
            perform shardman.pass_shared(node, relation, op, copies.nodes, rows);
        end if;
    end loop;
end
$$;
comment on function shardman.send_shared(text, text, text[]) is 'after a statement: what it has changed, to all other copies';

create or replace view shardman.shared_inbox as
    select null::text as relation, null::text as op, null::int[] as nodes, null::text[] as rows where false;
comment on view shardman.shared_inbox is 'a change of a shared table that is inserted here is made, as who inserts it: it comes from another node';
