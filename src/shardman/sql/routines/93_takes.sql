-- What the table of a copy can take, so that a replica is not fed what it must refuse: a channel whose worker fails with one
-- table stands still for all tables that it carries.

create or replace function shardman.takes(tables oid[]) returns table (data oid, needs text[], rules text[])
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with found as (
        select a.attrelid as data, true as need,
               concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), case when a.attgenerated <> '' then 'generated' end) as item
          from pg_attribute a where a.attrelid = any (tables) and a.attnum > 0 and not a.attisdropped
        union all
        -- Labels are added by ALTER TYPE on one node.
        select a.attrelid, true, format('%I taking %L', a.attname, e.enumlabel)
          from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_enum e on e.enumtypid in (t.oid, t.typelem)
         where a.attrelid = any (tables) and a.attnum > 0 and not a.attisdropped
        union all
        select a.attrelid, false, format('%I not null', a.attname)
          from pg_attribute a where a.attrelid = any (tables) and a.attnum > 0 and not a.attisdropped and a.attnotnull
        union all
        select o.conrelid, false, regexp_replace(pg_get_constraintdef(o.oid), '( NO INHERIT| NOT VALID)+$', '')
          from pg_constraint o
         where o.conrelid = any (tables) and o.contype in ('c', 'p', 'u', 'x') and o.conname <> 'shardman_partition'
           and coalesce((to_jsonb(o) ->> 'conenforced')::bool, true)
        union all
        select x.indrelid, false,
               'unique index ' || substr(pg_get_indexdef(x.indexrelid),
                                         length(format('CREATE UNIQUE INDEX %I ON %I.%I ', i.relname, n.nspname, c.relname)) + 1)
          from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
          join pg_namespace n on n.oid = c.relnamespace
         where x.indrelid = any (tables) and x.indisunique and not exists (select from pg_constraint o where o.conindid = x.indexrelid)
    )
    select f.data, coalesce(array_agg(distinct f.item) filter (where f.need), '{}'),
           coalesce(array_agg(distinct f.item) filter (where not f.need), '{}')
      from found f group by 1
$$;
comment on function shardman.takes(oid[]) is
    'what is written to these tables (needs: columns, values of enums), and what they refuse (rules: checks, keys, not null), as texts. A '
    'replica must need nothing less than its primary, and refuse nothing more';

create or replace function shardman.takes_of(part text) returns table (version int, needs text[], rules text[])
language sql stable set search_path = pg_catalog, pg_temp as $$
    select current_setting('server_version_num')::int / 10000, t.needs, t.rules
      from shardman.takes(array[shardman.find_relation(shardman.data_table(part))]) t
$$;
comment on function shardman.takes_of(text) is 'shardman.takes of a partition''s data table here; version: which server has written it';

create or replace function shardman.channel_takes(src_ int, dest_ int)
returns table (parts text[], version int, needs text[], rules text[], locked bool)
language sql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
    with copies as materialized (
        select c.part_name, c.data from shardman.channel_copies() c where c.src = src_ and c.dest = dest_ and c.data is not null
    ), held as (
        -- Whoever changes a table here may be about to do so on the other node too.
        select k.relation from pg_locks k
         where k.locktype = 'relation' and k.granted and k.mode in ('AccessExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
           and k.database = (select oid from pg_database where datname = current_database())
    )
    select array_agg(c.part_name order by c.part_name), current_setting('server_version_num')::int / 10000, t.needs, t.rules,
           c.data in (select h.relation from held h)
      from copies c join shardman.takes((select array_agg(x.data) from copies x)) t on t.data = c.data
     group by t.needs, t.rules, 5
$$;
comment on function shardman.channel_takes(int, int) is
    'this node: shardman.takes of the copies that a channel from or to it feeds; those that take the same are one row. locked: somebody '
    'changes them just now';

create or replace function shardman.takes_version() returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select pg_stat_get_tuples_updated('pg_attribute'::regclass) + pg_stat_get_tuples_inserted('pg_enum'::regclass)
           + pg_stat_get_tuples_updated('pg_constraint'::regclass)
           + pg_stat_get_tuples_inserted('pg_constraint'::regclass) + pg_stat_get_tuples_deleted('pg_constraint'::regclass)
           + pg_stat_get_tuples_inserted('pg_index'::regclass) + pg_stat_get_tuples_deleted('pg_index'::regclass)
$$;
comment on function shardman.takes_version() is
    'changes when something changes that shardman.takes looks at, but for a column that is added, where this server counts rows written';

create or replace function shardman.pending_parts(slot text, applied pg_lsn) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    peeked constant text := slot || '_peek';
    found_ text[];
begin
    -- The slot may be in use, if only for the instant in which its receiver fails once more: a copy of it is read. It is gone
    -- with the session if it is not dropped below.
    perform pg_copy_logical_replication_slot(slot, peeked, true);
    with changes as (
        select row_number() over () as n, p.lsn, p.xid, p.data, chr(get_byte(p.data, 0)) as kind
          from pg_logical_slot_peek_binary_changes(peeked, null, 200, 'proto_version', '1', 'publication_names', quote_ident(slot)) p
    ), failing as (
        select c.xid from changes c where c.kind = 'C' and c.lsn > applied order by c.n limit 1
    ), relations as (
        select ('x' || encode(substr(c.data, 2, 4), 'hex'))::bit(32)::bigint as rel
          from changes c join failing using (xid) where c.kind in ('I', 'U', 'D')
        union
        select ('x' || encode(substr(c.data, 7 + 4 * k, 4), 'hex'))::bit(32)::bigint
          from changes c join failing using (xid) cross join lateral generate_series(0, (length(c.data) - 10) / 4) as k where c.kind = 'T'
    )
    select coalesce(array_agg(c.part_name order by c.part_name), '{}') into found_
      from shardman.channel_copies() c where c.here and c.data::bigint in (select r.rel from relations r);
    perform pg_drop_replication_slot(peeked);
    return found_;
end
$$;
comment on function shardman.pending_parts(text, pg_lsn) is
    'on a channel''s source: the partitions to which the first transaction writes that its subscriber has not applied. applied: how far '
    'that has come, by its own word';

create or replace function shardman.applied_of(subscription text) returns pg_lsn
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(max(o.remote_lsn), '0/0')
      from pg_subscription s join pg_replication_origin_status o on o.external_id = 'pg_' || s.oid
     where s.subname = subscription and s.subdbid = (select oid from pg_database where datname = current_database())
$$;
comment on function shardman.applied_of(text) is 'on a channel''s destination: where in its source''s WAL the last transaction ends that was applied';
