-- What a statement would do to a table: what is locked, what work it is, and for about how long. It is done to a few thousand of
-- the table's rows, in a temporary table, and undone.

create or replace function shardman.previewed(rel oid, query text, tag text, path text) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    relation constant text := coalesce(shardman.sharded_name(rel), shardman.shared_name(rel));
begin
    if relation is null then
        raise exception '% is neither sharded nor shared', coalesce(rel::regclass::text, 'the table of this statement') using errcode = 'wrong_object_type',
            hint = 'See shardman.tables and shardman.shared_tables. A plain table is changed on its own node only.';
    end if;
    perform shardman.need_owner(relation);
    if shardman.sharded_name(rel) is not null then
        perform shardman.need_possible(relation, query, tag, path);
    else
        perform shardman.need_possible_shared(array[relation], query, tag, path);
    end if;
    return relation;
end
$$;
comment on function shardman.previewed(oid, text, text, text) is
    'the name of the sharded or shared table that a statement would change; raises where the statement, or its sender, may not';

create or replace function shardman.preview_places(relation text) returns table (node int, copies int, rows bigint, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    return query
    with copies as (
        select p.owner, count(*)::int as n from shardman.partitions p where p.relation = preview_places.relation group by 1
        union all
        select c.node, 1 from shardman.shared_copies c where c.relation = preview_places.relation
    ), one as (
        -- Rows are spread by hash: other nodes' partitions are about as large as this node's.
        select avg(nullif(c.reltuples, -1)) as rows, avg(pg_total_relation_size(c.oid)) as bytes
          from shardman.leaves(shardman.find_relation(relation)) l join pg_class c on c.oid = l.leaf and c.relkind = 'r'
    ), whole as (
        select nullif(c.reltuples, -1)::numeric as rows, pg_total_relation_size(c.oid)::numeric as bytes
          from pg_class c where c.oid = shardman.find_relation(relation) and c.relkind = 'r'
    )
    select o.owner, o.n, (o.n * coalesce(w.rows, one.rows))::bigint, (o.n * coalesce(w.bytes, one.bytes))::bigint
      from copies o cross join one left join whole w on true;
end
$$;
comment on function shardman.preview_places(text) is 'where copies of a table''s rows are, replicas too, and about how many; null where this node has none to judge by, or never analyzed them';

create or replace function shardman.need_written_alike(tried oid, relation text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform shardman.need_owner(relation);
    if exists (select from shardman.partitions p where p.relation = need_written_alike.relation and p.prv is not null)
       and exists (select from pg_attribute a join pg_attribute b on b.attrelid = tried and b.attname = a.attname
                    where a.attrelid = shardman.find_relation(relation) and (a.atttypid, a.atttypmod) <> (b.atttypid, b.atttypmod))
       and not shardman.rewrites_alike(tried, relation) then
        perform shardman.refuse_rewrite(relation);
    end if;
end
$$;
comment on function shardman.need_written_alike(oid, text) is 'raises where replicas would write other values than their primaries, as DDL itself would: see shardman.on_rewrite';

create or replace function shardman.preview_state(rel oid) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('file', pg_relation_filenode(rel), 'indexes', (select count(*) from pg_index where indrelid = rel),
                              'checked', (select count(*) from pg_constraint where conrelid = rel and contype = 'c' and convalidated)
                                         + (select count(*) from pg_attribute where attrelid = rel and attnum > 0 and attnotnull))
$$;
comment on function shardman.preview_state(oid) is 'of a table what tells, by another one afterwards, which work a statement was';

create or replace function shardman.try_change(rel oid, relation text, changed text, path text, out work text, out seconds numeric, out rows bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    source  constant oid := coalesce((select l.leaf from shardman.leaves(rel) l join pg_class c on c.oid = l.leaf and c.relkind = 'r' order by c.reltuples desc limit 1), rel);
    columns constant text := (select string_agg(quote_ident(attname), ', ') from pg_attribute
                               where attrelid = rel and attnum > 0 and not attisdropped and attgenerated = '');
    item    text;
    before_ jsonb;
    after_  jsonb;
    begun   timestamptz;
begin
    execute format('create temp table shardman_preview (like %s including defaults including generated including constraints including storage '
                   'including compression)', rel::regclass);
    execute format('insert into pg_temp.shardman_preview (%1$s) select %1$s from %2$s limit 20000', columns, source::regclass);
    get diagnostics rows = row_count;
    for item in
        select format('alter table pg_temp.shardman_preview add constraint %I %s', k ->> 'name', k ->> 'sql') from jsonb_array_elements(shardman.plain_keys(rel)) k
        union all
        select format('create index on pg_temp.shardman_preview %s', i.sql) from shardman.own_indexes(source) i
    loop
        execute item;
    end loop;
    before_ := shardman.preview_state(to_regclass('pg_temp.shardman_preview'));
    begun := clock_timestamp();
    perform set_config('search_path', path, true);
    execute changed;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    seconds := extract(epoch from clock_timestamp() - begun);
    after_ := shardman.preview_state(to_regclass('pg_temp.shardman_preview'));
    work := case when after_ ->> 'file' <> before_ ->> 'file' then 'all rows are written anew, and their indexes'
                 when (after_ ->> 'indexes')::int > (before_ ->> 'indexes')::int then 'an index is built'
                 when (after_ ->> 'checked')::int > (before_ ->> 'checked')::int then 'all rows are read'
                 else 'catalogs only' end;
    -- As the statement itself would be refused.
    if after_ ->> 'file' <> before_ ->> 'file' then
        perform shardman.need_written_alike(to_regclass('pg_temp.shardman_preview'), relation);
    end if;
    raise exception 'it is undone' using errcode = 'triggered_action_exception';
exception when triggered_action_exception then
    if work is null then
        raise;
    end if;
end
$$;
comment on function shardman.try_change(oid, text, text, text) is
    'does a statement, in which the name of the table is pg_temp.shardman_preview, to some of the table''s rows and undoes it: what work it was, how long it took, and for how many rows';

create or replace function shardman.preview_change(statement text, path text default current_setting('search_path'))
    returns table (node int, copies int, rows bigint, bytes bigint, work text, locked text, seconds numeric)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name_    constant text := '(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[^\W\d][\w$]*))?';
    head     constant text := '^(alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?|create\s+(?:unique\s+)?index\s+(?:(?:if\s+not\s+exists\s+)?' || name_
                              || '\s+)?on\s+(?:only\s+)?)' || name_;
    query    constant text := regexp_replace(shardman.one_statement(statement), '[\s;]+$', '');
    tag      constant text := upper(array_to_string(regexp_match(regexp_replace(query, '^create\s+unique\s', 'create ', 'i'), '^(alter)\s+(table)\M|^(create)\s+(index)\M', 'i'), ' '));
    relation text;
    rel      oid;
    tried    record;
    lock_    text;
begin
    if tag is null or query !~* head or shardman.plain_words(query) ~ ';' then
        raise exception 'this is not one ALTER TABLE or CREATE INDEX' using errcode = 'feature_not_supported',
            hint = 'Only these hold others up for longer than a moment. Give one statement, as you would send it.';
    end if;
    rel := shardman.ddl_relation(query, tag, path);
    relation := shardman.previewed(rel, query, tag, path);
    lock_ := case when shardman.ddl_lock_modes(tag, query) like '%,share,%' then 'SHARE: nobody writes' else 'ACCESS EXCLUSIVE: nobody reads or writes' end;
    if shardman.plain_words(query) ~* '\mreferences\M' then
        -- A temporary table cannot refer to others.
        select 'all rows are read, and looked up in the other table' as work, null::numeric as seconds, 0::bigint as rows into tried;
    else
        tried := shardman.try_change(rel, relation, regexp_replace(query, head, '\1pg_temp.shardman_preview', 'i'), path);
    end if;
    return query
    with places as (
        select p.*, case when tried.work = 'catalogs only' or p.rows = 0 then tried.seconds else tried.seconds * p.rows / nullif(tried.rows, 0) end as took
          from shardman.preview_places(relation) p
    )
    select p.node, p.copies, p.rows, p.bytes, tried.work, lock_, round(p.took, 2) from places p
    union all
    select null, sum(p.copies)::int, sum(p.rows)::bigint, sum(p.bytes)::bigint, 'one node after the other', 'on all nodes, until the last is done', round(sum(p.took), 2)
      from places p
     order by 1;
end
$$;
comment on function shardman.preview_change(text, text) is
    'what an ALTER TABLE or CREATE INDEX of a sharded or shared table would lock, what work it is on each node and for about how many seconds, and in the last row '
    'on all; raises where it would be refused. Nothing is changed: it is tried with up to 20,000 rows of this node. path: the search_path by which its names are read';
