-- What a comparison of copies asks. All of them are seen at one instant: for some milliseconds nobody writes to the partition,
-- until what was written has arrived everywhere and each node has taken a snapshot.

create or replace function shardman.hold_still(part text, channels text[], timeout_ms int) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    data constant text := shardman.data_table(part);
begin
    -- An autovacuum that is in the way goes on, and we give way.
    perform set_config('deadlock_timeout', '10s', true) where has_parameter_privilege('deadlock_timeout', 'SET');
    perform shardman.lock_tables(array[data], 'share', timeout_ms);
    return shardman.is_in_use(data)
       and not exists (select from unnest(channels) as c (name)
                        where not exists (select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
                                           where p.pubname = c.name and r.prrelid = shardman.find_relation(data)
                                             and r.prqual is null and r.prattrs is null));
end
$$;
comment on function shardman.hold_still(text, text[], int) is
    'on the primary''s node, in a transaction: nobody writes to the partition until it ends. False where it is no primary here, or one of '
    'these channels does not carry it: a command has been at work';

create or replace function shardman.caught_up(channels text[], upto pg_lsn, timeout_ms int) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    until   constant timestamptz := clock_timestamp() + timeout_ms * interval '1 millisecond';
    channel text;
begin
    foreach channel in array channels loop
        if not shardman.await_confirmed(channel, upto, greatest(0, 1000 * extract(epoch from until - clock_timestamp()))::int) then
            return channel;
        end if;
    end loop;
    return null;
end
$$;
comment on function shardman.caught_up(text[], pg_lsn, int) is
    'waits until the subscribers of these channels have confirmed a position; the channel of the first one that has not in time';

create or replace function shardman.misplaced_rows(part text) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp set constraint_exclusion = off as $$
declare
    found_ bigint;
begin
    perform shardman.need_trusted_to_read(shardman.table_itself(shardman.data_table(part)));
    execute format('select count(*) from only %s where (%s) is not true', shardman.table_itself(shardman.data_table(part))::regclass,
                   pg_get_partition_constraintdef(shardman.find_relation(part)))
       into found_;
    return found_;
end
$$;
comment on function shardman.misplaced_rows(text) is 'how many rows of a partition''s data table here belong to another partition';

create or replace function shardman.is_waited_for(pid_ int) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    with locks as materialized (select l.pid, l.database, l.relation, l.granted from pg_locks l where l.locktype = 'relation')
    select exists (select from locks h join locks w on (w.database, w.relation) = (h.database, h.relation)
                    where h.pid = pid_ and h.granted and not w.granted)
$$;
comment on function shardman.is_waited_for(int) is 'whether somebody waits for a lock on a table on which this session has one';

create or replace function shardman.note_comparison(part text, node_ int, rows_ bigint, bytes_ bigint, took_ interval, differing_ bigint) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.comparisons c where not exists (select from shardman.partitions p where (p.part_name, p.owner) = (c.part_name, c.node));
    insert into shardman.comparisons as c (part_name, node, rows, bytes, took, differing, last_difference)
    values (part, node_, rows_, bytes_, took_, differing_, case when differing_ > 0 then clock_timestamp() end)
    on conflict (part_name, node) do update
       set compared_at = clock_timestamp(), rows = excluded.rows, bytes = excluded.bytes, took = excluded.took, differing = excluded.differing,
           last_difference = coalesce(excluded.last_difference, c.last_difference)
$$;
comment on function shardman.note_comparison(text, int, bigint, bigint, interval, bigint) is
    'lord only: remembers what the comparison of a replica with its primary has found';

create or replace function shardman.note_given_up(src int, dest int, relation text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.comparisons c set differing = 0
      from shardman.partitions p where p.part_name = c.part_name and p.prv is null and p.owner = src and p.relation = note_given_up.relation
       and c.node = dest and c.differing > 0
$$;
comment on function shardman.note_given_up(int, int, text) is
    'lord only: the replicas of a table on dest of primaries on src are no copies any more, so what they lacked is wrong no longer';
