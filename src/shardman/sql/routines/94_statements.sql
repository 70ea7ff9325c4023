-- Which statement it is, of several in one query: migration tools send ALTER TABLE …; ALTER TABLE …; as one text.
--
-- PostgreSQL tells event triggers the whole text. Each statement of DDL calls them once, one after the other, so the first
-- ALTER TABLE in the text is the first that comes, as long as nothing else in the text can make DDL of the same kind: a function
-- may, so a text with a SELECT is not understood, and DO only where its words are of another kind, or where it is all of the query
-- and does one statement, if that is needed. Of what is not understood a sharded or shared table is not changed (97_lone_ddl.sql).

create or replace function shardman.split_statements(query text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as $$
    -- All tokens in one go: one after the other, PostgreSQL would convert all that is left of a long text for each. The shortest match
    -- is taken ({1,1}?), for of a quote in dollars the longest would reach to the last one of the text; what is plain must reach to the next that is not.
    with tokens as materialized (
        select m[1] as token, n
          from regexp_matches(query, $t$((?:(?:[^;'"$/eE-]|[eE](?!')|-(?!-)|/(?!\*)|\$(?!(?:[^\W\d]\w*)?\$))+(?=[;'"]|[eE]'|--|/\*|\$(?:[^\W\d]\w*)?\$|$)|$t$
                                  || $t$;|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/|$t$
                                  || $t$(\$(?:[^\W\d]\w*)?\$).*?\2){1,1}?)$t$, 'g') with ordinality as t (m, n)
    ), numbered as (
        select token, n, count(*) filter (where token = ';') over (order by n) as nth from tokens
    ), statements as (
        select nth, trim(E' \t\r\n' from string_agg(case when token ~ '^(--|/\*)' then ' ' else token end, '' order by n)) as text
          from numbered where token <> ';' group by nth
    )
    -- What is skipped is a quote that is not closed.
    select case when coalesce((select sum(length(token)) from tokens), 0) = length(query)
                then array(select s.text from statements s where s.text ~ '\S' order by s.nth) end
$$;
comment on function shardman.split_statements(text) is 'the statements of a query, without comments; null where a quote is not closed';

create or replace function shardman.statement_kind(statement text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case when m[1] is not null then regexp_replace(upper(m[1]), '\s+((UNIQUE|OR\s+REPLACE|CONSTRAINT)\s+)*', ' ')
                when statement ~* '^comment\s+on\s' then 'COMMENT'
                -- Those of roles call no event trigger.
                when statement ~* '^(grant|revoke)\s[^"]*\mon\M' then upper(substring(statement, '^\w+'))
                when statement ~* '^(grant|revoke)\s[^"]*$' then ''
                when statement ~* '^(create|alter|drop)\s+extension\M' then null
                -- Its query runs, and may call anything; that of a view does not.
                when statement ~* '^create\s+((global|local|temp|temporary|unlogged|materialized)\s+)*(table|view)\s' and statement !~* '^create\s+((local|temp|temporary)\s+)*view\s'
                     and statement ~* '\mas\s*\(?\s*(select|with|execute|table|values)\M' then null
                when statement ~* '^(create|alter|drop)\M' then 'OTHER'
                -- What is done to one node alone calls them as well, and is not seen by all.
                when statement ~* '^(set|reset)\s.*\m(shardman|session_replication_role|event_triggers)\M' then null
                when statement ~* '^(begin|start\s+transaction|set|reset)\M' then ''
                when statement ~* '^do\M' then 'DO' end
      from (select regexp_match(statement, '^((?:alter\s+(?:table|index|sequence)|create\s+(?:unique\s+)?index|(?:create|alter|drop)\s+statistics|drop\s+(?:index|table)|(?:create|alter|drop)\s+policy'
                                           || '|create\s+(?:or\s+replace\s+)?(?:constraint\s+)?trigger|(?:alter|drop)\s+trigger))\M', 'i')) as r (m)
$$;
comment on function shardman.statement_kind(text) is
    'what event triggers call DDL of tables, or rights, by its first words; OTHER: other DDL; DO; empty: nothing that calls them; null: anything else';

create or replace function shardman.nth_statement(statements text[], tag text, after int) returns int
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    kinds constant text[] := array(select shardman.statement_kind(s) from unnest(statements) with ordinality as u (s, n) order by n);
    -- It ends the transaction with what is said here, so only as the last.
    last_ constant int := cardinality(statements) - (statements[cardinality(statements)] ~* '^(commit|end)\M')::int;
    -- As it is called, whatever stands between its words. Also of what is temporary.
    words constant text := replace(lower(tag), ' ', '\s+(?:(?:or\s+replace|temp|temporary|local|global|recursive|unique|constraint)\s+)*') || '\M';
begin
    if array_position(kinds[:last_], null) is not null
       or exists (select from unnest(statements, kinds) as u (s, k) where k = 'DO' and s ~* words) then
        return null;
    end if;
    return (select min(n) from unnest(statements, kinds) with ordinality as u (s, k, n)
             where n > after and (k = tag or k = 'OTHER' and s ~* ('^' || words)));
end
$$;
comment on function shardman.nth_statement(text[], text, int) is
    'the number of the first of these statements of a kind behind another one; null: which it is cannot be said';

create or replace function shardman.statement_of_block(block text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    body  constant text := (regexp_match(block, '^do\s+(?:language\s+plpgsql\s+)?(\$\w*\$)(.*)\1(?:\s*language\s+plpgsql)?$', 'i'))[2];
    -- What remains of them: the end of IF and of the block, and what is done about an error, if that is nothing but words.
    parts constant text[] := array(
        select s from unnest(shardman.split_statements(body)) s
         where s !~* '^(?:exception\s+)?(?:when\s[\w\s]+\sthen\s+)?(?:null|raise\s+(?:notice|info|debug)\s.*)$' and s !~* '^end(?:\s+if)?$');
begin
    if cardinality(parts) = 1 then
        return (regexp_match(parts[1], '^begin\s+(?:if\s.*?\sthen\s+)?((?:create|alter|drop|comment|grant|revoke)\M.*)$', 'i'))[1];
    end if;
    return null;
end
$$;
comment on function shardman.statement_of_block(text) is
    'the one statement of DDL of a DO that is made to do it only where it is needed, or to pass over an error; null of any other';

create or replace function shardman.take_statement(tag text, place text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    sent       constant text := current_query();
    -- All that came in one text have this time.
    now_       constant text := extract(epoch from statement_timestamp());
    seen       constant text[] := string_to_array(current_setting('shardman.' || place || '_nth', true), '/');
    statements text[];
    nth        int;
begin
    perform set_config('shardman.' || place || '_statement', '', true);
    if sent is null or sent ~* '^\s*select\M' or sent !~ ';\s*\S' then
        return sent;
    -- What Django sends with a statement about a foreign key belongs to it, on the other nodes too.
    elsif sent ~* '\mset\s+constraints\M' and shardman.one_statement(sent) is not null then
        return sent;
    end if;
    -- A long script is read once for each of its statements, so no more often than that.
    statements := shardman.split_statements(sent);
    if cardinality(statements) = 1 then
        if statements[1] !~* '^do\M' then
            return sent;
        end if;
        statements := array[shardman.statement_of_block(statements[1])];
    end if;
    nth := shardman.nth_statement(statements, tag, case when seen[1] = now_ then seen[2]::int else 0 end);
    if nth is null then
        return sent;
    end if;
    perform set_config('shardman.' || place || '_nth', now_ || '/' || nth, true),
            set_config('shardman.' || place || '_statement', statements[nth], true);
    return statements[nth];
end
$$;
comment on function shardman.take_statement(text, text) is
    'at DDL: the statement itself, where it came with others in one query. Place: which event counts, ddl before a change of a table, ddl_other after any other';

create or replace function shardman.statement_now() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(nullif(current_setting('shardman.ddl_statement', true), ''), current_query())
$$;
comment on function shardman.statement_now() is 'the statement of DDL of a table that is under way; the whole query where that cannot be told from it';
