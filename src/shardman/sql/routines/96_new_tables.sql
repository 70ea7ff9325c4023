-- New tables that are shared without anybody asking, where the setting new_tables is shared: each is submitted when the transaction that makes it ends.
-- Other DDL that meets one which is just being shared waits for it; a foreign key to one of its own transaction has it shared within that (96_made_now.sql).

create or replace function shardman.is_made_here_and_now(rel oid) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- Its type's row: that of the table may have been written again since.
    select coalesce((select pg_xact_status(((pg_current_xact_id_if_assigned()::text::bigint >> 32 << 32) + t.xmin::text::bigint)::text::xid8) = 'in progress'
                       from pg_class c join pg_type t on t.oid = c.reltype where c.oid = rel and t.xmin::text::bigint > 2 and age(t.xmin) < 1000000), false)
$$;
comment on function shardman.is_made_here_and_now(oid) is 'whether a table was made, or got its name, by the transaction that asks, which others do not see yet';

create or replace function shardman.is_written_here(rel oid) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_locks k where k.pid = pg_backend_pid() and k.locktype = 'relation' and k.relation = rel and k.granted
                      and k.database = (select d.oid from pg_database d where d.datname = current_database())
                      and k.mode not in ('AccessShareLock', 'RowShareLock'))
$$;
comment on function shardman.is_written_here(oid) is 'whether this transaction has written to a table or changed it: until it has ended nobody can share it';

create or replace function shardman.holds_up_sharing() returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- One table is shared after the other, so who is in the way of one is so of all behind it. A lock for reading is in the way only
    -- while somebody asks for the table as a whole: before and behind that moment the table is shared beside its readers.
    select exists (select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id and o.name = 'relation'
                     cross join shardman.find_relation(o.opt) rel
                    where l.cmd_type = 'create_shared_table' and l.ended_at is null
                      and (shardman.is_written_here(rel)
                           or exists (select from pg_locks mine join pg_locks other using (locktype, database, relation)
                                       where mine.pid = pg_backend_pid() and mine.granted and not other.granted
                                         and other.mode = 'AccessExclusiveLock' and relation = rel and locktype = 'relation'
                                         and database = (select d.oid from pg_database d where d.datname = current_database()))))
$$;
comment on function shardman.holds_up_sharing() is
    'whether a table that is being shared waits for the end of this transaction, which has used it: to wait for that would be to wait for itself';

create or replace function shardman.await_shared(relation text, above text[] default '{}') returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel constant oid := shardman.find_relation(relation);
begin
    if shardman.setting('new_tables', 'plain') <> 'shared' or exists (select from shardman.tables t where t.relation = await_shared.relation)
       or not exists (select from pg_constraint o join pg_class c on c.oid = o.conrelid where o.conrelid = rel and o.contype = 'p' and c.relkind = 'r') then
        return;
    elsif shardman.is_made_here_and_now(rel) and not exists (select from shardman.shared_tables s where s.relation = await_shared.relation) then
        perform shardman.share_now(relation, above);
        return;
    end if;
    -- What is to be seen comes by replication.
    while exists (select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id and (o.name, o.opt) = ('relation', await_shared.relation)
                   where l.cmd_type = 'create_shared_table' and l.ended_at is null) loop
        if clock_timestamp() > statement_timestamp() + interval '30 s' or current_setting('transaction_isolation') <> 'read committed'
           or shardman.holds_up_sharing() then
            raise exception '% is just being shared, and not on all nodes yet', relation using errcode = 'lock_not_available',
                hint = 'See shardman.commands for what it waits for, and repeat the transaction.';
        end if;
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_shared(text, text[]) is
    'before a foreign key to it is made: waits until a table that is to be shared because it is new is on all nodes, for half a minute at most; one that '
    'this transaction has made is shared in it. above: see shardman.share_now';

create or replace function shardman.are_being_shared(made text[]) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.cmd_log l where l.cmd_type = 'create_shared_table' and l.ended_at is null
                      and l.submitted_at > clock_timestamp() - interval '1 min')
        -- What this session has made may be known to nobody here yet.
        or exists (select from unnest(made) m join pg_constraint o on o.conrelid = shardman.find_relation(m) and o.contype = 'p'
                    where not exists (select from shardman.shared_tables s where s.relation = m)
                      and not exists (select from shardman.cmd_log l join shardman.cmd_opts x on x.cmd_id = l.id and (x.name, x.opt) = ('relation', m)
                                       where l.cmd_type = 'create_shared_table' and l.ended_at is not null))
$$;
comment on function shardman.are_being_shared(text[]) is 'whether new tables are just being shared; made: those of this session';

create or replace function shardman.is_about_to_be_shared(rel oid) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.setting('new_tables', 'plain') = 'shared' and shardman.shared_name(rel) is null
       and not shardman.is_made_here_and_now(rel) and shardman.has_primary_key(rel)
       and (exists (select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id and (o.name, o.opt) = ('relation', n.name)
                     where l.cmd_type = 'create_shared_table' and l.ended_at is null
                       and l.submitted_at > clock_timestamp() - interval '1 min')
            -- What this session has made may be known to nobody here yet.
            or n.name = any (string_to_array(nullif(current_setting('shardman.made', true), ''), chr(10)))
               and not exists (select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id and (o.name, o.opt) = ('relation', n.name)
                                where l.cmd_type = 'create_shared_table' and l.ended_at is not null))
      from (select shardman.metadata_name(rel) as name) n
$$;
comment on function shardman.is_about_to_be_shared(oid) is 'whether a plain table that others see is shared as soon as its command has come to its turn';

create or replace function shardman.await_sharing(rels oid[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- To other nodes that have this transaction's snapshot already the table would not be a shared one: it is changed as it is.
    while coalesce(current_setting('shardman.ddl_begun', true), '') <> coalesce(pg_current_xact_id_if_assigned()::text, 'none')
      and current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '30 s'
      and exists (select from unnest(rels) r where shardman.is_about_to_be_shared(r) and not shardman.is_written_here(r))
      and not shardman.holds_up_sharing() loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_sharing(oid[]) is
    'before DDL of tables: waits for those that are just being shared, for half a minute at most, and not for what this transaction itself is in the way of';

create or replace function shardman.await_new_tables() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    made constant text[] := string_to_array(nullif(current_setting('shardman.made', true), ''), chr(10));
    now_ constant text[] := array(select m from unnest(made) m where shardman.is_made_here_and_now(shardman.find_relation(m)));
begin
    -- Other nodes take this transaction's snapshot with its first statement that is sent to them, and see nothing that is shared later.
    if shardman.setting('new_tables', 'plain') <> 'shared' or coalesce(current_setting('shardman.ddl_begun', true), '') = pg_current_xact_id()::text then
        return;
    end if;
    perform set_config('shardman.ddl_begun', pg_current_xact_id()::text, true), set_config('shardman.made', array_to_string(now_, chr(10)), false);
    while current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '30 s'
      and shardman.are_being_shared(array(select unnest(made) except select unnest(now_)))
      and not shardman.holds_up_sharing() loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_new_tables() is
    'before the first statement of a transaction that changes a sharded or shared table: waits for new tables that are just being shared, for half a minute at most';

create or replace function shardman.has_primary_key(rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint o where o.conrelid = rel and o.contype = 'p')
$$;
comment on function shardman.has_primary_key(oid) is 'whether a table has a primary key';

create or replace function shardman.share_new(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.has_primary_key(rel) then
        insert into shardman.new_tables values (share_new.rel) on conflict do nothing;
        perform set_config('shardman.made', concat_ws(chr(10), nullif(current_setting('shardman.made', true), ''), shardman.metadata_name(rel)), false);
    else
        raise notice '% has no primary key, and stays on this node until it has one', shardman.metadata_name(rel);
    end if;
end
$$;
comment on function shardman.share_new(oid) is 'lets a new table be shared when its transaction has ended, or says why it is not';

create or replace function shardman.submit_new_tables() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- Not when they were made: foreign keys come behind all tables, in the order of names (pg_dump, most mappers).
    todo oid[] := array(select n.rel from shardman.new_tables n join pg_class c on c.oid = n.rel order by n.rel);
    free oid[];
begin
    delete from shardman.new_tables;
    while todo <> '{}' loop
        free := array(select r from unnest(todo) r
                       where not exists (select from pg_constraint o
                                          where o.conrelid = r and o.contype = 'f' and o.confrelid <> r and o.confrelid = any (todo)) order by r);
        if free = '{}' then
            -- A circle. What is in the way of each its command says.
            free := todo;
        end if;
        perform shardman.submit('create_shared_table', json_build_object('relation', shardman.metadata_name(r), 'node_id', shardman.my_id()))
           from unnest(free) with ordinality as u (r, i) order by i;
        todo := array(select r from unnest(todo) r where r <> all (free) order by r);
    end loop;
    return null;
end
$$;
comment on function shardman.submit_new_tables() is
    'before the end of a transaction: has the tables shared that it has made, those first to which others refer. All at the first call';

do $$
begin
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'shardman.new_tables'::regclass and tgname = 'ends') then
        create constraint trigger ends after insert on shardman.new_tables deferrable initially deferred
            for each row execute function shardman.submit_new_tables();
    end if;
end
$$;

create or replace function shardman.say_stays(made oid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  regclass;
    kind text;
begin
    for rel, kind in
        select c.oid, case when c.relkind = 'p' then 'partitioned' else 'unlogged' end
          from pg_class c where c.oid = any (made) and not c.relispartition and (c.relkind = 'p' and c.relpersistence <> 't' or c.relkind = 'r' and c.relpersistence = 'u')
    loop
        raise notice '% is %, and stays on this node', rel, kind
            using hint = 'New tables are shared by themselves where they are neither partitioned nor unlogged, and have a primary key. '
                         'A large one is partitioned over the nodes by shardman.create_hash_partitions().';
    end loop;
end
$$;
comment on function shardman.say_stays(oid[]) is 'says of new tables that cannot be shared because of what they are that other nodes do not have them';

create or replace function shardman.on_new_table() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- Who restores a dump makes tables first, and loads their rows, and gives them keys then.
    keyed constant bool := tg_tag = 'ALTER TABLE';
    -- The command that shares it knows its former name.
    renamed constant bool := keyed and current_setting('shardman.new_renamed', true) = 'on';
    made  oid;
begin
    perform set_config('shardman.new_renamed', '', true);
    if keyed and not renamed and coalesce(current_query(), '') !~* '\madd\M.*\mprimary\s+key\M' or shardman.is_own_ddl() or not shardman.is_member() or shardman.is_copy() then
        return;
    elsif not exists (select from shardman.nodes n where n.id = shardman.my_id() and n.worker_status = 'active') then
        return;
    end if;
    if not keyed and shardman.setting('new_tables', 'plain') = 'shared' then
        perform shardman.say_stays(array(select d.objid from pg_event_trigger_ddl_commands() d where d.classid = 'pg_class'::regclass and not d.in_extension));
    end if;
    for made in
        -- One with a foreign key comes twice.
        select distinct c.oid from pg_event_trigger_ddl_commands() d join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
         where c.relkind = 'r' and c.relpersistence = 'p' and not c.relispartition and not d.in_extension
           and d.schema_name !~ '^pg_|^information_schema$|^shardman$'
           and not (keyed and (shardman.shared_name(c.oid) is not null or not shardman.has_primary_key(c.oid)
                               or exists (select from shardman.remembered() l where l.relation = shardman.metadata_name(c.oid))))
    loop
        if (keyed or not shardman.restores_layout(made)) and shardman.setting('new_tables', 'plain') = 'shared' then
            perform shardman.share_new(made);
        end if;
    end loop;
end
$$;
comment on function shardman.on_new_table() is
    'after CREATE TABLE: has the new table lie as one of its name did that was dropped, or shared, where the setting new_tables is shared; after ALTER TABLE: shared '
    'when it has got its primary key';

create or replace function shardman.on_new_sequence() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    made regclass;
begin
    if shardman.is_own_ddl() or not shardman.is_member() or shardman.is_copy() or shardman.setting('new_tables', 'plain') <> 'shared' then
        return;
    end if;
    for made in
        select d.objid from pg_event_trigger_ddl_commands() d join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
         where c.relkind = 'S' and c.relpersistence = 'p' and not d.in_extension and shardman.table_of_sequence(d.objid) is null
    loop
        raise notice 'only this node has the sequence %', made
            using hint = format('One that belongs to a table when that is shared is on all nodes, each with numbers of its own: '
                                'ALTER SEQUENCE %s OWNED BY ..., in the transaction that makes the table.', made);
    end loop;
end
$$;
comment on function shardman.on_new_sequence() is
    'after CREATE SEQUENCE, where new tables are shared: says that other nodes do not have it, and what to do, as mappers that ask it for keys would find out there';
