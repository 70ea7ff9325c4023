-- Replicas: tables that nobody writes to but the stream from their primary, and the list of those a commit waits for.

create or replace function shardman.refuse_write() returns trigger
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception '% is a replica', tg_relid::regclass
        using errcode = 'read_only_sql_transaction', hint = 'Write to the table or to its partition: they lead to the primary.';
end
$$;
comment on function shardman.refuse_write() is 'the trigger of a replica; the stream from the primary is not stopped by it';

create or replace function shardman.make_read_only(relation text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    data constant regclass := shardman.find_relation(relation);
begin
    execute format('create or replace trigger shardman_read_only before insert or update or delete on %s '
                   'for each row execute function shardman.refuse_write()', data);
    execute format('create or replace trigger shardman_read_only_truncate before truncate on %s '
                   'for each statement execute function shardman.refuse_write()', data);
end
$$;
comment on function shardman.make_read_only(text) is 'lets nobody write to a replica but the stream from its primary';

create or replace function shardman.make_writable(relation text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    data constant regclass := shardman.find_relation(relation);
begin
    execute format('drop trigger if exists shardman_read_only on %s', data);
    execute format('drop trigger if exists shardman_read_only_truncate on %s', data);
end
$$;
comment on function shardman.make_writable(text) is 'takes back shardman.make_read_only';

create or replace function shardman.fence_demote(part_name text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    slot  constant regclass := shardman.find_relation(part_name);
    data  constant regclass := shardman.find_relation(shardman.data_table(part_name));
    route constant regclass := shardman.find_relation(shardman.route_table(part_name));
begin
    execute format('alter table %s detach partition %s', slot, data);
    perform shardman.make_read_only(shardman.data_table(part_name));
    execute format('alter table %s attach partition %s default', slot, route);
end
$$;
comment on function shardman.fence_demote(text) is
    'inside a fence, on the primary''s node: takes the data table off its slot, as a replica, and puts the route in its place';

create or replace function shardman.returns_of(node int) returns table (cmd_id bigint, args jsonb)
language sql stable set search_path = pg_catalog as $$
    select s.cmd_id, s.args from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and l.attempt = s.attempt
     where s.kind = 'returned' and s.state in ('planned', 'started') and l.switched
       and s.args @> jsonb_build_object('node', node)
$$;
comment on function shardman.returns_of(int) is
    'lord only: what a node that was declared dead has still to set aside and to drop when it is back';

create or replace function shardman.not_set_aside(node int) returns text
language sql stable set search_path = pg_catalog as $$
    select min(part) from shardman.returns_of(node) r cross join jsonb_array_elements_text(r.args -> 'promoted') as part
$$;
comment on function shardman.not_set_aside(int) is
    'lord only: a partition that was promoted elsewhere, and that a node may still have in use; null when there is none';

drop function if exists shardman.synchronous_channels(int);
create or replace function shardman.synchronous_channels(of_node int, besides bigint default null) returns text[]
language sql stable set search_path = pg_catalog as $$
    select coalesce(array_agg(format('shardman_%s_%s_%s', l.cluster, of_node, to_node) order by to_node), '{}')
      from shardman.local l, (
        select r.owner from shardman.partitions p
          join shardman.partitions r on r.part_name = p.part_name and r.prv is not null and r.stale_since is null
          join shardman.tables t on t.relation = p.relation
         where p.prv is null and p.owner = of_node and t.sync
        union
        select dest::int from shardman.cmd_log c join shardman.cmd_steps s on s.cmd_id = c.id and s.attempt = c.attempt
         cross join jsonb_array_elements_text(s.args -> 'also') as dest
         where c.status = 'in progress' and not c.switched and c.id is distinct from besides
           and s.kind = 'standbys' and s.phase = 'prepare' and s.state in ('started', 'done')
           and (s.args ->> 'node')::int = of_node
        union
        -- Its old primaries may be in use, so nothing that is written to them may be acknowledged.
        select dest::int from shardman.returns_of(of_node) r cross join jsonb_array_elements_text(r.args -> 'subscribers') as dest
         where r.cmd_id is distinct from besides
      ) as dests (to_node)
$$;
comment on function shardman.synchronous_channels(int, bigint) is
    'lord only: the channels for which commits on a node wait, by the metadata and by the commands, but one, that are about to '
    'make a replica synchronous, or have replaced the node';

create or replace function shardman.follows(part text, src int, dest int) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from shardman.partitions p join shardman.partitions r using (part_name)
                    where p.part_name = part and p.prv is null and p.owner = src
                      and r.prv is not null and r.stale_since is null and r.owner = dest)
$$;
comment on function shardman.follows(text, int, int) is
    'whether the replica of a partition on dest follows its primary on src, by the metadata';

create or replace function shardman.has_copy(part text, node int) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from shardman.partitions p where p.part_name = part and p.owner = node)
$$;
comment on function shardman.has_copy(text, int) is 'whether a node has a copy of a partition, by the metadata';

create or replace function shardman.has_primary(part text, node int) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from shardman.partitions p where p.part_name = part and p.owner = node and p.prv is null)
$$;
comment on function shardman.has_primary(text, int) is 'whether a node has the primary of a partition, by the metadata';

create or replace function shardman.linked(src int, dest int) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from shardman.partitions p join shardman.partitions r using (part_name)
                    where p.prv is null and p.owner = src and r.prv is not null and r.stale_since is null and r.owner = dest)
$$;
comment on function shardman.linked(int, int) is
    'whether a replica on dest follows a primary on src, by the metadata: the channel between them is needed';

create or replace function shardman.opens_channel(src int, dest int, besides bigint) returns bigint
language sql stable set search_path = pg_catalog as $$
    select min(l.id) from shardman.cmd_log l join shardman.cmd_steps s on s.cmd_id = l.id and s.attempt = l.attempt
     where l.status = 'in progress' and l.id <> besides and s.kind = 'channel'
       and s.args @> jsonb_build_object('src', src, 'dest', dest)
$$;
comment on function shardman.opens_channel(int, int, bigint) is
    'lord only: the running command, besides one, that opens the channel between two nodes';

create or replace function shardman.cut_again(src int, dest int, since bigint) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from shardman.cmd_log l join shardman.cmd_steps s on s.cmd_id = l.id and s.attempt = l.attempt
                    where l.id > since and s.kind = 'cut_channel' and s.state in ('started', 'done')
                      and s.args @> jsonb_build_object('of', src, 'node', dest))
$$;
comment on function shardman.cut_again(int, int, bigint) is
    'lord only: whether a command later than one has cut the channel between two nodes';

create or replace function shardman.unpublish(relation text) returns void
language plpgsql set search_path = pg_catalog as $$
declare
    data constant regclass := shardman.find_relation(relation);
    pub  text;
begin
    for pub in select p.pubname from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
                where r.prrelid = data and p.pubname like 'shardman\_%' loop
        execute format('alter publication %I drop table %s', pub, data);
    end loop;
end
$$;
comment on function shardman.unpublish(text) is 'takes a table out of all publications of ours';

create or replace function shardman.is_in_use(relation text) returns bool
language sql stable set search_path = pg_catalog as $$
    select coalesce((select c.relispartition from pg_class c where c.oid = shardman.find_relation(relation)), false)
$$;
comment on function shardman.is_in_use(text) is 'whether a data table is a primary''s: attached to its slot';

create or replace function shardman.is_published(relation text) returns bool
language sql stable set search_path = pg_catalog as $$
    select exists (select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
                    where r.prrelid = shardman.find_relation(relation) and p.pubname like 'shardman\_%')
$$;
comment on function shardman.is_published(text) is 'whether a table is in a publication of ours';

create or replace function shardman.published(publication text) returns text[]
language sql stable set search_path = pg_catalog as $$
    select coalesce(array_agg(shardman.relation_text(n.nspname, c.relname) order by c.oid), '{}')
      from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
      join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = publication
$$;
comment on function shardman.published(text) is 'the tables of a publication, as the metadata writes names';

create or replace function shardman.end_holders(relations text[]) returns void
language sql volatile set search_path = pg_catalog as $$
    select pg_terminate_backend(a.pid)
      from pg_locks l join pg_stat_activity a using (pid)
     where l.locktype = 'relation' and l.granted
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation in (select shardman.find_relation(r) from unnest(relations) as r)
       and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       and a.application_name not like 'shardman lord %'
$$;
comment on function shardman.end_holders(text[]) is 'ends the sessions of clients that hold a lock on these relations';

create or replace function shardman.end_stranded(relations text[]) returns void
language sql volatile set search_path = pg_catalog as $$
    select pg_terminate_backend(a.pid)
      from pg_locks l join pg_stat_activity a using (pid)
     where l.locktype = 'relation' and l.granted
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation in (select shardman.find_relation(r) from unnest(relations) as r)
       and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       and a.application_name not like 'shardman lord %'
       and (a.wait_event_type = 'Extension' or a.wait_event = 'SyncRep')
$$;
comment on function shardman.end_stranded(text[]) is
    'ends sessions that hold a lock on these relations while they wait for another server, which is dead';

create or replace function shardman.end_waiting_commits() returns void
language sql volatile set search_path = pg_catalog as $$
    select pg_terminate_backend(pid) from pg_stat_activity
     where wait_event = 'SyncRep' and backend_type = 'client backend' and pid <> pg_backend_pid()
$$;
comment on function shardman.end_waiting_commits() is
    'ends sessions whose commits wait for replicas; a cancelled wait would leave them committed here alone';
