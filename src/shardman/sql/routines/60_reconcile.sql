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
