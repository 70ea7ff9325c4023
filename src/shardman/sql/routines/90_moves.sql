-- What a running move needs on its two nodes. See docs/commands/move_part.md for the sequence.

create or replace function shardman.emit() returns pg_lsn
language sql volatile as $$
    select pg_catalog.pg_logical_emit_message(true, 'shardman', '')
$$;
comment on function shardman.emit() is
    'forces the WAL out and wakes the walsenders; in a transaction of its own, or positions stall for seconds';

create or replace function shardman.await_confirmed(slot name, upto pg_lsn, timeout_ms int) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    until constant timestamptz := clock_timestamp() + timeout_ms * interval '1 millisecond';
    at    pg_lsn;
begin
    loop
        -- Reads shared memory: fresh at every call, whatever the snapshot.
        select confirmed_flush_lsn into at from pg_get_replication_slots() as s where s.slot_name = slot;
        if at is null then
            raise exception 'the replication slot % is gone', slot using errcode = 'undefined_object';
        end if;
        if at >= upto then
            return true;
        elsif clock_timestamp() > until then
            return false;
        end if;
        perform pg_sleep(0.001);
    end loop;
end
$$;
comment on function shardman.await_confirmed(name, pg_lsn, int) is
    'waits until the subscriber of a slot has confirmed this position; false when it has not within timeout_ms';

create or replace function shardman.lock_tables(relations text[], mode text, timeout_ms int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    until    constant timestamptz := clock_timestamp() + timeout_ms * interval '1 millisecond';
    relation text;
    found_   oid;
begin
    foreach relation in array relations loop
        perform set_config('lock_timeout',
            greatest(1, 1000 * extract(epoch from until - clock_timestamp()))::int::text, true);
        found_ := shardman.find_relation(relation);
        if found_ is null then
            raise exception '% is not on this node', relation
                using errcode = 'undefined_table', hint = 'See what "shardman check" says.';
        end if;
        -- LOCK TABLE of a view would lock its tables, those of others too.
        execute (select case when c.relkind = 'v' then format('alter view %s owner to %I', found_::regclass, pg_get_userbyid(c.relowner))
                             else format('lock table only %s in %s mode', found_::regclass, mode) end from pg_class c where c.oid = found_);
    end loop;
    -- What is done under the locks may need others.
    perform set_config('lock_timeout', timeout_ms::text, true);
end
$$;
comment on function shardman.lock_tables(text[], text, int) is
    'locks tables for the rest of the transaction, one after the other, waiting at most timeout_ms in all; views always against everybody';

create or replace function shardman.prepared_text(p pg_prepared_xacts) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('the prepared transaction %L (%s, database %s, for %s), which COMMIT PREPARED or ROLLBACK PREPARED ends',
                  p.gid, p.owner, p.database, date_trunc('second', clock_timestamp() - p.prepared))
$$;
comment on function shardman.prepared_text(pg_prepared_xacts) is 'a prepared transaction, for a person to read';

create or replace function shardman.holders(relations text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    with held as (
        select l.pid, l.virtualtransaction from pg_locks l
         where l.locktype = 'relation' and l.granted
           and l.database = (select oid from pg_database where datname = current_database())
           and l.relation in (select shardman.find_relation(r) from unnest(relations) as r)
    )
    select string_agg(distinct whom, ', ') from (
        select format('pid %s (%s, %s, in its transaction for %s)', a.pid, a.usename,
               coalesce(nullif(a.application_name, ''), 'no application name'),
               date_trunc('second', clock_timestamp() - a.xact_start)) as whom
          from held h join pg_stat_activity a using (pid)
         where a.pid <> pg_backend_pid() and a.application_name not like 'shardman lord %'
        union all
        select shardman.prepared_text(p)
          from held h
          join pg_locks x on h.pid is null and x.pid is null and x.virtualtransaction = h.virtualtransaction
           and x.locktype = 'transactionid' and x.granted
          join pg_prepared_xacts p on p.transaction = x.transactionid
    ) as found
$$;
comment on function shardman.holders(text[]) is 'who has locks on these relations, for a person to read; null when nobody';

create or replace function shardman.old_snapshots() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select string_agg(format('pid %s (%s, %s, in its transaction for %s)', a.pid, a.usename,
               coalesce(nullif(a.application_name, ''), 'no application name'),
               date_trunc('second', clock_timestamp() - a.xact_start)), ', ')
      from pg_stat_get_activity(null) as s
      join pg_stat_activity a on a.pid = s.pid
     where a.datname = current_database()
       and a.backend_type = 'client backend'
       and a.state = 'idle in transaction'
       and a.backend_xmin is not null
       and a.pid <> pg_backend_pid()
       and a.application_name not like 'postgres\_fdw%'
       and a.application_name not like 'shardman%'
$$;
comment on function shardman.old_snapshots() is
    'local repeatable-read transactions in progress: each would miss rows of a partition that arrives now; null when there are none';

create or replace function shardman.copy_columns(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(quote_ident(attname), ', ' order by attnum)
      from pg_attribute
     where attrelid = shardman.find_relation(relation) and attnum > 0 and not attisdropped and attgenerated = ''
$$;
comment on function shardman.copy_columns(text) is 'the columns of a table that COPY carries, all but generated ones';

create or replace function shardman.binary_copy(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(bool_and(t.typsend <> 0 and t.typreceive <> 0
                             and coalesce(e.typsend <> 0 and e.typreceive <> 0 and e.oid < 16384, true)
                             and t.oid < 16384), true)
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      left join pg_type e on e.oid = t.typelem and t.typlen = -1
     where a.attrelid = shardman.find_relation(relation) and a.attnum > 0 and not a.attisdropped
$$;
comment on function shardman.binary_copy(text) is
    'whether a table can be copied in binary form: built-in types only, because arrays and composites carry oids, which differ per server';

create or replace function shardman.make_fresh_server(node_id int, server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    origin constant name := shardman.node_server(node_id);
    mapping record;
    options text;
begin
    if exists (select from pg_foreign_server where srvname = server) then
        return;
    end if;
    select string_agg(format('%I %L', o.option_name, o.option_value), ', ') into options
      from pg_foreign_server s, pg_options_to_table(s.srvoptions) o where s.srvname = origin;
    perform shardman.make_server(server, options);
    for mapping in select usename, umuser, umoptions from pg_user_mappings where srvname = origin loop
        if mapping.umuser <> 0 and not shardman.sees_mapping(mapping.umuser) then
            perform shardman.renew_mapping(mapping.usename, server, node_id);
            continue;
        end if;
        select string_agg(format('%I %L', o.option_name, o.option_value), ', ') into options
          from pg_options_to_table(mapping.umoptions) o;
        execute format('create user mapping for %s server %I %s',
            case when mapping.usename = 'public' then 'public' else quote_ident(mapping.usename) end, server,
            coalesce('options (' || options || ')', ''));
    end loop;
end
$$;
comment on function shardman.make_fresh_server(int, text) is
    'a second foreign server for a node: routes on it use connections of their own, whose snapshots are younger than the move that made it';

create or replace function shardman.drop_unused_server(server text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    oid_ constant oid := (select oid from pg_foreign_server where srvname = server);
    role name;
begin
    if oid_ is null or exists (select from pg_foreign_table where ftserver = oid_) then
        return false;
    end if;
    for role in select usename from pg_user_mappings where srvid = oid_ loop
        execute format('drop user mapping if exists for %s server %I',
                       case when role = 'public' then 'public' else quote_ident(role) end, server);
    end loop;
    perform shardman.drop_server(server);
    return true;
end
$$;
comment on function shardman.drop_unused_server(text) is
    'drops a foreign server with its user mappings unless a foreign table is on it; whether it did. Never cascades to tables';

create or replace function shardman.drop_defaults(rel regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    forms constant text := (select string_agg(format('alter column %I drop default', a.attname), ', ') from pg_attribute a
                             where a.attrelid = rel and a.atthasdef and a.attgenerated = '' and not a.attisdropped);
begin
    if forms is not null then
        execute format('alter table only %s %s', rel, forms);
    end if;
end
$$;
comment on function shardman.drop_defaults(regclass) is 'of a table into which nobody inserts any more: a sequence or function that they use can be dropped then';

create or replace function shardman.cut_over_out(part_name text, aside name) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant regclass := shardman.find_relation(part_name);
    data  constant regclass := shardman.find_relation(shardman.data_table(part_name));
begin
    execute format('alter table %s detach partition %s', part, data);
    -- Out of the way, so that the partition may come back and nobody writes to the old copy by its name.
    execute format('alter table %s rename to %I', data, aside);
    perform shardman.leave_to_owner(data), shardman.drop_defaults(data);
    execute format('alter table %s attach partition %s default', part, shardman.fitting_route(part_name));
end
$$;
comment on function shardman.cut_over_out(text, name) is
    'in a cut-over, on the source: takes the data table off its partition, renames it to aside, and puts the route in its place';

create or replace function shardman.cut_over_in(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant regclass := shardman.find_relation(part_name);
    data  constant regclass := shardman.find_relation(shardman.data_table(part_name));
    route constant regclass := shardman.find_relation(shardman.route_table(part_name));
begin
    if route is not null then
        execute format('alter table %s detach partition %s', part, route);
        execute format('drop foreign table %s', route);
    end if;
    execute format('alter table %s attach partition %s default', part, data);
    perform shardman.give_to(data, (select relowner from pg_class where oid = part));
    perform shardman.attached_row_triggers(part_name);
    perform shardman.attached_references(part_name);
end
$$;
comment on function shardman.cut_over_in(text) is 'in a cut-over, on the destination: takes the route off the partition and attaches the data table';

create or replace function shardman.replica_identity(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case c.relreplident
               when 'f' then 'full'
               when 'i' then 'index'
               when 'n' then 'nothing'
               else case when exists (select from pg_index i
                                       where i.indrelid = c.oid and i.indisprimary and i.indimmediate)
                         then 'key' else 'default' end end
      from pg_class c where c.oid = shardman.find_relation(relation)
$$;
comment on function shardman.replica_identity(text) is
    'how updates and deletes of a table are replicated: key, index, full; or not at all: nothing, and default on a table without primary key';

create or replace function shardman.table_bytes(relation text) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select pg_table_size(shardman.find_relation(relation)::regclass)
$$;
comment on function shardman.table_bytes(text) is 'bytes of a table on disk without its indexes';

create or replace function shardman.writers() returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select string_agg(whom, ', ' order by since) from (
        select format('pid %s (%s, in its transaction for %s)', pid, usename,
                      date_trunc('second', clock_timestamp() - xact_start)) as whom, xact_start as since
          from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
        union all
        select shardman.prepared_text(p), p.prepared from pg_prepared_xacts p
    ) as found
     where since < clock_timestamp() - interval '1 second'
$$;
comment on function shardman.writers() is 'write transactions of the server older than a second: making a replication slot waits for them';
