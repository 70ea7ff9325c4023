-- The definition: all that a node needs to make a table's parent, partitions, data tables and routes. It is made
-- from the plain table, made anew when the table was changed (shardman.redefine), and lives in shardman.tables.definition. Texts in it are SQL that means the
-- same under every search_path.
--
--   relation          name of the table, as the metadata writes it
--   expr, partitions_count
--   key               [{sql, column|null, part_sql, type, collatable, uses}]: see shardman.read_key
--   partition_key     what partitions are PARTITION BY LIST of
--   columns           [{name, type, collation, not_null, not_null_name, default, generated ('s', 'v' or null),
--                       storage, compression, statistics, options, comment}]
--   checks            [{name, sql, no_inherit, comment}]     no_inherit: only data tables have them
--   keys              [{name, sql, options, identity, comment, parent_comment}]: primary, unique and exclusion constraints;
--                       parent_comment: what somebody has said since of the table's, absent in most
--   indexes           [{name, unique, sql (from USING on), identity, clustered, comment}]: unique ones, which the table has in the catalogs only
--   shared_indexes    as indexes: those that the table has as a whole, with all partitions; absent in tables of older versions, which have them above
--   row_triggers      the application's triggers; see 97_row_triggers.sql. Absent where the table never had any
--   foreign_keys      [{name, columns, to, sql, comment}]: to shared tables. See 56_references.sql; absent in older definitions.
--                       Those to tables that are colocated with it, or to itself, have also to_columns and actions, of which
--                       shardman.reference_sql makes that of each data table; sql is what a plain table would have
--   statistics        [{name, schema, kinds, sql, target, comment}]: extended statistics
--   sequences         [{name, column, type, increment, base, width, cache, cycle, acl, comment}]
--                       node i gives base + i * width + 1 … base + (i + 1) * width
--   schema            {name, owner, acl, comment}: for nodes that lack it
--   owner, acl        [{grantee (null: PUBLIC), privilege, grantable, column|null}]
--   row_security      {enabled, forced, policies: [{name, head, roles (null: PUBLIC), using, check}]}
--   comment           of the table
--   storage           {options, toast_options, access_method}
--   replica_identity  {"kind": "default" | "full" | "index"}: of data tables; the index is the one with identity

create or replace function shardman.acl_json(acl aclitem[], owner oid, column_name text default null) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'grantee', r.rolname, 'privilege', x.privilege_type, 'grantable', x.is_grantable, 'column', column_name)
               order by r.rolname, x.privilege_type), '[]')
      from aclexplode(acl) x left join pg_roles r on r.oid = x.grantee
     where x.grantee <> owner and (x.grantee = 0 or r.oid is not null)
$$;
comment on function shardman.acl_json(aclitem[], oid, text) is 'privileges of others than the owner';

create or replace function shardman.describe_columns(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_agg(jsonb_build_object(
               'name', a.attname,
               'type', format_type(a.atttypid, a.atttypmod),
               'collation', case when a.attcollation <> t.typcollation
                                 then (select format('%I.%I', n.nspname, l.collname)
                                         from pg_collation l join pg_namespace n on n.oid = l.collnamespace
                                        where l.oid = a.attcollation) end,
               'not_null', a.attnotnull,
               'not_null_name', (select o.conname from pg_constraint o
                                  where o.conrelid = rel and o.contype::text = 'n' and o.conkey = array[a.attnum]),
               'default', coalesce(case when a.attidentity <> ''
                                        then (
                                            select shardman.next_value(shardman.metadata_name(o.seq))
                                              from shardman.owned_sequences(rel) o where o.column_name = a.attname) end,
                                   pg_get_expr(d.adbin, d.adrelid)),
               'generated', nullif(a.attgenerated, ''),
               'storage', nullif(a.attstorage, t.typstorage),
               'compression', nullif(a.attcompression, ''),
               'statistics', nullif((to_jsonb(a) ->> 'attstattarget')::int, -1),
               -- By name: a server may keep values of its own in attoptions, which mean nothing elsewhere.
               'options', (select jsonb_agg(o order by o) from unnest(a.attoptions) as o
                            where split_part(o, '=', 1) in ('n_distinct', 'n_distinct_inherited')),
               'comment', col_description(rel, a.attnum)) order by a.attnum)
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = rel and a.attnum > 0 and not a.attisdropped
$$;

create or replace function shardman.describe_checks(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', conname,
               'sql', regexp_replace(pg_get_constraintdef(oid), ' NO INHERIT( NOT VALID)?$', '\1'),
               'no_inherit', connoinherit,
               'comment', obj_description(oid, 'pg_constraint')) order by conname), '[]')
      from pg_constraint where conrelid = rel and contype = 'c'
$$;

create or replace function shardman.identity_index(rel oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select i.indexrelid
      from pg_index i
     where i.indrelid = rel and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null
       and not exists (select from unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
                        where k.n <= i.indnkeyatts
                          and (k.attnum = 0 or not (select a.attnotnull from pg_attribute a
                                                     where a.attrelid = rel and a.attnum = k.attnum)))
       and (i.indisreplident or (select relreplident from pg_class where oid = rel) <> 'i')
     order by i.indisreplident desc, i.indisprimary desc, i.indnkeyatts, i.indexrelid
     limit 1
$$;
comment on function shardman.identity_index(oid) is
    'the index by which replication can tell rows of a table apart, where there is one: the chosen one, else the primary key, '
    'else any unique index of columns that are not null';

create or replace function shardman.describe_keys(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', o.conname,
               'sql', pg_get_constraintdef(o.oid),
               'options', to_jsonb(c.reloptions),
               'identity', o.conindid is not distinct from shardman.identity_index(rel),
               'clustered', i.indisclustered,
               'comment', obj_description(o.oid, 'pg_constraint')) order by o.contype <> 'p', o.conname), '[]')
      from pg_constraint o
      join pg_class c on c.oid = o.conindid join pg_index i on i.indexrelid = o.conindid
     where o.conrelid = rel and o.contype in ('p', 'u', 'x')
$$;

create or replace function shardman.describe_indexes(rel oid) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found_ jsonb := '[]';
    i      record;
    head   text;
begin
    for i in
        select x.indexrelid, x.indisunique, x.indisclustered, c.relname, pg_get_indexdef(x.indexrelid) as def
          from pg_index x join pg_class c on c.oid = x.indexrelid
         where x.indrelid = rel and x.indisvalid
           and not exists (select from pg_constraint o where o.conindid = x.indexrelid and o.contype in ('p', 'u', 'x'))
         order by c.relname
    loop
        head := format('CREATE %sINDEX %I ON %s ', case when i.indisunique then 'UNIQUE ' else '' end, i.relname,
                       (select format('%I.%I', n.nspname, c.relname)
                          from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel));
        if not starts_with(i.def, head) then
            raise exception 'cannot read the definition of index %: %', i.relname, i.def;
        end if;
        found_ := found_ || jsonb_build_object(
            'name', i.relname, 'unique', i.indisunique, 'sql', substr(i.def, length(head) + 1),
            'identity', i.indexrelid is not distinct from shardman.identity_index(rel),
            'clustered', i.indisclustered, 'comment', obj_description(i.indexrelid, 'pg_class'));
    end loop;
    return found_;
end
$$;

create or replace function shardman.describe_foreign_keys(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object('name', o.conname, 'to', shardman.metadata_name(o.confrelid), 'sql', pg_get_constraintdef(o.oid),
                                                 'comment', obj_description(o.oid, 'pg_constraint')) order by o.conname), '[]')
      from pg_constraint o where o.conrelid = rel and o.contype = 'f'
$$;
comment on function shardman.describe_foreign_keys(oid) is 'the foreign keys of a table, as a shared one has them';

create or replace function shardman.action_text(action "char") returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case action when 'a' then 'NO ACTION' when 'r' then 'RESTRICT' when 'c' then 'CASCADE' when 'n' then 'SET NULL' when 'd' then 'SET DEFAULT' end
$$;
comment on function shardman.action_text("char") is 'an action of a foreign key, as SQL has it';

create or replace function shardman.part_relation(data text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.relation from shardman.partitions p where p.part_name = regexp_replace(data, '_data("?)$', '\1') limit 1
$$;
comment on function shardman.part_relation(text) is 'the sharded table of which a data table is; null for other tables';

create or replace function shardman.colocated(relation text, other text) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from shardman.tables t join shardman.tables o on o.relation = colocated.other
                    where t.relation = colocated.relation and (o.relation = t.relation or o.colocation = t.colocation))
$$;
comment on function shardman.colocated(text, text) is 'whether partitions of one number of two sharded tables lie together; a table is with itself';

create or replace function shardman.inside_item(target text, columns jsonb, to_columns jsonb, actions text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object(
               'to', target, 'to_columns', to_columns, 'actions', actions,
               'sql', format('FOREIGN KEY (%s) REFERENCES %s(%s)%s', shardman.ident_list(columns), shardman.sql_name(target),
                             shardman.ident_list(to_columns), actions))
     where target is not null
$$;
comment on function shardman.inside_item(text, jsonb, jsonb, text) is
    'what an item of foreign_keys has more where it refers to a table that is colocated; null without a target';

create or replace function shardman.column_names(rel oid, attnums int2[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_agg(a.attname order by k.n) from unnest(attnums) with ordinality as k (attnum, n)
      join pg_attribute a on a.attrelid = rel and a.attnum = k.attnum
$$;
comment on function shardman.column_names(oid, int2[]) is 'the names of columns, in this order; null where there are none';

create or replace function shardman.ident_list(names jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select string_agg(quote_ident(c), ', ' order by n) from jsonb_array_elements_text(names) with ordinality as u (c, n)
$$;
comment on function shardman.ident_list(jsonb) is 'names as a list in SQL';

create or replace function shardman.described_actions(constraint_ oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case o.confmatchtype when 'f' then ' MATCH FULL' else '' end
           || case o.confupdtype when 'a' then '' else ' ON UPDATE ' || shardman.action_text(o.confupdtype) end
           || case o.confdeltype when 'a' then '' else ' ON DELETE ' || shardman.action_text(o.confdeltype) end
           || coalesce(' (' || shardman.ident_list(shardman.column_names(o.conrelid, o.confdelsetcols)) || ')', '')
      from pg_constraint o where o.oid = constraint_
$$;
comment on function shardman.described_actions(oid) is 'what stands behind the columns of a foreign key: MATCH, ON UPDATE, ON DELETE';

create or replace function shardman.inside_target(rel oid, referred oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.part_relation(n.referred)
      from (select shardman.metadata_name(rel) as name, shardman.metadata_name(referred) as referred offset 0) as n
     where shardman.part_number(regexp_replace(n.name, '_data("?)$', '\1')) = shardman.part_number(regexp_replace(n.referred, '_data("?)$', '\1'))
       and shardman.colocated(shardman.part_relation(n.name), shardman.part_relation(n.referred))
$$;
comment on function shardman.inside_target(oid, oid) is
    'the table to whose data table a foreign key of a data table refers, where both are of colocated tables and of one number; null otherwise';

create or replace function shardman.describe_references(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- At once: nodes that commit one after the other cannot take back what others have committed.
    select coalesce(jsonb_agg(f || jsonb_build_object(
               'sql', regexp_replace(f ->> 'sql', '( DEFERRABLE)?( INITIALLY DEFERRED)?( NOT VALID)?$', ''),
               'columns', shardman.column_names(rel, o.conkey))
               || coalesce(shardman.inside_item(i.target, shardman.column_names(rel, o.conkey), shardman.column_names(o.confrelid, o.confkey),
                                                shardman.described_actions(o.oid)), '{}') order by o.conname), '[]')
      from jsonb_array_elements(shardman.describe_foreign_keys(rel)) f
      join pg_constraint o on o.conrelid = rel and o.contype = 'f' and o.conname = f ->> 'name'
     cross join lateral (select shardman.inside_target(rel, o.confrelid) as target offset 0) as i
$$;
comment on function shardman.describe_references(oid) is 'the foreign keys of a table, as the data tables of a sharded one have them';

create or replace function shardman.describe_statistics(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', s.stxname,
               'schema', (select n.nspname from pg_namespace n where n.oid = s.stxnamespace),
               'kinds', (select string_agg(case k when 'd' then 'ndistinct' when 'f' then 'dependencies' when 'm' then 'mcv' end, ', ')
                           from unnest(s.stxkind) as k where k <> 'e'),
               'sql', pg_get_statisticsobjdef_columns(s.oid),
               'target', nullif((to_jsonb(s) ->> 'stxstattarget')::int, -1),
               'comment', obj_description(s.oid, 'pg_statistic_ext')) order by s.stxname), '[]')
      from pg_statistic_ext s where s.stxrelid = rel
$$;

create or replace function shardman.type_max(type oid) returns bigint
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select case type when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 else 9223372036854775807 end
$$;

create or replace function shardman.owned_sequences(rel oid) returns table (seq oid, column_name name, type oid)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select d.objid, a.attname,
           case when shardman.type_max(b.type) < shardman.type_max(s.seqtypid) then b.type else s.seqtypid end
      from pg_depend d
      join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      join pg_sequence s on s.seqrelid = d.objid
     cross join lateral (select shardman.bottom_type(a.atttypid) as type offset 0) as b
     where d.refclassid = 'pg_class'::regclass and d.refobjid = rel and d.classid = 'pg_class'::regclass
       and d.deptype in ('a', 'i')
$$;
comment on function shardman.owned_sequences(oid) is
    'the sequences of a table, serial and identity, with the type that bounds their numbers';

create or replace function shardman.base_above(top numeric, type oid) returns bigint
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select least((floor(top / s.step) + 2) * s.step, shardman.type_max(type))
      from (select case type when 'int2'::regtype then 100 when 'int4'::regtype then 1000000 else 1073741824 end::bigint as step) as s
$$;
comment on function shardman.base_above(numeric, oid) is 'where the ranges of all nodes begin, of a sequence of that type that has given numbers up to the first argument';

create or replace function shardman.range_width(base bigint, type oid) returns bigint
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select case when type = 'int8'::regtype then least(8796093022208, (shardman.type_max(type) - base) / 100) else (shardman.type_max(type) - base) / 100 end
$$;
comment on function shardman.range_width(bigint, oid) is 'how many numbers each node has of a sequence of that type, above a base';

create or replace function shardman.sequence_base(seq oid, rel oid, column_name name, type oid) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    top  numeric;
    used text := '0';
begin
    if (select shardman.bottom_type(atttypid) in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
          from pg_attribute where attrelid = rel and attname = column_name) then
        used := format('(select max(%I) from %s)', column_name, rel::regclass);
    end if;
    execute format('select greatest(0, (select last_value from %s), %s)', seq::regclass, used) into top;
    -- One step more than needed: while the table is being sharded, the old sequence goes on.
    return shardman.base_above(top, type);
end
$$;
comment on function shardman.sequence_base(oid, oid, name, oid) is 'above every number that the sequence has given or soon will';

create or replace function shardman.describe_acl(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.acl_json(c.relacl, c.relowner)
           || coalesce((select jsonb_agg(x) from pg_attribute a,
                               jsonb_array_elements(shardman.acl_json(a.attacl, c.relowner, a.attname)) as x
                         where a.attrelid = rel and a.attnum > 0 and not a.attisdropped and a.attacl is not null), '[]')
      from pg_class c where c.oid = rel
$$;

create or replace function shardman.describe_row_security(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('enabled', c.relrowsecurity, 'forced', c.relforcerowsecurity,
               'policies', (select coalesce(jsonb_agg(jsonb_build_object(
                                'name', p.name, 'head', p.head, 'using', p.using_, 'check', p.check_,
                                'roles', (select jsonb_agg(case r when 0 then null else pg_get_userbyid(r) end) from unnest(p.roles) r))
                                || coalesce((select jsonb_build_object('comment', obj_description(l.oid, 'pg_policy')) from pg_policy l
                                              where l.polrelid = rel and l.polname = p.name and obj_description(l.oid, 'pg_policy') is not null), '{}')
                                order by p.name), '[]')
                              from shardman.policies_of(rel) p))
      from pg_class c where c.oid = rel
$$;

create or replace function shardman.describe_sequences(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'name', shardman.metadata_name(o.seq),
               'column', o.column_name,
               'type', format_type(o.type, null),
               'increment', s.seqincrement,
               'base', b.base,
               'width', shardman.range_width(b.base, o.type),
               'cache', s.seqcache,
               'cycle', false,
               'acl', case when a.attidentity = '' then shardman.acl_json(c.relacl, c.relowner)
                           -- INSERT was enough for an identity column; the default in its place needs more.
                           else (select coalesce(jsonb_agg(distinct jsonb_build_object(
                                            'grantee', x ->> 'grantee', 'privilege', 'USAGE', 'grantable', false, 'column', null)), '[]')
                                   from jsonb_array_elements(shardman.describe_acl(rel)) as x where x ->> 'privilege' = 'INSERT') end,
               'comment', obj_description(o.seq, 'pg_class')) order by shardman.metadata_name(o.seq)), '[]')
      from shardman.owned_sequences(rel) as o
      join pg_sequence s on s.seqrelid = o.seq
      join pg_class c on c.oid = o.seq
      join pg_attribute a on a.attrelid = rel and a.attname = o.column_name
     cross join lateral (select shardman.sequence_base(o.seq, rel, o.column_name, o.type) as base offset 0) as b
$$;

create or replace function shardman.with_rights(definition jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off set standard_conforming_strings = on as $$
    select definition || jsonb_build_object(
               'owner', pg_get_userbyid(c.relowner),
               'acl', shardman.describe_acl(c.oid),
               'row_security', shardman.describe_row_security(c.oid),
               'schema', definition -> 'schema' || jsonb_build_object('owner', pg_get_userbyid(n.nspowner), 'acl', shardman.acl_json(n.nspacl, n.nspowner)),
               'sequences', (select coalesce(jsonb_agg(s || coalesce(jsonb_build_object('acl', shardman.acl_json(q.relacl, q.relowner)), '{}') order by i), '[]')
                               from jsonb_array_elements(definition -> 'sequences') with ordinality as u (s, i)
                               left join pg_class q on q.oid = shardman.find_relation(s ->> 'name') and q.relkind = 'S'))
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = shardman.find_relation(definition ->> 'relation') and shardman.is_parent_of(definition, c.oid)
$$;
comment on function shardman.with_rights(jsonb) is
    'the definition of a sharded table with owner, privileges and policies as they are on this node by now; null where it is not';

create or replace function shardman.remember_rights() returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    update shardman.tables t set definition = w.definition, create_sql = shardman.parent_script(w.definition)
      from (select x.relation, shardman.with_rights(x.definition) as definition from shardman.tables x) as w
     where w.relation = t.relation and w.definition <> t.definition
$$;
comment on function shardman.remember_rights() is
    'lord only: takes the rights on sharded tables in the lord''s database for those of the cluster, which a node that is added gets';

create or replace function shardman.with_whole_indexes(definition jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select definition || jsonb_build_object(
               'indexes', (select coalesce(jsonb_agg(i order by n), '[]') from jsonb_array_elements(definition -> 'indexes') with ordinality as u (i, n)
                            where (i ->> 'unique')::bool),
               'shared_indexes', (select coalesce(jsonb_agg(i order by n), '[]') from jsonb_array_elements(definition -> 'indexes') with ordinality as u (i, n)
                                   where not (i ->> 'unique')::bool))
$$;
comment on function shardman.with_whole_indexes(jsonb) is
    'the definition of a table that is to be sharded: its indexes are the whole table''s, in the catalogs too, but for unique ones';

create or replace function shardman.define_table(rel oid, key jsonb, expr text, partitions_count int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select key || jsonb_build_object(
               'relation', shardman.metadata_name(rel),
               'expr', expr,
               'partitions_count', partitions_count,
               'columns', shardman.describe_columns(rel),
               'checks', shardman.describe_checks(rel),
               'keys', shardman.describe_keys(rel),
               'indexes', shardman.describe_indexes(rel),
               'foreign_keys', shardman.describe_references(rel),
               'statistics', shardman.describe_statistics(rel),
               'sequences', shardman.describe_sequences(rel),
               'schema', jsonb_build_object('name', n.nspname, 'owner', pg_get_userbyid(n.nspowner),
                                            'acl', shardman.acl_json(n.nspacl, n.nspowner),
                                            'comment', obj_description(n.oid, 'pg_namespace')),
               'owner', pg_get_userbyid(c.relowner),
               'acl', shardman.describe_acl(rel),
               'row_security', shardman.describe_row_security(rel),
               'comment', obj_description(rel, 'pg_class'),
               'storage', jsonb_build_object(
                   'options', to_jsonb(c.reloptions),
                   'toast_options', (select to_jsonb(t.reloptions) from pg_class t where t.oid = c.reltoastrelid),
                   'access_method', (select amname from pg_am where oid = c.relam)),
               'replica_identity', jsonb_build_object(
                   'kind', case when c.relreplident = 'f' then 'full'
                                when shardman.identity_index(rel) is null then 'default'
                                when (select indisprimary from pg_index where indexrelid = shardman.identity_index(rel)) then 'default'
                                else 'index' end))
           || shardman.described_triggers(rel)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = rel
$$;
comment on function shardman.define_table(oid, jsonb, text, int) is
    'the definition of a plain table; key: what shardman.read_key said';
