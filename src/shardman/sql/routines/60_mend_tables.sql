-- Tables of the cluster are made to be as the metadata say (60_reconcile.sql): the parent, its sequences and rights, and what is
-- left of a table that is not one of the cluster any more.

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
