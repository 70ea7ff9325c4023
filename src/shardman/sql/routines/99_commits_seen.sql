-- What a client asks that reads all nodes as one (client/snapshots.py, docs/decisions/0052-one-picture-of-all-nodes.md), and what keeps
-- transactions of clients over several nodes from being decided for a while.

create or replace function shardman.commits_under_way() returns setof text
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select p.gid from shardman.client_parts() p
$$;
comment on function shardman.commits_under_way() is 'for clients: names of transactions over several nodes that have a part prepared on this one';

create or replace function shardman.commits_since(horizon pg_snapshot) returns table (gid text, nodes int[])
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select t.gid, t.nodes from shardman.client_transactions t
     where t.xid >= pg_snapshot_xmin(horizon) and not pg_visible_in_snapshot(t.xid, horizon)
$$;
comment on function shardman.commits_since(pg_snapshot) is
    'for clients: transactions over several nodes whose part here this snapshot sees, and an earlier one, the horizon, did not; nodes: of the other parts, where this is the first';

create or replace function shardman.commits_seen(gids text[]) returns table (gid text, nodes int[])
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select t.gid, t.nodes from shardman.client_transactions t where t.gid = any (gids)
$$;
comment on function shardman.commits_seen(text[]) is 'for clients: which of these transactions over several nodes have a part here that this snapshot sees';

create or replace function shardman.end_sleepers(older interval) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select count(*) filter (where shardman.end_session(k.pid))
      from pg_locks k join pg_stat_activity a on a.pid = k.pid
     where k.locktype = 'relation' and k.relation = 'shardman.commit_gate'::regclass and k.mode = 'RowShareLock' and k.granted
       and k.database = (select d.oid from pg_database d where d.datname = current_database())
       and a.state in ('idle in transaction', 'idle in transaction (aborted)') and a.state_change < clock_timestamp() - older
$$;
comment on function shardman.end_sleepers(interval) is
    'ends sessions that have begun to commit a transaction of a client over several nodes and were not heard of for so long: their client is gone, or hangs. Returns how many';

create or replace function shardman.hold_commits_here() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- A client says the next thing within milliseconds, or when other nodes have prepared their parts.
    perform shardman.end_sleepers(interval '1 min');
    lock table shardman.commit_gate in exclusive mode;
end
$$;
comment on function shardman.hold_commits_here() is
    'keeps transactions of clients over several nodes whose first node this is from being decided until the end of the caller''s transaction; waits for those that are about to be';
