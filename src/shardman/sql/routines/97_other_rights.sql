-- GRANT and REVOKE on what is in no table, on views and sequences, and ALTER DEFAULT PRIVILEGES: sent to all nodes like the DDL of such
-- objects (97_other_ddl.sql). PostgreSQL does not tell event triggers on what a right is given, so it is read from the text; what is
-- not understood stays on this node.

create or replace function shardman.rights_list(statement text, kinds text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- Commas inside of quotes and of the arguments of functions are none of the list's.
    select array(select btrim(m[1], E' \t\r\n')
                   from regexp_matches((regexp_match(statement, '^(?:grant|revoke)\s.*?\son\s+(?:' || kinds || ')\s+(.*)\s(?:to|from)\s', 'i'))[1],
                                       '((?:"(?:[^"]|"")*"|\([^)]*\)|[^,"(])+)', 'g') as m)
$$;
comment on function shardman.rights_list(text, text) is 'the names in a GRANT or REVOKE on objects of some kinds (a pattern), as they are written; empty where it is on others';

create or replace function shardman.rights_schema(name text, catalog regclass, path text) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    -- Without the arguments of a function.
    parts constant text[] := parse_ident(regexp_replace(name, '^((?:"(?:[^"]|"")*"|[^"(])*)\(.*$', '\1'), false);
begin
    if cardinality(parts) > 1 then
        return parts[1];
    end if;
    perform set_config('search_path', path, true);
    return (select n.nspname
              from pg_catalog.unnest(pg_catalog.current_schemas(true)) with ordinality as s (nspname, place) join pg_catalog.pg_namespace n on n.nspname operator(pg_catalog.=) s.nspname
             where catalog operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                   and exists (select from pg_catalog.pg_proc p where p.pronamespace operator(pg_catalog.=) n.oid and p.proname operator(pg_catalog.=) parts[1]::pg_catalog.name)
                or catalog operator(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                   and exists (select from pg_catalog.pg_type t where t.typnamespace operator(pg_catalog.=) n.oid and t.typname operator(pg_catalog.=) parts[1]::pg_catalog.name)
                or catalog operator(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                   and exists (select from pg_catalog.pg_class c where c.relnamespace operator(pg_catalog.=) n.oid and c.relname operator(pg_catalog.=) parts[1]::pg_catalog.name)
             order by s.place limit 1);
exception when invalid_parameter_value then
    return null;
end
$$;
comment on function shardman.rights_schema(text, regclass, text) is
    'the schema of a function, type or relation that a statement names; path: the search_path by which; null where it is not found';

create or replace function shardman.rights_relations(statement text, kinds text, relkinds text[], path text) returns text[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- All of them or none: what is about a table as well is not sent from here.
    select case when bool_and(exists (select from pg_class c join pg_namespace s on s.oid = c.relnamespace
                                       where s.nspname = n.schema_name and c.relname = n.parts[cardinality(n.parts)] and c.relkind::text = any (relkinds)
                                         and (c.relkind <> 'S' or shardman.numbered_by(c.oid) is not null)))
                then array_agg(n.schema_name) else '{}' end
      from (select shardman.rights_schema(l, 'pg_class', path) as schema_name, parse_ident(l, false) as parts
              from unnest(shardman.rights_list(statement, kinds)) l where l ~ '^(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?$') as n
$$;
comment on function shardman.rights_relations(text, text, text[], text) is
    'the schemas of the views, or of the sequences of sharded tables, that a GRANT or REVOKE is about; none where it is about anything else too';

create or replace function shardman.rights_schemas(statement text, tag text, path text) returns text[]
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select case when tag = 'ALTER DEFAULT PRIVILEGES'
                then coalesce((select array_agg((parse_ident(btrim(m[1])))[1])
                                 from regexp_matches((regexp_match(statement, '\sin\s+schema\s+(.*?)\s(?:grant|revoke)\s', 'i'))[1], '((?:"(?:[^"]|"")*"|[^,"])+)', 'g') as m),
                              array[null]::text[])
                else array(select (parse_ident(l))[1] from unnest(shardman.rights_list(statement, '(?:all\s+(?:functions|procedures|routines|sequences)\s+in\s+)?schema')) l)
                     || array(select shardman.rights_schema(l, 'pg_proc', path) from unnest(shardman.rights_list(statement, 'function|procedure|routine')) l)
                     || array(select shardman.rights_schema(l, 'pg_type', path) from unnest(shardman.rights_list(statement, 'type|domain')) l)
                     || shardman.rights_relations(statement, 'sequence', '{S}', path)
                     -- TABLE is a word that may be left out.
                     || shardman.rights_relations(statement, 'table', '{v,m}', path)
                     || shardman.rights_relations(regexp_replace(statement, '\son\s', ' on table ', 'i'), 'table', '{v,m}', path) end
$$;
comment on function shardman.rights_schemas(text, text, text) is
    'the schemas in which a GRANT, REVOKE or ALTER DEFAULT PRIVILEGES gives or takes rights on what is in no table, on views, and on sequences of '
    'sharded tables; empty where it is about something else; path: the search_path by which its names are read';

create or replace function shardman.spreads_rights(statement text, tag text) returns bool
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce(bool_and(shardman.spreads_schema(s)), false)
      from unnest(shardman.rights_schemas(statement, tag, coalesce(current_setting('shardman.ddl_path', true), ''))) s
$$;
comment on function shardman.spreads_rights(text, text) is 'whether a statement about rights is one that all nodes get: all it is about is in schemas that are the same everywhere';
