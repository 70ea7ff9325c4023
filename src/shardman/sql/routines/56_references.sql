-- Foreign keys of sharded tables, which refer to shared ones, to tables that are colocated with theirs, or to their own.
--
-- Inside a group data table k of one refers to data table k of the other: they are on one node, and go elsewhere together. What refers and
-- what is referred to are of one partition each only because the foreign key has the columns of the key in it.
--
-- PostgreSQL has none on a table with foreign tables below it, so each data table has them, under the names that the plain table
-- gave them: on every node the rows that it refers to are there. Only a data table in its partition has them. What is
-- none (a replica, an old copy, one that was set aside) would have a say when a row of the shared table is deleted, with rows
-- that are not the table's: it would forbid that, or be written to.
--
-- They come in the cut-over, not validated: that needs a lock on the shared table that lets readers and other foreign keys be, and is
-- done at once. Nothing there can break them, for the rows were checked where they come from. A visit validates them later, beside
-- everybody. To take them away needs the shared table for a moment alone.

create or replace function shardman.shared_here(relation text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The metadata hear of a new name after the table has it, or, where they give it, before; and a command may have read them before that.
    select coalesce((select c.oid from (select shardman.find_relation(relation) as oid) c
                      where exists (select from shardman.shared_tables s where s.relation = shared_here.relation) and c.oid is not null),
                    (select coalesce(shardman.find_relation(s.relation), shardman.find_relation(s.definition ->> 'former')) from shardman.shared_tables s
                      where s.relation = shared_here.relation
                         or shared_here.relation in (s.definition ->> 'former', s.definition ->> 'lock') and not exists (select from shardman.shared_tables o where o.relation = shared_here.relation)))
$$;
comment on function shardman.shared_here(text) is
    'the copy of a shared table on this node, by the name that it has in the metadata, is to have there or had, whatever it is called here';

create or replace function shardman.referred_here(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.sql_name(coalesce(shardman.real_name(shardman.shared_here(relation)), relation))
$$;
comment on function shardman.referred_here(text) is 'what a table to which a foreign key of a definition refers is called on this node, for SQL: a shared one may be called otherwise here';

create or replace function shardman.referred_table(item jsonb, part_name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when item ? 'to_columns'
                then shardman.data_table(shardman.suffixed(item ->> 'to', '_' || shardman.part_number(part_name))) else item ->> 'to' end
$$;
comment on function shardman.referred_table(jsonb, text) is
    'the table to which a foreign key of a definition refers on the data table of a partition: a shared one, or the data table of the same number';

create or replace function shardman.reference_sql(item jsonb, part_name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when item ? 'to_columns'
                then format('FOREIGN KEY (%s) REFERENCES %s(%s)%s', shardman.ident_list(item -> 'columns'),
                            shardman.sql_name(shardman.referred_table(item, part_name)), shardman.ident_list(item -> 'to_columns'), item ->> 'actions')
                else replace(item ->> 'sql', ' REFERENCES ' || shardman.sql_name(item ->> 'to') || '(', ' REFERENCES ' || shardman.referred_here(item ->> 'to') || '(') end
$$;
comment on function shardman.reference_sql(jsonb, text) is 'a foreign key of a definition as the data table of a partition has it';

create or replace function shardman.may_refer(relation text, item jsonb) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when item ? 'to_columns' then shardman.colocated(relation, item ->> 'to')
                else exists (select from shardman.shared_tables s where item ->> 'to' in (s.relation, s.definition ->> 'former', s.definition ->> 'lock')) end
$$;
comment on function shardman.may_refer(text, jsonb) is
    'whether a foreign key of a definition may be made: only to shared tables, and inside the table''s group. What makes it is the cluster''s role';

create or replace function shardman.hold_referred(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- At once or not: a writer who waits for other writers holds it until then, and others need it to get there (steps/references.py).
    execute format('lock table only %s in share row exclusive mode nowait', shardman.referred_here(relation));
end
$$;
comment on function shardman.hold_referred(text) is 'keeps writers from the copy of a shared table on this node; raises where somebody writes';

create or replace function shardman.add_reference(part_name text, item jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant oid := shardman.find_relation(shardman.data_table(part_name));
begin
    perform shardman.hold_referred(shardman.referred_table(item, part_name));
    -- Another of that name.
    execute format('alter table %s drop constraint if exists %I', data::regclass, item ->> 'name');
    execute format('alter table %s add constraint %I %s not valid', data::regclass, item ->> 'name', shardman.reference_sql(item, part_name));
    if item ->> 'comment' is not null then
        execute format('comment on constraint %I on %s is %L', item ->> 'name', data::regclass, item ->> 'comment');
    end if;
    perform shardman.keep_rows(array[data]);
end
$$;
comment on function shardman.add_reference(text, jsonb) is 'makes a foreign key of a definition on the data table of a partition, not validated';

create or replace function shardman.add_references(part_name text, definition jsonb default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data constant oid := shardman.find_relation(shardman.data_table(part_name));
    def  constant jsonb := coalesce(definition, shardman.table_definition(part_name));
    item jsonb;
begin
    if definition is not null then
        -- It is a command that makes them: what DDL said before does not count any more.
        delete from shardman.changed_constraints c
         where c.relation = def ->> 'relation' and c.name in (select f ->> 'name' from jsonb_array_elements(def -> 'foreign_keys') f);
    end if;
    for item in
        select f from (select jsonb_array_elements(def -> 'foreign_keys') where definition is not null
                       union all
                       -- With those that DDL has made since.
                       select shardman.known_references(def ->> 'relation') where definition is null) as u (f)
         where shardman.may_refer(def ->> 'relation', f) and not shardman.is_dropped(def ->> 'relation', f ->> 'name')
           and not exists (select from pg_constraint o where o.conrelid = data and o.contype = 'f' and o.conname = f ->> 'name')
    loop
        perform shardman.add_reference(part_name, item);
    end loop;
end
$$;
comment on function shardman.add_references(text, jsonb) is 'makes the foreign keys that a data table lacks; safe to repeat';

create or replace function shardman.drop_references(rel oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    o record;
begin
    for o in select c.conname, c.confrelid from pg_constraint c where c.conrelid = rel and c.contype = 'f' order by c.confrelid loop
        perform shardman.hold_referred(shardman.metadata_name(o.confrelid));
        execute format('alter table %s drop constraint %I', rel::regclass, o.conname);
    end loop;
end
$$;
comment on function shardman.drop_references(oid) is 'drops the foreign keys of a table, which needs the tables that they refer to for a moment alone';

create or replace function shardman.attached_references(part_name text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.add_references(part_name);
    -- What refers to it may have come before it.
    perform shardman.keep_rows(array[shardman.find_relation(shardman.data_table(part_name))]);
exception when lock_not_available or deadlock_detected then
    -- A failover waits for no writer to a shared table, who may wait for the dead node: shardman.reconcile makes them.
    if current_setting('shardman.references_later', true) is distinct from 'on' then
        raise;
    end if;
end
$$;
comment on function shardman.attached_references(text) is
    'for a data table that has just come into its partition: its foreign keys. In a failover those that cannot be had at once come later';

create or replace function shardman.drop_references_to(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    o record;
begin
    for o in select c.conname, c.conrelid::regclass as tab from pg_constraint c
              where c.confrelid = shardman.find_relation(relation) and c.contype = 'f'
                and shardman.is_data_table(shardman.metadata_name(c.conrelid)) loop
        execute format('alter table %s drop constraint %I', o.tab, o.conname);
    end loop;
end
$$;
comment on function shardman.drop_references_to(text) is
    'before the copy of a shared table is made anew: drops the foreign keys of data tables that refer to it. shardman.reconcile makes them again';

create or replace function shardman.references_to(relation text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(distinct t.relation order by t.relation), '{}')
      from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
     where f ->> 'to' = references_to.relation
$$;
comment on function shardman.references_to(text) is 'the sharded tables whose foreign keys refer to a shared one, by the metadata';

create or replace function shardman.kept_references(former jsonb, data oid, parent oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(coalesce(live.item, old.item) order by old.item ->> 'name'), '[]')
      from jsonb_array_elements(former) as old (item)
      left join jsonb_array_elements(shardman.describe_references(data)) as live (item)
        -- An owner may give his data table another key of that name. The other nodes make theirs as the cluster's role: it would have
        -- them refer to a table that is somebody else's there.
        on live.item ->> 'name' = old.item ->> 'name' and live.item ->> 'to' = old.item ->> 'to'
     -- It may be about to be made. Without its columns it has gone with one of them.
     where live.item is not null
        or not exists (select from jsonb_array_elements_text(old.item -> 'columns') as c (name)
                        where not exists (select from pg_attribute a where a.attrelid = parent and a.attname = c.name and not a.attisdropped))
$$;
comment on function shardman.kept_references(jsonb, oid, oid) is 'of the foreign keys of a definition those that the table still has, as they are now';

create or replace function shardman.same_reference(a text, b text) returns bool
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    former constant text := regexp_replace(a, '( DEFERRABLE)?( INITIALLY DEFERRED)?( NOT VALID)?$', '');
    x jsonb;
    y jsonb;
begin
    if former = b then
        return true;
    end if;
    x := shardman.read_reference(former);
    y := shardman.read_reference(b);
    -- Who names no columns means the primary key.
    return x - 'to_columns' = y - 'to_columns' and (x -> 'to_columns' = y -> 'to_columns' or 'null' in (x -> 'to_columns', y -> 'to_columns'));
end
$$;
comment on function shardman.same_reference(text, text) is 'whether two texts of foreign keys say the same, apart from when it is checked';

create or replace function shardman.reference_state() returns table (relation text, data oid, part_name text, item jsonb, problem text)
language sql stable set search_path = pg_catalog, pg_temp set jit = off set quote_all_identifiers = off as $$
    with wanted as materialized (
        select t.relation, f from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
         where shardman.may_refer(t.relation, f) and not shardman.is_put_away(t.relation)
           and not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, f ->> 'name'))
    ), here as materialized (
        select c.oid, w.relation, p.part_name, w.f
          from wanted w join shardman.partitions p on p.relation = w.relation and p.prv is null and p.owner = shardman.my_id()
          join pg_class c on c.oid = shardman.find_relation(shardman.data_table(p.part_name)) and c.relispartition
    )
    select h.relation, h.oid, h.part_name, h.f, format('its data table lacks the foreign key %s', h.f ->> 'name')
      from here h
     where not exists (select from pg_constraint o where o.conrelid = h.oid and o.contype = 'f' and o.conname = h.f ->> 'name'
                          and shardman.same_reference(pg_get_constraintdef(o.oid), shardman.reference_sql(h.f, h.part_name)))
       -- While partitions of a number come here one by one, it waits for the other.
       and (not h.f ? 'to_columns'
            or exists (select from pg_class r where r.oid = shardman.find_relation(shardman.referred_table(h.f, h.part_name)) and r.relispartition))
    union all
    select null, o.conrelid, shardman.metadata_name(o.conrelid), null, format('it is out of use and still has the foreign key %s', o.conname)
      from pg_constraint o join pg_class c on c.oid = o.conrelid and not c.relispartition
     where o.contype = 'f'
       and exists (select from pg_constraint k where k.conrelid = o.conrelid and k.conname = 'shardman_partition' and k.contype = 'c')
    union all
    select p.relation, l.data, p.part_name, null, 'its rows may go to another partition, and take along what refers to them'
      from shardman.lets_leave() l join shardman.partitions p on p.part_name = regexp_replace(shardman.metadata_name(l.data), '_data("?)$', '\1') and p.owner = shardman.my_id()
$$;
comment on function shardman.reference_state() is
    'this node: the foreign keys that a data table in use lacks (item: of the definition), those that one out of use still has (relation is null), and what '
    'is referred to and lets its rows leave (neither)';

create or replace function shardman.mend_references(relation_ text) returns text[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    state   record;
    failed  text[] := '{}';
    problem text;
begin
    for state in select s.* from shardman.reference_state() s where relation_ is null or s.relation = relation_ loop
        begin
            if state.relation is null then
                perform shardman.drop_references(state.data);
            elsif state.item is null then
                perform shardman.keep_rows(array[state.data]);
            else
                perform shardman.add_reference(state.part_name, state.item);
            end if;
        exception
            when lock_not_available or deadlock_detected then
                null;  -- The next visit tries again.
            when others then
                get stacked diagnostics problem = message_text;
                perform shardman.note_problem(state.part_name, problem);
                failed := failed || state.part_name;
        end;
    end loop;
    return failed;
end
$$;
comment on function shardman.mend_references(text) is 'makes and drops foreign keys of data tables; returns what failed, which is recorded';

create or replace function shardman.validate_a_reference() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    next_   record;
    problem text;
begin
    -- Validated by hand, or to be tried again.
    delete from shardman.problems p
     where p.subject like 'foreign keys of %'
       and (p.since < clock_timestamp() - interval '5 minutes'
            or not exists (select from pg_constraint o where o.conrelid = shardman.find_relation(substr(p.subject, length('foreign keys of ') + 1))
                              and o.contype = 'f' and not o.convalidated));
    select o.conname, o.conrelid::regclass as tab, shardman.metadata_name(o.conrelid) as name into next_
      from pg_constraint o join pg_class c on c.oid = o.conrelid and c.relispartition
     -- It is read as the cluster's role.
     where o.contype = 'f' and not o.convalidated and shardman.compares_plainly(o.oid)
       and exists (select from pg_constraint k where k.conrelid = o.conrelid and k.conname = 'shardman_partition' and k.contype = 'c')
       and not exists (select from shardman.problems p where p.subject = 'foreign keys of ' || shardman.metadata_name(o.conrelid))
     limit 1;
    if not found then
        return false;
    end if;
    execute format('alter table %s validate constraint %I', next_.tab, next_.conname);
    return true;
exception
    -- In line behind DDL that has given it another name, or dropped it: what is left is looked for again.
    when lock_not_available or deadlock_detected or undefined_object or undefined_table then
        return true;
    when others then
        get stacked diagnostics problem = message_text;
        perform shardman.note_problem('foreign keys of ' || next_.name, problem);
        return true;
end
$$;
comment on function shardman.validate_a_reference() is
    'validates a foreign key of one data table: reads it once, beside readers and writers. What breaks it is recorded. Whether there was one';
