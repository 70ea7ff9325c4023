-- DDL of a shared table: as with that of a sharded one (95_ddl.sql), the statement's text is run on each node that has a copy, as the
-- caller and in his transaction.
--
-- The gate is another: the table's writers hold a lock of the whole cluster (98_shared_writes.sql), so the statement first stands in line
-- for it as they do. Then nobody writes to any copy, and each is locked against its readers, for a moment only, again and again. Who stands in
-- line behind it has a lock already, where he is: after two seconds of trying he is sent away with 40001.
--
-- Rows that a statement writes anew get values that each node would compute for itself (a default of now(), a USING clause): behind
-- the statement those of the node where it was sent are sent to all others.
--
-- What cannot be done on all copies is refused when it has been done on this one and is there to look at: a table that could not have
-- been shared as it is then.

create or replace function shardman.shared_function_here(relation text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(shardman.find_function(shardman.shared_function(relation)),
                    (select shardman.find_function(shardman.shared_function(s.definition ->> 'former')) from shardman.shared_tables s
                      where s.relation = shared_function_here.relation and not exists (select from shardman.shared_tables o where o.relation = s.definition ->> 'former')))
$$;
comment on function shardman.shared_function_here(text) is 'the trigger function of a shared table, which may bear the table''s former name still';

create or replace function shardman.shared_name(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node and not l.leaving
     -- Also one that was just renamed.
     where c.relation = shardman.metadata_name(rel) and rel = shardman.find_relation(c.relation)
        or exists (select from pg_trigger g where g.tgrelid = rel and g.tgname = 'A_shardman_lock'
                      and g.tgfoid = shardman.shared_function_here(c.relation))
$$;
comment on function shardman.shared_name(oid) is 'the shared table of which a relation of this node is the copy; null when it is none';

create or replace function shardman.refuse_shared_ddl(relation text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a shared table, and this would change its copy on this node only', relation
        using errcode = 'feature_not_supported',
              hint = format('Send the statement by itself, or with nothing but DDL in one query, and not from within a function or DO. What a DROP ... CASCADE would take from it, take from it first. Rules and policies: '
                            'make it a plain table with shardman.unshare_table(%L, ...) first.', relation);
end
$$;
comment on function shardman.refuse_shared_ddl(text) is 'raises what DDL of a shared table gets that is not sent to all copies';

create or replace function shardman.listed_relations(query text, pattern text, path text) returns oid[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant text := '(?:(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?)';
    list   constant text := (regexp_match(shardman.one_statement(query), replace(pattern, 'LIST', format('(%1$s(?:\s*,\s*%1$s)*)', name_)), 'i'))[1];
    names  constant text[] := array(select m[1] from regexp_matches(list, '(' || name_ || ')', 'g') as m);
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    found_ := array(select pg_catalog.to_regclass(n)::pg_catalog.oid from pg_catalog.unnest(names) n);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return array_remove(found_, null);
end
$$;
comment on function shardman.listed_relations(text, text, text) is
    'the relations in a list of relations that a statement has where LIST stands in the pattern; path: the search_path by which they are read';

create or replace function shardman.ddl_relations(query text, tag text, path text) returns oid[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when tag in ('GRANT', 'REVOKE') then shardman.listed_relations(query, '^(?:grant|revoke)\s.*\son\s+(?:table\s+)?LIST\s+(?:to|from)\s', path)
                when tag = 'DROP TABLE' then shardman.listed_relations(query, '^drop\s+table\s+(?:if\s+exists\s+)?LIST\s*(?:cascade|restrict)?$', path)
                else array[shardman.ddl_relation(query, tag, path)] end
$$;
comment on function shardman.ddl_relations(text, text, text) is 'the relations that a statement of a kind is about; path: the search_path by which its names are read';

create or replace function shardman.await_references(tables text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- What was dropped a moment ago the metadata still have. What this node has itself need not be waited for.
    while current_setting('transaction_isolation') = 'read committed' and clock_timestamp() < statement_timestamp() + interval '5 s'
      and exists (select from unnest(tables) t where shardman.references_elsewhere(t) <> '{}')
      and not exists (select from unnest(tables) t join pg_constraint o on o.confrelid = shardman.find_relation(t) and o.contype = 'f'
                        join pg_class c on c.oid = o.conrelid and c.relispartition) loop
        perform pg_sleep(0.05);
    end loop;
end
$$;
comment on function shardman.await_references(text[]) is
    'before shared tables are dropped: waits a moment for the metadata of sharded tables that refer to them, where it seems that they do no more';

create or replace function shardman.need_possible_shared(tables text[], query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    words constant text := shardman.plain_words(query);
    other text;
begin
    perform shardman.need_numbers_kept(tables[1], query, tag);
    perform shardman.need_own_trigger(tables[1], query, tag);
    if tag = 'ALTER TABLE' and words ~* '\mset\s+unlogged$' then
        raise exception 'a shared table cannot be unlogged: after a crash its node would have no rows' using errcode = 'feature_not_supported',
            hint = 'Leave it logged; or make it a plain table, with shardman.unshare_table.';
    elsif words ~* '\mconcurrently\M' then
        raise exception 'an index of a shared table is built or dropped on all nodes in one transaction, which CONCURRENTLY cannot be'
            using errcode = 'feature_not_supported', hint = 'Leave CONCURRENTLY out; the table''s users wait meanwhile.';
    elsif shardman.renames_by_index(query, tag, path) then
        perform shardman.refuse_index_name(tables[1]);
    elsif tag = 'DROP TABLE' then
        perform shardman.await_references(tables);
        select r into other from unnest(tables) t cross join unnest(shardman.references_elsewhere(t)) r limit 1;
        if other is not null then
            raise exception 'foreign keys of the sharded table % refer to %', other, array_to_string(tables, ', ')
                using errcode = 'dependent_objects_still_exist', hint = format('Drop %s first: select shardman.drop_table(%L).', other, other);
        end if;
    end if;
end
$$;
comment on function shardman.need_possible_shared(text[], text, text, text) is 'raises where a change of shared tables cannot be made at all';

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

create or replace function shardman.start_shared_ddl(query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rels   constant oid[] := shardman.ddl_relations(query, tag, path);
    tables text[];
    nodes  int[];
begin
    perform shardman.await_name(r) from unnest(rels) r;
    perform shardman.await_sharing(rels);
    perform set_config('shardman.new_renamed', case when shardman.renames_table(tag, query)
                       and exists (select from unnest(rels) r where shardman.shared_name(r) is null and (shardman.is_about_to_be_shared(r)
                                       or shardman.metadata_name(r) = any (string_to_array(nullif(current_setting('shardman.made', true), ''), chr(10)))
                                       -- It was dropped and made again: restore_layout, too, looks for it by its former name.
                                       or exists (select from shardman.remembered() l where l.relation = shardman.metadata_name(r)
                                                     and l.layout ->> 'kind' = 'shared')))
                       then 'on' else '' end, true);
    tables := array(select distinct shardman.shared_name(r) from unnest(rels) r where shardman.shared_name(r) is not null order by 1);
    if cardinality(tables) = 0 then
        return;
    elsif tag in ('GRANT', 'REVOKE') and not shardman.is_callers(tables[1]) then
        -- Who may grant rights on a table need not own it, and has no way to other nodes then. status tells what differs.
        return;
    end if;
    perform shardman.need_owner(t) from unnest(tables) t;
    perform shardman.need_plain_strings(query);
    perform shardman.await_new_tables();
    perform shardman.await_shared(r) from unnest(shardman.statement_refers_to(query, path)) r where tag = 'ALTER TABLE' and r <> all (tables);
    perform shardman.need_possible_shared(tables, query, tag, path);
    perform shardman.need_recorded(t) from unnest(tables) t where shardman.renames_table(tag, query);
    nodes := array(select distinct c.node from shardman.shared_copies c where c.relation = any (tables) and c.node <> shardman.my_id() order by 1);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.open_door(n) from unnest(nodes) n;
    perform shardman.open_bare_door(nullif(current_setting('shardman.ddl_now', true), '')::jsonb);
    perform set_config('shardman.ddl_busy', '', true);
    perform set_config('shardman.ddl_shared', array_to_string(tables, chr(10)), true), set_config('shardman.ddl_nodes', array_to_string(nodes, ','), true);
    perform set_config('shardman.ddl_wanted', array_to_string(nodes || shardman.my_id(), ','), true),
            set_config('shardman.ddl_change', gen_random_uuid()::text, true);
    perform set_config('shardman.ddl_rewritten', '', true), set_config('shardman.ddl_ranges', '', true);
end
$$;
comment on function shardman.start_shared_ddl(text, text, text) is
    'before DDL, as the cluster''s role: where it is about shared tables, opens doors to the nodes that have copies and says so to the triggers that follow';

create or replace function shardman.ddl_shared() returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Metadata may come at any moment, and call one otherwise than when the statement began.
    select array_agg(shardman.shared_now(n))
      from unnest(case when current_setting('shardman.ddl_busy', true) is distinct from 'on'
                       then string_to_array(nullif(current_setting('shardman.ddl_shared', true), ''), chr(10)) end) n
$$;
comment on function shardman.ddl_shared() is 'the shared tables that the statement is about that is just being done; null for none';

create or replace function shardman.on_shared_gate() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_shared', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.pass_shared_gate(tg_tag);
    end if;
end
$$;
comment on function shardman.on_shared_gate() is 'before DDL on a shared table, as the caller: closes the gate';

create or replace function shardman.loosen_shared(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    execute format('drop trigger if exists "A_shardman_key" on %s', shardman.name_here(relation));
    perform shardman.loosen_sequences(relation);
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.loosen_shared(text) is
    'within DDL, for the owner of a shared table: takes away the trigger that names the key''s columns, whose types could not be changed; shardman.keep_shared makes it again';

create or replace function shardman.hold_way(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    lock table shardman.shared_locks in share update exclusive mode nowait;
end
$$;
comment on function shardman.hold_way(text) is
    'within DDL, for the owner of a shared table, on its first node: the lock by which those whom shardman.make_way sends away see why, to the end of the transaction';

create or replace function shardman.make_way(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    until constant timestamptz := clock_timestamp() + interval '0.5 s';
    place record;
    away  int[];
begin
    perform shardman.need_owner(relation);
    select split_part(trim('()' from l.ctid::text), ',', 1)::int as page, split_part(trim('()' from l.ctid::text), ',', 2)::int as tuple into place
      from shardman.shared_locks l where l.relation = shardman.shared_lock_name(make_way.relation) and l.kind = 'turn';
    select array_agg(shardman.send_away(k.pid)) into away
      from pg_locks k
     where k.locktype = 'tuple' and k.relation = 'shardman.shared_locks'::regclass and k.page = place.page and k.tuple = place.tuple
       and k.pid <> pg_backend_pid();
    -- Until they have gone: nobody is sent away twice, for the second time in whatever he does next.
    while exists (select from pg_locks k where k.locktype = 'tuple' and k.relation = 'shardman.shared_locks'::regclass and k.pid = any (away))
          and clock_timestamp() < until loop
        perform pg_sleep(0.002);
    end loop;
end
$$;
comment on function shardman.make_way(text) is
    'within DDL, for the owner of a shared table, on its first node, after shardman.hold_way: those who wait for their turn to write get 40001, '
    'and give back the lock that they have on the table where they are';

create or replace function shardman.send_away(pid int) returns int
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    return case when pg_cancel_backend(pid) then pid end;
exception when insufficient_privilege then
    return null;
end
$$;
comment on function shardman.send_away(int) is 'cancels what a session is doing, where that is allowed; returns the session, null where it was not';

create or replace function shardman.at_first_nodes(does text, wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    at   record;
begin
    foreach name in array shardman.ddl_shared() loop
        at := shardman.shared_nodes(name);
        if at.nodes[1] = at.me then
            execute format('select shardman.%I(%L)', does, name);
        else
            perform shardman.through_door(at.nodes[1], format('select shardman.%I(%L)', does, name), wait);
        end if;
    end loop;
end
$$;
comment on function shardman.at_first_nodes(text, text) is 'runs a function of ours for each shared table that a statement is about, on the first node of the table';

create or replace function shardman.may_hurry(wait text) returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.at_first_nodes('hold_way', wait);
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function shardman.may_hurry(text) is 'whether this is the only DDL that sends away who stands in line, from now to the end of the transaction';

create or replace function shardman.lock_shared_copies(tables text[], nodes int[], wait text, hurry bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    retypes constant bool := shardman.ddl_lock_modes('ALTER TABLE', shardman.statement_now()) like '%,keys';
    me      constant int := (shardman.shared_nodes(tables[1])).me;
    locks   constant text := (select string_agg(format('lock table only %s in access exclusive mode', shardman.name_here(t)), '; ' order by t) from unnest(tables) t)
                             || case when retypes then format('; select shardman.loosen_shared(%L)', tables[1]) else '' end
                             || case when shardman.drops_from(shardman.statement_now()) then format('; select shardman.loosen_key(%L)', tables[1]) else '' end;
    node    int;
begin
    foreach node in array array[me] || nodes loop
        if hurry then
            perform shardman.at_first_nodes('make_way', wait);
        end if;
        if node = me then
            perform set_config('lock_timeout', wait, true);
            execute locks;
        else
            perform shardman.through_door(node, locks, wait);
        end if;
    end loop;
end
$$;
comment on function shardman.lock_shared_copies(text[], int[], text, bool) is
    'locks all copies of shared tables, one after the other. hurry: those who stand in line to write are sent away before each';

create or replace function shardman.close_shared_gate(wait text, hurry bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tables constant text[] := shardman.ddl_shared();
    name   text;
begin
    foreach name in array tables loop
        -- Its trigger stands in line with the table's writers, as the table's owner.
        execute format('delete from only %s where false', shardman.name_here(name));
    end loop;
    perform shardman.lock_shared_copies(tables, coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}'), wait, hurry);
end
$$;
comment on function shardman.close_shared_gate(text, bool) is 'one try: raises where a lock is not had within wait';

create or replace function shardman.pass_shared_gate(tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mine     constant text := current_setting('lock_timeout');
    -- Whoever stands in line to write has a lock on the table where he is, and keeps it until he may write: while several
    -- write without a pause there is no moment in which nobody does.
    polite   constant interval := '2 s';
    begun    constant timestamptz := clock_timestamp();
    hurry    bool := false;
    wait     numeric := 100;
begin
    perform shardman.send_now(string_to_array(concat_ws(',', nullif(current_setting('shardman.ddl_nodes', true), ''),
                                                        nullif(current_setting('shardman.ddl_now_door', true), '')), ',')::int[]);
    -- Everybody may go on reading and writing.
    if shardman.ddl_lock_modes(tag, shardman.statement_now()) = '' or tag like '% STATISTICS' then
        return;
    end if;
    loop
        hurry := hurry or clock_timestamp() > begun + polite and shardman.may_hurry(round(wait) || 'ms');
        begin
            perform shardman.close_shared_gate(round(wait) || 'ms', hurry);
            exit;
        exception when lock_not_available or deadlock_detected or serialization_failure then
            -- That node has seen its metadata, and sees the same until the end of this transaction (postgres_fdw reads there in REPEATABLE
            -- READ): to wait does not help. What comes from there has a SQLSTATE and a text, and nothing else to know it by.
            if sqlerrm like '% knows of other copies of %' then
                raise;
            end if;
            perform shardman.need_time_left(shardman.ddl_shared(), 'change', begun, sqlerrm);
        end;
        wait := least(500, wait * 1.3);
        perform pg_sleep(random() * 0.05);
    end loop;
    -- Another table that the statement refers to may have writers who wait for this one on another node: nobody would see the circle.
    perform set_config('lock_timeout', case mine when '0' then '10s' else mine end, true);
end
$$;
comment on function shardman.pass_shared_gate(text) is 'closes the gate of shared tables for a kind of statement, trying again for half a minute';

create or replace function shardman.on_shared_spread() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_shared', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.spread_shared_ddl(shardman.shared_statement(tg_tag), tg_tag);
    end if;
end
$$;
comment on function shardman.on_shared_spread() is 'after DDL on a shared table, as the caller: the same on the other nodes';

create or replace function shardman.shared_statement(tag text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when tag = 'DROP TABLE' then shardman.drop_text(shardman.ddl_shared(), shardman.statement_now()) else shardman.statement_now() end
$$;
comment on function shardman.shared_statement(text) is 'DDL of shared tables as other nodes get it: of DROP TABLE, which may name others, what is about shared ones';

create or replace function shardman.spread_shared_ddl(query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tables constant text[] := shardman.ddl_shared();
    nodes constant int[] := coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}');
    ranges constant jsonb := case when tag = 'ALTER TABLE' then nullif(current_setting('shardman.ddl_ranges', true), '')::jsonb end;
    node  int;
    rows_ text[];
begin
    foreach node in array nodes loop
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_ranges'', %L, true)', ranges), '10s') where ranges is not null;
        -- The note first: see shardman.spread_ddl.
        perform shardman.through_door(node, format('select shardman.note_change(%L)', shardman.change_sent(query, tag, tables[1], tables)), '10s');
        if query ~* '\mset\s+constraints\M' then
            perform shardman.through_door(node, 'set constraints all immediate', '10s');
        end if;
        perform shardman.send_on(node, query);
    end loop;
    if current_setting('shardman.ddl_rewritten', true) = 'on' and tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\mprimary\s+key\M' then
        raise exception 'each copy of % would make values of its own for its primary key', tables[1]
            using errcode = 'feature_not_supported', hint = 'Add the column first, then drop the key, and add the other one: three statements, in one transaction.';
    elsif current_setting('shardman.ddl_rewritten', true) = 'on' then
        perform shardman.through_door(n, s, '10s') from unnest(nodes) n, shardman.numbering(tables[1], ranges, false) s;
        for rows_ in execute format('select array_agg(x.r) from (select (t.*)::text as r, (row_number() over () - 1) / 1000 as n from only %s t) x group by x.n',
                                    shardman.name_here((shardman.ddl_shared())[1])) loop
            foreach node in array nodes loop
                perform shardman.through_door(node, format('insert into shardman.shared_inbox values (%L, ''update'', %L, %L)',
                    (shardman.ddl_shared())[1], (shardman.shared_nodes((shardman.ddl_shared())[1])).nodes, rows_), '10s');
            end loop;
        end loop;
        perform shardman.through_door(n, s, '10s') from unnest(nodes) n, shardman.numbering(tables[1], ranges, true) s;
    end if;
end
$$;
comment on function shardman.spread_shared_ddl(text, text) is 'sends a statement to all other copies, and the rows that it has written anew';

create or replace function shardman.repeat_shared_through(c shardman.schema_changes, node int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    locks constant text := shardman.ddl_lock_modes(c.tag, c.statement);
begin
    perform shardman.through_door(node, format('select shardman.note_change(%L)', to_jsonb(c)), '500ms');
    if locks <> '' and c.tag <> 'DROP TABLE' and c.tag not like '% STATISTICS' then
        perform shardman.through_door(node, format('lock table only %s in access exclusive mode', shardman.sql_name(c.target)), '5s');
    end if;
    if locks like '%,keys' then
        perform shardman.through_door(node, format('select shardman.loosen_shared(%L)', c.target), '500ms');
    end if;
    if shardman.drops_from(c.statement) then
        perform shardman.through_door(node, format('select shardman.loosen_key(%L)', c.target), '500ms');
    end if;
    if c.tag = 'ALTER TABLE' then
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_ranges'', %L, true)', shardman.ranges_here(c.target)), '500ms');
    end if;
    perform shardman.through_door(node, shardman.read_alike(c.statement, c.words::text), '5s');
end
$$;
comment on function shardman.repeat_shared_through(shardman.schema_changes, int) is
    'as who sent a change of a shared table: the same on a node that lacks it, with the note that it has it. The shardlord keeps writers away meanwhile';

create or replace function shardman.changes_of(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(to_jsonb(c) order by c.nr), '[]') from shardman.schema_changes c where changes_of.relation = any (c.tables)
$$;
comment on function shardman.changes_of(text) is 'the changes of a shared table that this node has and keeps until all have them';

create or replace function shardman.has_changes(changes jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.schema_changes (id, sender, statement, path, words, tag, target, tables, nodes, made_at, settled)
    select c.id, c.sender, c.statement, c.path, c.words, c.tag, c.target, c.tables, c.nodes, c.made_at, c.settled
      from jsonb_populate_recordset(null::shardman.schema_changes, changes) as c order by c.nr
        on conflict do nothing
$$;
comment on function shardman.has_changes(jsonb) is 'this node has a copy made like that of a node with these changes: they are not to be repeated here';

create or replace function shardman.shared_ddl_obstacles(relation text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (select shardman.find_relation(relation) as rel)
    select o from me, shardman.shared_obstacles(me.rel) as o
     -- Those are ours.
     where o ->> 'what' not like 'there is a function %'
       -- It is to have one when the transaction ends.
       and o ->> 'what' <> format('%s has no primary key, by which other nodes would find its rows', relation)
       and o ->> 'what' not in (select format('the constraint %s has never been validated, rows that break it could not be moved', l.name) from shardman.late_checks(me.rel) l)
    union all
    select shardman.obstacle(format('the copies of %s would give %s the same numbers', relation, quote_ident(s.column_name)),
                             'ALTER TABLE ... ADD COLUMN ... serial, or GENERATED ... AS IDENTITY, makes a sequence with each node''s own numbers')
      from me, shardman.owned_sequences(me.rel) s
     where shardman.range_here(s.seq) is null
       and not exists (select from shardman.sequence_specs(relation) k where shardman.find_relation(shardman.owned_here(relation, k ->> 'name')) = s.seq)
$$;
comment on function shardman.shared_ddl_obstacles(text) is 'what a shared table has that none may have, after it was changed';

create or replace function shardman.keep_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    arrives constant bool := coalesce(current_setting('shardman.ddl', true), '') = 'spread';
    problem jsonb;
begin
    select o into problem from shardman.shared_ddl_obstacles(relation) o limit 1;
    if problem is not null then
        raise exception '%', problem ->> 'what' using errcode = 'feature_not_supported', hint = (problem ->> 'hint') || '.';
    end if;
    if not shardman.has_primary_key(shardman.find_relation(relation)) then
        perform shardman.note_keyless(relation) where not arrives;
        return;
    end if;
    -- Its trigger function goes with the table's owner, and what was disabled is not.
    perform shardman.arm_shared(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.own_statistics(shardman.find_relation(relation));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.keep_shared(text) is
    'after DDL of a shared table, on each node: raises where it can be shared no longer, and gives it what it lacks for being written through';

create or replace function shardman.refuse_late_sequence(relation text, seq oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.metadata_name(seq) not in (select s ->> 'name' from shardman.sequence_specs(relation) s) then
        raise exception '% is shared, and only this node has %', relation, seq::regclass
            using errcode = 'feature_not_supported',
                  hint = format('A sequence that belongs to a table when that is shared is on all nodes, each with numbers of its own: unshare %s, '
                                'and share it again when the sequence is OWNED BY its column.', relation);
    end if;
end
$$;
comment on function shardman.refuse_late_sequence(text, oid) is 'raises where a sequence of this node alone is given to a shared table';

create or replace function shardman.on_shared_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    arrives constant bool := coalesce(current_setting('shardman.ddl', true), '') = 'spread';
    rel     oid;
    changed text;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    for rel, changed in
        select distinct r.rel, shardman.shared_name(r.rel)
          from pg_event_trigger_ddl_commands() d
         cross join lateral (select coalesce(case when d.object_type = 'sequence' and tg_tag in ('ALTER SEQUENCE', 'ALTER TABLE') then shardman.table_of_sequence(d.objid) end,
                                             shardman.ddl_relation_of(d.classid, d.objid)) as rel offset 0) as r
         where r.rel is not null and shardman.shared_name(r.rel) is not null
    loop
        if changed = any (shardman.ddl_shared()) or arrives then
            perform shardman.note_name(changed, rel);
            perform shardman.number_shared(changed, rel, array(select d.objid from pg_event_trigger_ddl_commands() d where d.command_tag = 'CREATE SEQUENCE'), arrives)
              where tg_tag = 'ALTER TABLE';
            perform shardman.keep_shared(changed);
            perform shardman.keep_sequences(changed, not arrives);
        else
            perform shardman.refuse_late_sequence(changed, d.objid) from pg_event_trigger_ddl_commands() d
              where tg_tag = 'ALTER SEQUENCE' and shardman.table_of_sequence(d.objid) = rel;
            perform shardman.refuse_shared_ddl(changed);
        end if;
    end loop;
end
$$;
comment on function shardman.on_shared_ddl() is 'after DDL: refuses what is about a shared table and is not sent to all copies';

create or replace function shardman.on_shared_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name text;
    node int;
begin
    if shardman.ddl_shared() is null then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array coalesce(string_to_array(nullif(current_setting('shardman.ddl_nodes', true), ''), ',')::int[], '{}') loop
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
    end loop;
    perform shardman.close_bare_door();
    perform set_config('shardman.ddl_busy', '', true);
    perform shardman.keep_change(shardman.change_sent(shardman.shared_statement(tg_tag), tg_tag, (shardman.ddl_shared())[1], shardman.ddl_shared()));
    foreach name in array shardman.ddl_shared() loop
        if not shardman.submit_name(name) then
            perform shardman.submit(case tg_tag when 'DROP TABLE' then 'drop_table' else 'refresh_table' end,
                                    case tg_tag when 'DROP TABLE' then json_build_object('relation', name, 'aside', false, 'follow', true)
                                                else json_build_object('relation', name) end);
        end if;
        -- Their foreign keys name its columns.
        perform shardman.submit('refresh_table', json_build_object('relation', r)) from unnest(shardman.references_to(name)) r
          where tg_tag = 'ALTER TABLE' and shardman.plain_words(shardman.statement_now()) ~* '\mrename\M';
    end loop;
    if tg_tag = 'DROP TABLE' then
        perform shardman.say_remembered(shardman.ddl_shared());
    end if;
    perform set_config('shardman.ddl_shared', '', true);
end
$$;
comment on function shardman.on_shared_end() is 'the end of DDL of a shared table, on the node where it was sent: closes the doors, and lets the lord write it down';

create or replace function shardman.forget_shared(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.remember_layout(relation, shardman.shared_layout(relation));
    -- The lord's command does the same to the metadata a moment later. Until then a new table of that name would be taken for the copy.
    delete from shardman.shared_copies c where c.relation = forget_shared.relation;
    perform shardman.forget_made_now(relation);
    -- Its locks go with that command: this transaction has one of them, on the first node over another connection.
    perform shardman.drop_shared_function(relation);
end
$$;
comment on function shardman.forget_shared(text) is 'within DROP TABLE: what this node has of a shared table besides the table';

create or replace function shardman.on_shared_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone record;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    for gone in
        select distinct c.relation, d.object_type
          from pg_event_trigger_dropped_objects() d
          join shardman.shared_copies c on shardman.is_called(c.relation, shardman.relation_text(d.address_names[1], d.address_names[2]))
          join shardman.local l on l.node_id = c.node and not l.leaving
         -- Of a trigger, a policy, a rule or a constraint the names begin with those of its table.
         -- Those of foreign keys that refer to it come and go with the other table.
         where (d.address_names[3] like 'RI\_ConstraintTrigger\_%') is not true and d.object_type in ('table', 'trigger', 'policy', 'rule', 'table constraint', 'table column', 'default value')
        union all
        select t.relation, d.object_type
          from pg_event_trigger_dropped_objects() d
         cross join shardman.shared_tables t cross join jsonb_array_elements((t.definition -> 'statistics') || (t.definition -> 'indexes')) s
         -- By themselves, or with a function that is in them.
         where d.object_type = case when s ? 'unique' then 'index' else 'statistics object' end and shardman.shared_name(shardman.find_relation(t.relation)) = t.relation
           and (shardman.statistics_schema(s, t.relation), s ->> 'name') = (d.schema_name, d.object_name)
        union all
        select c.relation, d.object_type
          from pg_event_trigger_dropped_objects() d join shardman.shared_copies c on c.relation = shardman.whose_part(d.object_type, d.schema_name, d.object_name)
          join shardman.local l on l.node_id = c.node
         -- Parts of a table before the table.
         order by 2 desc, 1
    loop
        if not (gone.relation = any (coalesce(shardman.ddl_shared(), '{}')) or coalesce(current_setting('shardman.ddl', true), '') = 'spread') then
            perform shardman.refuse_shared_ddl(gone.relation);
        elsif gone.object_type = 'table' then
            perform shardman.forget_shared(gone.relation);
        end if;
    end loop;
end
$$;
comment on function shardman.on_shared_drop() is 'after something was dropped: refuses it where that was a shared table, or a part of one, on this node only';

create or replace function shardman.redefine_shared(relation text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The ranges of sequences are those of the first day, or of that of their type.
    select shardman.define_shared(c.oid)
           || jsonb_build_object('sequences', shardman.sequences_now(t.relation, t.definition -> 'sequences', true))
           || jsonb_strip_nulls(jsonb_build_object('former', t.definition -> 'former', 'lock', t.definition -> 'lock'))
      from shardman.shared_tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
     where t.relation = redefine_shared.relation and shardman.shared_lacks(relation) is null
$$;
comment on function shardman.redefine_shared(text) is 'on a node with a copy of a shared table: its definition as it is now; null where that cannot be said';

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
