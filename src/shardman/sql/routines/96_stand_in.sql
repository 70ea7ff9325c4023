-- Keys, foreign keys, unique indexes, triggers and columns of a sharded table that come and go by plain DDL: the table that stands in its place.
--
-- PostgreSQL makes no key, no unique index and no foreign key above foreign tables. So behind the gate (95_gate.sql) each node puts the table aside, into a
-- schema of its own, and an empty table without partitions under its name: the stand-in. It has its columns, checks and keys, and its
-- owner. The statement is done to that, by PostgreSQL, with the caller's rights. What became of the stand-in is then read from the
-- catalogs; the table comes back, and gets the same as PostgreSQL lets it: columns with all partitions, keys by ALTER TABLE
-- ONLY and on each copy, foreign keys on the data tables. It is the caller who makes what is made: his default, his right to refer.
--
-- In the order in which it goes: which statements need it, and what the gate holds for them (96_stand_in_gate.sql); the table put aside and put back
-- (here); what the statement has done to the stand-in (96_stand_in_changes.sql); the same done to the table (96_stand_in_end.sql), new columns
-- among it (96_stand_in_columns.sql). Until the metadata know, it is written down (96_changed_constraints.sql).

create or replace function shardman.behind() returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select ('shardman_behind_' || pg_backend_pid())::name
$$;
comment on function shardman.behind() is 'the schema into which this session puts a table while a stand-in is in its place';

create or replace function shardman.table_behind(relation text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = shardman.behind() and c.relname = (shardman.relation_parts(table_behind.relation))[2] and c.relkind = 'p'
$$;
comment on function shardman.table_behind(text) is 'the sharded table that a stand-in stands for in this session; null where none does';

create or replace function shardman.plain_keys(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', o.conname, 'sql', pg_get_constraintdef(o.oid)) order by o.contype, o.conname), '[]')
      from pg_constraint o where o.conrelid = rel and o.contype in ('p', 'u')
$$;
comment on function shardman.plain_keys(oid) is 'name and text of a table''s primary key and unique constraints';

create or replace function shardman.plain_uniques(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', c.relname, 'unique', true, 'sql', shardman.index_definition(c.oid), 'identity', false, 'clustered', false,
                                                 'comment', obj_description(c.oid, 'pg_class')) order by c.relname), '[]')
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = rel and i.indisunique and not exists (select from pg_constraint o where o.conindid = c.oid)
$$;
comment on function shardman.plain_uniques(oid) is 'a table''s unique indexes that belong to no constraint, as a definition has them';

create or replace function shardman.index_mark(index oid) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('(%L::text)', index)
$$;
comment on function shardman.index_mark(oid) is 'the expression of the index that stands for one of the table''s on a stand-in, as PostgreSQL writes it: by it one is known that got another name';

create or replace function shardman.stand_in_indexes(stand oid, behind oid) returns table (former name, called name, mark text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    with indexes as (
        select i.indrelid, c.relname, c.oid, pg_get_indexdef(c.oid, 1, false) as mark
          from pg_index i join pg_class c on c.oid = i.indexrelid
         where i.indrelid in (stand, behind) and not exists (select from pg_constraint o where o.conindid = c.oid)
    )
    select b.relname, s.relname, shardman.index_mark(b.oid)
      from (select * from indexes where indrelid = behind) as b
      full join (select * from indexes where indrelid = stand) as s on s.mark = shardman.index_mark(b.oid)
$$;
comment on function shardman.stand_in_indexes(oid, oid) is
    'what a table''s indexes, but for those of keys, are called on its stand-in, and what marks them there; former is null: the statement has made it, called is '
    'null: it has dropped it';

create or replace function shardman.reference_mark(name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select format('CHECK ((%L::text IS NOT NULL)) NOT VALID', name)
$$;
comment on function shardman.reference_mark(text) is 'the check that stands for a foreign key on a stand-in, as PostgreSQL writes it: by it one is known that got another name, or was validated';

create or replace function shardman.is_mark(check_ oid, name text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select pg_get_constraintdef(check_) in (shardman.reference_mark(name), regexp_replace(shardman.reference_mark(name), ' NOT VALID$', ''))
$$;
comment on function shardman.is_mark(oid, text) is 'whether a check stands for the foreign key that had this name before the statement';

create or replace function shardman.put_aside(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('create schema if not exists %I', shardman.behind());
    execute format('alter table %s set schema %I', shardman.sql_name(relation), shardman.behind());
end
$$;
comment on function shardman.put_aside(text) is 'puts a sharded table into a schema of this session';

create or replace function shardman.set_aside(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    name constant text := shardman.sql_name(relation);
begin
    perform shardman.put_aside(relation);
    execute format('create table %s (like %s including defaults including constraints including generated) partition by %s', name, rel::regclass, pg_get_partkeydef(rel));
    perform shardman.drop_late_checks(shardman.find_relation(relation), rel);
    perform shardman.lay_late_checks(shardman.find_relation(relation), jsonb_build_object('checks', shardman.describe_checks(rel)));
end
$$;
comment on function shardman.set_aside(text) is 'shardman.put_aside, and puts an empty table like it in its place';

create or replace function shardman.put_back(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stand  constant oid := shardman.find_relation(relation);
    behind constant oid := shardman.table_behind(relation);
begin
    -- Out of the way first: whoever drops what is called as a sharded table is refused.
    execute format('create schema %I', shardman.behind() || '_away');
    execute format('alter table %s rename to %I', stand::regclass, shardman.behind());
    execute format('alter table %s set schema %I', stand::regclass, shardman.behind() || '_away');
    execute format('alter table %s set schema %I', behind::regclass, (shardman.relation_parts(relation))[1]);
    execute format('drop table %s', stand::regclass);
    perform shardman.drop_stubs();
    execute format('drop schema %I', shardman.behind() || '_away');
    if not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = shardman.behind()) then
        execute format('drop schema %I', shardman.behind());
    end if;
end
$$;
comment on function shardman.put_back(text) is 'ends shardman.put_aside, and drops what is in its place';

create or replace function shardman.need_unchanged(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    now_  constant bigint := pg_current_xact_id()::text::bigint;
    -- Who has changed the table, or given up doing so, behind the snapshot in which we look. Nobody is just doing it: it is locked.
    other constant bigint := (select c.xmax::text::bigint from pg_class c where c.oid = shardman.find_relation(relation) and c.xmax <> '0'::xid);
begin
    -- The nearest transaction whose number ends so.
    if pg_xact_status((now_ + ((other - now_ % 4294967296 + 6442450944) % 4294967296 - 2147483648))::text::xid8) = 'committed' then
        raise exception '% has been changed since this transaction began on node %', relation, shardman.my_id()
            using errcode = 'object_not_in_prerequisite_state', hint = 'Repeat the transaction.';
    end if;
end
$$;
comment on function shardman.need_unchanged(text) is
    'where a change comes from another node: raises where another one has come between this transaction''s first statement here and its lock. In REPEATABLE READ the catalogs '
    'have the table as it was before that, and what is made of it beside';

create or replace function shardman.make_stand_in(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    rel   constant oid := shardman.find_relation(relation);
    name  constant text := shardman.sql_name(relation);
    owner constant name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = rel order by age(c.xmin) limit 1);
    item  jsonb;
begin
    perform shardman.need_owner(relation), shardman.need_unchanged(relation);
    if shardman.called_here(relation) <> relation then
        raise exception 'keys, unique indexes, foreign keys and defaults of a table that has just got another name cannot be changed yet'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Change them before it is renamed, or in another transaction a moment later.';
    elsif exists (select from jsonb_array_elements(shardman.known_row_triggers(relation) -> 'items') i where to_regprocedure(shardman.trigger_function(i)) is null) then
        raise exception 'a trigger''s function of % has just got another name', relation
            using errcode = 'object_not_in_prerequisite_state', hint = 'Rename it afterwards, or change the table in another transaction a moment later.';
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    -- What comes back is compared with what the stand-in got.
    perform shardman.mend_keys(t.definition, rel) from shardman.tables t where t.relation = make_stand_in.relation;
    perform shardman.set_aside(relation);
    for item in select * from jsonb_array_elements(shardman.plain_keys(rel)) loop
        execute format('alter table %s add constraint %I %s', name, item ->> 'name', item ->> 'sql');
    end loop;
    for item in select to_jsonb(i) from shardman.stand_in_indexes(shardman.find_relation(relation), rel) i loop
        execute format('create index %I on %s (%s)', item ->> 'former', name, item ->> 'mark');
    end loop;
    for item in select * from shardman.known_references(relation) loop
        execute format('alter table %s add constraint %I %s', name, item ->> 'name', shardman.reference_mark(item ->> 'name'));
    end loop;
    perform shardman.lay_row_triggers(shardman.find_relation(relation), (select jsonb_agg(t - 'type') from jsonb_array_elements(shardman.known_row_triggers(relation) -> 'items') t));
    execute format('alter table %s owner to %I', name, owner);
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.make_stand_in(text) is
    'within the gate, for the owner of a sharded table: puts it aside and an empty table in its place, on which the statement is done. A check stands for each foreign key, an index of '
    'nothing for each index';

create or replace function shardman.make_identities(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    stand  constant oid := shardman.find_relation(relation);
    behind constant oid := shardman.table_behind(relation);
    col    name;
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    for col in select o.column_name from shardman.owned_sequences(behind) o join pg_attribute a on a.attrelid = stand and a.attname = o.column_name and a.atthasdef and a.attnotnull loop
        execute format('alter table %s alter column %I drop default, alter column %2$I add generated by default as identity', stand::regclass, col);
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.make_identities(text) is
    'behind the gate, for the owner of a sharded table: the columns of its stand-in that have numbers are identity columns, as the statement takes them for';
