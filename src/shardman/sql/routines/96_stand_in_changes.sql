-- What a statement has done to a stand-in (96_stand_in.sql): both tables are compared in the catalogs, and what the sharded table is to get and to lose
-- is said as an object of JSON. What it could not get is refused here.

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
