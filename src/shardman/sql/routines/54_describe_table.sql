-- What create_hash_partitions asks before it plans.

create or replace function shardman.table_obstacles(rel oid, key jsonb, partitions_count int) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_agg(o), '[]') from (
        select shardman.link_obstacles(rel)
        union all select shardman.reference_obstacles(rel, key -> 'key')
        union all select shardman.dependent_obstacles(rel)
        union all select shardman.content_obstacles(rel)
        union all select shardman.elsewhere_obstacles(rel)
        union all select shardman.trust_obstacles(rel)
        union all select shardman.unique_obstacles(rel, key -> 'key')
        union all select shardman.name_obstacles(rel, partitions_count)
    ) as found_ (o)
$$;
comment on function shardman.table_obstacles(oid, jsonb, int) is 'all that keeps a plain table from being sharded';

create or replace function shardman.estimated_rows(rel oid) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    rows  bigint := (select reltuples from pg_class where oid = rel);
    bytes bigint := pg_relation_size(rel);
begin
    if rows >= 0 and not (rows = 0 and bytes > 0) then
        return rows;
    elsif bytes > 16 * 1024 * 1024 then
        return bytes / 100;
    end if;
    execute format('select count(*) from %s', rel::regclass) into rows;
    return rows;
end
$$;
comment on function shardman.estimated_rows(oid) is 'about how many rows a table has: what the planner thinks, or a count of a small one';

create or replace function shardman.describe_table(relation text, expr text, partitions_count int) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
declare
    name      text := shardman.normal_name(relation);
    rel       oid := shardman.find_relation(relation);
    obstacles jsonb := '[]';
    key       jsonb;
    defined   jsonb;
begin
    if rel is null then
        obstacles := obstacles || shardman.obstacle(
            format('there is no table %s on this node (looked in schema %s)', name, (shardman.relation_parts(relation))[1]),
            coalesce((select 'Did you mean ' || string_agg(shardman.metadata_name(c.oid), ' or ' order by c.oid) || '?'
                        from pg_class c join pg_namespace n on n.oid = c.relnamespace
                       where lower(c.relname) = lower((shardman.relation_parts(relation))[2]) and c.relkind = 'r'
                         and n.nspname <> 'shardman'),
                     'Give the node that has it, and its schema unless that is public'));
    elsif shardman.kind_obstacle(rel) is not null then
        obstacles := obstacles || shardman.kind_obstacle(rel);
    else
        -- Without these rights the rest cannot be asked.
        obstacles := obstacles || coalesce((select jsonb_agg(o) from shardman.role_obstacles(rel) o), '[]');
    end if;
    if obstacles <> '[]' then
        return jsonb_build_object('relation', name, 'obstacles', obstacles, 'warnings', jsonb_build_array());
    end if;
    key := shardman.read_key(rel, expr);
    if key ? 'problem' then
        obstacles := obstacles || shardman.obstacle(key ->> 'problem', key ->> 'hint');
        key := null;
    end if;
    obstacles := obstacles || shardman.table_obstacles(rel, key, partitions_count);
    if key is not null then
        defined := shardman.with_whole_indexes(shardman.define_table(rel, key, expr, partitions_count));
        obstacles := obstacles || (
            select coalesce(jsonb_agg(shardman.obstacle(
                       format('the cluster would read a value of the type %s, and %s in it belongs to %s, who is no superuser',
                              u.named, u.code, quote_ident(u.owner)),
                       format('A superuser who trusts it takes it over on every node: %s', u.way_out))), '[]')
              from shardman.untrusted_types(defined) u);
    end if;
    return jsonb_build_object(
        'relation', name, 'obstacles', obstacles, 'warnings', to_jsonb(shardman.table_warnings(rel)),
        'definition', defined, 'create_sql', shardman.parent_script(defined),
        'has_key', shardman.identity_index(rel) is not null,
        'views', to_jsonb(shardman.view_names(rel)),
        'bytes', pg_total_relation_size(rel), 'rows', shardman.estimated_rows(rel));
end
$$;
comment on function shardman.describe_table(text, text, int) is
    'on the node of a plain table: whether it can be sharded by expr, what is in the way, and what to make it of elsewhere; '
    'see 52_definition.sql for the definition';
