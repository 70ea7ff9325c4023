-- DDL: what changes a sharded table on one node changes it on all, in the same transaction, as who sent it.
--
-- PostgreSQL calls event triggers before and after each such statement. Before it three of ours act, in the order of their
-- names: the first keeps the caller's search_path, for the second cannot see it; the second, with the cluster's rights,
-- reads which table the statement is about and opens doors to the other nodes (foreign tables, made and dropped within the
-- transaction); the third, with the caller's rights, closes the gate. After it two: one sends the statement through the
-- doors, as the caller, through his road login; the other lets replicas follow, drops the doors, and tells the lord.
--
-- The gate is what keeps this from hanging. On all nodes at the same instant it locks the table alone, without its partitions, against
-- all who come in by its name; then, on each node, its partitions, then its replicas, whose channels have nothing to deliver any
-- more. What the statement locks is free then. A lock that is not had within a moment is given back with all others, and the
-- gate begins anew.
--
-- Why at the same instant: whoever has begun to use the table goes on, for he stands before us in his node's queue, unless he comes to
-- another node for the first time to write there. There PostgreSQL wants a lock on the table as well, to check the bounds of the partition, and
-- he stands behind us. The closer together we ask, the fewer are on their way; then all give back what they have, and the next try
-- finds others. Not against writers first: who has read the table and then writes would wait for us, and we for him, every time.
--
-- The setting shardman.ddl is 'spread' in what comes from another node, and 'here' where somebody wants this node alone changed.
--
-- What a crash leaves: nothing, before the first node commits. Nodes commit one after the other, so a crash in that instant
-- can leave them apart: each has written down what it has, and those that lack it get it (96_healing.sql).

-- With what the caller changed we have no more to do than to read it, so these names have no schema of ours in them.
create or replace function shardman.ddl_path() returns event_trigger
language plpgsql as $$
begin
    -- What the functions below do is DDL as well.
    if pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.=) 'on' then
        return;
    end if;
    perform pg_catalog.set_config('shardman.ddl_path', pg_catalog.current_setting('search_path'), true);
end
$$;
comment on function shardman.ddl_path() is 'before DDL, as the caller: keeps his search_path, by which its names are to be read';

create or replace function shardman.one_statement(query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- A regular expression takes the longest way between dollar quotes, over what others of them stand around.
    select case when case when s.head ~ '[eE]''|\$\w*\$' then cardinality(shardman.split_statements(s.head)) = 1 else s.bare !~ ';' end then s.head end
      from (select regexp_replace(query, '^(\s+|--[^\n]*(\n|$)|/\*([^*]|\*(?!/))*\*/)+', '') as text) as t
     -- What Django puts before or behind a statement about a foreign key, in one query with it, changes nothing.
     cross join lateral (select rtrim(regexp_replace(regexp_replace(t.text, '^set\s+constraints\s[^;'']*;\s*', '', 'i'), ';\s*set\s+constraints\s[^;'']*$', '', 'i'),
                                      E' \t\n\r;') as head) as q
     cross join lateral (
           select q.head, regexp_replace(q.head, '(\$\w*\$).*?\1|''([^'']|'''')*''|"([^"]|"")*"|--[^\n]*|/\*([^*]|\*(?!/))*\*/', '', 'g') as bare) as s
$$;
comment on function shardman.one_statement(text) is
    'a query without the comments before it, the semicolon behind it, and SET CONSTRAINTS before or behind; null where there may be more than one '
    'other statement in it';

create or replace function shardman.ddl_pattern(tag text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select replace(replace(replace(case tag
        when 'ALTER INDEX'   then '^alter\s+(?:index|table)\s+(?:if\s+exists\s+)?(NAME)(?![\w$])'
        when 'ALTER SEQUENCE' then '^alter\s+sequence\s+(?:if\s+exists\s+)?(NAME)(?![\w$])'
        when 'ALTER TABLE'   then '^alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(NAME)(?![\w$])'
        when 'CREATE INDEX'  then '^create\s+(?:unique\s+)?index\s+(?:concurrently\s+)?(?:if\s+not\s+exists\s+)?(?:(?!on\s)NAME\s+)?on\s+(?:only\s+)?(NAME)'
        when 'DROP INDEX'    then '^drop\s+index\s+(?:concurrently\s+)?(?:if\s+exists\s+)?(NAME)\s*(?:cascade|restrict)?$'
        when 'CREATE POLICY' then '^create\s+policy\s+NAME\s+on\s+(NAME)'
        when 'ALTER POLICY'  then '^alter\s+policy\s+NAME\s+on\s+(NAME)'
        when 'DROP POLICY'   then '^drop\s+policy\s+(?:if\s+exists\s+)?NAME\s+on\s+(NAME)'
        when 'CREATE TRIGGER' then '^create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger\s+WORD\s+(?:before|after|instead\s+of)\s+EVENT(?:\s+or\s+EVENT)*\s+on\s+(NAME)'
        when 'ALTER TRIGGER' then '^alter\s+trigger\s+WORD\s+on\s+(NAME)'
        when 'DROP TRIGGER'  then '^drop\s+trigger\s+(?:if\s+exists\s+)?WORD\s+on\s+(NAME)'
        when 'DROP TABLE'    then '^drop\s+table\s+(?:if\s+exists\s+)?(NAME)'
        when 'COMMENT'       then '^comment\s+on\s+(?:column\s+(NAME)\s*\.\s*WORD|(?:(?:table|index)|(?:constraint|policy|trigger)\s+WORD\s+on)\s+(NAME))\s+is\s'
    end, 'EVENT', '(?:insert|delete|truncate|update(?:\s+of\s+WORD(?:\s*,\s*WORD)*)?)'), 'NAME', '(?:WORD(?:\s*\.\s*WORD)?)'), 'WORD', '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)')
$$;
comment on function shardman.ddl_pattern(text) is 'how a statement of a kind begins, up to the name of the table (or index) that it is about';

create or replace function shardman.ddl_relation(query text, tag text, path text) returns oid
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    found_ constant text[] := regexp_match(shardman.one_statement(query), shardman.ddl_pattern(tag), 'i');
    named  constant text := coalesce(found_[1], found_[2]);
    rel    oid;
begin
    if named is null then
        return null;
    end if;
    perform set_config('search_path', path, true);
    rel := pg_catalog.to_regclass(named)::pg_catalog.oid;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return coalesce((select i.indrelid from pg_index i where i.indexrelid = rel), case when tag = 'ALTER SEQUENCE' then shardman.table_of_sequence(rel) end,
                    case when tag <> 'DROP INDEX' then rel end);
end
$$;
comment on function shardman.ddl_relation(text, text, text) is
    'the table that a statement of this kind is about, or whose index or sequence, read with this search_path; null where that cannot be said';

create or replace function shardman.granted_tables(query text, path text) returns text[]
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    name_  constant text := '(?:(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?)';
    list   constant text := format('(%1$s(?:\s*,\s*%1$s)*)\s+(?:to|from)\s', name_);
    text_  constant text := shardman.one_statement(query);
    all_in constant text := (regexp_match(text_, '^(?:grant|revoke)\s.*\son\s+all\s+tables\s+in\s+schema\s+' || list, 'i'))[1];
    names  constant text[] := array(
        select m[1] from regexp_matches(coalesce(all_in, (regexp_match(text_, '^(?:grant|revoke)\s.*\son\s+(?:table\s+)?' || list, 'i'))[1]),
                                        '(' || name_ || ')', 'g') as m);
    found_ oid[];
begin
    perform set_config('search_path', path, true);
    if all_in is null then
        found_ := array(select pg_catalog.to_regclass(n)::pg_catalog.oid from pg_catalog.unnest(names) n);
    else
        found_ := array(select c.oid from pg_catalog.pg_class c, pg_catalog.unnest(names) n
                         where c.relkind operator(pg_catalog.=) 'p' and c.relnamespace operator(pg_catalog.=) pg_catalog.to_regnamespace(n));
    end if;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return array(select r.name from (select shardman.sharded_name(o) as name from unnest(found_) o) as r where r.name is not null order by 1);
end
$$;
comment on function shardman.granted_tables(text, text) is
    'the sharded tables that a GRANT or REVOKE is about: a list, or all of some schemas; path: the search_path by which its names are read';

create or replace function shardman.sharded_name(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select t.relation from shardman.tables t
     where t.relation = shardman.metadata_name(rel) and rel = shardman.find_relation(t.relation) and shardman.is_parent_of(t.definition, rel) and shardman.is_member() and not shardman.is_copy()
$$;
comment on function shardman.sharded_name(oid) is 'the sharded table that a relation of this node is; null when it is none';

create or replace function shardman.is_spread(query text) returns bool
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- A superuser's alone can be made.
    return exists (select from pg_event_trigger where evtname = 'shardman_ddl_start' and evtenabled <> 'D')
       and (cardinality(shardman.granted_tables(query, 'public')) > 0
            or exists (select from unnest(array['ALTER TABLE', 'ALTER INDEX', 'CREATE INDEX', 'DROP INDEX', 'CREATE POLICY', 'ALTER POLICY', 'DROP POLICY',
                                                'CREATE TRIGGER', 'ALTER TRIGGER', 'DROP TRIGGER', 'COMMENT', 'ALTER SEQUENCE']) as tag
                        where shardman.sharded_name(shardman.ddl_relation(query, tag, 'public')) is not null));
end
$$;
comment on function shardman.is_spread(text) is 'whether a statement, sent to this node, changes a sharded table on all of them';

create or replace function shardman.refuse_drop(relation text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is sharded, and this would drop the rows of this node only', relation
        using errcode = 'feature_not_supported', hint = format('Send DROP TABLE %s by itself, or with nothing but DDL in one query, and not from within a function or DO; or: select shardman.drop_table(%L).',
                                            shardman.sql_name(relation), relation);
end
$$;
comment on function shardman.refuse_drop(text) is 'raises what a DROP TABLE of a sharded table gets';

create or replace function shardman.names_constraint(query text, verb text, name text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select shardman.one_statement(query) ~* format('\m%s\s+constraint\s+(if\s+exists\s+)?("%s"|%2$s(?!\w))', verb,
                                                   regexp_replace(replace(name, '"', '""'), '(\W)', '\\\1', 'g'))
$$;
comment on function shardman.names_constraint(text, text, text) is 'whether an ALTER TABLE has RENAME or DROP CONSTRAINT with this name';

create or replace function shardman.drops_key(relation text, query text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_constraint o
                    where o.conrelid = shardman.find_relation(relation) and o.contype in ('p', 'u')
                      and shardman.names_constraint(query, 'drop', o.conname))
$$;
comment on function shardman.drops_key(text, text) is 'whether an ALTER TABLE names one of the table''s keys to be dropped';

create or replace function shardman.touches_reference(relation text, query text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.tables t cross join jsonb_array_elements(t.definition -> 'foreign_keys') f cross join unnest(array['drop', 'rename', 'alter']) as verb
                    where t.relation = touches_reference.relation and shardman.names_constraint(query, verb, f ->> 'name'))
$$;
comment on function shardman.touches_reference(text, text) is 'whether an ALTER TABLE names one of the table''s foreign keys';

create or replace function shardman.ddl_object(query text, tag text, path text) returns oid
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel oid;
begin
    perform set_config('search_path', path, true);
    rel := pg_catalog.to_regclass((pg_catalog.regexp_match(shardman.one_statement(query), shardman.ddl_pattern(tag), 'i'))[1])::pg_catalog.oid;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return rel;
end
$$;
comment on function shardman.ddl_object(text, text, text) is 'the relation that an ALTER names: a table, or an index';

create or replace function shardman.is_index(query text, tag text, path text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_index i where i.indexrelid = shardman.ddl_object(query, tag, path))
$$;
comment on function shardman.is_index(text, text, text) is 'whether an ALTER names an index';

create or replace function shardman.need_referable(relation text, query text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    other text;
begin
    if shardman.plain_words(query) ~* '\mnot\s+valid\M' then
        raise exception 'a foreign key of % cannot be added NOT VALID', relation
            using errcode = 'feature_not_supported', hint = format('select shardman.add_foreign_key(%L, ...) reads the rows beside writers.', relation);
    end if;
    for other in select r from unnest(shardman.statement_refers_to(query, path)) r where r <> relation loop
        perform shardman.await_shared(other);
        if not shardman.colocated(relation, other) and not exists (select from shardman.shared_tables s where s.relation = other) then
            raise exception '% is neither a shared table nor colocated with %', other, relation
                using errcode = 'feature_not_supported',
                      hint = case when exists (select from shardman.tables t where t.relation = other)
                                  then format('If the foreign key has the keys of both: select shardman.colocate(%L, %L).', relation, other)
                                  else format('A small table can be shared: select shardman.create_shared_table(%L, ...).', other) end;
        end if;
    end loop;
end
$$;
comment on function shardman.need_referable(text, text, text) is 'raises where a statement makes a foreign key of a sharded table that plain DDL cannot make';

create or replace function shardman.renames_table(tag text, query text) returns bool
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select coalesce(tag = 'ALTER TABLE' and shardman.plain_words(query) ~* '(\mrename\s+to|\mset\s+schema)\s+\S+$', false)
$$;
comment on function shardman.renames_table(text, text) is 'whether a statement gives a table another name or schema, and changes nothing else';

create or replace function shardman.renames_by_index(query text, tag text, path text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select tag = 'ALTER INDEX' and shardman.plain_words(query) ~* '\mrename\s+to\M' and not shardman.is_index(query, tag, path)
$$;
comment on function shardman.renames_by_index(text, text, text) is 'whether a statement renames a table by ALTER INDEX, which PostgreSQL does, with an index''s locks';

create or replace function shardman.refuse_index_name(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a table, and ALTER INDEX would rename it', relation using errcode = 'wrong_object_type', hint = 'ALTER TABLE renames tables.';
end
$$;
comment on function shardman.refuse_index_name(text) is 'raises where a table is to be renamed as an index';

create or replace function shardman.need_possible(relation text, query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    words constant text := regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''|"([^"]|"")*"', 'x', 'g');
begin
    perform shardman.need_numbers_kept(relation, query, tag);
    if shardman.renames_by_index(query, tag, path) then
        perform shardman.refuse_index_name(relation);
    elsif words ~* '\mconcurrently\M' then
        raise exception 'PostgreSQL cannot build or drop an index of a partitioned table concurrently'
            using errcode = 'feature_not_supported',
                  hint = case tag when 'CREATE INDEX' then format('select shardman.create_index_concurrently(%L) builds it beside writers.',
                                                                 regexp_replace(shardman.one_statement(query), '\mconcurrently\s+', '', 'i'))
                                  else 'Leave CONCURRENTLY out; to drop one takes a moment.' end;
    elsif tag = 'ALTER TABLE' and words ~* '\musing\s+index\M' then
        raise exception 'PostgreSQL makes no key of a partitioned table of an index'
            using errcode = 'feature_not_supported', hint = format('ALTER TABLE %s ADD CONSTRAINT ... UNIQUE (...) builds its own.', relation);
    elsif tag = 'ALTER TABLE' and words ~* '\mtype\s([^,(]|\([^)]*\))*\musing\M' and not shardman.is_cast(query, tag) then
        perform shardman.refuse_using();
    elsif shardman.is_cast(query, tag) and shardman.needs_stand_in(relation, query, tag, path) then
        perform shardman.refuse_mixture(relation);
    elsif tag = 'CREATE INDEX' and words ~* '^create\s+unique\M' then
        raise exception 'PostgreSQL has no unique index of a partitioned table with partitions on other nodes'
            using errcode = 'feature_not_supported',
                  hint = format('ALTER TABLE %s ADD CONSTRAINT ... UNIQUE (...) makes a key; shardman.create_index_concurrently(...) an index of each data table.', relation);
    elsif tag = 'ALTER TABLE' and words ~* '\malter\s+constraint\M' and shardman.touches_reference(relation, query) then
        raise exception 'a foreign key of % cannot be altered: its data tables have it', relation
            using errcode = 'feature_not_supported', hint = 'Drop it, and add it anew.';
    elsif shardman.storage_form(query, tag) is not null then
        perform shardman.refuse_storage(relation, shardman.storage_form(query, tag));
    elsif tag = 'ALTER TABLE' and words ~* '\madd\M.*\mreferences\M' then
        perform shardman.need_referable(relation, query, path);
    end if;
end
$$;
comment on function shardman.need_possible(text, text, text, text) is 'raises where a change of a sharded table cannot be made at all';

create or replace function shardman.ddl_lock_modes(tag text, query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when tag in ('GRANT', 'REVOKE', 'COMMENT', 'ALTER SEQUENCE') or tag = 'ALTER INDEX' and query ~* '\mrename\s+to\M' then ''
                when tag = 'CREATE INDEX' then 'only exclusive,share,copies'
                when shardman.renames_table(tag, query) then 'only access exclusive'
                else 'only access exclusive,access exclusive,copies' end
           || case when tag = 'ALTER TABLE' and query ~* '\malter\s+(column\s+)?("([^"]|"")+"|[^\W\d][\w$]*)\s+(set\s+data\s+)?type\s' then ',keys' else '' end
$$;
comment on function shardman.ddl_lock_modes(text, text) is
    'what the gate locks for a statement of a kind, one after the other on all nodes; keys: and what it takes away meanwhile';

create or replace function shardman.open_door(node int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    door constant text := format('shardman.%I', 'door_' || node || '_' || pg_backend_pid());
begin
    if to_regclass(door) is not null then
        return;
    end if;
    execute format('create foreign table %s (statement text, path text, lock_timeout text) server %I '
                   'options (schema_name ''shardman'', table_name ''ddl'', batch_size ''1'', async_capable ''true'')', door, shardman.node_server(node));
    execute format('grant insert, select on %s to public', door);
end
$$;
comment on function shardman.open_door(int) is 'a foreign table of this transaction''s through which statements go to another node, as who inserts them';

create or replace function shardman.other_nodes() returns int[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select n.id from shardman.reachable_nodes() n where n.lord or n.worker_status <> 'removed' order by n.id)
$$;
comment on function shardman.other_nodes() is 'the nodes, but this one, that are to have what DDL changes';

create or replace function shardman.may_lack_ddl(node int) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select not exists (select from shardman.nodes n where n.id = node and n.lord)
       and not exists (select from shardman.partitions p where p.owner = node and p.prv is null)
$$;
comment on function shardman.may_lack_ddl(int) is
    'whether DDL goes on without a node that is away: it has no rows that others use, as when others have taken over its partitions';

create or replace function shardman.open_doors(wanted int[]) returns int[]
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    opened int[] := '{}';
    node   int;
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array wanted loop
        begin
            perform shardman.open_door(node);
            if shardman.may_lack_ddl(node) then
                perform shardman.through_door(node, 'select', '1s');
            end if;
            opened := opened || node;
        exception when connection_failure then
            raise notice 'node % is away: it gets this when it is back', node;
        end;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
    return opened;
end
$$;
comment on function shardman.open_doors(int[]) is
    'opens a door to each of some nodes; those that are away and may be have none: the others are returned';

create or replace function shardman.refuse_hidden(query text, tag text, path text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    statement text;
    relation  text;
begin
    if shardman.is_own_ddl() or shardman.one_statement(query) is not null then
        return;
    end if;
    foreach statement in array coalesce(shardman.split_statements(query), '{}') loop
        relation := shardman.sharded_name(shardman.ddl_relation(statement, tag, path));
        if relation is not null then
            perform shardman.refuse_lone(relation, 'trigger', null, tag);
        end if;
    end loop;
end
$$;
comment on function shardman.refuse_hidden(text, text, text) is
    'before a trigger is dropped or altered in a query with others that are no DDL: raises where it is about a sharded table. PostgreSQL would find none there, or skip it';

create or replace function shardman.refuse_grantor(relation text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- Who has none of its rights to give PostgreSQL tells so.
    if has_any_column_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, shardman.find_relation(relation),
                                'select with grant option, insert with grant option, update with grant option, references with grant option')
       or has_table_privilege(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, shardman.find_relation(relation),
                              'delete with grant option, truncate with grant option, trigger with grant option') then
        raise exception '% is sharded, and this would change rights on this node only', relation
            using errcode = 'feature_not_supported', hint = 'Its owner''s GRANT reaches all nodes, and that of who owns another sharded table.';
    end if;
end
$$;
comment on function shardman.refuse_grantor(text) is 'raises where somebody gives rights on a sharded table that he may give, and has no way to other nodes';

create or replace function shardman.on_ddl_start() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    query  text;
    target text;
    tables text[];
    wanted int[];
    nodes  int[];
begin
    if current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_target', '', true), set_config('shardman.ddl_shared', '', true), set_config('shardman.ddl_dropping', '', true),
            set_config('shardman.ddl_now', '', true);
    query := shardman.take_statement(tg_tag);
    if tg_tag in ('ALTER TRIGGER', 'DROP TRIGGER') then
        perform shardman.refuse_hidden(query, tg_tag, current_setting('shardman.ddl_path', true));
    end if;
    -- What our own routines do is a SELECT to whoever looks from here.
    if coalesce(query, '') !~* '^(\s|--|/\*|alter|create|drop|grant|revoke|comment|set\s+constraints)' or current_setting('shardman.ddl', true) <> '' then
        return;
    end if;
    if exists (select from shardman.renamed_tables) then
        perform shardman.await_name(r) from unnest(shardman.ddl_relations(query, tg_tag, current_setting('shardman.ddl_path', true))) r;
    end if;
    tables := case when tg_tag in ('GRANT', 'REVOKE') then shardman.granted_tables(query, current_setting('shardman.ddl_path', true))
                   else array[shardman.sharded_name(shardman.ddl_relation(query, tg_tag, current_setting('shardman.ddl_path', true)))] end;
    if tg_tag = 'DROP TABLE' then
        tables := array(select distinct shardman.sharded_name(r) from unnest(shardman.ddl_relations(query, tg_tag, current_setting('shardman.ddl_path', true))) r
                         where shardman.sharded_name(r) is not null);
        if cardinality(tables) > 0 then
            perform shardman.start_drop(tables);
        end if;
        tables := '{}';
    end if;
    -- Of several the first stands for all: what is sent is the statement.
    target := tables[1];
    if target is null and tg_tag not like '% TRIGGER' then
        perform shardman.refuse_reference_to_sharded(query, tg_tag, current_setting('shardman.ddl_path', true)) where tg_tag = 'ALTER TABLE';
        perform shardman.start_shared_ddl(query, tg_tag, current_setting('shardman.ddl_path', true));
    end if;
    if target is null then
        return;
    end if;
    -- Who may not change it gets PostgreSQL's word for that, and not that of the first door. GRANT can be anybody's with the option for it.
    if tg_tag not in ('GRANT', 'REVOKE') then
        perform shardman.need_owner(target);
    elsif not shardman.may_spread() then
        perform shardman.refuse_grantor(t) from unnest(tables) t;
        return;
    end if;
    perform shardman.await_new_tables();
    perform shardman.need_possible(target, query, tg_tag, current_setting('shardman.ddl_path', true));
    wanted := shardman.other_nodes();
    nodes := shardman.open_doors(wanted);
    perform set_config('shardman.ddl_target', target, true), set_config('shardman.ddl_tables', array_to_string(tables, chr(10)), true);
    perform set_config('shardman.ddl_nodes', array_to_string(nodes, ','), true),
            set_config('shardman.ddl_wanted', array_to_string(wanted || shardman.my_id(), ','), true),
            set_config('shardman.ddl_change', gen_random_uuid()::text, true);
end
$$;
comment on function shardman.on_ddl_start() is
    'before DDL, as the cluster''s role: where it is about a sharded table, opens doors to the other nodes and says so to those that follow';

create or replace function shardman.hold_table(relation text, mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_known(relation);
    if mode = 'copies' then
        perform shardman.hold_copies(relation);
    elsif mode = 'stand-in' then
        perform shardman.make_stand_in(relation);
    elsif mode = 'tuning' then
        perform shardman.make_tuning_stand_in(relation);
    elsif starts_with(mode, 'refers ') then
        perform shardman.hold_named(substr(mode, 8));
    elsif starts_with(mode, 'beside ') then
        perform shardman.hold_beside(relation, substr(mode, 8));
    elsif starts_with(mode, 'referred ') then
        perform shardman.hold_referred_to(relation, substr(mode, 10));
    elsif mode = 'keys' then
        -- PostgreSQL would make those of the retyped columns anew, on the partitions as well. They come back at the statement's end.
        perform set_config('shardman.ddl_busy', 'on', true);
        perform set_config('shardman.ddl_keys', shardman.drop_keys(shardman.find_relation(relation))::text, true),
                set_config('shardman.ddl_busy', '', true);
    elsif starts_with(mode, 'only ') then
        execute format('lock table only %s in %s mode %s', shardman.name_here(relation), rtrim(replace(substr(mode, 6), 'nowait', '')),
                       case when mode ~ ' nowait$' then 'nowait' else '' end);
    else
        execute format('lock table %s in %s mode', shardman.name_here(relation), mode);
    end if;
end
$$;
comment on function shardman.hold_table(text, text) is
    'a part of the gate on this node: locks a sharded table, the table only or with its partitions, or the copies that are in none';

create or replace function shardman.copies_here(relation text) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.oid
      from (select distinct p.part_name from shardman.partitions p where p.relation = copies_here.relation) as p
      join pg_class c on c.oid = shardman.find_relation(shardman.data_table(p.part_name))
     where c.relkind = 'r' and not c.relispartition
       and exists (select from pg_constraint o where o.conrelid = c.oid and o.conname = 'shardman_partition' and o.contype = 'c')
     order by c.oid
$$;
comment on function shardman.copies_here(text) is 'the data tables of a sharded table on this node that are in no partition: replicas, and copies that are being made';

create or replace function shardman.is_callers(relation text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Inside a function that acts as the cluster's role, current_user is not who called it.
    select coalesce(pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, c.relowner, 'usage'), false)
      from pg_class c where c.oid = shardman.find_relation(relation)
$$;
comment on function shardman.is_callers(text) is 'whether the caller owns a sharded table';

create or replace function shardman.need_owner(relation text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.is_callers(relation) is not true then
        raise exception 'must be owner of %', relation using errcode = 'insufficient_privilege', hint = 'Ask its owner.';
    end if;
end
$$;
comment on function shardman.need_owner(text) is 'raises unless the caller may change a sharded table';

create or replace function shardman.follow_rights(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Behind the gate all partitions are ours. Where there was none, as for GRANT, to lock one after the other would make a circle with
    -- writers: what needs a lock, such as a policy that another statement has made, is the reconciler's then.
    perform shardman.mend_rights(relation, lock_free => not shardman.is_held(shardman.find_relation(relation)));
end
$$;
comment on function shardman.follow_rights(text) is 'within DDL: gives partitions and data tables on this node the rights of the table';

create or replace function shardman.follow_copies(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Who may grant rights on a table need not own it.
    if shardman.is_callers(relation) then
        perform shardman.follow_table(relation, false);
    end if;
    perform shardman.follow_rights(relation);
end
$$;
comment on function shardman.follow_copies(text) is 'shardman.follow_table, for the owner of the table, and shardman.follow_rights';

create or replace function shardman.hold_copies(relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    copy   oid;
begin
    perform shardman.need_owner(relation);
    for copy in select * from shardman.copies_here(relation) loop
        execute format('lock table only %s in access exclusive mode', copy::regclass);
    end loop;
end
$$;
comment on function shardman.hold_copies(text) is
    'locks replicas of a table on this node, for its owner, who has no right on them: what feeds them has delivered all that it had begun';

create or replace function shardman.through_door(node int, statement text, wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('insert into shardman.%I values ($1, $2, $3)', 'door_' || node || '_' || pg_backend_pid())
      using statement, current_setting('shardman.ddl_path', true), wait;
exception when sqlclient_unable_to_establish_sqlconnection or connection_failure then
    raise exception 'node % cannot be reached, and this is done on all nodes or on none', node
        using errcode = 'connection_failure', detail = sqlerrm, hint = 'Start it, or remove it with shardman.rm_node, and try again.';
end
$$;
comment on function shardman.through_door(int, text, text) is 'runs a statement on another node, as the caller, in his transaction; wait: its lock_timeout there';

create or replace function shardman.send_on(node int, query text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name text;
begin
    perform shardman.through_door(node, shardman.one_statement(query), '10s');
exception when undefined_object then
    -- PostgreSQL says what is missing, and not where.
    name := (regexp_match(sqlerrm, '"(.+)"'))[1];
    raise exception 'node %: %', node, sqlerrm
        using errcode = 'undefined_object',
              hint = case when exists (select from pg_roles r where r.rolname = name)
                          then format('A superuser makes the role on all nodes: select shardman.sync_roles(shardman.my_id(), %L).', name)
                          else 'Make it on that node, too.' end;
when undefined_function then
    raise exception 'node %: %', node, sqlerrm
        using errcode = 'undefined_function', hint = 'CREATE OR REPLACE FUNCTION, sent to any node by itself, makes it on all.';
end
$$;
comment on function shardman.send_on(int, text) is 'sends the caller''s statement on to another node; what that lacks is said with its number, and how a role gets there';

create or replace function shardman.hold_asked() returns bool
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    asked constant jsonb := nullif(current_setting('shardman.ddl_hold', true), '')::jsonb;
begin
    if asked is null then
        return null;
    end if;
    perform set_config('lock_timeout', asked ->> 'wait', true);
    perform shardman.hold_table(asked ->> 'relation', asked ->> 'mode');
    return true;
exception when lock_not_available or deadlock_detected then
    return false;
end
$$;
comment on function shardman.hold_asked() is 'shardman.hold_table with what the setting shardman.ddl_hold says; whether the lock was had';

create or replace function shardman.hold_at_once(relation text, mode text, nodes int[], wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_async_append = on as $$
declare
    asked constant text := jsonb_build_object('relation', relation, 'mode', mode, 'wait', wait)::text;
    doors constant text := (select string_agg(format(' union all select statement from shardman.%I', 'door_' || n || '_' || pg_backend_pid()), '')
                              from unnest(nodes) n);
    held  bool;
    node  int;
begin
    perform set_config('shardman.ddl_hold', asked, true);
    foreach node in array nodes loop
        perform shardman.through_door(node, format('select set_config(''shardman.ddl_hold'', %L, true)', asked), wait);
    end loop;
    -- Asynchronous scans: all are sent before the first answer is waited for, and before this node's own lock.
    execute format('select bool_and(h.held::bool) from (select shardman.hold_asked()::text%s) as h (held)', doors) into held;
    if not held then
        raise exception '% is in use', relation using errcode = 'lock_not_available';
    end if;
end
$$;
comment on function shardman.hold_at_once(text, text, int[], text) is
    'shardman.hold_table on this node and others at the same time; raises where a lock is not had within wait';

create or replace function shardman.hold_drained(relation text, nodes int[], wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.hold_at_once(relation, 'only exclusive', nodes, wait);
    for try in 1..5 loop
        begin
            perform shardman.hold_at_once(relation, 'only access exclusive nowait', nodes, wait);
            return;
        exception when lock_not_available then
            if try = 5 then
                raise;
            end if;
        end;
        perform pg_sleep(0.005);
    end loop;
end
$$;
comment on function shardman.hold_drained(text, int[], text) is
    'locks a table when those who write have come to their end. Who has read and wants to write waits for us: were we to wait for him, too, '
    'PostgreSQL would end his statement with an error at once; so we only look';

create or replace function shardman.close_gate(relation text, modes text[], nodes int[], wait text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    mode_ text;
    node  int;
begin
    foreach mode_ in array modes loop
        if mode_ = 'drained' then
            perform shardman.hold_drained(relation, nodes, wait);
            continue;
        elsif mode_ = 'only access exclusive' then
            perform shardman.hold_at_once(relation, mode_, nodes, wait);
            continue;
        end if;
        perform set_config('lock_timeout', wait, true);
        perform shardman.hold_table(relation, mode_);
        foreach node in array nodes loop
            perform shardman.through_door(node, format('select shardman.hold_table(%L, %L)', relation, mode_), wait);
        end loop;
    end loop;
end
$$;
comment on function shardman.close_gate(text, text[], int[], text) is 'one try: raises where a lock is not had within wait';

create or replace function shardman.on_ddl_gate() returns event_trigger
language plpgsql as $$
declare
    target constant pg_catalog.text := pg_catalog.current_setting('shardman.ddl_target', true);
begin
    if pg_catalog.length(target) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.pass_gate(target, tg_tag);
    end if;
end
$$;
comment on function shardman.on_ddl_gate() is 'before DDL on a sharded table, as the caller, who may have no way into our schema unless it is his: closes the gate';

create or replace function shardman.has_replicas(relation text) returns bool
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.partitions p where p.relation = has_replicas.relation and p.prv is not null)
$$;
comment on function shardman.has_replicas(text) is 'whether any partition of a table has a replica';

create or replace function shardman.pass_gate(relation text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    modes  constant text[] := shardman.gate_modes(relation, tag, shardman.statement_now(), current_setting('shardman.ddl_path', true));
    nodes  constant int[] := string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[];
    mine   constant text := current_setting('lock_timeout');
    patience constant interval := '30 s';
    begun  constant timestamptz := clock_timestamp();
    -- Short first: most transactions are, and every try holds up all others.
    longest numeric := 30;
    wait    numeric := 30;
    -- What feeds a replica opens the table, to check that a row belongs to it: an access exclusive lock stops it, and whose commit waits for
    -- the replica then waits for us, while we wait for him. So every other try lets writers, and their replicas, come to their end
    -- first. That stops who has read and is about to write; where all do, the other kind of try is the one that finds a moment.
    drains bool := modes[1] = 'only access exclusive' and shardman.has_replicas(relation);
    copied constant bool := drains;
begin
    perform shardman.send_now(nodes);
    if modes is null then
        return;
    end if;
    -- This transaction holds the replicas' locks until it has ended on all nodes. If its end on one waited for replicas on
    -- another, with rows that it has written as well, it would wait for itself.
    perform set_config('synchronous_commit', 'local', true);
    loop
        begin
            perform shardman.close_gate(relation, case when drains then array_replace(modes, 'only access exclusive', 'drained') else modes end, nodes,
                                        round(wait) || 'ms');
            exit;
        exception when lock_not_available or deadlock_detected or serialization_failure then
            if clock_timestamp() > begun + patience then
                raise exception '% is in use: no moment was found in % to change it', relation, patience
                    using errcode = 'lock_not_available', detail = sqlerrm,
                          hint = 'Try again; a statement or transaction that uses it for long is in pg_stat_activity of its node.';
            end if;
        end;
        -- Most tries fail of a circle, in which to wait longer only holds others up; some of a long statement, for which only a long wait helps.
        longest := least(500, longest * 1.1);
        wait := case when random() < 0.15 then longest else 30 * power(longest / 30, (random() * random())::numeric) end;
        drains := copied and not drains;
        perform pg_sleep(random() * 0.05);
    end loop;
    perform set_config('lock_timeout', mine, true);
    if shardman.is_cast(shardman.statement_now(), tag) then
        perform shardman.set_aside_for_cast(relation);
    end if;
end
$$;
comment on function shardman.pass_gate(text, text) is 'closes the gate for a kind of statement, trying again for half a minute';

create or replace view shardman.ddl as
    select shardman.hold_asked()::text as statement, null::text as path, null::text as lock_timeout;
comment on view shardman.ddl is
    'a statement inserted here is run, as who inserts it: it comes from another node, where it was sent. Who reads it gets the lock that was asked for';

create or replace function shardman.ddl_insert() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('shardman.ddl', 'spread', true), set_config('lock_timeout', new.lock_timeout, true),
            set_config('synchronous_commit', 'local', true), set_config('search_path', new.path, true);
    for try in 1..5 loop
        begin
            execute new.statement;
            exit;
        exception when internal_error then
            -- Rights have no lock: whoever changes those of the same table, as the reconciler does, is in the way for a moment.
            if try operator(pg_catalog.=) 5 or new.statement operator(pg_catalog.!~*) '^(grant|revoke)\M' then
                raise;
            end if;
            perform pg_catalog.pg_sleep(0.1);
        end;
    end loop;
    perform pg_catalog.set_config('shardman.ddl', '', true);
    return new;
end
$$;
comment on function shardman.ddl_insert() is 'runs what came through a door';
create or replace trigger ddl_insert instead of insert on shardman.ddl
    for each row execute function shardman.ddl_insert();

create or replace function shardman.on_ddl_spread() returns event_trigger
language plpgsql as $$
begin
    if pg_catalog.length(pg_catalog.current_setting('shardman.ddl_target', true)) operator(pg_catalog.>) 0
       and pg_catalog.current_setting('shardman.ddl_busy', true) operator(pg_catalog.<>) 'on' then
        perform shardman.spread_ddl(shardman.statement_now(), tg_tag);
    end if;
end
$$;
comment on function shardman.on_ddl_spread() is 'after DDL on a sharded table, as the caller: the same on the other nodes';

create or replace function shardman.give_keys_back(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- As the caller: he can set this to what he likes.
    taken constant jsonb := nullif(current_setting('shardman.ddl_keys', true), '');
begin
    perform set_config('shardman.ddl_keys', '', true), set_config('shardman.ddl_busy', 'on', true);
    perform shardman.mend_keys(jsonb_build_object('keys', taken, 'key', '[]'::jsonb), shardman.find_relation(relation));
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.give_keys_back(text) is 'gives a table the keys that the gate took from it for a statement, as the caller';

create or replace function shardman.spread_ddl(query text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    target constant text := current_setting('shardman.ddl_target', true);
    keys   constant bool := current_setting('shardman.ddl_keys', true) <> '';
    casts  constant bool := shardman.is_cast(query, tag);
    stand  constant bool := shardman.table_behind(target) is not null and not casts;
    sent   constant text := shardman.sent_statement(query, tag);
    tables constant text[] := string_to_array(current_setting('shardman.ddl_tables', true), chr(10));
    node   int;
    name   text;
    given  jsonb;
begin
    if stand then
        given := shardman.finish_stand_in(target, null);
    elsif casts then
        perform shardman.cast_here(target, query, tag);
    end if;
    if keys then
        perform shardman.give_keys_back(target);
    end if;
    foreach node in array coalesce(string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[], '{}') loop
        -- The note first: who repeats a change there waits by it for the end of this transaction.
        perform shardman.through_door(node, format('select shardman.note_change(%L)', shardman.change_sent(sent, tag, target, tables)), '10s');
        perform shardman.send_on(node, sent);
        if stand then
            perform shardman.through_door(node, format('select shardman.finish_stand_in(%L, %L)', target, given), '10s');
        end if;
        -- Of what was dropped PostgreSQL says there only what it was called.
        foreach name in array tables loop
            perform shardman.through_door(node, format('select shardman.follow_copies(%L)', name), '10s');
        end loop;
        if keys then
            perform shardman.through_door(node, format('select shardman.give_keys_back(%L)', target), '10s');
        end if;
    end loop;
end
$$;
comment on function shardman.spread_ddl(text, text) is 'sends a statement to all other nodes';

create or replace function shardman.on_ddl_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    target  constant text := nullif(current_setting('shardman.ddl_target', true), '');
    changed record;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    if tg_tag = 'ALTER TABLE' and coalesce(current_setting('shardman.ddl', true), '') <> 'here' then
        perform shardman.note_name(shardman.of_partitions(d.objid), d.objid) from pg_event_trigger_ddl_commands() d
          where d.classid = 'pg_class'::regclass and shardman.of_partitions(d.objid) is not null;
    end if;
    for changed in
        select s.relation, bool_or(d.object_type = 'table column') as renamed
          from pg_event_trigger_ddl_commands() d
         cross join lateral (select coalesce((select i.indrelid from pg_index i where i.indexrelid = d.objid), d.objid)) as o (rel)
         cross join lateral (select shardman.sharded_name(o.rel) offset 0) as s (relation)
         where d.classid = 'pg_class'::regclass and tg_tag in ('ALTER TABLE', 'ALTER INDEX', 'CREATE INDEX') and s.relation is not null
           and shardman.table_behind(s.relation) is null
         group by 1
    loop
        perform shardman.follow_table(changed.relation, changed.renamed);
        perform shardman.keep_sequences(changed.relation, false);
    end loop;
    if tg_tag = 'ALTER SEQUENCE' and coalesce(current_setting('shardman.ddl', true), '') <> 'here' then
        perform shardman.keep_sequences(s.relation, target is not null)
           from pg_event_trigger_ddl_commands() d cross join lateral (select shardman.sharded_name(shardman.table_of_sequence(d.objid)) offset 0) as s (relation)
          where d.classid = 'pg_class'::regclass and s.relation is not null;
    end if;
    if target is not null then
        perform shardman.finish_ddl(target, tg_tag);
    end if;
    perform set_config('shardman.ddl_busy', '', true);
end
$$;
comment on function shardman.on_ddl_end() is
    'after DDL, as the cluster''s role: lets copies on this node follow the table; on the node where the statement was sent closes the '
    'doors and lets the lord write down what the table is now';

create or replace function shardman.finish_ddl(target text, tag text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    granted constant text[] := shardman.granted_tables(shardman.statement_now(), current_setting('shardman.ddl_path', true));
    tables  constant text[] := case when cardinality(granted) > 0 then granted else array[target] end;
    node    int;
begin
    perform shardman.need_same_everywhere(target);
    perform shardman.keep_change(shardman.change_sent(shardman.sent_statement(shardman.statement_now(), tag), tag, target, tables));
    perform shardman.follow_table(target, false);
    perform shardman.keep_sequences(target, false);
    perform shardman.follow_rights(t) from unnest(tables) t;
    foreach node in array string_to_array(current_setting('shardman.ddl_nodes', true), ',')::int[] loop
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
    end loop;
    perform set_config('shardman.ddl_target', '', true);
    perform shardman.submit('refresh_table', json_build_object('relation', t)) from unnest(tables) t where not shardman.submit_name(t);
end
$$;
comment on function shardman.finish_ddl(text, text) is 'the end of DDL on the node where it was sent';

create or replace function shardman.let_owners_in() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
begin
    for owner_ in
        select distinct c.relowner from shardman.tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
         where shardman.is_ordinary(c.relowner)
           and not (has_table_privilege(c.relowner, 'shardman.ddl', 'insert') and has_table_privilege(c.relowner, 'shardman.ddl', 'select'))
    loop
        execute format('grant usage on schema shardman to %I', pg_get_userbyid(owner_));
        execute format('grant insert, select on shardman.ddl to %I', pg_get_userbyid(owner_));
    end loop;
end
$$;
comment on function shardman.let_owners_in() is
    'lets the owners of sharded tables call what the gate and the doors need, which does nothing that they could not do themselves';
