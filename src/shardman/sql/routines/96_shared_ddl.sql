-- DDL of a shared table is refused: it would change one copy.

create or replace function shardman.shared_name(rel oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relation from shardman.shared_copies c join shardman.local l on l.node_id = c.node and not l.leaving
     -- Also one that was just renamed.
     where c.relation = shardman.metadata_name(rel)
        or exists (select from pg_trigger g where g.tgrelid = rel and g.tgname = 'A_shardman_lock'
                      and g.tgfoid = shardman.find_function(shardman.shared_function(c.relation)))
$$;
comment on function shardman.shared_name(oid) is 'the shared table of which a relation of this node is the copy; null when it is none';

create or replace function shardman.refuse_shared_ddl(relation text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception '% is a shared table, and this would change its copy on this node only', relation
        using errcode = 'feature_not_supported',
              hint = format('Make it a plain table with shardman.unshare_table(%L, ...), change it, and share it again.', relation);
end
$$;
comment on function shardman.refuse_shared_ddl(text) is 'raises what DDL of a shared table gets';

create or replace function shardman.on_shared_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    changed text;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    select shardman.shared_name(coalesce(i.indrelid, g.tgrelid, p.polrelid, w.ev_class, s.stxrelid, o.conrelid, d.objid)) into changed
      from pg_event_trigger_ddl_commands() d
      left join pg_index i on d.classid = 'pg_class'::regclass and i.indexrelid = d.objid
      left join pg_trigger g on d.classid = 'pg_trigger'::regclass and g.oid = d.objid
      left join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
      left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
      left join pg_statistic_ext s on d.classid = 'pg_statistic_ext'::regclass and s.oid = d.objid
      left join pg_constraint o on d.classid = 'pg_constraint'::regclass and o.oid = d.objid
     where d.classid in ('pg_class'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_rewrite'::regclass,
                         'pg_statistic_ext'::regclass, 'pg_constraint'::regclass)
     order by 1 limit 1;
    if changed is not null then
        perform shardman.refuse_shared_ddl(changed);
    end if;
end
$$;
comment on function shardman.on_shared_ddl() is 'after DDL: refuses what is about a shared table';

create or replace function shardman.on_shared_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    gone text;
begin
    if current_setting('shardman.ddl_busy', true) = 'on' or current_setting('shardman.ddl', true) = 'here' then
        return;
    end if;
    select c.relation into gone
      from pg_event_trigger_dropped_objects() d
      join shardman.shared_copies c on c.relation = shardman.relation_text(d.address_names[1], d.address_names[2])
      join shardman.local l on l.node_id = c.node and not l.leaving
     -- Of a trigger, a policy, a rule or a constraint the names begin with those of its table.
     -- Those of foreign keys that refer to it come and go with the other table.
     where (d.address_names[3] like 'RI\_ConstraintTrigger\_%') is not true and d.object_type in ('table', 'trigger', 'policy', 'rule', 'table constraint', 'table column')
     order by 1 limit 1;
    if gone is not null then
        perform shardman.refuse_shared_ddl(gone);
    end if;
end
$$;
comment on function shardman.on_shared_drop() is 'after something was dropped: refuses it where that was a shared table, or a part of one';
