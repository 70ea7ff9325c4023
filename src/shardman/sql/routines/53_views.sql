-- Views of a table that is being sharded. A view knows its table by the number, not by the name: it would go on reading the plain one. So in the
-- cut-over, when the names are exchanged, its query is written again where it is, and means the sharded table; its owner, rights, comment,
-- triggers and rules stay. Who reads a view locks that first and its tables then, so the cut-over does, too.
--
-- What cannot be written again like that is in the way (shardman.dependent_obstacles): materialized views, what somebody else than the cluster's
-- role would have to write, and what would mean something else of a sharded table.

create or replace function shardman.view_text(view oid) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
    select format('create or replace view %I.%I%s as %s', n.nspname, c.relname,
                  ' with (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(c.oid), ';'))
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = view
$$;
comment on function shardman.view_text(oid) is 'the statement that gives a view the query that it has';

create or replace function shardman.following_views(rel oid) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    with read as (
        select distinct c.oid, c.relnamespace, c.relowner, r.oid as rule
          from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.ev_type = '1'
          join pg_class c on c.oid = r.ev_class and c.relkind = 'v' and c.relpersistence = 'p'
         where d.refclassid = 'pg_class'::regclass and d.refobjid = rel and d.deptype = 'n'
    )
    select v.oid
      from read v cross join lateral (select shardman.view_text(v.oid) offset 0) as w (words)
     where pg_has_role(shardman.our_role(), v.relowner, 'usage') and has_schema_privilege(shardman.our_role(), v.relnamespace, 'create')
       and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = v.oid and e.deptype = 'e')
       -- GROUP BY of a key on which the other columns depend: the sharded table has its keys as a whole only later, if it can have them.
       and not exists (select from pg_depend k join pg_constraint o on k.refclassid = 'pg_constraint'::regclass and o.oid = k.refobjid and o.conrelid = rel
                        where k.classid = 'pg_rewrite'::regclass and k.objid = v.rule)
       -- Of a sharded table by itself there are no rows.
       and position(' ONLY ' || (select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = rel) in w.words) = 0
       and not exists (select from shardman.untrusted_types(jsonb_build_array(w.words)))
$$;
comment on function shardman.following_views(oid) is 'the views that read a plain table, and read the sharded one after it was sharded';

create or replace function shardman.view_names(rel oid) returns text[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select shardman.metadata_name(v) from shardman.following_views(rel) v order by 1)
$$;
comment on function shardman.view_names(oid) is 'the names of shardman.following_views';

create or replace function shardman.rewrite_views(texts text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    line text;
begin
    perform shardman.need_trusted_types(to_jsonb(texts));
    foreach line in array texts loop
        begin
            execute line;
        exception when syntax_error_or_access_rule_violation or feature_not_supported then
            raise exception 'a view cannot read the table once that is sharded: %', sqlerrm
                using errcode = sqlstate, detail = line, hint = 'Drop that view, and make it again once the table is sharded.';
        end;
    end loop;
end
$$;
comment on function shardman.rewrite_views(text[]) is 'gives views their queries again, by shardman.view_text, which they now mean by the names that tables have now';
