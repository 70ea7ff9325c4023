-- What a statement about a sharded table says, as far as its text tells: PostgreSQL shows event triggers no parse tree.

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
        when 'CREATE STATISTICS' then '^create\s+statistics\M.*\son\s.*\sfrom\s+(?:only\s+)?(NAME)(?:\s*\*)?$'
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
    if shardman.is_about_statistics(query, tag) and tag <> 'CREATE STATISTICS' then
        return shardman.statistics_of(query, tag, path);
    elsif named is null then
        return null;
    end if;
    perform set_config('search_path', path, true);
    rel := pg_catalog.to_regclass(named)::pg_catalog.oid;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    return coalesce((select i.indrelid from pg_index i where i.indexrelid = rel), case when tag in ('ALTER SEQUENCE', 'ALTER TABLE') then shardman.table_of_sequence(rel) end,
                    case when tag <> 'DROP INDEX' then rel end);
end
$$;
comment on function shardman.ddl_relation(text, text, text) is
    'the table that a statement of this kind is about, or whose index, sequence or statistics object, read with this search_path; null where that cannot be said';

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
                                                'CREATE TRIGGER', 'ALTER TRIGGER', 'DROP TRIGGER', 'COMMENT', 'ALTER SEQUENCE',
                                                'CREATE STATISTICS', 'ALTER STATISTICS', 'DROP STATISTICS']) as tag
                        where shardman.sharded_name(shardman.ddl_relation(query, tag, 'public')) is not null));
end
$$;
comment on function shardman.is_spread(text) is 'whether a statement, sent to this node, changes a sharded table on all of them';

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
    select exists (select from shardman.known_references(relation) f cross join unnest(array['drop', 'rename', 'alter', 'validate']) as verb
                    where shardman.names_constraint(query, verb, f ->> 'name'))
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

create or replace function shardman.plain_words(query text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select regexp_replace(shardman.one_statement(query), '''([^'']|'''')*''|"([^"]|"")*"', 'x', 'g')
$$;
comment on function shardman.plain_words(text) is 'a statement without the strings and quoted names in it';
