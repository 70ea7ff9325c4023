-- Transactions that applications have prepared (PREPARE TRANSACTION, XA), where their node is taken over from. Replicas hold them under
-- names of PostgreSQL's, and a new primary cannot be made while one locks its table: what nobody has committed is rolled back, on the
-- heirs at once and on the node itself when it is back, so that it has one outcome everywhere. Here it is written down under its own name.

create or replace function shardman.note_prepared(of_node int, gids text[], roles name[], xids text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.prepared_seen s where s.node = of_node and s.xid <> all (xids);
    insert into shardman.prepared_seen (node, xid, gid, role)
    select of_node, p.xid, p.gid, p.role from unnest(gids, roles, xids) as p (gid, role, xid)
        on conflict on constraint prepared_seen_pkey do update set gid = excluded.gid, role = excluded.role
$$;
comment on function shardman.note_prepared(int, text[], name[], text[]) is 'in the lord''s database: what the shardlord has just seen prepared on a node by applications';

create or replace function shardman.note_lost_parts(of_node int, xids text[], cmd bigint) returns text[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.lost_parts l where l.at < clock_timestamp() - interval '30 days';
    insert into shardman.lost_parts as l (node, xid, gid, role, cmd_id)
    select of_node, x, s.gid, s.role, cmd from unnest(xids) as x left join shardman.prepared_seen s on s.node = of_node and s.xid = x
        on conflict on constraint lost_parts_pkey do update set gid = coalesce(excluded.gid, l.gid), role = coalesce(excluded.role, l.role),
            cmd_id = excluded.cmd_id, at = excluded.at, ended_at = null;
    select coalesce(array_agg(format('%L (%s)', l.gid, l.role) order by l.gid), '{}') from shardman.lost_parts l
     where l.node = of_node and l.xid = any (xids) and l.gid is not null
$$;
comment on function shardman.note_lost_parts(int, text[], bigint) is
    'in the lord''s database, before it is done: what was prepared on a dead node is rolled back on those who take over; returns what is known to be an application''s';

create or replace function shardman.lost_of(of_node int) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(l.xid), '{}') from shardman.lost_parts l where l.node = of_node and l.ended_at is null
$$;
comment on function shardman.lost_of(int) is 'in the lord''s database: the numbers of the transactions of a node that were rolled back elsewhere, and not yet there';

create or replace function shardman.name_lost_part(of_node int, number text, its_gid text, its_role name) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.lost_parts l set gid = its_gid, role = its_role where l.node = of_node and l.xid = number
$$;
comment on function shardman.name_lost_part(int, text, text, name) is 'in the lord''s database: the node is back, and says how it is called';

create or replace function shardman.end_lost_parts(of_node int) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.lost_parts l set ended_at = clock_timestamp() where l.node = of_node and l.ended_at is null
$$;
comment on function shardman.end_lost_parts(int) is 'in the lord''s database: they are rolled back on the node itself, too';
