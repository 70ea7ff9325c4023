-- How many rows a scan over a route fetches at once. postgres_fdw keeps a whole batch in memory, so of wide rows it must be small.
--
-- How wide they are is told by the copies that this node has itself: rows are spread by a hash, so those of other partitions
-- are alike. A node that has none leaves its routes as they are. pg_stats would not do: of a value that is stored out of line it counts the pointer.

create or replace function shardman.row_width(relation_ text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    -- What pg_class has: to ask for the size of a table takes a lock on it. Some tables are as good as all of them.
    select (sum(c.relpages + coalesce(o.relpages, 0)) * current_setting('block_size')::bigint / sum(c.reltuples))::bigint
      from (select p.part_name from shardman.partitions p where p.relation = row_width.relation_ and p.owner = shardman.my_id() limit 8) as s
      join pg_class c on c.oid = shardman.find_relation(shardman.data_table(s.part_name)) and c.relkind = 'r' and c.reltuples > 0
      left join pg_class o on o.oid = c.reltoastrelid
$$;
comment on function shardman.row_width(text) is
    'how many bytes a row of a sharded table takes on this node''s disk, as VACUUM has seen it last, values that are stored out of line included; null '
    'where it has no copy that was analyzed';

create or replace function shardman.fetched_at_once(width bigint, now_ int, most int) returns int
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- A row of 3 kB is the widest of which 10,000 are fetched. What is too small is raised only when it has been so for good, for it costs a lock.
    select case when width is null then now_
                when width::numeric * least(now_, most) > 30000000 or width::numeric * now_ < 750000 and now_ < most or now_ > most
                then least(most, greatest(10, power(10, floor(log(30000000.0 / greatest(width, 1))))))::int
                else now_ end
$$;
comment on function shardman.fetched_at_once(bigint, int, int) is
    'how many rows of a width in bytes are fetched at once, so that a batch takes 30 MB at most where it is stored as it is sent; now_: how many they '
    'are, most: how many the cluster allows (fetch_size)';

create or replace function shardman.fetched_by(route oid) returns int
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select option_value from pg_options_to_table(f.ftoptions) where option_name = 'fetch_size'), shardman.setting('fetch_size', '10000'))::int
      from pg_foreign_table f where f.ftrelid = route
$$;
comment on function shardman.fetched_by(oid) is 'how many rows a scan over a route fetches at once';

create or replace function shardman.set_fetched(route oid, rows_ int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('alter foreign table %s options (%s)', route::regclass, concat_ws(', ',
                   (select 'drop fetch_size' from pg_foreign_table f, pg_options_to_table(f.ftoptions)
                     where f.ftrelid = route and option_name = 'fetch_size' and rows_ is null),
                   (select format('%s fetch_size %L', case when exists (select from pg_options_to_table(f.ftoptions) where option_name = 'fetch_size')
                                                           then 'set' else 'add' end, rows_)
                      from pg_foreign_table f where f.ftrelid = route and rows_ is not null)));
end
$$;
comment on function shardman.set_fetched(oid, int) is 'lets scans over a route fetch so many rows at once; null: as many as over any';

create or replace function shardman.wrong_fetches() returns table (route oid, rows_ int)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with tables as materialized (
        select t.relation, w.width
          from shardman.tables t cross join lateral (select shardman.row_width(t.relation) as width) as w
         where w.width is not null
    ), routes as (
        select f.ftrelid as route, t.width, shardman.fetched_by(f.ftrelid) as now_, shardman.setting('fetch_size', '10000')::int as most
          from tables t
          join shardman.partitions p on p.relation = t.relation and p.prv is null and p.owner <> shardman.my_id()
          join pg_foreign_table f on f.ftrelid = shardman.find_relation(shardman.route_table(p.part_name))
    )
    select r.route, nullif(shardman.fetched_at_once(r.width, r.now_, r.most), r.most)
      from routes r where shardman.fetched_at_once(r.width, r.now_, r.most) <> r.now_
$$;
comment on function shardman.wrong_fetches() is 'routes over which too many rows are fetched at once, or far too few, and how many it should be; null: as over any';

create or replace function shardman.mend_fetches() returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    begun constant timestamptz := clock_timestamp();
    wrong record;
begin
    -- Locks are kept until the transaction ends. What is in use comes the next time: where the others were done before.
    for wrong in select * from shardman.wrong_fetches() order by random() loop
        exit when clock_timestamp() > begun + interval '150 milliseconds';
        begin
            perform shardman.set_fetched(wrong.route, wrong.rows_);
        exception when lock_not_available or deadlock_detected or undefined_table then
            null;
        end;
    end loop;
end
$$;
comment on function shardman.mend_fetches() is
    'lets scans over routes fetch as many rows at once as their width allows. What it reads is counted by nobody, so it is done when the node is '
    'looked at closely, once in a minute';
