-- Small things that the functions on tables share: names and lists as text, and one type.

do $$
begin
    if to_regtype('shardman.collations') is null then
        -- Nobody stores it. Two columns whose collations differ, neither of them the default: an expression
        -- over both has no collation at all. shardman.partition_check says what that is good for.
        create type shardman.collations as (c text collate "C", posix text collate "POSIX");
    end if;
end
$$;
comment on type shardman.collations is 'two collations that differ: see shardman.partition_check';

create or replace function shardman.sql_name(relation text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select format('%I.%I', p[1], p[2]) from (select shardman.relation_parts(relation) as p) as r
$$;
comment on function shardman.sql_name(text) is
    'a relation of the metadata with its schema in front: means the same under every search_path';

create or replace function shardman.metadata_name(relation oid) returns text
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select coalesce((select shardman.known_as(x.wanted) from shardman.renamed_tables x where x.wanted = r.name limit 1), r.name)
      from (select shardman.relation_text(n.nspname, c.relname) as name
              from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation) as r
$$;
comment on function shardman.metadata_name(oid) is 'the name of a relation of this database as the metadata writes it';

create or replace function shardman.name_here(relation text) returns text
language sql stable strict parallel safe set search_path = pg_catalog, pg_temp as $$ select shardman.sql_name(shardman.called_here(relation)) $$;
comment on function shardman.name_here(text) is 'shardman.sql_name of what a table of the metadata is called on this node';

create or replace function shardman.cut_bytes(word text, bytes int) returns text
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    short text := left(word, bytes);
begin
    while octet_length(short) > bytes loop
        short := left(short, -1);
    end loop;
    return short;
end
$$;
comment on function shardman.cut_bytes(text, int) is 'the longest beginning of word that has at most so many bytes';

create or replace function shardman.next_value(sequence text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    -- Not %L, which doubles backslashes.
    select 'nextval(''' || replace(shardman.sql_name(sequence), '''', '''''') || '''::regclass)'
$$;
comment on function shardman.next_value(text) is 'nextval of a sequence of the metadata, as PostgreSQL writes it in the default of a column';

create or replace function shardman.numbered_name(name text, k int) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when octet_length(name || '_' || k) <= 63 then name || '_' || k
                else shardman.cut_bytes(name, 63 - 9 - octet_length('_' || k))
                     || '_' || left(md5(name), 8) || '_' || k end
$$;
comment on function shardman.numbered_name(text, int) is
    'what an index, constraint or statistics object of the plain table is called on data table k: 63 bytes at most, '
    'different for different names';

create or replace function shardman.part_number(part_name text) returns int
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select (regexp_match(part_name, '_([0-9]+)"?$'))[1]::int
$$;
comment on function shardman.part_number(text) is 'k of partition acc_k';

create or replace function shardman.split_list(list text) returns text[]
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp set standard_conforming_strings = on as $$
declare
    items text[] := '{}';
    item  text := '';
    depth int := 0;
    quote text;
    c     text;
begin
    -- A name in double quotes may have all of them.
    if regexp_replace(list, '(''[^'']*'')|"[^"]*"', '\1.', 'g') ~ '[\\;]|--|/\*'
       or regexp_replace(list, '''[^'']*''|"[^"]*"', '.', 'g') ~ '\$' then
        raise exception 'a backslash, a semicolon, a dollar sign or a comment has no place in it'
            using errcode = 'syntax_error';
    end if;
    foreach c in array regexp_split_to_array(list, '') loop
        if quote is not null then
            quote := nullif(quote, c);
        elsif c in ('''', '"') then
            quote := c;
        elsif c in ('(', '[') then
            depth := depth + 1;
        elsif c in (')', ']') then
            depth := depth - 1;
            if depth < 0 then
                raise exception 'a parenthesis is closed that was not opened' using errcode = 'syntax_error';
            end if;
        elsif c = ',' and depth = 0 then
            items := items || btrim(item);
            item := '';
            continue;
        end if;
        item := item || c;
    end loop;
    if depth > 0 or quote is not null then
        raise exception 'a parenthesis or a quote is not closed' using errcode = 'syntax_error';
    end if;
    return items || btrim(item);
end
$$;
comment on function shardman.split_list(text) is
    'the items of a list of SQL expressions. What passes stays inside the parentheses that it is put in: it has none '
    'that are open or closed too often, no comment and nothing that ends a statement';
