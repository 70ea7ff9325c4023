-- Keys, foreign keys and columns of a sharded table that come and go by plain ALTER TABLE, and unique indexes.
--
-- PostgreSQL makes no key, no unique index and no foreign key above foreign tables. So behind the gate (95_gate.sql) each node puts the table aside, into a
-- schema of its own, and an empty table without partitions under its name: the stand-in. It has its columns, checks and keys, and its
-- owner. The statement is done to that, by PostgreSQL, with the caller's rights. What became of the stand-in is then read from the
-- catalogs; the table comes back, and gets the same as PostgreSQL lets it: columns with all partitions, keys by ALTER TABLE
-- ONLY and on each copy, foreign keys on the data tables. It is the caller who makes what is made: his default, his right to refer.
--
-- A default is computed once where the statement was sent, and travels as a value; one that gives each row another is set first,
-- and then the rows of the primaries are written, which replicas get as they get any write. Numbers of a new sequence come so, from each node's own range.
--
-- Until the metadata know, what was changed is written down (shardman.changed_constraints): nothing makes again what was dropped.

create or replace function shardman.plain_words(query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''|"([^"]|"")*"', 'x', 'g')
$$;
comment on function shardman.plain_words(text) is 'a statement without the strings and quoted names in it';

create or replace function shardman.known_references(relation text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select f from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
     where t.relation = known_references.relation
       and not exists (select from shardman.changed_constraints c where c.relation = known_references.relation and c.name = f ->> 'name')
    union all
    select c.item from shardman.changed_constraints c
     where c.relation = known_references.relation and c.kind = 'foreign_keys' and c.item is not null
$$;
comment on function shardman.known_references(text) is 'the foreign keys of a sharded table, by the metadata and what DDL has changed since';

create or replace function shardman.known_items(relation text, kind text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select k from shardman.tables t cross join jsonb_array_elements(t.definition -> known_items.kind) k
     where t.relation = known_items.relation
       and not exists (select from shardman.changed_constraints c where c.relation = known_items.relation and c.name = k ->> 'name')
    union all
    select c.item from shardman.changed_constraints c where c.relation = known_items.relation and c.kind = known_items.kind and c.item is not null
$$;
comment on function shardman.known_items(text, text) is 'the keys or indexes (kind: as in a definition) of a sharded table, by the metadata and what DDL has changed since';

create or replace function shardman.renamed_names(query text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
    select array[parse_ident(m[1]), parse_ident(m[2])]
      from regexp_match(shardman.one_statement(query), replace('\mrename\s+constraint\s+(WORD)\s+to\s+(WORD)$', 'WORD', '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'), 'i') as m
$$;
comment on function shardman.renamed_names(text) is 'the old and the new name in an ALTER TABLE ... RENAME CONSTRAINT';

create or replace function shardman.renames_key(relation text, query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- Or has given it: a node that has the change repeats it on one that lacks it.
    select tag in ('ALTER TABLE', 'ALTER INDEX')
       and exists (select from pg_constraint o
                    where o.conrelid = shardman.find_relation(relation) and o.contype in ('p', 'u')
                      and (o.conname = any (shardman.renamed_names(query))
                           or (o.conindid = shardman.ddl_object(query, tag, path) or shardman.ddl_object(query, tag, path) is null
                                   and shardman.one_statement(query) ~* format('\mrename\s+to\s+("%s"|%1$s)$', regexp_replace(replace(o.conname, '"', '""'), '(\W)', '\\\1', 'g')))
                              and shardman.plain_words(query) ~* '\mrename\s+to\M'))
$$;
comment on function shardman.renames_key(text, text, text, text) is 'whether an ALTER gives one of the table''s keys another name';

create or replace function shardman.touches_unique(query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select tag = 'CREATE INDEX' and shardman.plain_words(query) ~* '^create\s+unique\M'
        or (tag = 'DROP INDEX' or tag in ('ALTER TABLE', 'ALTER INDEX') and shardman.plain_words(query) ~* '\mrename\s+to\M')
           -- Where a change is repeated it is gone on the node that has the change, or called otherwise.
           and (exists (select from pg_index i where i.indexrelid = shardman.ddl_object(query, tag, path) and i.indisunique)
                or tag <> 'ALTER TABLE' and shardman.ddl_object(query, tag, path) is null)
$$;
comment on function shardman.touches_unique(text, text, text) is 'whether a statement about a sharded table makes, drops or renames a unique index';

create or replace function shardman.renames_reference(relation text, query text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.known_references(relation) f where f ->> 'name' = any (shardman.renamed_names(query)))
$$;
comment on function shardman.renames_reference(text, text) is 'whether an ALTER gives one of the table''s foreign keys another name, or has given it';

create or replace function shardman.is_about_triggers(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag like '% TRIGGER' or tag = 'COMMENT' and shardman.plain_words(query) ~* '^comment\s+on\s+trigger\M'
                    or tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\m(enable|disable)\s+((always|replica)\s+)?trigger\M', false)
$$;
comment on function shardman.is_about_triggers(text, text) is 'whether a statement makes, changes or drops triggers of a table';

create or replace function shardman.alters_identity(query text, tag text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '\malter\s+(column\s+)?[^\W\d][\w$]*\s+(set\s+generated|drop\s+identity)\M', false)
$$;
comment on function shardman.alters_identity(text, text) is 'whether a statement is about identity columns as if the table had some';

create or replace function shardman.needs_stand_in(relation text, query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.renames_key(relation, query, tag, path) or shardman.touches_unique(query, tag, path) or shardman.is_about_triggers(query, tag) or shardman.alters_identity(query, tag) or coalesce(tag = 'ALTER TABLE'
       and (shardman.plain_words(query) ~* '\madd\M.*\m(primary\s+key|unique|foreign\s+key|references|serial|bigserial|smallserial|identity)\M'
            or shardman.one_statement(query) ~* '\madd\M.*\mdefault\s+(?!-?[0-9]|''|true\M|false\M|null\M)'
            or shardman.drops_key(relation, query) or shardman.touches_reference(relation, query) or shardman.renames_reference(relation, query)), false)
$$;
comment on function shardman.needs_stand_in(text, text, text, text) is 'whether a statement changes a sharded table by way of a stand-in';

create or replace function shardman.statement_refers_to(query text, path text) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)';
    names  constant text[] := array(select m[1] from regexp_matches(regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''', '''''', 'g'),
                                                                    '\mreferences\s+(' || name_ || '(?:\s*\.\s*' || name_ || ')?)', 'gi') m);
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    found_ := array(select pg_catalog.to_regclass(n)::pg_catalog.oid from pg_catalog.unnest(names) n);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return array(select distinct shardman.metadata_name(o) from unnest(found_) o where o is not null order by 1);
end
$$;
comment on function shardman.statement_refers_to(text, text) is 'the tables to which the foreign keys refer that a statement makes; path: the search_path by which names are read';

create or replace function shardman.gate_modes(relation text, tag text, query text, path text) returns text[]
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select case when shardman.tunes(query, tag) then string_to_array(shardman.ddl_lock_modes(tag, query), ',') || 'tuning'::text
                when not shardman.needs_stand_in(relation, query, tag, path) then string_to_array(nullif(shardman.ddl_lock_modes(tag, query), ''), ',')
                     || array(select 'numbers ' || c from shardman.dropped_numbers(relation, query) c where tag = 'ALTER TABLE')
                -- To rename an index takes no such locks; the stand-in does.
                else array_remove(string_to_array(shardman.ddl_lock_modes('ALTER TABLE', query), ','), 'keys')
                     || array(select 'refers ' || r from unnest(shardman.statement_refers_to(query, path)) r)
                     || array(select 'beside ' || r from unnest(shardman.refers_beside(relation, query, path)) r)
                     || array(select distinct 'referred ' || (f ->> 'to')
                                from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
                               where t.relation = gate_modes.relation and shardman.names_constraint(query, 'drop', f ->> 'name'))
                     || 'stand-in'::text || case when shardman.alters_identity(query, tag) then array['identities'] else '{}' end end
$$;
comment on function shardman.gate_modes(text, text, text, text) is
    'shardman.ddl_lock_modes for a statement about a sharded table. refers: and a table to which it is to refer; beside: one that is sharded; '
    'referred: or did; numbers: what copies have of a column''s sequence; stand-in, tuning: the end of the gate; identities: behind it';

create or replace function shardman.make_stub(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def  constant jsonb := (select s.definition from shardman.shared_tables s where s.relation = make_stub.relation);
    name constant text := shardman.sql_name(relation);
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    execute format('create schema if not exists %I', (shardman.relation_parts(relation))[1]);
    execute format('create table %s (%s)', name,
                   (select string_agg(concat_ws(' ', quote_ident(c ->> 'name'), c ->> 'type', 'collate ' || (c ->> 'collation')), ', ' order by n)
                      from jsonb_array_elements(def -> 'columns') with ordinality as u (c, n)));
    execute coalesce((select string_agg(format('alter table %s add %s', name, k ->> 'sql'), '; ') from jsonb_array_elements(def -> 'keys') k), 'select');
    execute format('grant references on %s to public', name);
    execute format('comment on table %s is %L', name, shardman.behind());
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.make_stub(text) is
    'on a node without copies of shared tables, within a statement: an empty table to which the stand-in''s foreign key can refer';

create or replace function shardman.drop_stubs() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stub oid;
begin
    for stub in
        select c.oid from shardman.shared_tables s join pg_class c on c.oid = shardman.find_relation(s.relation)
         where c.relowner = shardman.our_role() and obj_description(c.oid, 'pg_class') = shardman.behind()
           and not exists (select from shardman.shared_copies x where x.relation = s.relation and x.node = shardman.my_id())
    loop
        execute format('drop table %s', stub::regclass);
    end loop;
end
$$;
comment on function shardman.drop_stubs() is 'drops what shardman.make_stub has made in this session';

create or replace function shardman.hold_named(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    who    constant name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    target constant oid := shardman.find_relation(relation);
begin
    if exists (select from shardman.tables t where t.relation = hold_named.relation) then
        return;
    elsif not exists (select from shardman.shared_tables s where s.relation = hold_named.relation) then
        raise exception '% has been shared since this transaction began on node %', relation, shardman.my_id()
            using errcode = 'object_not_in_prerequisite_state', hint = 'Repeat the transaction.';
    elsif target is null then
        perform shardman.make_stub(relation);
        return;
    elsif not has_any_column_privilege(who, target, 'references') then
        perform shardman.need_references_right(relation, null);
    end if;
    execute format('lock table only %s in share row exclusive mode', target::regclass);
end
$$;
comment on function shardman.hold_named(text) is
    'a part of the gate: locks the copy of a shared table as making a foreign key to it does, for who may refer to it';

create or replace function shardman.hold_referred_to(relation text, referred text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    target constant oid := shardman.find_relation(referred);
begin
    perform shardman.need_owner(relation);
    perform shardman.hold_data_tables(relation, referred);
    if target is not null
       and exists (select from shardman.shared_tables s where s.relation = referred)
       and exists (select from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f
                    where t.relation = hold_referred_to.relation and f ->> 'to' = referred) then
        execute format('lock table only %s in access exclusive mode', target::regclass);
    end if;
end
$$;
comment on function shardman.hold_referred_to(text, text) is
    'the same as dropping one does, for the owner of a table that refers to it: nobody else locks what is not his';

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

create or replace function shardman.stand_in_reference(relation text, o pg_constraint) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    target constant text := shardman.metadata_name(o.confrelid);
    item   jsonb;
begin
    if exists (select from shardman.shared_tables s where s.relation = target) then
        select f || jsonb_build_object('comment', null) into item from jsonb_array_elements(shardman.describe_references(o.conrelid)) f where f ->> 'name' = o.conname;
    elsif shardman.colocated(relation, target) then
        item := shardman.inside_reference(
            relation, array(select jsonb_array_elements_text(shardman.column_names(o.conrelid, o.conkey)))::name[], target,
            array(select jsonb_array_elements_text(shardman.column_names(o.confrelid, o.confkey)))::name[], o.conname,
            lower(shardman.action_text(o.confdeltype)) || coalesce(' (' || shardman.ident_list(shardman.column_names(o.conrelid, o.confdelsetcols)) || ')', ''),
            lower(shardman.action_text(o.confupdtype)), o.confmatchtype = 'f');
    end if;
    return item;
end
$$;
comment on function shardman.stand_in_reference(text, pg_constraint) is 'a foreign key of a stand-in as an item of a definition';

create or replace function shardman.refuse_mixture(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception 'keys, foreign keys, triggers and new columns of % cannot be changed in one statement with other things', relation
        using errcode = 'feature_not_supported', hint = 'Send them as statements of their own, in one transaction.';
end
$$;
comment on function shardman.refuse_mixture(text) is 'raises what a statement gets that changes keys and other things at once';

create or replace function shardman.need_alike(relation text, stand oid, behind oid, keys jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from jsonb_array_elements(shardman.describe_columns(behind)) b
                 left join jsonb_array_elements(shardman.describe_columns(stand)) s on s ->> 'name' = b ->> 'name'
                where s is null or s ->> 'type' <> b ->> 'type' or s -> 'collation' <> b -> 'collation'
                   or s -> 'default' <> b -> 'default' and not shardman.is_identity(stand, s ->> 'name') and not (b ->> 'default' like 'nextval(%' and s ->> 'default' is null)
                   or s -> 'generated' <> b -> 'generated'
                   or (s -> 'not_null' <> b -> 'not_null' and not exists (select from jsonb_array_elements(keys) k where k ->> 'sql' like 'PRIMARY KEY%')))
       or exists (select from jsonb_array_elements(shardman.describe_checks(behind)) b
                   where not exists (select from jsonb_array_elements(shardman.describe_checks(stand)) s where s ->> 'sql' = b ->> 'sql' and s ->> 'name' = b ->> 'name'))
       or exists (select from pg_class s join pg_class b on b.oid = behind where s.oid = stand and (s.relrowsecurity or s.relforcerowsecurity or s.relowner <> b.relowner))
    then
        perform shardman.refuse_mixture(relation);
    elsif exists (select from pg_partitioned_table p where p.partrelid = behind and 0 = any (p.partattrs::int2[])) and keys <> '[]' then
        raise exception '% is distributed by an expression, and PostgreSQL has no keys of such a table', relation
            using errcode = 'feature_not_supported',
                  hint = 'A unique index that has the expression in it may do: select shardman.create_index_concurrently(...).';
    elsif exists (select from jsonb_array_elements(keys) k where k ->> 'sql' ~ ' (DEFERRABLE|WITHOUT OVERLAPS)') then
        raise exception 'a key of % cannot be DEFERRABLE or WITHOUT OVERLAPS', relation
            using errcode = 'feature_not_supported',
                  hint = 'Leave that out: other nodes would check it when they commit, after some have committed.';
    elsif exists (select from shardman.owned_sequences(stand) o join pg_sequence s on s.seqrelid = o.seq where s.seqincrement < 0 or s.seqcycle) then
        raise exception 'a sequence of % counts upwards and does not begin anew, as each node has a range of its own', relation
            using errcode = 'feature_not_supported', hint = 'Leave out CYCLE, and let it count upwards.';
    end if;
end
$$;
comment on function shardman.need_alike(text, oid, oid, jsonb) is 'raises where a stand-in got what cannot be given to the table; keys: those that are new';

create or replace function shardman.data_tables_here(parent oid) returns table (data oid, part_name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- On other nodes DDL looks in a snapshot from before it had its locks; PostgreSQL's caches say what is in a partition now.
    select x.leaf, shardman.metadata_name(x.part)
      from (select l.part, l.leaf from shardman.leaves(parent) l
            union
            select s.inhrelid, to_regclass(shardman.sql_name(shardman.data_table(shardman.metadata_name(s.inhrelid))))::oid
              from pg_inherits s where s.inhparent = parent) as x
      join pg_class c on c.oid = x.leaf
     where c.relkind = 'r' and pg_partition_root(c.oid) = parent order by 2
$$;
comment on function shardman.data_tables_here(oid) is 'the data tables in the partitions of a table on this node';

create or replace function shardman.new_sequence(stand oid, behind oid, column_ text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- The stand-in has no rows, so all nodes find the same ranges. INSERT was enough for an identity column; the default in its place needs more.
    select coalesce((select jsonb_build_object('sequence', s || jsonb_build_object('low', r.low, 'high', r.high, 'users',
                                case when a.attidentity = '' then '[]'
                                     else (select coalesce(jsonb_agg(distinct coalesce(x ->> 'grantee', '')), '[]') from jsonb_array_elements(shardman.describe_acl(behind)) x
                                            where x ->> 'privilege' = 'INSERT') end))
                       from jsonb_array_elements(shardman.describe_sequences(stand)) s cross join lateral shardman.sequence_range(s) r
                       join pg_attribute a on a.attrelid = stand and a.attname = s ->> 'column'
                      where s ->> 'column' = column_), '{}')
$$;
comment on function shardman.new_sequence(oid, oid, text) is
    'what a new column''s item of shardman.stand_in_changes has of its sequence: its range on this node, and users, who may insert into the table';

create or replace function shardman.is_identity(rel oid, column_ text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_attribute a where a.attrelid = rel and a.attname = column_ and a.attnum > 0 and a.attidentity <> '')
$$;
comment on function shardman.is_identity(oid, text) is 'whether a column is an identity column';

create or replace function shardman.stand_in_changes(relation text, stand oid, behind oid) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    -- Who drops a key and makes the same under another name has renamed it.
    renamed constant jsonb := (select coalesce(jsonb_agg(distinct jsonb_build_object('from', d ->> 'name', 'to', k ->> 'name')), '[]')
                                 from jsonb_array_elements(shardman.plain_keys(behind)) d join jsonb_array_elements(shardman.plain_keys(stand)) k on k -> 'sql' = d -> 'sql'
                                where not shardman.plain_keys(behind) @> jsonb_build_array(k) and not shardman.plain_keys(stand) @> jsonb_build_array(d));
    called  constant jsonb := (select coalesce(jsonb_agg(jsonb_build_object('from', f ->> 'name', 'to', o.conname)), '[]')
                                 from shardman.known_references(relation) f
                                 join pg_constraint o on o.conrelid = stand and o.contype = 'c' and o.conname <> f ->> 'name'
                                  and shardman.is_mark(o.oid, f ->> 'name'));
    keys    constant jsonb := (select coalesce(jsonb_agg(k), '[]') from jsonb_array_elements(shardman.plain_keys(stand)) k
                                where not shardman.plain_keys(behind) @> jsonb_build_array(k) and not exists (select from jsonb_array_elements(renamed) r where r -> 'to' = k -> 'name'));
    dropped constant jsonb := (select coalesce(jsonb_agg(k), '[]') from jsonb_array_elements(shardman.plain_keys(behind)) k
                                where not shardman.plain_keys(stand) @> jsonb_build_array(k) and not exists (select from jsonb_array_elements(renamed) r where r -> 'from' = k -> 'name'));
    -- A tool that does not see it in the catalogs adds it at each start, without a name (Sequelize): the table has it.
    refers  constant jsonb := (select coalesce(jsonb_agg(x), '[]') from pg_constraint o cross join lateral (select shardman.stand_in_reference(relation, o) as x) as i
                                where o.conrelid = stand and o.contype = 'f'
                                  and not exists (select from shardman.known_references(relation) f
                                                   where f -> 'sql' = x -> 'sql' and x ->> 'name' ~ '[0-9]$'
                                                     and rtrim(f ->> 'name', '0123456789') = rtrim(x ->> 'name', '0123456789')));
    lost    constant jsonb := (select coalesce(jsonb_agg(f), '[]') from shardman.known_references(relation) f
                                where not exists (select from pg_constraint o where o.conrelid = stand and o.contype = 'c' and o.conname = f ->> 'name')
                                  and not exists (select from jsonb_array_elements(called) r where r -> 'from' = f -> 'name'));
begin
    perform shardman.need_alike(relation, stand, behind, keys);
    return jsonb_build_object(
        'indexes', (select coalesce(jsonb_agg(u), '[]') from jsonb_array_elements(shardman.plain_uniques(stand)) u
                      join shardman.stand_in_indexes(stand, behind) i on i.former is null and i.called = u ->> 'name'),
        'dropped_indexes', (select coalesce(jsonb_agg(jsonb_build_object('name', i.former)), '[]') from shardman.stand_in_indexes(stand, behind) i where i.called is null),
        'renamed_indexes', (select coalesce(jsonb_agg(jsonb_build_object('from', i.former, 'to', i.called)), '[]')
                              from shardman.stand_in_indexes(stand, behind) i where i.called <> i.former),
        'keys', keys, 'dropped_keys', dropped, 'foreign_keys', refers, 'dropped_references', lost, 'renamed_keys', renamed, 'renamed_references', called,
        'columns', (select coalesce(jsonb_agg(c || case when c ->> 'default' like 'nextval(%' then shardman.new_sequence(stand, behind, c ->> 'name') else '{}' end order by n), '[]')
                      from jsonb_array_elements(shardman.describe_columns(stand)) with ordinality as u (c, n)
                     where not exists (select from pg_attribute a where a.attrelid = behind and a.attname = c ->> 'name' and a.attnum > 0 and not a.attisdropped)),
        'numbered', (select coalesce(jsonb_agg(s || shardman.new_sequence(stand, behind, s ->> 'name') order by s ->> 'name'), '[]')
                       from jsonb_array_elements(shardman.describe_columns(stand)) s join jsonb_array_elements(shardman.describe_columns(behind)) b on b ->> 'name' = s ->> 'name'
                      where b ->> 'default' is null and shardman.is_identity(stand, s ->> 'name')),
        'unnumbered', (select coalesce(jsonb_agg(s -> 'name'), '[]')
                         from jsonb_array_elements(shardman.describe_columns(stand)) s join jsonb_array_elements(shardman.describe_columns(behind)) b on b ->> 'name' = s ->> 'name'
                        where b ->> 'default' like 'nextval(%' and s ->> 'default' is null),
        'not_null', (select coalesce(jsonb_agg(s ->> 'name'), '[]') from jsonb_array_elements(shardman.describe_columns(stand)) s
                       join jsonb_array_elements(shardman.describe_columns(behind)) b on b ->> 'name' = s ->> 'name' where s -> 'not_null' <> b -> 'not_null'),
        'checks', (select coalesce(jsonb_agg(s), '[]') from jsonb_array_elements(shardman.describe_checks(stand)) s
                    where not exists (select from pg_constraint o where o.conrelid = behind and o.contype = 'c' and o.conname = s ->> 'name')
                      and not exists (select from shardman.known_references(relation) f where f ->> 'name' = s ->> 'name')
                      and not exists (select from jsonb_array_elements(called) r where r -> 'to' = s -> 'name')),
        'validated', (select coalesce(jsonb_agg(f -> 'name'), '[]') from shardman.known_references(relation) f
                       join pg_constraint o on o.conrelid = stand and o.contype = 'c' and o.convalidated and shardman.is_mark(o.oid, f ->> 'name')),
        'deferrable', (select string_agg(quote_ident(o.conname), ', ' order by o.conname) from pg_constraint o where o.conrelid = stand and o.contype = 'f' and o.condeferrable),
        'replicated', exists (select from shardman.partitions p where p.relation = stand_in_changes.relation and p.prv is not null));
end
$$;
comment on function shardman.stand_in_changes(text, oid, oid) is 'what a statement has done to a stand-in: what the table is to get, and to lose';

create or replace function shardman.note_constraints(relation text, changes jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    insert into shardman.changed_constraints as c (relation, name, kind, item)
    select distinct on (x.item ->> 'name') note_constraints.relation, x.item ->> 'name', x.kind, case when x.added then x.item end
      from (select 'keys', k, true from jsonb_array_elements(changes -> 'keys') k
            union all select 'keys', k, false from jsonb_array_elements(changes -> 'dropped_keys') k
            union all select 'indexes', i, true from jsonb_array_elements(changes -> 'indexes') i
            union all select 'indexes', i, false from jsonb_array_elements(changes -> 'dropped_indexes') i
            union all select 'indexes', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_indexes') r
            union all select 'indexes', i || jsonb_build_object('name', r -> 'to'), true
                        from jsonb_array_elements(changes -> 'renamed_indexes') r, shardman.known_items(relation, 'indexes') i where i -> 'name' = r -> 'from'
            union all select 'foreign_keys', f, true from jsonb_array_elements(changes -> 'foreign_keys') f
            union all select 'foreign_keys', f, false from jsonb_array_elements(changes -> 'dropped_references') f
            union all select 'keys', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_keys') r
            union all select 'keys', k || jsonb_build_object('name', r -> 'to')
                             , true from jsonb_array_elements(changes -> 'renamed_keys') r, shardman.known_items(relation, 'keys') k where k -> 'name' = r -> 'from'
            union all select 'foreign_keys', jsonb_build_object('name', r -> 'from'), false from jsonb_array_elements(changes -> 'renamed_references') r
            union all select 'foreign_keys', f || jsonb_build_object('name', r -> 'to'), true
                        from jsonb_array_elements(changes -> 'renamed_references') r, shardman.known_references(relation) f where f -> 'name' = r -> 'from') as x (kind, item, added)
     order by x.item ->> 'name', x.added desc
        on conflict on constraint changed_constraints_pkey do update set kind = excluded.kind, item = excluded.item
$$;
comment on function shardman.note_constraints(text, jsonb) is 'writes down which keys, unique indexes and foreign keys DDL has changed on this node';

create or replace function shardman.forget_constraints() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    delete from shardman.changed_constraints c
     where not exists (select from shardman.tables t where t.relation = c.relation)
        -- What has gone with a column, before the metadata knew of it.
        or c.kind in ('keys', 'indexes') and c.item is not null and shardman.find_relation(c.relation) is not null
           and not exists (select from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = shardman.find_relation(c.relation) and x.relname = c.name)
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind = 'row_triggers'
                      and coalesce(t.definition -> 'row_triggers' ->> 'change', md5('[]')) = c.item ->> 'change')
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind = 'statistics' and shardman.are_known(c.item, t.definition -> 'statistics', c.name))
        or exists (select from shardman.tables t where t.relation = c.relation and c.kind not in ('row_triggers', 'statistics')
                      and c.item ->> 'sql' is not distinct from (select k ->> 'sql' from jsonb_array_elements(t.definition -> c.kind) k where k ->> 'name' = c.name))
$$;
comment on function shardman.forget_constraints() is 'forgets what the metadata know by now';

create or replace function shardman.is_dropped(relation text, name text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.changed_constraints c where (c.relation, c.name) = (is_dropped.relation, is_dropped.name) and (c.item is null or c.kind = 'indexes'))
$$;
comment on function shardman.is_dropped(text, text) is
    'whether DDL has dropped a key, foreign key or unique index that the metadata still have, or given an index the name of one';

create or replace function shardman.take_stand_in(relation text) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    stand   constant oid := shardman.find_relation(relation);
    behind  constant oid := shardman.table_behind(relation);
    changes jsonb;
    acts    jsonb;
begin
    perform shardman.need_owner(relation);
    changes := shardman.stand_in_changes(relation, stand, behind);
    acts := shardman.stand_in_triggers(relation, stand);
    perform set_config('shardman.ddl_busy', 'on', true);
    perform shardman.put_back(relation);
    perform shardman.put_back_beside();
    if acts is not null then
        perform shardman.change_row_triggers(relation, behind, acts);
    end if;
    perform set_config('shardman.ddl_busy', '', true);
    perform shardman.note_constraints(relation, changes);
    return changes || jsonb_build_object(
        'data', (select coalesce(jsonb_agg(d.data::regclass order by d.part_name), '[]') from shardman.data_tables_here(behind) d),
        'foreign_keys', (select coalesce(jsonb_agg(format('alter table %s add constraint %I %s', d.data::regclass, f ->> 'name', shardman.reference_sql(f, d.part_name))), '[]')
                           from jsonb_array_elements(changes -> 'foreign_keys') f, shardman.data_tables_here(behind) d));
end
$$;
comment on function shardman.take_stand_in(text) is
    'for the owner of a sharded table: puts it back into its place, and returns what was done to the stand-in; data: its data tables here; foreign_keys: the '
    'statements that make them';

create or replace function shardman.default_kind(col jsonb) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stable_ bool;
begin
    if col ->> 'generated' is not null or col ->> 'default' is null or shardman.is_constant(col ->> 'default') then
        return 'constant';
    end if;
    -- PostgreSQL knows best: it computes a value once for the rows that are there, or for each of them.
    create temporary table shardman_default (x int);
    execute 'alter table pg_temp.shardman_default add column ' || shardman.column_sql(col || '{"name": "y", "not_null": false}');
    select a.atthasmissing into stable_ from pg_attribute a where a.attrelid = to_regclass('pg_temp.shardman_default') and a.attname = 'y';
    drop table pg_temp.shardman_default;
    return case when stable_ then 'stable' else 'volatile' end;
end
$$;
comment on function shardman.default_kind(jsonb) is
    'as the caller: whether the default of a new column is the same always (constant), in a transaction (stable), or another for each row (volatile)';

create or replace function shardman.fill_column(relation text, col jsonb, changes jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    data text;
begin
    -- On one server no trigger acts for a new column.
    perform shardman.rest_row_triggers(relation, true);
    for data in select * from jsonb_array_elements_text(changes -> 'data') loop
        execute format('update only %s set %I = default', data, col ->> 'name');
    end loop;
    perform shardman.rest_row_triggers(relation, false);
end
$$;
comment on function shardman.fill_column(text, jsonb, jsonb) is 'gives each row of the primaries on this node its own value of a default; replicas get it as any other write';

create or replace function shardman.make_column_sequence(relation text, col jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec constant jsonb := col -> 'sequence';
    name constant text := shardman.sql_name(spec ->> 'name');
    who  text;
begin
    execute format('create sequence %s as %s increment %s minvalue %s maxvalue %s start %4$s cache %6$s owned by %7$s.%8$I', name, spec ->> 'type', spec ->> 'increment',
                   spec ->> 'low', spec ->> 'high', spec ->> 'cache', shardman.sql_name(relation), col ->> 'name');
    for who in select * from jsonb_array_elements_text(spec -> 'users') loop
        execute format('grant usage on sequence %s to %s', name, case when who = '' then 'public' else quote_ident(who) end);
    end loop;
end
$$;
comment on function shardman.make_column_sequence(text, jsonb) is 'as the caller: the sequence of a new column, with this node''s range';

create or replace function shardman.range_of_spec(spec jsonb) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('low', r.low, 'high', r.high) from shardman.sequence_range(spec) r
$$;
comment on function shardman.range_of_spec(jsonb) is 'shardman.sequence_range, for who may not read what it reads: the numbers of this node';

create or replace function shardman.number_column(relation text, col jsonb, given jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    spec  jsonb := col -> 'sequence';
    type  constant regtype := (spec ->> 'type')::regtype;
    top   numeric;
    kept  constant text := (select shardman.metadata_name(o.seq) from shardman.owned_sequences(shardman.find_relation(relation)) o where o.column_name = col ->> 'name' limit 1);
begin
    if kept is not null then
        -- It had numbers before, and goes on with its ranges.
        execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', shardman.next_value(kept));
        return given;
    elsif given is null then
        -- Rows of other nodes as well: the table is in its place again, and their partitions never were elsewhere.
        execute format('select greatest(0, max(%I)) from %s', col ->> 'name', shardman.sql_name(relation)) into top;
        given := jsonb_build_object('name', spec -> 'name', 'base', shardman.base_above(top, type),
                                    'width', shardman.range_width(shardman.base_above(top, type), type));
    end if;
    spec := spec || given;
    perform shardman.make_column_sequence(relation, col || jsonb_build_object('sequence', spec || shardman.range_of_spec(spec)));
    execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', shardman.next_value(spec ->> 'name'));
    return given;
end
$$;
comment on function shardman.number_column(text, jsonb, jsonb) is
    'as the caller: a column that is there gets a sequence, as an identity column has one, above all numbers that are in it; given: name, base and width that another node has '
    'found. Returns them';

create or replace function shardman.numbers_here(relation_ text) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(o.column_name, jsonb_build_object('name', shardman.metadata_name(o.seq)) || shardman.range_here(o.seq)), '{}')
      from shardman.owned_sequences(shardman.find_relation(relation_)) o where shardman.range_here(o.seq) is not null
$$;
comment on function shardman.numbers_here(text) is 'by column, what shardman.number_column takes, of the sequences that a table has';

create or replace function shardman.add_column_alike(relation text, col jsonb, changes jsonb, given text) returns text
language plpgsql set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' as $$
declare
    kind  constant text := case when col ? 'sequence' then 'sequence' else shardman.default_kind(col) end;
    head  constant text := format('alter table %s add column ', shardman.sql_name(relation));
    ends  constant text := case when (col ->> 'not_null')::bool then ' not null' else '' end;
    plain constant jsonb := col || '{"not_null": false}';
    value text := given;
begin
    if kind = 'constant' or kind = 'volatile' and not (changes ->> 'replicated')::bool then
        execute head || shardman.column_sql(plain) || ends;
        return null;
    elsif kind = 'sequence' then
        -- For a moment, and NOT NULL wants something.
        value := '0';
        execute head || shardman.column_sql(plain || jsonb_build_object('default', value)) || ends;
        perform shardman.make_column_sequence(relation, col);
    elsif kind = 'stable' or ends <> '' then
        if value is null then
            execute format('select coalesce(quote_literal((%s)::%s), ''NULL'')', col ->> 'default', col ->> 'type') into value;
        end if;
        execute head || shardman.column_sql(plain || jsonb_build_object('default', value || '::' || (col ->> 'type'))) || ends;
    else
        execute head || shardman.column_sql(plain || '{"default": null}');
    end if;
    -- Replicas have no defaults: they get the column as it is now.
    perform shardman.follow_copies(relation);
    execute format('alter table %s alter column %I set default %s', shardman.sql_name(relation), col ->> 'name', col ->> 'default');
    if kind <> 'stable' then
        perform shardman.fill_column(relation, col, changes);
    end if;
    return value;
end
$$;
comment on function shardman.add_column_alike(text, jsonb, jsonb, text) is
    'as the caller: adds a column whose values are the same on all copies; given: the value that another node has computed. Returns it';

create or replace function shardman.finish_stand_in(relation text, given jsonb) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    changes jsonb;
    name    constant text := shardman.sql_name(relation);
    schema_ constant text := (shardman.relation_parts(relation))[1];
    values_ jsonb := coalesce(given, '{}');
    item    jsonb;
    text_   text;
begin
    if (select c.relkind from pg_class c where c.oid = shardman.find_relation(relation)) = 'r' then
        return shardman.finish_tuning(relation, given);
    end if;
    changes := shardman.take_stand_in(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    for item in select * from jsonb_array_elements(changes -> 'columns') loop
        values_ := values_ || jsonb_build_object(item ->> 'name', shardman.add_column_alike(relation, item, changes, values_ ->> (item ->> 'name')));
    end loop;
    for item in select * from jsonb_array_elements(changes -> 'numbered') loop
        -- No column is called so.
        values_ := values_ || jsonb_build_object('', coalesce(values_ -> '', '{}')
                                                     || jsonb_build_object(item ->> 'name', shardman.number_column(relation, item, values_ -> '' -> (item ->> 'name'))));
    end loop;
    for text_ in
        select format('alter table %s rename constraint %I to %I', d, r ->> 'from', r ->> 'to')
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements(changes -> 'renamed_references') r
        union all
        select format('alter table only %s rename constraint %I to %I', name, r ->> 'from', r ->> 'to') from jsonb_array_elements(changes -> 'renamed_keys') r
        union all
        select format('alter table %s drop constraint if exists %I', d, f ->> 'name')
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements(changes -> 'dropped_references') f
        union all
        select format('alter table only %s drop constraint %I', name, k ->> 'name') from jsonb_array_elements(changes -> 'dropped_keys') k
        union all
        select format('alter table %s alter column %I drop default', name, c) from jsonb_array_elements_text(changes -> 'unnumbered') c
        union all
        select format('alter index %I.%I rename to %I', schema_, r ->> 'from', r ->> 'to') from jsonb_array_elements(changes -> 'renamed_indexes') r
        union all
        select format('drop index %I.%I', schema_, i ->> 'name') from jsonb_array_elements(changes -> 'dropped_indexes') i
        union all
        select format('alter table %s alter column %I set not null', name, c) from jsonb_array_elements_text(changes -> 'not_null') c
        union all
        select format('alter table %s add constraint %I %s', name, c ->> 'name', c ->> 'sql') from jsonb_array_elements(changes -> 'checks') c
        union all
        select format('alter table only %s add constraint %I %s', name, k ->> 'name', k ->> 'sql') from jsonb_array_elements(changes -> 'keys') k
        union all
        select format('create unique index %I on only %s %s', i ->> 'name', name, i ->> 'sql') from jsonb_array_elements(changes -> 'indexes') i
        union all
        select * from jsonb_array_elements_text(changes -> 'foreign_keys')
        union all
        select format('alter table %s validate constraint %I', d, v)
          from jsonb_array_elements_text(changes -> 'data') d, jsonb_array_elements_text(changes -> 'validated') v
    loop
        execute text_;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
    if given is null and changes ->> 'deferrable' is not null then
        raise notice 'foreign keys of % are checked at each statement: %', relation, changes ->> 'deferrable';
    end if;
    perform shardman.follow_keys(relation, changes -> 'dropped_keys', changes -> 'renamed_keys'),
            shardman.follow_uniques(relation, changes -> 'dropped_indexes', changes -> 'renamed_indexes');
    return values_;
end
$$;
comment on function shardman.finish_stand_in(text, jsonb) is
    'as the caller: gives a sharded table on this node what its stand-in got; given: values of defaults that another node has computed. Returns them';

create or replace function shardman.key_on(data oid, name text, k int) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.conname from pg_constraint o
     where o.conrelid = data and o.contype in ('p', 'u') and (o.conname = shardman.numbered_name(name, k) or shardman.is_other_name(o.conname, name, k))
$$;
comment on function shardman.key_on(oid, text, int) is 'what a key of a table is called on data table k';

create or replace function shardman.choose_identity(data oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    index constant oid := shardman.identity_index(data);
    wanted constant text := case when index is null then 'full' when (select i.indisprimary from pg_index i where i.indexrelid = index) then 'default'
                                 else 'using index ' || quote_ident((select c.relname from pg_class c where c.oid = index limit 1)) end;
begin
    if (select c.relreplident from pg_class c where c.oid = data order by age(c.xmin) limit 1) <> left(wanted, 1)::"char" then
        execute format('alter table %s replica identity %s', data::regclass, wanted);
    end if;
end
$$;
comment on function shardman.choose_identity(oid) is 'after keys of a data table have changed: by what replication tells its rows apart';

create or replace function shardman.rename_key_on(data oid, k int, former text, wanted text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    called  constant name := shardman.key_on(data, former, k);
    schema_ constant text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = data limit 1);
begin
    if called is not null then
        execute format('alter table only %s rename constraint %I to %I', data::regclass, called, shardman.free_name(schema_, wanted, k));
    end if;
end
$$;
comment on function shardman.rename_key_on(oid, int, text, text) is 'gives a key of data table k the name that goes with the one that the table calls it now';

create or replace function shardman.follow_keys(relation text, dropped jsonb, renamed jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent constant oid := shardman.find_relation(relation);
    copy   record;
    name   text;
    item   jsonb;
begin
    perform shardman.need_owner(relation);
    if not exists (select from shardman.changed_constraints c where c.relation = follow_keys.relation and c.kind = 'keys') then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    -- Columns first, and with them NOT NULL.
    perform shardman.follow_table(relation, false);
    for copy in
        select d.data, d.part_name from shardman.data_tables_here(parent) d
        union all
        select c, regexp_replace(shardman.metadata_name(c), '_data("?)$', '\1') from shardman.copies_here(relation) c
    loop
        perform shardman.rename_key_on(copy.data, shardman.part_number(copy.part_name), r ->> 'from', r ->> 'to') from jsonb_array_elements(renamed) r;
        for name in select k ->> 'name' from jsonb_array_elements(dropped) k loop
            execute coalesce(format('alter table %s drop constraint ', copy.data::regclass)
                             || quote_ident(shardman.key_on(copy.data, name, shardman.part_number(copy.part_name))), 'select');
        end loop;
        for item in select k from jsonb_array_elements(shardman.plain_keys(parent)) k loop
            perform shardman.make_index(copy.part_name, item);
        end loop;
        perform shardman.choose_identity(copy.data);
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.follow_keys(text, jsonb, jsonb) is
    'for the owner of a sharded table: its copies on this node lose these keys, call others what it calls them, and get those that it has';

create or replace function shardman.index_on(data oid, name text, k int) returns name
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = data and (c.relname = shardman.numbered_name(index_on.name, k) or shardman.is_other_name(c.relname, index_on.name, k))
       and not exists (select from pg_constraint o where o.conindid = c.oid)
     limit 1
$$;
comment on function shardman.index_on(oid, text, int) is 'what data table k calls an index of the table';

create or replace function shardman.follow_uniques(relation text, dropped jsonb, renamed jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent  constant oid := shardman.find_relation(relation);
    schema_ constant text := (shardman.relation_parts(relation))[1];
    -- One that is just being built beside writers is not known yet.
    wanted  constant jsonb := (select coalesce(jsonb_agg(i), '[]') from shardman.known_items(relation, 'indexes') i
                                where shardman.plain_uniques(parent) @> jsonb_build_array(jsonb_build_object('name', i -> 'name')));
    copy    record;
    line    text;
begin
    perform shardman.need_owner(relation);
    if wanted = '[]' and dropped = '[]' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    -- Columns first.
    perform shardman.follow_table(relation, false), shardman.need_trusted(array[parent]), shardman.need_trusted_types(wanted);
    for copy in
        select d.data, d.part_name from shardman.data_tables_here(parent) d
        union all
        select c, regexp_replace(shardman.metadata_name(c), '_data("?)$', '\1') from shardman.copies_here(relation) c
    loop
        for line in
            select format('alter index %I.%I rename to %I', schema_, o.called, shardman.free_name(schema_, r ->> 'to', o.k))
              from jsonb_array_elements(renamed) r
             cross join lateral (select x.k, shardman.index_on(copy.data, r ->> 'from', x.k) from shardman.part_number(copy.part_name) as x (k)) as o (k, called)
             where o.called is not null
            union all
            select format('drop index %I.%I', schema_, o.called)
              from jsonb_array_elements(dropped) i
             cross join lateral shardman.index_on(copy.data, i ->> 'name', shardman.part_number(copy.part_name)) as o (called)
             where o.called is not null
        loop
            execute line;
        end loop;
        perform shardman.make_index(copy.part_name, i) from jsonb_array_elements(wanted) i;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.follow_uniques(text, jsonb, jsonb) is
    'for the owner of a sharded table: its copies on this node lose these unique indexes, call others what it calls them, and get those that it has';

create or replace function shardman.redefined_indexes(t shardman.tables, parent oid, data oid, k int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e || jsonb_build_object(
                                  'identity', coalesce((select x.oid from pg_class x where x.relname = shardman.index_on(data, e ->> 'name', k) and x.relnamespace = d.relnamespace)
                                                       = shardman.identity_index(data), false),
                                  'comment', case when p.oid is null then e ->> 'comment' else obj_description(p.oid, 'pg_class') end) order by n), '[]')
      from jsonb_array_elements(
               shardman.kept_items((select coalesce(jsonb_agg(x order by m), '[]') from jsonb_array_elements(t.definition -> 'indexes') with ordinality as w (x, m)
                                     where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, k)
               || (select coalesce(jsonb_agg(c.item order by c.name), '[]')
                     from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'indexes' and c.item is not null and shardman.index_on(data, c.name, k) is not null)) with ordinality as u (e, n)
      join pg_class d on d.oid = data
      left join pg_class p on p.relname = e ->> 'name' and p.oid in (select i.indexrelid from pg_index i where i.indrelid = parent)
$$;
comment on function shardman.redefined_indexes(shardman.tables, oid, oid, int) is
    'the indexes of a definition, but for those that PostgreSQL keeps above all partitions, as they are now; data: data table k of this node';

create or replace function shardman.redefined_keys(t shardman.tables, parent oid, data oid, k int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(e || jsonb_build_object('identity', coalesce(i.identity, false)) order by n), '[]')
      from jsonb_array_elements(
               shardman.kept_items((select coalesce(jsonb_agg(x order by m), '[]') from jsonb_array_elements(t.definition -> 'keys') with ordinality as w (x, m)
                                     where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, k)
               || (select coalesce(jsonb_agg('{"options": null, "clustered": false, "comment": null}' || c.item), '[]')
                     from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'keys' and c.item is not null and shardman.key_on(data, c.name, k) is not null)) with ordinality as u (e, n)
     cross join lateral (select (select o.conindid from pg_constraint o where o.conrelid = data and o.contype in ('p', 'u', 'x')
                                    and (o.conname = shardman.numbered_name(e ->> 'name', k) or shardman.is_other_name(o.conname, e ->> 'name', k))) = shardman.identity_index(data)
                                as identity) as i
$$;
comment on function shardman.redefined_keys(shardman.tables, oid, oid, int) is 'the keys of a definition as they are now; data: data table k of this node';

create or replace function shardman.redefined_references(t shardman.tables, data oid, parent oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.kept_references((select coalesce(jsonb_agg(x), '[]') from jsonb_array_elements(coalesce(t.definition -> 'foreign_keys', '[]')) x
                                      where not exists (select from shardman.changed_constraints c where (c.relation, c.name) = (t.relation, x ->> 'name'))), data, parent)
           || (select coalesce(jsonb_agg(c.item order by c.name), '[]')
                 from shardman.changed_constraints c where c.relation = t.relation and c.kind = 'foreign_keys' and c.item is not null)
$$;
comment on function shardman.redefined_references(shardman.tables, oid, oid) is 'the foreign keys of a definition as they are now; data: a data table of this node';
