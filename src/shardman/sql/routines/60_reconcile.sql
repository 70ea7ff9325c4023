-- A node follows its metadata. shardman.partition_state and shardman.table_state (views/drift.sql) say what differs
-- and what to do about it; here it is done, one object at a time, each in a subtransaction of its own.
--
-- What this never does: move rows, drop a table that has rows, or exchange a data table for a route or the other way
-- round. That is the cut-over's business alone, because only the cut-over knows which copy has every row.

create or replace function shardman.older_transactions(moment timestamptz) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select string_agg(format('pid %s (%s, %s)', a.pid, pg_get_userbyid(a.usesysid), coalesce(nullif(a.application_name, ''), 'no application name')),
                      ', ' order by a.xact_start)
      from pg_stat_get_activity(null) a
     where a.backend_type = 'client backend'
       and a.datid = (select oid from pg_database where datname = current_database())
       and a.pid <> pg_backend_pid()
       and a.application_name not like 'shardman%'
       and a.xact_start < moment
$$;
comment on function shardman.older_transactions(timestamptz) is 'client transactions that began before, for a person to read';

create or replace function shardman.oldest_transaction() returns timestamptz
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select min(a.xact_start)
      from pg_stat_get_activity(null) a
     where a.backend_type = 'client backend'
       and a.datid = (select oid from pg_database where datname = current_database())
       and a.pid <> pg_backend_pid()
       and a.application_name not like 'shardman%'
$$;
comment on function shardman.oldest_transaction() is
    'when the oldest transaction of a client began. It may hold a snapshot on the new owner of a partition that is older than '
    'the partition there: over the old route it is forwarded and sees every row, over the new one it would miss some';

create or replace function shardman.take_reconcile_lock() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    lock table shardman.reconciling in share update exclusive mode;
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function shardman.take_reconcile_lock() is 'one reconciliation at a time; false when another one did not end within lock_timeout';

create or replace function shardman.is_member() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select l.node_id is not null and not l.leaving from shardman.local l), false)
$$;
comment on function shardman.is_member() is 'whether this database is to be what the metadata say; not when it is being taken out of the cluster';

create or replace function shardman.make_attached_route(part_name text, server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from shardman.late_checks(shardman.find_relation(part_name))) then
        -- PARTITION OF would make valid ones of its checks, and the planner leave out rows that break them.
        perform shardman.make_route(part_name, server);
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name), shardman.sql_name(shardman.route_table(part_name)));
        return;
    end if;
    perform shardman.need_our_server(server);
    execute format('create foreign table %s partition of %s default server %I %s',
                   shardman.sql_name(shardman.route_table(part_name)), shardman.sql_name(part_name), server,
                   shardman.route_options(part_name));
    if (select pg_get_userbyid(relowner) <> current_user from pg_class where oid = shardman.find_relation(part_name)) then
        execute format('alter foreign table %s owner to %I', shardman.sql_name(shardman.route_table(part_name)),
                       (select pg_get_userbyid(relowner) from pg_class where oid = shardman.find_relation(part_name)));
    end if;
    perform shardman.leave_to_owner(shardman.find_relation(shardman.route_table(part_name)));
end
$$;
comment on function shardman.make_attached_route(text, text) is 'a route, made in its partition at once';

create or replace function shardman.drop_route(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.route_taken(part_name) is not null then
        raise exception 'this node has %, which is no route', shardman.route_taken(part_name)
            using errcode = 'duplicate_table', hint = 'Rename it or drop it, if it is not needed.';
    end if;
    execute format('drop foreign table if exists %s', shardman.sql_name(shardman.route_table(part_name)));
end
$$;

create or replace function shardman.leads_nowhere(part text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver
                    where f.ftrelid = shardman.attached_to(part) and s.srvname = 'shardman_missing')
$$;
comment on function shardman.leads_nowhere(text) is 'whether a partition has what stands for rows that are not there';

create or replace function shardman.fill_partition(part text, owner int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if owner <> shardman.my_id() then
        perform shardman.drop_route(part);
        perform shardman.make_attached_route(part, shardman.node_server(owner));
    elsif shardman.find_relation(shardman.data_table(part)) is not null then
        if shardman.leads_nowhere(part) then
            perform shardman.drop_route(part);
        end if;
        perform shardman.attach_data(part);
    else
        perform shardman.fill_missing(part);
    end if;
end
$$;
comment on function shardman.fill_partition(text, int) is
    'puts into an empty partition, or into one with a route, what belongs there while owner has the primary; where its rows are not there, '
    'what raises an error';

create or replace function shardman.mend_partition(part text, action_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ int;
begin
    execute format('lock table only %s in access exclusive mode', shardman.sql_name(part));
    -- Under the lock, look again: it may have been another's work meanwhile.
    select s.owner into owner_ from shardman.partition_state s where s.part_name = part and s.action = action_;
    if found then
        perform shardman.fill_partition(part, owner_);
    end if;
end
$$;
comment on function shardman.mend_partition(text, text) is 'does for one partition that is there what shardman.partition_state says';

create or replace function shardman.mend_rank(parts text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    part text;
begin
    foreach part in array parts loop
        execute format('lock table only %s in access exclusive mode', shardman.sql_name(part));
    end loop;
    foreach part in array parts loop
        perform shardman.mend_partition(part, 'exchange route');
    end loop;
end
$$;
comment on function shardman.mend_rank(text[]) is
    'exchanges the routes of partitions that go together, all or none: over the old route of one and the new one of another a transaction would be '
    'two on their node, and the row that it refers to not there yet';

create or replace function shardman.make_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    t      shardman.tables;
    state  record;
    failed text[] := '{}';
begin
    select * into t from shardman.tables where relation = relation_;
    for state in
        select s.part_name, s.k, s.owner from shardman.partition_state s
         where s.relation = relation_ and (parts is null or s.part_name = any (parts)) and s.action = 'make partition'
         order by s.k
    loop
        begin
            perform shardman.make_partition(t.definition, t.relation, state.part_name, t.partitions_count, state.k);
            perform shardman.fill_partition(state.part_name, state.owner);
        exception
            when lock_not_available or deadlock_detected then
                null;
            when others then
                perform shardman.note_problem(state.part_name, sqlerrm);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.make_partitions(text, text[]) is
    'makes the partitions that a table here has lost, with what belongs into them; returns those that failed';

create or replace function shardman.mend_existing_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    begun  constant timestamptz := clock_timestamp();
    oldest constant timestamptz := shardman.oldest_transaction();
    state  record;
    failed text[] := '{}';
    held   timestamptz;
begin
    for state in
        select s.part_name, s.action, case when s.action = 'exchange route' then shardman.rank_of(s.part_name) end as rank
          from shardman.partition_state s
         where (relation_ is null or s.relation = relation_) and (parts is null or s.part_name = any (parts))
           and s.action <> 'make partition' and (s.action <> 'exchange route' or coalesce(oldest >= s.changed_at, true))
         -- where some cannot be had, the others come next.
         order by random()
    loop
        -- What we lock stays locked until the transaction ends: who waits behind the first lock must not wait for all
        -- the others too. And nobody waits for us for long while we wait for others.
        exit when clock_timestamp() > held + interval '150 milliseconds' or clock_timestamp() > begun + interval '1 second';
        begin
            if cardinality(state.rank) > 1 then
                perform shardman.mend_rank(state.rank);
            else
                perform shardman.mend_partition(state.part_name, state.action);
            end if;
            if held is null then
                held := clock_timestamp();
                perform set_config('lock_timeout', '50ms', true);
            end if;
        exception
            when lock_not_available or deadlock_detected then
                -- Somebody uses it: no problem, only a difference that is left for the next time.
                null;
            when others then
                perform shardman.note_problem(state.part_name, sqlerrm);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_existing_partitions(text, text[]) is
    'puts data tables and routes into partitions, and exchanges routes that lead elsewhere; returns the partitions that failed';

create or replace function shardman.mend_partitions(relation_ text, parts text[]) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    failed text[] := '{}';
    table_ text;
begin
    for table_ in
        select s.relation from shardman.partition_state s
         where (relation_ is null or s.relation = relation_) and (parts is null or s.part_name = any (parts))
           and s.action = 'make partition' group by s.relation order by s.relation
    loop
        failed := failed || shardman.make_partitions(table_, parts);
    end loop;
    return failed || shardman.mend_existing_partitions(relation_, parts);
end
$$;
comment on function shardman.mend_partitions(text, text[]) is
    'mends what differs of the partitions of a table (null: of all) or of those named; returns those that failed, whose '
    'failures are recorded';

create or replace function shardman.make_table(t shardman.tables) returns void
language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    p record;
begin
    perform shardman.make_parent(t.definition, t.relation);
    for p in
        select x.part_name, x.owner, shardman.part_number(x.part_name) as k
          from shardman.partitions x where x.relation = t.relation and x.prv is null order by k
    loop
        perform shardman.make_partition(t.definition, t.relation, p.part_name, t.partitions_count, p.k);
        perform shardman.fill_partition(p.part_name, p.owner);
    end loop;
    perform shardman.mend_keys(t.definition, shardman.find_relation(t.relation));
    perform shardman.lay_late_checks(shardman.find_relation(t.relation), t.definition);
    perform shardman.mend_statistics(t.relation);
end
$$;
comment on function shardman.make_table(shardman.tables) is
    'parent, partitions and routes of a table that this node has not: all or, when anything fails, nothing. A table without some of '
    'its partitions would give answers that lack rows, without a word';

create or replace function shardman.mend_sequences(t shardman.tables) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec jsonb;
    col  jsonb;
    name text;
begin
    for spec in select x from jsonb_array_elements(t.definition -> 'sequences') x loop
        name := shardman.owned_here(t.relation, spec ->> 'name');
        if shardman.find_relation(name) is null then
            perform shardman.make_sequence(spec, spec ->> 'name');
            execute format('alter sequence %s owned by %s.%I', shardman.sql_name(spec ->> 'name'), shardman.sql_name(t.relation), spec ->> 'column');
            for col in
                select c from jsonb_array_elements(t.definition -> 'columns') c
                 where strpos(c ->> 'default', shardman.next_value(spec ->> 'name')) > 0
            loop
                execute format('alter table %s alter column %I set default %s', shardman.sql_name(t.relation), col ->> 'name', col ->> 'default');
            end loop;
        elsif not shardman.is_retyped(spec, shardman.find_relation(name)) then
            perform shardman.make_sequence(spec, name);
        end if;
    end loop;
end
$$;
comment on function shardman.mend_sequences(shardman.tables) is 'sequences of a table that this node has: there, with this node''s range';

create or replace function shardman.mend_table(relation_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    t shardman.tables;
begin
    select * into t from shardman.tables where relation = relation_;
    if shardman.called_here(relation_) <> relation_ then
        -- The metadata, and what they say of its sequences, follow.
        return;
    elsif shardman.is_parent_of(t.definition, shardman.find_relation(relation_)) then
        perform shardman.mend_sequences(t);
        perform shardman.mend_keys(t.definition, shardman.find_relation(relation_));
        perform shardman.mend_statistics(relation_);
    elsif t.partitions_count = (select count(*) from shardman.partitions p where p.relation = relation_ and p.prv is null)
          and shardman.renamed_to(relation_) is null and not shardman.is_renamed(relation_) then
        perform shardman.make_table(t);
    end if;
    -- Else the rest of its metadata is on the way, or it is there under another name.
end
$$;
comment on function shardman.mend_table(text) is 'makes a table and its sequences what the metadata says';

create or replace function shardman.mend_tables(relation_ text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    state   record;
    failed  text[] := '{}';
    failure text;
begin
    for state in
        select * from shardman.table_state s
         where (relation_ is null or s.relation = relation_) and s.problem is not null order by s.relation
    loop
        begin
            perform shardman.mend_table(state.relation);
        exception when others then
            get stacked diagnostics failure = message_text;
            perform shardman.note_problem(state.relation, failure);
            failed := failed || state.relation;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_tables(text) is
    'mends what differs of parents and sequences; returns the tables that failed, whose failures are recorded';

create or replace function shardman.mend_privileges(relation_ text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    t shardman.tables;
begin
    for t in
        select x.* from shardman.tables x join shardman.problems p on p.subject = 'privileges of ' || x.relation
         -- Former versions failed of what they had made before.
         where (relation_ is null or x.relation = relation_) and p.message ~ 'role|already exists'
           and not exists (
               select from (select x.definition ->> 'owner' union select a ->> 'grantee' from jsonb_array_elements(x.definition -> 'acl') a
                     union select q #>> '{}' from jsonb_array_elements(x.definition -> 'row_security' -> 'policies') p, jsonb_array_elements(p -> 'roles') q) as r (name)
                where r.name is not null and not exists (select from pg_roles where rolname = r.name))
    loop
        -- The role that was missing is there now. What the table consists of follows.
        perform shardman.apply_extras(t.definition, t.relation);
    end loop;
end
$$;
comment on function shardman.mend_privileges(text) is 'gives privileges again that could not be given because a role was missing';

create or replace function shardman.drop_former_table(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    part   oid;
    kept   text;
begin
    select string_agg(shardman.metadata_name(l.leaf), ', ' order by l.leaf) into kept
      from shardman.leaves(parent) l where l.kind <> 'route' and l.leaf is not null;
    if kept is not null then
        raise exception '% is not sharded any more, and these tables of it are still here: %', relation, kept
            using hint = 'Drop them when nobody needs their rows.';
    end if;
    if exists (select from pg_class where oid = parent and relkind = 'p') and exists (select from shardman.leaves(parent)) then
        for part in select l.part from shardman.leaves(parent) l loop
            execute format('drop table %s', part::regclass);
        end loop;
        execute format('drop table %s', parent::regclass);
    end if;
end
$$;
comment on function shardman.drop_former_table(text) is
    'drops parent, partitions and routes of a table that was sharded; raises where a data table is among them';

create or replace function shardman.drop_former_tables() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    former  text;
    failure text;
begin
    for former in select substr(p.subject, length('former table ') + 1) from shardman.problems p where p.subject like 'former table %' loop
        begin
            if not exists (select from shardman.tables t where t.relation = former) then
                perform shardman.drop_former_table(former);
            end if;
            delete from shardman.problems where subject = 'former table ' || former;
        exception when others then
            get stacked diagnostics failure = message_text;
            perform shardman.note_problem('former table ' || former, failure);
        end;
    end loop;
end
$$;
comment on function shardman.drop_former_tables() is
    'drops what is left of tables that left the metadata; shardman.forget_table wrote down which';

create or replace function shardman.drop_spare_servers() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spare record;
begin
    for spare in
        select s.oid, s.srvname
          from pg_foreign_server s
          join shardman.cmd_log l on l.id = (regexp_match(s.srvname, '^shardman_node_[0-9]+_c([0-9]+)$'))[1]::bigint
         -- A running command has yet to make its route.
         where l.ended_at is not null
           and not exists (select from pg_foreign_table f where f.ftserver = s.oid)
    loop
        begin
            perform shardman.try_sql(format('drop user mapping if exists for %s server %I',
                        case when u.umuser = 0 then 'public' else quote_ident(u.usename) end, spare.srvname))
               from pg_user_mappings u where u.srvid = spare.oid;
            perform shardman.drop_server(spare.srvname);
        exception when others then
            perform shardman.note_problem('server ' || spare.srvname, sqlerrm);
        end;
    end loop;
end
$$;
comment on function shardman.drop_spare_servers() is 'drops the foreign servers of moves whose routes have been exchanged';

create or replace function shardman.clear_problems(relation_ text, failed text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.problems p
     where p.subject <> all (failed)
       and case when relation_ is null
                then p.subject not like 'former table %' and p.subject not like 'schema %' and p.subject not like 'foreign keys of %' and p.subject <> 'checks of version 0.1'
                     and not exists (select from shardman.tables t where p.subject = 'privileges of ' || t.relation)
                else p.subject in (relation_, 'rights on ' || relation_)
                     or exists (select from shardman.partitions x where x.part_name = p.subject and x.relation = relation_) end
$$;
comment on function shardman.clear_problems(text, text[]) is 'takes the recorded problems away that no longer are any';

create or replace function shardman.differences(relation_ text) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- In PL/pgSQL, for to plan these views takes longer than to look at a few partitions, and this keeps the plan.
    return (select count(*) from shardman.table_state s where s.problem is not null and (relation_ is null or s.relation = relation_))
         + (select count(*) from shardman.partition_state s where s.problem is not null and (relation_ is null or s.relation = relation_))
         + (select count(*) from shardman.reference_state() s where relation_ is null or s.relation = relation_)
         + (select count(*) from shardman.row_trigger_state() s where relation_ is null or s.relation = relation_)
         + (select count(*) from shardman.shared_state s where s.problem is not null and (relation_ is null or s.relation = relation_));
end
$$;
comment on function shardman.differences(text) is 'how many objects of this node differ from the metadata, of one table or of all';

create or replace function shardman.mend_servers() returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    failures text[];
begin
    if shardman.is_copy() then
        return '{}';
    end if;
    failures := shardman.mend_nodes();
    perform shardman.drop_spare_servers();
    if failures = '{}' then
        return '{}';
    end if;
    perform shardman.note_problem('servers', array_to_string(failures, '; '));
    return array['servers'];
exception when others then
    perform shardman.note_problem('servers', sqlerrm);
    return array['servers'];
end
$$;
comment on function shardman.mend_servers() is 'foreign servers and user mappings; what fails is recorded and named in the answer';

create or replace function shardman.say_layout_changed() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select pg_notify('shardman_layout', '')
$$;
comment on function shardman.say_layout_changed() is
    'tells clients of this node that its partitions may be somewhere else (client/listening.py). Not in what is prepared: PostgreSQL refuses that';

create or replace function shardman.reconcile(relation text default null) returns int
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '300ms' set jit = off as $$
declare
    failed text[] := '{}';
    left_  int;
    before int;
begin
    -- The lock first: who waits for it holds no lock on our tables, and the node may leave its cluster meanwhile.
    if not shardman.take_reconcile_lock() then
        return greatest(1, shardman.differences(relation));
    elsif not shardman.is_member() or shardman.is_copy() then
        return 0;
    end if;
    if relation is null then
        failed := shardman.mend_servers() || shardman.mend_shared();
        perform shardman.drop_former_tables();
        perform shardman.renew_checks();
        perform shardman.mend_fetches();
    end if;
    perform shardman.forget_constraints(), shardman.forget_names();
    left_ := shardman.differences(relation);
    if left_ > 0 then
        failed := failed || shardman.mend_tables(relation) || shardman.mend_partitions(relation, null) || shardman.mend_row_triggers(relation)
                         || shardman.mend_references(relation);
        before := left_;
        left_ := shardman.differences(relation);
        if left_ < before then
            perform shardman.say_layout_changed();
        end if;
    end if;
    -- Of tables that were only just made, too: who owns one may change it at once.
    perform shardman.forget_users(), shardman.let_clients_in(), shardman.let_owners_in(), shardman.mend_privileges(relation);
    failed := failed || shardman.mend_rights(relation);
    perform shardman.clear_problems(relation, failed);
    return left_ + case when relation is null and 'servers' = any (failed) then 1 else 0 end;
end
$$;
comment on function shardman.reconcile(text) is
    'makes this node match its metadata: servers, parents, sequences, partitions, routes (of one table, or of all). Returns how many '
    'differences are left; shardman.drift lists them. Waits for no lock longer than 0.3 s, raises nothing that one object caused, '
    'does nothing where nothing is to be done';

create or replace function shardman.changes_counted() returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when current_setting('track_counts')::bool then
           (select sum(pg_stat_get_tuples_inserted(r.oid) + pg_stat_get_tuples_updated(r.oid) + pg_stat_get_tuples_deleted(r.oid))::bigint
              from (select to_regclass(x)::oid as oid from unnest(array[
                        'pg_attribute', 'pg_auth_members', 'pg_authid', 'pg_class', 'pg_constraint', 'pg_database', 'pg_depend',
                        'pg_extension', 'pg_foreign_server', 'pg_foreign_table', 'pg_inherits', 'pg_namespace', 'pg_policy',
                        'pg_proc', 'pg_sequence', 'pg_trigger', 'pg_user_mapping', 'pg_db_role_setting', 'pg_shdescription', 'shardman.road_secret',
                        'shardman.changed_constraints', 'shardman.clients_let_in', 'shardman.cmd_log', 'shardman.expected_users', 'shardman.local', 'shardman.mapping_proofs', 'shardman.node_secrets', 'shardman.nodes', 'shardman.partitions',
                        'shardman.problems', 'shardman.renamed_tables', 'shardman.settings', 'shardman.shared_copies', 'shardman.shared_locks', 'shardman.shared_tables',
                        'shardman.tables']) as x) as r
             where r.oid is not null) end
$$;
comment on function shardman.changes_counted() is
    'rows that were ever written to what shardman.reconcile reads, as this server counts them: the same number twice, and nothing has '
    'changed in between, but for what sessions have not reported yet, some seconds; null when nothing is counted (track_counts)';

create or replace function shardman.reconcile_parts(parts text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '300ms' set jit = off as $$
declare
    failed text[];
begin
    if not shardman.take_reconcile_lock() or not shardman.is_member() or shardman.is_copy() then
        return;
    end if;
    perform shardman.mend_tables(t.relation)
       from (select distinct p.relation from shardman.partitions p where p.part_name = any (parts)) as t;
    failed := shardman.mend_partitions(null, parts);
    perform shardman.say_layout_changed();
    delete from shardman.problems p where p.subject = any (parts) and p.subject <> all (failed);
end
$$;
comment on function shardman.reconcile_parts(text[]) is 'as shardman.reconcile, for a few partitions';
