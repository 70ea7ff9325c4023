-- DDL that is not sent to other nodes, though it is about a sharded table or what belongs to one: refused. What a statement was
-- about is read here from the catalogs when it has been done, not from its text, so nothing is overlooked that came in a function,
-- in DO, with others in one query, or in words that nobody foresaw.

create or replace function shardman.is_own_ddl() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    -- What the cluster's role calls is a SELECT to whoever looks from here, or, where changes arrive, nothing at all.
    select coalesce(current_setting('shardman.ddl_busy', true), '') = 'on' or coalesce(current_setting('shardman.ddl', true), '') <> ''
        or current_setting('session_replication_role') = 'replica'
        or coalesce(current_query(), '') ~* '^\s*(select\M|$)' and current_query() !~* ';\s*(alter|create|drop|comment|do)\M' and shardman.may_administer()
$$;
comment on function shardman.is_own_ddl() is
    'whether DDL comes from the cluster itself, from another node, or from somebody who wants this node alone changed: shardman.ddl is set. '
    'Who sets it gets nothing but that';

create or replace function shardman.part_of(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.relation
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join shardman.partitions p
        on p.part_name = shardman.relation_text(n.nspname, case when c.relkind = 'p' then c.relname else regexp_replace(c.relname, '_(data|fdw)$', '') end)
     where c.oid = rel and c.relkind in ('r', 'p', 'f') and shardman.is_member() and not shardman.is_copy()
       and (c.relispartition or exists (select from pg_constraint o where o.conrelid = rel and o.conname = 'shardman_partition' and o.contype = 'c'))
     limit 1
$$;
comment on function shardman.part_of(oid) is 'the sharded table of which a relation is a partition, a data table or a route; null when it is none';

create or replace function shardman.numbered_by(seq oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(shardman.sharded_name(a.adrelid))
      from pg_class c join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
      join pg_attrdef a on a.oid = d.objid
     where c.oid = seq and c.relkind = 'S'
$$;
comment on function shardman.numbered_by(oid) is 'the sharded table that has its numbers from a sequence; null when none has';

create or replace function shardman.ddl_relation_of(classid oid, objid oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case classid
           when 'pg_class'::regclass then coalesce((select i.indrelid from pg_index i where i.indexrelid = objid), objid)
           when 'pg_constraint'::regclass then (select o.conrelid from pg_constraint o where o.oid = objid)
           when 'pg_policy'::regclass then (select p.polrelid from pg_policy p where p.oid = objid)
           when 'pg_trigger'::regclass then (select t.tgrelid from pg_trigger t where t.oid = objid)
           when 'pg_rewrite'::regclass then (select r.ev_class from pg_rewrite r where r.oid = objid)
           when 'pg_attrdef'::regclass then (select a.adrelid from pg_attrdef a where a.oid = objid)
           when 'pg_statistic_ext'::regclass then (select s.stxrelid from pg_statistic_ext s where s.oid = objid) end
$$;
comment on function shardman.ddl_relation_of(oid, oid) is 'the relation to which an object belongs that DDL was about';

create or replace function shardman.kin_of(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(k.relation)
      from (select coalesce(shardman.sharded_name(i.inhparent), shardman.part_of(i.inhparent)) as relation from pg_inherits i where i.inhrelid = rel
            union all
            select t.relation from pg_inherits i join shardman.tables t on t.relation = shardman.metadata_name(i.inhrelid)
             where i.inhparent = rel and shardman.is_member() and not shardman.is_copy()) as k
$$;
comment on function shardman.kin_of(oid) is
    'the sharded table of which a relation has become a partition, or a partition''s, or which has become one of the relation''s; null where there is none';

create or replace function shardman.refuse_lone(relation text, object_type text, rel oid, tag text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    here constant text := 'To change this node alone all the same: set shardman.ddl = ''here''.';
begin
    -- Renamed it is not found by its name any more.
    if shardman.part_of(rel) is not null or shardman.sharded_name(rel) is null and shardman.plain_words(shardman.statement_now()) ~* '\mrename\s+to\M'
                                            and shardman.kin_of(rel) is not null then
        raise exception '% belongs to the sharded table %, and this would change it on this node only', rel::regclass, relation
            using errcode = 'feature_not_supported',
                  hint = format('Change %s, on any node: its partitions follow. %s', relation, here);
    elsif shardman.sharded_name(rel) is null and shardman.kin_of(rel) is not null then
        raise exception '% is sharded, and this would put % above or below it on this node only', relation, rel::regclass
            using errcode = 'feature_not_supported',
                  hint = 'A sharded table has the partitions that it was made with, and is none itself. Copy the rows: INSERT INTO ... SELECT.';
    elsif shardman.numbered_by(rel) is not null then
        raise exception '% gives % its numbers, and this would change it on this node only', rel::regclass, relation
            using errcode = 'feature_not_supported',
                  hint = 'ALTER SEQUENCE (or ALTER TABLE ... RENAME), by itself and not from within a function or DO, changes it on all nodes, each in a range of its own. ' || here;
    elsif object_type in ('trigger', 'rule', 'statistics object') and tag <> 'COMMENT' then
        raise exception '% is sharded, and this % would be on this node only', relation, object_type
            using errcode = 'feature_not_supported',
                  hint = case when object_type in ('trigger', 'statistics object') then 'Send the statement by itself, or with nothing but DDL in one query, and not from within a function or DO.'
                              else 'Sharded tables have no rules. A default, a check or a trigger may do.' end;
    end if;
    raise exception '% is sharded, and this would change it on this node only', relation
        using errcode = 'feature_not_supported',
              hint = 'Send the statement by itself, or with nothing but DDL in one query, and not from within a function or DO.';
end
$$;
comment on function shardman.refuse_lone(text, text, oid, text) is 'raises what DDL gets that would change a sharded table on this node only';

create or replace function shardman.on_lone_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    made record;
begin
    if coalesce(current_setting('shardman.ddl_target', true), '') <> '' or shardman.is_own_ddl() then
        return;
    end if;
    for made in
        select d.object_type, r.rel, c.relation
          from pg_event_trigger_ddl_commands() d
         cross join lateral (select shardman.ddl_relation_of(d.classid, d.objid) as rel offset 0) as r
         cross join lateral (
               select coalesce(shardman.sharded_name(r.rel), shardman.part_of(r.rel), shardman.kin_of(r.rel), shardman.of_partitions(r.rel),
                               case when tg_tag <> 'COMMENT' then shardman.numbered_by(r.rel) end) as relation) as c
         where c.relation is not null
    loop
        perform shardman.refuse_lone(made.relation, made.object_type, made.rel, tg_tag);
    end loop;
end
$$;
comment on function shardman.on_lone_ddl() is
    'after DDL, as the cluster''s role: refuses it where it is about a sharded table or what belongs to one and is not sent to other nodes';

create or replace function shardman.index_of(schema_name text, index_name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(t.relation)
      from shardman.tables t
     where (shardman.relation_parts(t.relation))[1] = schema_name
       and (exists (select from jsonb_array_elements((t.definition -> 'indexes') || coalesce(t.definition -> 'shared_indexes', '[]')) i where i ->> 'name' = index_name)
            or exists (select from jsonb_array_elements((t.definition -> 'indexes') || coalesce(t.definition -> 'shared_indexes', '[]')) i, generate_series(0, t.partitions_count - 1) k
                        where shardman.numbered_name(i ->> 'name', k) = index_name))
$$;
comment on function shardman.index_of(text, text) is
    'the sharded table of which an index is, or a data table, by the index''s name: of what was dropped nothing else is left';

create or replace function shardman.refuse_lost_sequence() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    lost record;
begin
    select t.relation, d.object_identity, s ->> 'column' as col into lost
      from pg_event_trigger_dropped_objects() d
     cross join (select relation, definition from shardman.tables union all select relation, definition from shardman.shared_tables) t
     cross join jsonb_array_elements(t.definition -> 'sequences') s
     where d.object_type = 'sequence' and d.original and s ->> 'name' = shardman.relation_text(d.schema_name, d.object_name)
       and exists (select from pg_attribute a where a.attrelid = shardman.find_relation(t.relation) and a.attname = s ->> 'column' and not a.attisdropped)
     limit 1;
    if found then
        raise exception 'sequence % belongs to column % of %, on all nodes, and this would drop that of this node', lost.object_identity, quote_ident(lost.col), lost.relation
            using errcode = 'feature_not_supported',
                  hint = format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT ends that it gives numbers; it goes with the column.', shardman.sql_name(lost.relation), lost.col);
    end if;
end
$$;
comment on function shardman.refuse_lost_sequence() is 'within a drop: raises where a sequence of a sharded or shared table is dropped by itself';

create or replace function shardman.refuse_lost_rows() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    lost record;
begin
    -- By its check: somebody's own table may have such a name where the partition's rows are elsewhere.
    select p.relation, p.part_name into lost
      from pg_event_trigger_dropped_objects() d
      join shardman.partitions p on p.part_name = regexp_replace(shardman.relation_text(d.address_names[1], d.address_names[2]), '_data("?)$', '\1')
      join pg_event_trigger_dropped_objects() w on w.object_type = 'table' and w.address_names = d.address_names[:2]
     where d.object_type = 'table constraint' and d.address_names[3] = 'shardman_partition'
     limit 1;
    if found then
        raise exception '% is sharded, and this would drop the rows that this node has of its partition %', lost.relation, lost.part_name
            using errcode = 'feature_not_supported',
                  hint = format('Drop the whole table, on any node: DROP TABLE %1$s. Or take the rows out: DELETE FROM %2$s, or TRUNCATE %2$s. To drop them on this node '
                                'alone all the same: set shardman.ddl = ''here''.', shardman.sql_name(lost.relation), shardman.sql_name(lost.part_name));
    end if;
end
$$;
comment on function shardman.refuse_lost_rows() is 'within a drop: raises where the data table of a partition goes with it, of a primary or a replica';

create or replace function shardman.refuse_lone_drops() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    lost record;
begin
    if coalesce(current_setting('shardman.ddl_target', true), '') <> '' or not shardman.is_member() or shardman.is_copy() or shardman.is_own_ddl() then
        return;
    end if;
    perform shardman.refuse_lost_sequence(), shardman.refuse_lost_rows();
    select t.relation, d.object_type, d.object_identity into lost
      from pg_event_trigger_dropped_objects() d join shardman.tables t on shardman.is_called(t.relation, shardman.relation_text(d.address_names[1], d.address_names[2]))
     where d.object_type in ('table column', 'default value', 'table constraint', 'policy')
     limit 1;
    if not found then
        select i.relation, d.object_type, d.object_identity into lost
          from pg_event_trigger_dropped_objects() d
         cross join lateral (select coalesce(shardman.index_of(d.schema_name, d.object_name),
                                             (select t.relation from shardman.tables t where t.relation = shardman.whose_part('index', d.schema_name, d.object_name))) as relation) as i
         where d.object_type = 'index' and i.relation is not null
         limit 1;
    end if;
    if not found then
        select t.relation, d.object_type, d.object_identity into lost
          from pg_event_trigger_dropped_objects() d cross join shardman.tables t cross join lateral shardman.known_statistics(t.relation) k
         where d.object_type = 'statistics object' and (shardman.statistics_schema(k, t.relation), k ->> 'name') = (d.schema_name, d.object_name)
         limit 1;
    end if;
    if found then
        raise exception '% is sharded, and this would drop its % % on this node only', lost.relation, lost.object_type, lost.object_identity
            using errcode = 'feature_not_supported',
                  hint = format('Take it from %s first, on any node, by a statement of its own (ALTER TABLE, DROP INDEX, DROP POLICY, DROP STATISTICS); or drop the '
                                'table with shardman.drop_table(%L). To change this node alone: set shardman.ddl = ''here''.',
                                lost.relation, lost.relation);
    end if;
end
$$;
comment on function shardman.refuse_lone_drops() is 'within a drop: raises where something of a sharded table goes with it, on this node only';

create or replace function shardman.owners_here() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(string_agg(concat_ws(' ', t.relation, pg_get_userbyid(c.relowner), c.relacl::text, a.acl, p.roles), E'\n' order by t.relation), '')
      from shardman.tables t join pg_class c on c.oid = shardman.find_relation(t.relation)
     cross join lateral (select string_agg(attname || attacl::text, ' ' order by attnum) as acl
                           from pg_attribute where attrelid = c.oid and attacl is not null) a
     cross join lateral (select string_agg(polname || polroles::text, ' ' order by polname) as roles from pg_policy where polrelid = c.oid) p
     where shardman.is_member() and not shardman.is_copy()
$$;
comment on function shardman.owners_here() is 'who owns the sharded tables on this node, and who may do what with them, as a text to compare';

create or replace function shardman.on_owned_start() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform set_config('shardman.ddl_owners', shardman.owners_here(), true);
end
$$;
comment on function shardman.on_owned_start() is 'before DROP OWNED, of which PostgreSQL does not say what it changed';

create or replace function shardman.on_owned_end() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not shardman.is_own_ddl() and shardman.owners_here() <> current_setting('shardman.ddl_owners', true) then
        raise exception 'this would take rights on sharded tables away, on this node only'
            using errcode = 'feature_not_supported',
                  hint = 'First, on any node, REVOKE ALL ON each sharded table FROM the role. Or send it to all nodes: shardman exec.';
    elsif not shardman.is_own_ddl() and shardman.is_member() then
        raise notice 'DROP OWNED concerns this node only, and so does REASSIGN OWNED' using hint = 'shardman exec sends them to all nodes.';
    end if;
end
$$;
comment on function shardman.on_owned_end() is 'after DROP OWNED: refuses it where it concerned sharded tables';
