-- Whether channels deliver: what each of their objects must be, compared with what it is, and a beat through every one.
-- The shardlord asks once a second, so all of this is one statement, and what has not changed since it was found to be
-- right is not compared again.

create or replace function shardman.next_beat(src_ int) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.beats as b (src, beat) values (src_, floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
    on conflict (src) do update set beat = b.beat + 1
    returning b.beat
$$;
comment on function shardman.next_beat(int) is 'writes the next beat of this node; returns it';

create or replace function shardman.note_gap() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Earlier ones than expected are on their way when a channel begins.
    if new.beat > old.beat + 1 then
        insert into shardman.beat_gaps (src, last, next) values (new.src, old.beat, new.beat) on conflict do nothing;
    end if;
    return null;
end
$$;
comment on function shardman.note_gap() is 'writes down that a beat is missing between two that arrived through a channel';
create or replace trigger note_gap after update on shardman.beats for each row execute function shardman.note_gap();
-- For what a channel brings, not for what is written here.
alter table shardman.beats enable replica trigger note_gap;

create or replace function shardman.expect_beat(src_ int, beat_ bigint) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.beat_gaps where src = src_;
    insert into shardman.beats as b (src, beat) values (src_, beat_)
    on conflict (src) do update set beat = greatest(b.beat, excluded.beat)
$$;
comment on function shardman.expect_beat(int, bigint) is
    'on a channel''s destination, when the channel begins: the row that its beats change. beat_: one that is on its way through it, or the '
    'last one before it; those that follow must not be missing';

create or replace function shardman.channel_version() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A row that was added or changed has a newer xmin than all before, one that is gone is not counted.
    select concat_ws(' ',
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from pg_publication),
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from pg_publication_rel),
        -- Of this one only a superuser may see xmin, which comes with the connection strings.
        (select concat_ws('/', count(*), sum(hashtextextended(concat_ws(' ', oid, subname, subowner, subenabled, subskiplsn, subslotname, subpublications), 0)))
           from pg_subscription where subdbid = (select oid from pg_database where datname = current_database())),
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from pg_subscription_rel),
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from pg_trigger),
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.beat_gaps),
        (select concat_ws('/', count(*), sum(xmin::text::bigint)) from shardman.partitions))
$$;
comment on function shardman.channel_version() is
    'changes when something changes that shardman.channel_faults looks at: publications, subscriptions, triggers, metadata';

create or replace function shardman.channel_copies()
returns table (part_name text, src int, dest int, here bool, data oid, attached bool)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with wanted as (
        select t.relation, t.parts[2] as relname, n.oid as namespace
          from (select relation, shardman.relation_parts(relation) as parts from shardman.tables offset 0) as t
          join pg_namespace n on n.nspname = t.parts[1]
    )
    select p.part_name, p.owner, r.owner, p.owner = l.node_id, d.oid, coalesce(d.relispartition, false)
      from shardman.local l
      join shardman.partitions p on p.prv is null
      join shardman.partitions r on r.part_name = p.part_name and r.prv is not null and r.stale_since is null
                                and l.node_id in (p.owner, r.owner)
      join wanted w on w.relation = p.relation
      left join pg_class d on d.relnamespace = w.namespace and d.relkind = 'r'
                          and d.relname = (w.relname || '_' || substring(p.part_name from '_([0-9]+)"?$') || '_data')::name
$$;
comment on function shardman.channel_copies() is
    'the partitions that channels from and to this node carry, by its metadata, with their data tables here; here: it has the primary';

create or replace function shardman.publisher_faults() returns table (src int, dest int, part text, code text, fault text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with me as (
        select l.cluster, l.node_id, (select n.nspowner from pg_namespace n where n.nspname = 'shardman') as owner from shardman.local l
    ), held as (
        -- What a cut-over is about to change here is locked until it is committed: it is judged after that.
        select k.relation from pg_locks k
         where k.pid is null and k.locktype = 'relation' and k.granted
           and k.database = (select oid from pg_database where datname = current_database())
    ), copies as (
        -- One without its data table has lost no write to its replica: see shardman.partition_state.
        select c.* from shardman.channel_copies() c where c.here and c.data is not null
    ), channels as (
        select c.dest, format('shardman_%s_%s_%s', me.cluster, me.node_id, c.dest)::name as name
          from me, (select distinct dest from copies) as c
    ), found as (
        select c.dest, c.name, p.oid as pub, p.pubowner, s.slot_name, s.wal_status, s.plugin,
               p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate and not p.puballtables and not p.pubviaroot
               and not exists (select from pg_publication_namespace n where n.pnpubid = p.oid) as whole
          from channels c left join pg_publication p on p.pubname = c.name
          left join pg_replication_slots s on s.slot_name = c.name and s.database = current_database()
    ), judged as (
        select f.dest, null::text as part, 'publication' as code,
               case when f.pub is null then 'its publication is missing'
                    when f.pubowner <> me.owner then 'its publication belongs to ' || pg_get_userbyid(f.pubowner)
                    when not f.whole then 'its publication does not let through exactly the writes to its tables' end as fault
          from found f, me
        union all
        select f.dest, null, 'slot',
               case when f.slot_name is null then 'its replication slot is missing'
                    when f.wal_status = 'lost' then 'its replication slot has lost WAL'
                    when f.plugin <> 'pgoutput' then 'its replication slot is none of ours' end
          from found f
        union all
        select f.dest, null, 'beat', 'it carries no beat' from found f cross join me
          left join pg_publication_rel r on r.prpubid = f.pub and r.prrelid = 'shardman.beats'::regclass
         where f.pub is not null
           and (r.prattrs is not null or pg_get_expr(r.prqual, r.prrelid) is distinct from format('(src = %s)', me.node_id))
        union all
        select c.dest, c.part_name, 'table',
               case when r.oid is null then 'its publication lacks the table'
                    when r.prqual is not null then 'its publication has a filter for the table'
                    when r.prattrs is not null then 'its publication leaves columns of the table out' end
          from copies c join found f using (dest)
          left join pg_publication_rel r on r.prpubid = f.pub and r.prrelid = c.data
         where f.pub is not null and (r.oid is null or r.prqual is not null or r.prattrs is not null)
           and c.data not in (select h.relation from held h)
    )
    select me.node_id, j.dest, j.part, j.code, j.fault from judged j, me where j.fault is not null
$$;
comment on function shardman.publisher_faults() is
    'where the channels from this node differ from what they must be; part: null for what concerns all partitions of a channel';

create or replace function shardman.subscriber_faults() returns table (src int, dest int, part text, code text, fault text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with me as (
        select l.cluster, l.node_id, (select n.nspowner from pg_namespace n where n.nspname = 'shardman') as owner from shardman.local l
    ), copies as (
        select c.* from shardman.channel_copies() c where not c.here
    ), channels as (
        select c.src, format('shardman_%s_%s_%s', me.cluster, c.src, me.node_id)::name as name
          from me, (select distinct src from copies) as c
    ), found as (
        select c.src, c.name, s.oid as sub, s.subowner, s.subenabled, s.subskiplsn,
               s.subslotname is not distinct from c.name and s.subpublications = array[c.name::text] as exact
          from channels c
          left join pg_subscription s on s.subname = c.name
                                     and s.subdbid = (select oid from pg_database where datname = current_database())
    ), missed as (
        -- From 18 on the server counts the updates that found no row: what it passes over without an error. Not deletes, for each node forgets decisions of
        -- clients (shardman.forget_client_transactions) when it likes, and a new channel brings none of before: nobody counts those of one table.
        select f.src, coalesce((to_jsonb(x) ->> 'confl_update_missing')::bigint, 0) as changes
          from found f, pg_stat_get_subscription_stats(f.sub) as x
    ), guards as (
        select t.tgrelid, count(*) as there from pg_trigger t
         where t.tgname in ('shardman_read_only', 'shardman_read_only_truncate')
           and t.tgfoid = 'shardman.refuse_write()'::regprocedure and t.tgenabled = 'O'
         group by t.tgrelid
    ), judged as (
        select f.src, null::text as part, 'subscription' as code,
               case when f.sub is null then 'its subscription is missing'
                    when f.subowner <> me.owner then 'its subscription belongs to ' || pg_get_userbyid(f.subowner)
                    when not f.exact then 'its subscription does not take what the channel''s publication and slot give'
                    when f.subskiplsn <> '0/0' then 'its subscription is told to skip a transaction' end as fault
          from found f, me
        union all
        select f.src, null, 'disabled', 'its subscription is disabled' from found f where not f.subenabled
        union all
        select f.src, null, 'gap', format('what node %s sent went elsewhere for a while, and a beat is missing since %s', f.src, g.seen_at)
          from found f join shardman.beat_gaps g using (src)
        union all
        select m.src, null, 'conflicts', format('%s updates found no row to change', m.changes) from missed m where m.changes > 0
        union all
        select c.src, c.part_name, 'replica',
               case when c.data is null then 'the replica''s table is missing'
                    when c.attached then 'the replica''s table is in use as a primary''s'
                    when r.srrelid is null then 'its subscription does not know the table'
                    when g.there is distinct from 2 then 'nothing keeps others from writing to the replica' end
          from copies c join found f using (src)
          left join pg_subscription_rel r on r.srsubid = f.sub and r.srrelid = c.data and r.srsubstate = 'r'
          left join guards g on g.tgrelid = c.data
         where f.sub is not null
    )
    select j.src, me.node_id, j.part, j.code, j.fault from judged j, me where j.fault is not null
$$;
comment on function shardman.subscriber_faults() is
    'where the channels to this node, and the replicas here, differ from what they must be; part: null for what concerns all '
    'partitions of a channel';

create or replace function shardman.unproven(src_ int) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- A command that takes over disables the subscription, and may do so again.
    select coalesce(jsonb_agg(jsonb_build_object('part', f.part, 'fault', f.fault)), '[]')
      from shardman.subscriber_faults() f where f.src = src_ and f.code <> 'disabled'
$$;
comment on function shardman.unproven(int) is
    'the replicas here of a node''s primaries that may not take over, for what feeds them is not what it must be, and why; part: null for all';

create or replace function shardman.channel_faults() returns table (src int, dest int, part text, code text, fault text)
language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
begin
    -- In PL/pgSQL, which keeps the plans.
    return query select * from shardman.publisher_faults();
    return query select * from shardman.subscriber_faults();
end
$$;
comment on function shardman.channel_faults() is
    'this node: where the channels from and to it differ from what they must be. code: publication, slot, table, beat on the '
    'source; subscription, disabled, gap, conflicts, replica on the destination';

create or replace function shardman.watch_channels(well text)
returns table (beat bigint, wal_end bigint, confirmed jsonb, arrived jsonb, version text, faults jsonb)
language plpgsql volatile set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    l shardman.local;
begin
    select * into l from shardman.local;
    -- Before the beat: what was written before this statement ends here.
    wal_end := pg_current_wal_insert_lsn() - '0/0'::pg_lsn;
    beat := shardman.next_beat(l.node_id);
    select coalesce(jsonb_object_agg(substr(s.slot_name, length(p.prefix) + 1), s.confirmed_flush_lsn - '0/0'::pg_lsn), '{}')
      into confirmed
      from (select format('shardman_%s_%s_', l.cluster, l.node_id) as prefix) as p
      join pg_replication_slots s on starts_with(s.slot_name, p.prefix) and s.database = current_database();
    select coalesce(jsonb_object_agg(b.src, b.beat), '{}') into arrived from shardman.beats b where b.src <> l.node_id;
    version := shardman.channel_version();
    if version is distinct from well then
        select jsonb_agg(to_jsonb(f)) into faults from shardman.channel_faults() f;
    end if;
    return next;
end
$$;
comment on function shardman.watch_channels(text) is
    'one look of the shardlord at this node''s channels: writes a beat, which forces the WAL out. wal_end: where the WAL ended before that; '
    'confirmed: positions by destination; arrived: beats by source; faults: as shardman.channel_faults, null when there are none, '
    'not looked for while the version is that which was well';
