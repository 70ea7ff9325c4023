-- ALTER SEQUENCE of what gives a sharded or shared table its numbers: done on all nodes, as other DDL, each in a range of its own (55_parents.sql). What
-- would take a sequence out of its range is refused when it has been done here and is there to look at.
--
-- With a wider type come ranges of that type, as it would have had from the first; they begin above all numbers of the former one, so whatever
-- node has which of the two for a moment, no number is given twice. A copy of a shared table knows its former range, and goes back to it.
--
-- A sequence that has come with a new column, or got another name, is known by the table and column that it belongs to until the metadata have it;
-- its range says which those of all other nodes are.

create or replace function shardman.table_of_sequence(seq oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select d.refobjid from pg_class c join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass
     where c.oid = seq and c.relkind = 'S' and d.deptype in ('a', 'i')
$$;
comment on function shardman.table_of_sequence(oid) is 'the table to which a sequence belongs; null where it belongs to none, or is no sequence';

create or replace function shardman.need_numbers_kept(relation text, query text, tag text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    words    constant text := shardman.plain_words(query);
    sharded  constant bool := exists (select from shardman.tables t where t.relation = need_numbers_kept.relation);
    altered  constant text := '\malter\s+(column\s+)?[^\W\d][\w$]*\s+';
begin
    if tag = 'ALTER SEQUENCE' and words ~* '\mowned\s+by\s+none\M' then
        raise exception 'sequence % gives % its numbers, and belongs to it', (regexp_match(shardman.one_statement(query), shardman.ddl_pattern(tag), 'i'))[1], relation
            using errcode = 'feature_not_supported', hint = 'Leave out OWNED BY; ALTER COLUMN ... DROP DEFAULT ends that it gives numbers.';
    elsif tag in ('ALTER SEQUENCE', 'ALTER TABLE') and words ~* '\mrestart\s+(with\s+)?-?[0-9]' then
        raise exception 'a sequence of % cannot begin at the same number on all nodes: each has a range of its own', relation
            using errcode = 'feature_not_supported',
                  hint = 'RESTART without a number begins each node''s range anew; setval() lets one node go on elsewhere in its range, which is in pg_sequences.';
    elsif tag = 'ALTER TABLE' and sharded and words ~* (altered || '(restart\M|(set\s+generated\s+(always|by\s+default)\s+)?set\s+(increment|cache|minvalue|maxvalue|start|cycle|no\s+\w+)\M)') then
        raise exception 'columns of % are no identity columns: what was one has a sequence of its own and a default', relation
            using errcode = 'feature_not_supported',
                  hint = coalesce((select format('ALTER SEQUENCE %s changes what gives it numbers; ALTER COLUMN ... DROP DEFAULT ends that.', shardman.sql_name(s ->> 'name'))
                                     from shardman.sequence_specs(relation) s limit 1),
                                  'Columns with numbers of a sequence are in the table before it is sharded.');
    end if;
end
$$;
comment on function shardman.need_numbers_kept(text, text, text) is 'raises where a statement asks for what sequences of sharded and shared tables cannot have';

create or replace function shardman.sequence_specs(relation text) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s from (select t.relation, t.definition from shardman.tables t union all select t.relation, t.definition from shardman.shared_tables t) as t
     cross join jsonb_array_elements(t.definition -> 'sequences') s where t.relation = sequence_specs.relation
$$;
comment on function shardman.sequence_specs(text) is 'the sequences of a sharded or shared table as the metadata have them';

create or replace function shardman.range_here(seq oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('base', r.base, 'width', r.width)
      from pg_sequence s
     cross join lateral (select s.seqmax::numeric - s.seqmin + 1 as width, s.seqmin - 1 - shardman.my_id() * (s.seqmax::numeric - s.seqmin + 1) as base) r
     where s.seqrelid = seq and r.base > 0 and s.seqstart = s.seqmin and not s.seqcycle
$$;
comment on function shardman.range_here(oid) is
    'base and width of the ranges that all nodes have of a sequence, by what this one has; null where it has none, but all numbers, as a new one';

create or replace function shardman.sequences_now(relation text, known jsonb, returns_ bool) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(coalesce(shardman.spec_now(k.spec, o.seq, o.type, returns_),
                                       jsonb_build_object('type', format_type(o.type, null), 'increment', s.seqincrement, 'cache', s.seqcache, 'cycle', false,
                                                          'acl', shardman.acl_json(c.relacl, c.relowner), 'comment', obj_description(o.seq, 'pg_class'))
                                       || shardman.range_here(o.seq))
                              || jsonb_build_object('column', o.column_name, 'name', shardman.relation_text((shardman.relation_parts(relation))[1], c.relname))
                              order by k.n, c.relname), '[]')
      from shardman.owned_sequences(shardman.find_relation(relation)) o
      join pg_sequence s on s.seqrelid = o.seq
      join pg_class c on c.oid = o.seq
      left join lateral (select x.spec, x.n from jsonb_array_elements(known) with ordinality as x (spec, n)
                          where shardman.find_relation(shardman.owned_here(relation, x.spec ->> 'name')) = o.seq limit 1) k on true
     where k.spec is not null or shardman.range_here(o.seq) is not null
$$;
comment on function shardman.sequences_now(text, jsonb, bool) is
    'the sequences of a sharded or shared table as they are now; known: those of its definition. returns_: see shardman.spec_now';

create or replace function shardman.number_shared(relation text, rel oid, made oid[], arrives bool) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    ranges constant jsonb := case when arrives then nullif(current_setting('shardman.ddl_ranges', true), '')::jsonb else shardman.describe_sequences(rel) end;
    busy   constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
    spec   jsonb;
    range  jsonb;
    seq    oid;
    given  jsonb := '[]';
begin
    perform set_config('shardman.ddl_busy', 'on', true);
    for spec, seq in
        select s, o.seq from jsonb_array_elements(shardman.describe_sequences(rel)) s join shardman.owned_sequences(rel) o on o.column_name = s ->> 'column'
         where o.seq = any (made)
    loop
        select r into range from jsonb_array_elements(ranges) r where r ->> 'column' = spec ->> 'column';
        if range is null then
            raise exception 'nobody has said which numbers column % of % has on which node', quote_ident(spec ->> 'column'), relation
                using errcode = 'object_not_in_prerequisite_state', hint = 'Bring all nodes to the same version, and try again.';
        end if;
        -- Numbers alone: what becomes of them is run by the cluster's role.
        spec := spec || jsonb_build_object('base', (range ->> 'base')::numeric, 'width', (range ->> 'width')::numeric);
        perform shardman.make_sequence(spec, shardman.real_name(seq));
        given := given || jsonb_build_array(spec);
    end loop;
    perform set_config('shardman.ddl_busy', busy, true);
    if not arrives then
        perform set_config('shardman.ddl_ranges', case when given <> '[]' then given::text else '' end, true);
    end if;
end
$$;
comment on function shardman.number_shared(text, oid, oid[], bool) is
    'after a column with a sequence was added to a shared table, on each node: gives the sequence the numbers of this node. made: the sequences that the statement '
    'has made; arrives: it comes from the node that has found the ranges, in shardman.ddl_ranges';

create or replace function shardman.ranges_here(relation text) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('column', o.column_name) || shardman.range_here(o.seq)), '[]') from shardman.owned_sequences(shardman.find_relation(relation)) o
$$;
comment on function shardman.ranges_here(text) is 'shardman.range_here of all sequences of a table, as shardman.number_shared takes them';

create or replace function shardman.numbering(relation text, ranges jsonb, ends bool) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- Each copy has numbered its rows in an order of its own. Out of the way with those, for a unique index finds them one by one; and they are set
    -- by UPDATE, which GENERATED ALWAYS does not let through.
    select format('alter table %s alter column %I set generated %s', shardman.name_here(relation), a.attname, case when ends then 'always' else 'by default' end)
      from jsonb_array_elements(ranges) r join pg_attribute a on a.attrelid = shardman.find_relation(relation) and a.attname = r ->> 'column' where a.attidentity = 'a'
    union all
    select format('alter table %1$s alter column %2$I type %3$s using %2$I + %4$s', shardman.name_here(relation), a.attname, format_type(a.atttypid, a.atttypmod), r ->> 'base')
      from jsonb_array_elements(ranges) r join pg_attribute a on a.attrelid = shardman.find_relation(relation) and a.attname = r ->> 'column'
     where not ends and exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and a.attnum = any (i.indkey::int2[]))
$$;
comment on function shardman.numbering(text, jsonb, bool) is
    'the statements for other nodes in front of the rows that get numbers by a new column of a shared table, and (ends) behind them';

create or replace function shardman.need_own_sequences(relation text, query text, tag text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    rel  constant oid := shardman.find_relation(relation);
    lone record;
begin
    if tag <> 'ALTER TABLE' or shardman.plain_words(query) !~* '\mdefault\M' then
        return;
    end if;
    -- What an older version has let in is not in the way of other changes.
    select shardman.metadata_name(s.oid) as name, a.attname into lone
      from pg_attrdef f join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
      join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
      join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
     where f.adrelid = rel and (shardman.table_of_sequence(s.oid) in (rel, shardman.table_behind(relation))) is not true
       and strpos(lower(query), lower(replace(a.attname, '"', '""'))) > 0
     order by 2, 1 limit 1;
    if found then
        raise exception 'column % of % cannot have its numbers from the sequence %, which is each node''s own: they would all give the same', quote_ident(lone.attname), relation, lone.name
            using errcode = 'feature_not_supported',
                  hint = 'A default of gen_random_uuid() is another on each node. A sequence that belongs to a column when its table is sharded gives each node numbers of its own.';
    end if;
end
$$;
comment on function shardman.need_own_sequences(text, text, text) is
    'after DDL where it was sent: raises where a default of a sharded table uses a sequence that is not the table''s, and that has no range of its own on each node';

create or replace function shardman.is_retyped(spec jsonb, seq oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_sequence s where s.seqrelid = seq and s.seqtypid <> (spec ->> 'type')::regtype)
$$;
comment on function shardman.is_retyped(jsonb, oid) is 'whether DDL has given a sequence another type, of which the metadata do not know yet';

create or replace function shardman.range_of_type(spec jsonb, type regtype) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- As shardman.describe_sequences would have it, were all numbers of the former type given.
    select jsonb_build_object('type', format_type(type, null), 'base', b.base,
                              'width', least(case when type = 'int8'::regtype then 8796093022208 else shardman.type_max(type) end, (shardman.type_max(type) - b.base) / 100))
      from (select (shardman.type_max((spec ->> 'type')::regtype) / s.step + 1) * s.step as base
              from (select case when type = 'int8'::regtype then 1073741824 else 1000000 end::bigint as step) as s) as b
$$;
comment on function shardman.range_of_type(jsonb, regtype) is 'type, base and width of the ranges that a sequence gets with a wider type: the same on all nodes';

create or replace function shardman.spec_now(spec jsonb, seq oid, type oid, returns_ bool) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select spec || jsonb_build_object('increment', s.seqincrement, 'cache', s.seqcache)
           || case when shardman.type_max(spec_now.type) > shardman.type_max((spec ->> 'type')::regtype)
                   then shardman.range_of_type(spec, spec_now.type::regtype)
                        || case when returns_ then jsonb_build_object('before', (select jsonb_object_agg(k, spec -> k) from unnest(array['type', 'base', 'width', 'before']) k where spec ? k))
                                else '{}' end
                   when returns_ and spec -> 'before' ->> 'type' is not null and shardman.type_max(spec_now.type) <= shardman.type_max((spec -> 'before' ->> 'type')::regtype)
                   then '{"before": null}' || (spec -> 'before')
                   else '{}' end
      from pg_sequence s where s.seqrelid = seq
$$;
comment on function shardman.spec_now(jsonb, oid, oid, bool) is
    'a sequence of a definition as it is now; type: what bounds its numbers now; returns_: with a narrower type it goes back to the range that it had with that';

create or replace function shardman.need_range(spec jsonb, wanted jsonb, seq oid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    s     pg_sequence;
    range record;
begin
    select * into s from pg_sequence q where q.seqrelid = seq;
    select * into range from shardman.sequence_range(spec);
    if not exists (select from unnest(array[spec, wanted, spec || coalesce(nullif(spec -> 'before', 'null'), '{}')]) w, shardman.sequence_range(w) r where (r.low, r.high, r.low) = (s.seqmin, s.seqmax, s.seqstart)) then
        raise exception 'sequence % has numbers from % to % on this node, and others on other nodes', spec ->> 'name', range.low, range.high
            using errcode = 'feature_not_supported', hint = 'Leave out MINVALUE, MAXVALUE and START.';
    elsif s.seqcycle then
        raise exception 'sequence % cannot begin anew at its end (CYCLE), where each node has a range of its own', spec ->> 'name'
            using errcode = 'feature_not_supported', hint = 'Leave out CYCLE.';
    elsif s.seqincrement < 0 then
        raise exception 'sequence % cannot count downwards, where each node has a range of its own', spec ->> 'name'
            using errcode = 'feature_not_supported', hint = 'Let it count upwards.';
    end if;
end
$$;
comment on function shardman.need_range(jsonb, jsonb, oid) is
    'raises where DDL has taken a sequence out of this node''s range, or would let it; wanted: what it is with its type of now';

create or replace function shardman.take_range(wanted jsonb, seq oid, shared bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel   constant oid := shardman.table_of_sequence(seq);
    col   constant name := (select o.column_name from shardman.owned_sequences(rel) o where o.seq = take_range.seq);
    range record;
    last_ bigint;
begin
    select * into range from shardman.sequence_range(wanted);
    if not exists (select from pg_sequence s where s.seqrelid = seq and s.seqmin = range.low) then
        perform shardman.make_sequence(wanted, shardman.real_name(seq));
        if shared then
            execute format('select max(%I) from %s where %1$I between $1 and $2', col, rel::regclass) using range.low, range.high into last_;
            perform setval(seq, last_) where last_ is not null;
        end if;
    end if;
end
$$;
comment on function shardman.take_range(jsonb, oid, bool) is
    'gives a sequence this node''s range, where it has another. shared: its table has been there before, and what it has given is in the copy on this node';

create or replace function shardman.dropped_numbers(relation text, query text) returns setof text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.column_name::text from shardman.owned_sequences(shardman.find_relation(relation)) o
     where shardman.one_statement(query) ~* format('\mdrop\s+(column\s+)?(if\s+exists\s+)?("%s"|%1$s(?!\w))', regexp_replace(replace(o.column_name, '"', '""'), '(\W)', '\\\1', 'g'))
$$;
comment on function shardman.dropped_numbers(text, text) is 'the columns with sequences that an ALTER TABLE of a sharded table drops';

create or replace function shardman.free_sequence(relation text, column_ text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    busy constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
    copy oid;
begin
    perform shardman.need_owner(relation);
    perform set_config('shardman.ddl_busy', 'on', true);
    for copy in
        select c.oid from shardman.copies_here(relation) c (oid) join pg_attribute a on a.attrelid = c.oid and a.attname = column_ and a.atthasdef
    loop
        execute format('alter table only %s alter column %I drop default', copy::regclass, column_);
    end loop;
    perform set_config('shardman.ddl_busy', busy, true);
end
$$;
comment on function shardman.free_sequence(text, text) is
    'a part of the gate, for the owner of a sharded table who drops a column: replicas, which are in no partition, use its sequence no more';

create or replace function shardman.loosen_sequences(relation text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    -- PostgreSQL gives identity columns' sequences the new type at once, and refuses it where their numbers are beyond that.
    select shardman.take_range(s || (s -> 'before'), q.seqrelid, true)
      from shardman.sequence_specs(relation) s join pg_sequence q on q.seqrelid = shardman.find_relation(shardman.owned_here(relation, s ->> 'name'))
     where s -> 'before' ->> 'type' is not null
$$;
comment on function shardman.loosen_sequences(text) is
    'before a type of a shared table changes: sequences that have got a wider one are in the range of their former type, until shardman.keep_sequences';

create or replace function shardman.keep_sequences(relation text, checked bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rel     constant oid := shardman.find_relation(shardman.called_here(relation));
    busy    constant text := coalesce(current_setting('shardman.ddl_busy', true), '');
    shared  constant bool := exists (select from shardman.shared_tables t where t.relation = keep_sequences.relation);
    spec    jsonb;
    wanted  jsonb;
    number_ oid;
begin
    if shardman.table_behind(relation) is not null then
        return;
    end if;
    perform set_config('shardman.ddl_busy', 'on', true);
    for spec, number_ in
        select s, q.seqrelid from shardman.sequence_specs(relation) s join pg_sequence q on q.seqrelid = shardman.find_relation(shardman.owned_here(relation, s ->> 'name'))
    loop
        if shardman.table_of_sequence(number_) is distinct from rel then
            raise exception 'sequence % gives % its numbers, and belongs to it', spec ->> 'name', relation
                using errcode = 'feature_not_supported', hint = 'Leave out OWNED BY.';
        end if;
        wanted := (select shardman.spec_now(spec, o.seq, o.type, shared) from shardman.owned_sequences(rel) o where o.seq = number_);
        perform shardman.need_range(spec, wanted, number_) where checked;
        perform shardman.take_range(wanted, number_, shared) where shared or wanted ->> 'type' <> spec ->> 'type';
    end loop;
    perform set_config('shardman.ddl_busy', busy, true);
end
$$;
comment on function shardman.keep_sequences(text, bool) is
    'after DDL, on each node: sequences of a sharded or shared table are in this node''s range, of their type as it is now. checked: raises where the statement '
    'has set another range';
