-- What keeps a table from being sharded. Each says what is in the way and the way out of it.

create or replace function shardman.obstacle(what text, hint text) returns jsonb
language sql immutable parallel safe as $$ select pg_catalog.jsonb_build_object('what', what, 'hint', hint) $$;

create or replace function shardman.name_list(names text[]) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select string_agg(x, ', ' order by x) from unnest(names) as x
$$;

create or replace function shardman.kind_obstacle(rel oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when n.nspname in ('pg_catalog', 'information_schema', 'pg_toast', 'shardman')
            then shardman.obstacle(format('%s belongs to the system', name), 'Shard a table of your own')
        when c.relkind = 'p' and exists (select from shardman.tables t where t.relation = name)
            then shardman.obstacle(format('%s is sharded already', name), 'Nothing is to be done')
        when exists (select from shardman.shared_tables t where t.relation = name)
            then shardman.obstacle(format('%s is shared', name), format('Make it a plain table first: shardman.unshare_table(''%s'', ...)', name))
        when part.of_table is not null
            then shardman.obstacle(format('%s belongs to the sharded table %s', name, part.of_table), 'Nothing is to be done')
        when c.relkind = 'p'
            then shardman.obstacle(format('%s is partitioned already', name), 'Move its rows into a plain table and shard that')
        when c.relispartition
            then shardman.obstacle(format('%s is a partition of another table', name), 'Detach it first, or move its rows into a plain table')
        when c.relkind <> 'r'
            then shardman.obstacle(format('%s is a %s', name, case c.relkind when 'v' then 'view' when 'm' then 'materialized view'
                when 'f' then 'foreign table' when 'S' then 'sequence' when 'i' then 'index' when 'I' then 'index'
                when 'c' then 'composite type' else 'relation of kind ' || c.relkind::text end), 'Only tables can be sharded')
        when c.relpersistence = 't'
            then shardman.obstacle(format('%s is a temporary table', name), 'Make it a permanent one')
        when c.relpersistence = 'u'
            then shardman.obstacle(format('%s is unlogged, and unlogged rows are not replicated', name), format('ALTER TABLE %s SET LOGGED', name))
        when not exists (select from pg_attribute where attrelid = rel and attnum > 0 and not attisdropped)
            then shardman.obstacle(format('%s has no columns', name), 'Add the column to shard by')
        end
      from pg_class c join pg_namespace n on n.oid = c.relnamespace,
           lateral (select shardman.metadata_name(rel) as name offset 0) as m,
           lateral (select min(p.relation) as of_table from shardman.partitions p
                     where name in (p.part_name, shardman.data_table(p.part_name), shardman.route_table(p.part_name))) as part
     where c.oid = rel
$$;
comment on function shardman.kind_obstacle(oid) is 'why a relation is no table that could be sharded; null when it is one';

create or replace function shardman.link_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('the foreign key %s of %s refers to it', conname, shardman.metadata_name(conrelid)),
                             format('Drop it: ALTER TABLE %s DROP CONSTRAINT %I', shardman.metadata_name(conrelid), conname))
      from pg_constraint where contype = 'f' and confrelid = rel and conrelid <> rel
    union all
    select shardman.obstacle(format('%s has rules: %s', shardman.metadata_name(rel), string_agg(quote_ident(rulename), ', ' order by rulename)),
                             'Drop them; they would not be carried over')
      from pg_rewrite where ev_class = rel having count(*) > 0
    union all
    select shardman.obstacle(format('%s inherits from %s', shardman.metadata_name(rel), shardman.metadata_name(inhparent)),
                             format('ALTER TABLE %s NO INHERIT %s', shardman.metadata_name(rel), shardman.metadata_name(inhparent)))
      from pg_inherits where inhrelid = rel
    union all
    select shardman.obstacle(format('%s inherits from it', shardman.metadata_name(inhrelid)),
                             format('ALTER TABLE %s NO INHERIT %s', shardman.metadata_name(inhrelid), shardman.metadata_name(rel)))
      from pg_inherits where inhparent = rel
    union all
    select shardman.obstacle(format('%s is a table of the type %s', shardman.metadata_name(rel), format_type(reloftype, null)),
                             format('ALTER TABLE %s NOT OF', shardman.metadata_name(rel)))
      from pg_class where oid = rel and reloftype <> 0
    union all
    select shardman.obstacle(format('%s belongs to the extension %s', shardman.metadata_name(rel), e.extname),
                             format('ALTER EXTENSION %I DROP TABLE %s', e.extname, shardman.metadata_name(rel)))
      from pg_depend d join pg_extension e on e.oid = d.refobjid
     where d.classid = 'pg_class'::regclass and d.objid = rel and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    union all
    select shardman.obstacle(format('%s is in the publication %s', shardman.metadata_name(rel), p.pubname),
                             format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, shardman.metadata_name(rel)))
      from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
     where r.prrelid = rel and p.pubname not like 'shardman\_%'
    union all
    select shardman.obstacle(format('%s is a target of the subscription %s', shardman.metadata_name(rel), s.subname),
                             'Take it out of the publication there and refresh the subscription')
      from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid where r.srrelid = rel
$$;
comment on function shardman.link_obstacles(oid) is 'what hangs on a table and would be lost';

create or replace function shardman.reference_obstacles(rel oid, key jsonb) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with keys as (
        select o.*, shardman.metadata_name(rel) as name, shardman.metadata_name(o.confrelid) as target, coalesce((to_jsonb(o) ->> 'conenforced')::bool, true) as enforced,
               format('ALTER TABLE %s DROP CONSTRAINT %I', shardman.metadata_name(rel), o.conname) as way_out,
               -- What an action on the shared table gives new values to.
               case when o.confupdtype in ('c', 'n', 'd') then o.conkey
                    when o.confdeltype in ('n', 'd') then coalesce(o.confdelsetcols, o.conkey) end as written
          from pg_constraint o where o.contype = 'f' and o.conrelid = rel
    )
    select shardman.obstacle(format('%s has the foreign key %s to itself, and its rows would be on several nodes', k.name, k.conname), 'Drop it: ' || k.way_out)
      from keys k where k.confrelid = rel
    union all
    select shardman.obstacle(format('%s has the foreign key %s to %s, which is not shared', k.name, k.conname, k.target),
                             case when exists (select from shardman.tables t where t.relation = k.target) or (select c.relkind <> 'r' from pg_class c where c.oid = k.confrelid)
                                  then 'Drop it: ' || k.way_out
                                  else format('Share %s first, so that every node has it, with shardman.create_shared_table(%L, %s); or drop the foreign key: %s',
                                              k.target, k.target, coalesce(shardman.my_id()::text, '...'), k.way_out) end)
      from keys k where k.confrelid <> rel and not exists (select from shardman.shared_tables s where s.relation = k.target)
    union all
    select shardman.obstacle(format('the foreign key %s is not enforced', k.conname), 'Drop it: ' || k.way_out) from keys k where not k.enforced
    union all
    select shardman.obstacle(format('the foreign key %s has never been validated', k.conname), format('ALTER TABLE %s VALIDATE CONSTRAINT %I', k.name, k.conname))
      from keys k where k.enforced and not k.convalidated
    union all
    select shardman.obstacle(format('the foreign key %s would change %s, by which rows are distributed, when a row of %s is changed', k.conname, a.attname, k.target),
                             'Make it without that action')
      from keys k cross join unnest(k.written) as w (attnum) join pg_attribute a on a.attrelid = rel and a.attnum = w.attnum
     where exists (select from jsonb_array_elements(key) e cross join jsonb_array_elements_text(e -> 'uses') as u (col)
                    where u.col = a.attname or e ->> 'column' = a.attname)
$$;
comment on function shardman.reference_obstacles(oid, jsonb) is
    'foreign keys of a table that its data tables could not have: only those to shared tables find all that they refer to on every node';

create or replace function shardman.dependent_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive types (oid) as (
        select t.oid from pg_type t where t.typrelid = rel
        union
        select t.oid from pg_type t join types y on t.typelem = y.oid or t.typbasetype = y.oid
    ), follow as materialized (select v from shardman.following_views(rel) v),
    uses as (
        select d.classid, d.objid, d.objsubid, d.deptype
          from pg_depend d
         where (d.refclassid = 'pg_class'::regclass and d.refobjid in (select rel union select seq from shardman.owned_sequences(rel))
                or d.refclassid = 'pg_type'::regclass and d.refobjid in (select oid from types))
           and d.deptype in ('n', 'a')
           and not (d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = rel
                    and exists (select from pg_rewrite r where r.oid = d.objid and r.ev_type = '1' and r.ev_class in (select v from follow v)))
    ), found_ as (
        select distinct case
                   when u.classid = 'pg_rewrite'::regclass
                       then (select case c.relkind when 'm' then 'materialized view ' else 'view ' end || shardman.metadata_name(c.oid)
                               from pg_rewrite r join pg_class c on c.oid = r.ev_class where r.oid = u.objid and r.ev_class <> rel)
                   when u.classid = 'pg_attrdef'::regclass
                       then (select format('default of column %s of %s', a.attname, shardman.metadata_name(f.adrelid))
                               from pg_attrdef f join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
                              where f.oid = u.objid and f.adrelid <> rel)
                   when u.classid = 'pg_proc'::regclass then 'function ' || u.objid::regprocedure
                   when u.classid = 'pg_class'::regclass
                       then (select format('column %s of %s', a.attname, shardman.metadata_name(c.oid))
                               from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum = u.objsubid
                              where c.oid = u.objid and c.oid <> rel and u.objsubid > 0)
                   when u.classid = 'pg_type'::regclass and u.objid not in (select oid from types where oid in
                            (select t.oid from pg_type t where t.typrelid = rel or t.typelem in (select y.oid from pg_type y where y.typrelid = rel)))
                       then 'type ' || format_type(u.objid, null)
                   when u.classid = 'pg_policy'::regclass
                       then (select format('policy %I on %s', polname, shardman.metadata_name(polrelid))
                               from pg_policy where oid = u.objid and polrelid <> rel)
                   end as name
          from uses u
    )
    select shardman.obstacle(format('what depends on %s would go on using the plain table: %s', shardman.metadata_name(rel),
                                    string_agg(name, ', ' order by name)),
                             'Drop that, and make it again once the table is sharded')
      from found_ where name is not null having count(*) > 0
$$;
comment on function shardman.dependent_obstacles(oid) is
    'views that cannot follow (shardman.following_views), functions, columns and defaults that know the table, or a sequence of it, by its oid or its row type: '
    'the name would mean the sharded table, they would not';

create or replace function shardman.may_belong(seq oid, rel oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select s.relnamespace = t.relnamespace and s.relowner = t.relowner
           and 1 = (select count(*) from pg_depend d where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = seq)
           and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = seq and d.deptype in ('a', 'i', 'e')
                              and d.refclassid in ('pg_class'::regclass, 'pg_extension'::regclass))
      from pg_class s, pg_class t where s.oid = seq and t.oid = rel
$$;
comment on function shardman.may_belong(oid, oid) is
    'whether a sequence is a table''s but in name, as in a schema that names them by itself: one default uses it, and no other column has it';

create or replace function shardman.content_obstacles(rel oid) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(format('the constraint %s has never been validated, rows that break it could not be moved', conname),
                             format('ALTER TABLE %s VALIDATE CONSTRAINT %I', shardman.metadata_name(rel), conname))
      from pg_constraint o
     where conrelid = rel and contype::text in ('c', 'n') and not convalidated
       and coalesce((to_jsonb(o) ->> 'conenforced')::bool, true)
    union all
    select shardman.obstacle(format('the default of column %s uses the sequence %s, which does not belong to the table', a.attname, shardman.metadata_name(s.oid)),
                             format('ALTER SEQUENCE %s OWNED BY %s.%I', shardman.metadata_name(s.oid), shardman.metadata_name(rel), a.attname))
               || case when shardman.may_belong(s.oid, rel)
                       then jsonb_build_object('do', format('alter sequence %s owned by %s.%I', s.oid::regclass, rel::regclass, a.attname)) else '{}' end
      from pg_attrdef f
      join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
      join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refclassid = 'pg_class'::regclass
      join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
     where f.adrelid = rel and s.oid not in (select seq from shardman.owned_sequences(rel))
    union all
    select shardman.obstacle(format('the sequence %s counts downwards', shardman.metadata_name(o.seq)), 'Let it count upwards')
      from shardman.owned_sequences(rel) o join pg_sequence s on s.seqrelid = o.seq where s.seqincrement < 0
$$;
comment on function shardman.content_obstacles(oid) is
    'what rows and sequences of a table would stumble over; do: a statement that changes nothing else and takes it away';

create or replace function shardman.key_covered(element jsonb, rel oid, index_oid oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    with here as (
        select a.attname, a.atttypid from pg_index i, unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
          join pg_attribute a on a.attnum = k.attnum and a.attnum > 0
         where i.indexrelid = index_oid and k.n <= i.indnkeyatts and a.attrelid = rel
    )
    select case when element ->> 'column' is not null
                then exists (select from here where attname = element ->> 'column')
                -- Equal rows have equal keys, so they meet in one partition, and its index sees both.
                else not exists (select from jsonb_array_elements_text(element -> 'uses') as u (name)
                                  where not exists (select from here where attname = u.name and shardman.equal_is_same(atttypid)))
                  or exists (select from pg_index i, generate_series(1, i.indnkeyatts) as n
                              where i.indexrelid = index_oid and i.indkey[n - 1] = 0
                                and btrim(pg_get_indexdef(index_oid, n, false), '()') = btrim(element ->> 'sql', '()')) end
$$;
comment on function shardman.key_covered(jsonb, oid, oid) is
    'whether rows that are equal for a unique index have the same value of this element of the key';

create or replace function shardman.unique_obstacles(rel oid, key jsonb) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select shardman.obstacle(
               format('the unique key %s does not contain %s, so no single partition could watch over it', c.relname,
                      (select string_agg(e ->> 'sql', ', ') from jsonb_array_elements(key) e where not shardman.key_covered(e, rel, i.indexrelid))),
               'Drop it, extend it by the key, or shard by a column of it')
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = rel and i.indisunique
       and exists (select from jsonb_array_elements(key) e where not shardman.key_covered(e, rel, i.indexrelid))
    union all
    select shardman.obstacle(
               format('the exclusion constraint %s does not ask for equal %s, so no single partition could watch over it', o.conname,
                      (select string_agg(e ->> 'sql', ', ') from jsonb_array_elements(key) e)),
               'Drop it, extend it by the key WITH =, or shard by a column of it')
      from pg_constraint o
     where o.conrelid = rel and o.contype = 'x'
       and exists (select from jsonb_array_elements(key) e
                    where not exists (
                          select from unnest(o.conkey, o.conexclop) as k (attnum, op)
                            join pg_attribute a on a.attrelid = rel and a.attnum = k.attnum
                            join pg_amop m on m.amopopr = k.op and m.amopstrategy = 3
                            join pg_am on pg_am.oid = m.amopmethod and pg_am.amname = 'btree'
                           where a.attname = e ->> 'column'))
$$;
comment on function shardman.unique_obstacles(oid, jsonb) is 'unique keys and exclusion constraints that the partitions could not keep each for itself';

create or replace function shardman.name_obstacles(rel oid, partitions_count int) returns setof jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    with me as (
        select c.relname, c.relnamespace, shardman.metadata_name(rel) as name from pg_class c where c.oid = rel
    ), longest as (
        select max(octet_length(relname || '_' || partitions_count - 1 || '_data')) as bytes from me
    ), taken as (
        select shardman.metadata_name(c.oid) as name
          from me cross join generate_series(0, partitions_count - 1) as k cross join unnest(array['', '_data', '_fdw']) as suffix
          join pg_class c on c.relname = (me.relname || '_' || k || suffix)::name and c.relnamespace = me.relnamespace
         order by k, suffix
    )
    select shardman.obstacle(format('the name %s is too long: with its suffix a partition''s name would have %s bytes, and PostgreSQL cuts names at 63', name, bytes),
                             format('Give the table a name of at most %s bytes', 63 - bytes + octet_length(relname)))
      from me, longest where bytes > 63
    union all
    select shardman.obstacle(format('names that partitions of %s would have are taken: %s', (select name from me),
                                    array_to_string((array_agg(name))[:5], ', ') || case when count(*) > 5 then format(' and %s more', count(*) - 5) else '' end),
                             'Rename those relations or the table')
      from taken having count(*) > 0
$$;
comment on function shardman.name_obstacles(oid, int) is 'names of partitions that would be too long or that others have';

create or replace function shardman.foreign_needs(rel oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    with objects as (
        select 'pg_class'::regclass::oid as classid, rel as objid
        union all select 'pg_class'::regclass, indexrelid from pg_index where indrelid = rel
        union all select 'pg_attrdef'::regclass, oid from pg_attrdef where adrelid = rel
        union all select 'pg_constraint'::regclass, oid from pg_constraint where conrelid = rel
        union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext where stxrelid = rel
        union all select 'pg_trigger'::regclass, oid from pg_trigger where tgrelid = rel and not tgisinternal
    )
    select coalesce(array_agg(distinct coalesce('extension ' || quote_ident(e.extname), pg_describe_object(d.refclassid, d.refobjid, 0))), '{}')
      from objects o
      join pg_depend d on d.classid = o.classid and d.objid = o.objid and d.deptype = 'n'
      left join pg_depend x on x.classid = d.refclassid and x.objid = d.refobjid and x.deptype = 'e'
      left join pg_extension e on e.oid = x.refobjid
     where d.refclassid in ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_collation'::regclass, 'pg_opclass'::regclass,
                            'pg_operator'::regclass, 'pg_ts_config'::regclass, 'pg_am'::regclass)
       and d.refobjid >= 16384
$$;
comment on function shardman.foreign_needs(oid) is 'types, functions, collations and the like of the user''s own that a table is made of';

create or replace function shardman.table_warnings(rel oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(w), '{}') from (
        select format('Column %s is GENERATED ALWAYS AS IDENTITY and becomes a default: statements may then give values of their own', attname)
          from pg_attribute where attrelid = rel and attidentity = 'a' and not attisdropped
        union all
        select format('Index %s is not valid and is left out', c.relname)
          from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = rel and not i.indisvalid
        union all
        select format('The table has neither a primary key nor a unique key of columns that are not null: its rows are replicated as a whole, which is slow for updates and deletes')
         where shardman.identity_index(rel) is null
        union all
        select format('%s looks for its names by the session''s search_path, which on other nodes is pg_catalog: ALTER FUNCTION %s SET search_path = ...', f, f)
          from unnest(shardman.searching_functions(rel)) as f
        union all
        select format('The foreign key %s is checked at each statement, not at the end of the transaction', o.conname)
          from pg_constraint o where o.conrelid = rel and o.contype = 'f' and o.condeferrable
        union all
        select 'Security labels are not carried over' where exists (select from pg_seclabel where classoid = 'pg_class'::regclass and objoid = rel)
        union all
        select format('Tablespaces are not carried over') from pg_class where oid = rel and reltablespace <> 0
        union all
        select format('Other nodes need these before they can have the table: %s', shardman.name_list(shardman.foreign_needs(rel)))
         where shardman.foreign_needs(rel) <> '{}'
        union all
        select format('The MAXVALUE of sequence %s is not kept: each node counts in a range of its own', shardman.metadata_name(o.seq))
          from shardman.owned_sequences(rel) o join pg_sequence q on q.seqrelid = o.seq where q.seqmax < shardman.type_max(q.seqtypid)
        union all
        select format('Sequence %s has numbers left for %s rows on each node only', s ->> 'name', s ->> 'width')
          from jsonb_array_elements(shardman.describe_sequences(rel)) s where (s ->> 'width')::bigint / (s ->> 'increment')::bigint < 10000
    ) as v (w)
$$;
comment on function shardman.table_warnings(oid) is 'what a user should know before a table is sharded';
