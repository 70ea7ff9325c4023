-- Whether this database is the node that it says it is, or a copy. A dump that was restored has another database or server.
-- A copy of the server's files has the same of both: the shardlord recognises a server that was restored to an earlier time
-- by its WAL, and a copy that runs beside the original by what it takes away from it.

create or replace function shardman.is_copy() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select l.cluster is not null and l.system_id is not null
                            and (l.system_id, l.database_id) is distinct from (c.system_identifier::text, d.oid)
                       from shardman.local l, pg_control_system() c, pg_database d where d.datname = current_database()), false)
$$;
comment on function shardman.is_copy() is 'whether this database was a node''s and has been restored into another database or server';

create or replace function shardman.note_identity() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if (new.cluster, new.node_id) is distinct from (old.cluster, old.node_id) then
        new.system_id := (select system_identifier::text from pg_control_system());
        new.database_id := (select oid from pg_database where datname = current_database());
    end if;
    return new;
end
$$;
comment on function shardman.note_identity() is 'a database that becomes a node notes which one it is';

create or replace function shardman.be_the_node() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.local
       set system_id = (select system_identifier::text from pg_control_system()),
           database_id = (select oid from pg_database where datname = current_database())
$$;
comment on function shardman.be_the_node() is
    'this database is the node from now on, after pg_upgrade say. Only where the former one will never run again';
revoke all on function shardman.be_the_node() from public;

create or replace function shardman.branched_at() returns pg_lsn
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    history text;
begin
    if has_function_privilege('pg_read_file(text, bigint, bigint, bool)', 'execute') then
        select pg_read_file(format('pg_wal/%s.history', upper(lpad(to_hex(c.timeline_id), 8, '0'))), 0, 1000000, true)
          into history from pg_control_checkpoint() c;
    end if;
    return coalesce((regexp_match(history, '([0-9A-F]+/[0-9A-F]+)[^\n]*\s*$'))[1]::pg_lsn, pg_current_wal_flush_lsn());
end
$$;
comment on function shardman.branched_at() is
    'where this server''s timeline leaves the one before: at the end of a restore. The end of its WAL where there '
    'was none, or this role may not know';
revoke all on function shardman.branched_at() from public;

create or replace function shardman.saw_node(node int, timeline_ bigint, flushed_ pg_lsn, branched pg_lsn default null) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    former shardman.sightings;
    -- Up to where the server has what it had.
    whole  constant pg_lsn := case when branched < flushed_ then branched else flushed_ end;
    reason text;
begin
    select * into former from shardman.sightings s where s.node_id = node;
    if former.problem is not null then
        return former.problem;
    -- What a crash leaves of a record that was half on disk is not there afterwards. A timeline that was seen before has been judged.
    elsif flushed_ < former.flushed - 1048576 or timeline_ > former.timeline and whole < former.flushed - 1048576 then
        reason := format('its WAL ends at %s and went to %s at %s: the server was restored to an earlier time, or is a copy',
                         whole, former.flushed, date_trunc('second', former.seen_at));
        update shardman.sightings s set problem = reason where s.node_id = node;
        return reason;
    -- Each kilobyte is not written down: that would be WAL, too, for ever.
    elsif former.node_id is null or (case when former.timeline = timeline_ then flushed_ > former.flushed + 262144 else branched is not null end) then
        insert into shardman.sightings as s (node_id, timeline, flushed) values (node, timeline_, flushed_)
            on conflict (node_id) do update set timeline = timeline_, flushed = flushed_, seen_at = clock_timestamp();
    end if;
    return null;
end
$$;
comment on function shardman.saw_node(int, bigint, pg_lsn, pg_lsn) is
    'lord only: writes down how a node was found; why it is not what it was, once that is so. Until accept_node nothing is done on it';

create or replace function shardman.saw_thief(node int, whom text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.sightings set thief = whom, thief_at = clock_timestamp() where node_id = node
$$;
comment on function shardman.saw_thief(int, text) is 'lord only: writes down who has used the slot of a node';

create or replace function shardman.accept_node(node_id int) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.sightings s where s.node_id = accept_node.node_id
$$;
comment on function shardman.accept_node(int) is
    'lord only: a server that was restored to an earlier time is the node from now on, with the rows that it has';
revoke all on function shardman.accept_node(int) from public;

do $$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.local'::pg_catalog.regclass and tgname = 'identity') then
        create trigger identity before update of cluster, node_id on shardman.local for each row execute function shardman.note_identity();
    end if;
end
$$;
