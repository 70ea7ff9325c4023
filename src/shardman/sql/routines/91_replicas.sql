-- Replicas: tables that nothing writes to but the channel from their primary, and the channels that a commit waits for.

create or replace function shardman.refuse_write() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a replica', tg_relid::regclass
        using errcode = 'read_only_sql_transaction', hint = 'Write to the table or to its partition: they lead to the primary.';
end
$$;
comment on function shardman.refuse_write() is 'the trigger of a replica; the channel from the primary is not stopped by it';

create or replace function shardman.make_read_only(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant regclass := shardman.find_relation(relation);
begin
    execute format('create or replace trigger shardman_read_only before insert or update or delete on %s '
                   'for each row execute function shardman.refuse_write()', data);
    execute format('create or replace trigger shardman_read_only_truncate before truncate on %s '
                   'for each statement execute function shardman.refuse_write()', data);
    if not (select relispartition from pg_class where oid = data) then
        perform shardman.give_to(data, shardman.our_role());
    end if;
end
$$;
comment on function shardman.make_read_only(text) is 'lets nothing write to a replica but the channel from its primary';

create or replace function shardman.stand_in(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.find_relation(shardman.data_table(part_name)) is null then
        perform shardman.make_data_table(part_name);
        perform shardman.make_read_only(shardman.data_table(part_name));
    end if;
end
$$;
comment on function shardman.stand_in(text) is
    'an empty table where that of a replica is missing: a channel cannot even pass over what comes for a table that is not there';

create or replace function shardman.fed_by(subscription text) returns oid[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(r.srrelid), '{}') from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
     where s.subname = subscription
$$;
comment on function shardman.fed_by(text) is 'the tables that a subscription knows';

create or replace function shardman.hold_own(tables text[], known oid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    data oid;
begin
    foreach name in array tables loop
        data := shardman.find_relation(name);
        continue when data is null;
        execute format('lock table only %s in access share mode', shardman.sql_name(name));
        -- Not which it was before there was the lock.
        data := shardman.find_relation(name);
        -- A primary's, which is to follow another one from now on, is its owner's until then, and nothing is let through to it.
        if data <> all (known)
           and not exists (select from shardman.partitions p
                            where shardman.data_table(p.part_name) = name and p.owner = shardman.my_id() and p.prv is null)
           and exists (select from pg_class c join pg_roles r on r.oid = c.relowner
                        where c.oid = data and not r.rolsuper and r.oid <> shardman.our_role()) then
            raise exception '% took the place of a replica''s table, and belongs to %', name,
                (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = data)
                using errcode = 'insufficient_privilege', hint = 'Drop it, or rename it; the replica is made again.';
        end if;
    end loop;
end
$$;
comment on function shardman.hold_own(text[], oid[]) is
    'keeps tables from being exchanged for others of their names until this transaction ends; raises where one is neither known, '
    'nor a primary''s, nor the cluster''s';

create or replace function shardman.make_writable(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant regclass := shardman.find_relation(relation);
begin
    execute format('drop trigger if exists shardman_read_only on %s', data);
    execute format('drop trigger if exists shardman_read_only_truncate on %s', data);
end
$$;
comment on function shardman.make_writable(text) is 'takes back shardman.make_read_only';

create or replace function shardman.cut_over_demote(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant regclass := shardman.find_relation(part_name);
    data  constant regclass := shardman.find_relation(shardman.data_table(part_name));
begin
    execute format('alter table %s detach partition %s', part, data);
    perform shardman.lay_row_triggers(data, '[]'), shardman.drop_references(data);
    perform shardman.make_read_only(shardman.data_table(part_name));
    execute format('alter table %s attach partition %s default', part, shardman.fitting_route(part_name));
end
$$;
comment on function shardman.cut_over_demote(text) is
    'in a cut-over, on the primary''s node: takes the data table off its partition, as a replica, and puts the route in its place';

create or replace function shardman.returns_of(node int) returns table (cmd_id bigint, set_aside text[], subscribers int[])
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.cmd_id, r.set_aside, r.subscribers
      from shardman.node_returns r join shardman.cmd_steps s using (cmd_id, attempt, n)
      join shardman.cmd_log l on l.id = r.cmd_id and l.attempt = r.attempt
     where r.node = returns_of.node and s.state in ('planned', 'started') and l.switched
$$;
comment on function shardman.returns_of(int) is
    'lord only: what a node that was declared dead has still to set aside and to drop when it is back';

create or replace function shardman.not_set_aside(node int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(part) from shardman.returns_of(node) r cross join unnest(r.set_aside) as part
$$;
comment on function shardman.not_set_aside(int) is
    'lord only: a partition that was promoted elsewhere, and that a node may still have in use; null when there is none';

create or replace function shardman.synchronous_channels(of_node int, except_cmd bigint default null) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(format('shardman_%s_%s_%s', l.cluster, of_node, to_node) order by to_node), '{}')
      from shardman.local l, (
        select r.owner from shardman.partitions p
          join shardman.partitions r on r.part_name = p.part_name and r.prv is not null and r.stale_since is null
          join shardman.tables t on t.relation = p.relation
          join shardman.nodes n on n.id = r.owner
         where p.prv is null and p.owner = of_node and t.sync and n.away_until is null
        union
        select i.standby from shardman.standby_intents i join shardman.cmd_steps s using (cmd_id, attempt, n)
          join shardman.cmd_log c on c.id = i.cmd_id and c.attempt = i.attempt
         where i.node = of_node and s.state in ('started', 'done')
           and c.status = 'in progress' and not c.switched and c.id is distinct from except_cmd
        union
        -- Its old primaries may be in use, so nothing that is written to them may be acknowledged.
        select dest from shardman.returns_of(of_node) r cross join unnest(r.subscribers) as dest
         where r.cmd_id is distinct from except_cmd
      ) as dests (to_node)
$$;
comment on function shardman.synchronous_channels(int, bigint) is
    'lord only: the channels for which commits on a node wait, by the metadata and by the commands, but one, that are about to '
    'make a replica synchronous, or have replaced the node';

create or replace function shardman.follows(part text, src int, dest int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.partitions p join shardman.partitions r using (part_name)
                    where p.part_name = part and p.prv is null and p.owner = src
                      and r.prv is not null and r.stale_since is null and r.owner = dest)
$$;
comment on function shardman.follows(text, int, int) is
    'whether the replica of a partition on dest follows its primary on src, by the metadata';

create or replace function shardman.has_copy(part text, node int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.partitions p where p.part_name = part and p.owner = node)
$$;
comment on function shardman.has_copy(text, int) is 'whether a node has a copy of a partition, by the metadata';

create or replace function shardman.has_primary(part text, node int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.partitions p where p.part_name = part and p.owner = node and p.prv is null)
$$;
comment on function shardman.has_primary(text, int) is 'whether a node has the primary of a partition, by the metadata';

create or replace function shardman.channel_needed(src int, dest int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.partitions p join shardman.partitions r using (part_name)
                    where p.prv is null and p.owner = src and r.prv is not null and r.stale_since is null and r.owner = dest)
$$;
comment on function shardman.channel_needed(int, int) is
    'whether a replica on dest follows a primary on src, by the metadata: the channel between them is needed';

create or replace function shardman.opens_channel(src int, dest int, except_cmd bigint) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(l.id) from shardman.channel_changes c join shardman.cmd_log l on l.id = c.cmd_id and l.attempt = c.attempt
     where c.src = opens_channel.src and c.dest = opens_channel.dest and c.change = 'open'
       and l.status = 'in progress' and l.id <> except_cmd
$$;
comment on function shardman.opens_channel(int, int, bigint) is
    'lord only: the running command, other than except_cmd, that opens the channel between two nodes';

create or replace function shardman.cut_again(src int, dest int, since bigint) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.channel_changes c join shardman.cmd_steps s using (cmd_id, attempt, n)
                     join shardman.cmd_log l on l.id = c.cmd_id and l.attempt = c.attempt
                    where c.src = cut_again.src and c.dest = cut_again.dest and c.change = 'cut'
                      and c.cmd_id > since and s.state in ('started', 'done'))
$$;
comment on function shardman.cut_again(int, int, bigint) is
    'lord only: whether a command later than one has cut the channel between two nodes';

create or replace function shardman.unpublish(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select c.relispartition from pg_class c where c.oid = shardman.find_relation(relation)), false)
$$;
comment on function shardman.is_in_use(text) is 'whether a data table is a primary''s: attached to its partition';

create or replace function shardman.is_published(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
                    where r.prrelid = shardman.find_relation(relation) and p.pubname like 'shardman\_%')
$$;
comment on function shardman.is_published(text) is 'whether a table is in a publication of ours';

create or replace function shardman.published(publication text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(shardman.relation_text(n.nspname, c.relname) order by c.oid), '{}')
      from pg_publication p join pg_publication_rel r on r.prpubid = p.oid
      join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
     where p.pubname = publication and r.prrelid not in ('shardman.beats'::regclass, 'shardman.client_decisions'::regclass)
$$;
comment on function shardman.published(text) is 'the tables of a publication, as the metadata writes names; its beats and decisions left out';

create or replace function shardman.lock_holders(relations text[]) returns table (pid int, waits_for_server bool)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.pid, a.wait_event_type = 'Extension' or a.wait_event = 'SyncRep'
      from pg_locks l join pg_stat_activity a using (pid)
     where l.locktype = 'relation' and l.granted
       and l.database = (select oid from pg_database where datname = current_database())
       and l.relation in (select shardman.find_relation(r) from unnest(relations) as r)
       and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       and a.application_name not like 'shardman lord %'
$$;
comment on function shardman.lock_holders(text[]) is
    'the sessions of clients that hold a lock on these relations, and whether each waits for another server';

create or replace function shardman.end_session(pid int) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    return pg_terminate_backend(end_session.pid);
exception when insufficient_privilege then
    -- A superuser's, and the cluster's role is none. It keeps nobody else's from being ended.
    return false;
end
$$;
comment on function shardman.end_session(int) is 'ends a session, where this role may';

create or replace function shardman.evict_holders(relations text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.end_session(h.pid) from shardman.lock_holders(relations) h
$$;
comment on function shardman.evict_holders(text[]) is 'ends the sessions of clients that hold a lock on these relations';

create or replace function shardman.evict_waiting_on_dead(relations text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.end_session(h.pid) from shardman.lock_holders(relations) h where h.waits_for_server
$$;
comment on function shardman.evict_waiting_on_dead(text[]) is
    'ends sessions that hold a lock on these relations while they wait for another server, which is dead';

create or replace function shardman.evict_waiting_commits() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.end_session(pid) from pg_stat_activity
     where wait_event = 'SyncRep' and backend_type = 'client backend' and pid <> pg_backend_pid()
$$;
comment on function shardman.evict_waiting_commits() is
    'ends sessions whose commits wait for replicas; a cancelled wait would leave them committed here alone';
