-- Routes: the foreign tables by which a node reaches the partitions of other nodes, and what is attached to a partition.

create or replace function shardman.attached_to(part_name text) returns oid
language sql stable set search_path = pg_catalog, pg_temp as $$
    select inhrelid from pg_inherits where inhparent = shardman.find_relation(part_name) limit 1
$$;
comment on function shardman.attached_to(text) is 'what is in a partition: its data table, its route, or null';

create or replace function shardman.attach(part_name text, child text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.attached_to(part_name) is distinct from shardman.find_relation(child) then
        execute format('alter table %s attach partition %s default', shardman.sql_name(part_name), shardman.sql_name(child));
        perform shardman.give_to(shardman.find_relation(child), (select relowner from pg_class where oid = shardman.find_relation(part_name)));
        if child = shardman.data_table(part_name) then
            perform shardman.attached_row_triggers(part_name);
        end if;
    end if;
end
$$;
comment on function shardman.attach(text, text) is
    'puts a data table or a route into its partition, which must be empty; does nothing where it is';

create or replace function shardman.attach_data(part_name text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select shardman.attach(part_name, shardman.data_table(part_name))
$$;
comment on function shardman.attach_data(text) is 'puts the data table into the partition, which must be empty; does nothing where it is';

create or replace function shardman.route_columns(part oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select concat_ws(', ',
        (select string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                    case when a.attcollation <> t.typcollation
                         then (select format('collate %I.%I', n.nspname, l.collname)
                                 from pg_collation l join pg_namespace n on n.oid = l.collnamespace where l.oid = a.attcollation) end,
                    case a.attgenerated when 's' then format('generated always as (%s) stored', pg_get_expr(d.adbin, d.adrelid))
                                        when 'v' then format('generated always as (%s) virtual', pg_get_expr(d.adbin, d.adrelid))
                                        else 'default ' || pg_get_expr(d.adbin, d.adrelid) end,
                    case when a.attnotnull then 'not null' end), ', ' order by a.attnum)
           from pg_attribute a join pg_type t on t.oid = a.atttypid
           left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
          where a.attrelid = part and a.attnum > 0 and not a.attisdropped),
        (select string_agg(format('constraint %I %s', conname, pg_get_constraintdef(oid)), ', ' order by conname)
           from pg_constraint where conrelid = part and contype = 'c'))
$$;
comment on function shardman.route_columns(oid) is 'columns and checks of a partition, as CREATE FOREIGN TABLE wants them for a route';

create or replace function shardman.route_options(part_name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    p    constant text[] := shardman.relation_parts(part_name);
    most constant int := shardman.setting('fetch_size', '10000');
    rows_ constant int := (select shardman.fetched_at_once(shardman.row_width(x.relation), most, most) from shardman.partitions x
                            where x.part_name = route_options.part_name limit 1);
begin
    return format('options (schema_name %L, table_name %L%s)', p[1], p[2], (select format(', fetch_size %L', rows_) where rows_ < most));
end
$$;
comment on function shardman.route_options(text) is 'options of the route to a partition: what it is called, and how many rows are fetched at once where they are wide';

create or replace function shardman.is_ours(owner oid) returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper or r.oid = (select nspowner from pg_namespace where nspname = 'shardman') from pg_roles r where r.oid = owner
$$;
comment on function shardman.is_ours(oid) is
    'whether what belongs to a role may be the cluster''s: the owner of the schema''s, or a superuser''s, who needs no trap';

create or replace function shardman.need_our_server(server text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    owner_ oid;
begin
    select s.srvowner into owner_ from pg_foreign_server s where s.srvname = server and not shardman.is_ours(s.srvowner);
    if found then
        raise exception 'the foreign server % belongs to %', server, quote_ident(pg_get_userbyid(owner_))
            using errcode = 'duplicate_object', hint = format('The name is needed: ALTER SERVER %I RENAME TO ...', server);
    end if;
end
$$;
comment on function shardman.need_our_server(text) is 'raises where a foreign server of this name is a stranger''s: he could let it lead anywhere';

create or replace function shardman.route_taken(part_name text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('a %s %s of %s', case c.relkind when 'v' then 'view' when 'S' then 'sequence' when 'i' then 'index'
                                                  when 'f' then 'foreign table' else 'relation' end,
                  shardman.metadata_name(c.oid), quote_ident(pg_get_userbyid(c.relowner)))
      from pg_class c left join pg_foreign_table f on f.ftrelid = c.oid left join pg_foreign_server s on s.oid = f.ftserver
     where c.oid = shardman.find_relation(shardman.route_table(route_taken.part_name))
       and (s.srvname ~ '^shardman_' and shardman.is_ours(s.srvowner)) is not true
$$;
comment on function shardman.route_taken(text) is 'what has the name of a partition''s route on this node and is none; null when nothing has';

create or replace function shardman.make_route(part_name text, server text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant oid := shardman.find_relation(part_name);
    route constant text := shardman.route_table(part_name);
begin
    if part is null then
        raise exception 'there is no partition % on this node', part_name using errcode = 'undefined_table';
    elsif shardman.route_taken(part_name) is not null then
        raise exception 'this node has %, which is no route', shardman.route_taken(part_name)
            using errcode = 'duplicate_table', hint = 'Rename it or drop it, if it is not needed.';
    end if;
    perform shardman.need_our_server(server);
    execute format('create foreign table %s (%s) server %I %s', shardman.sql_name(route), shardman.route_columns(part),
                   server, shardman.route_options(part_name));
    execute format('alter foreign table %s owner to %I', shardman.sql_name(route),
                   (select pg_get_userbyid(relowner) from pg_class where oid = part));
    perform shardman.leave_to_owner(shardman.find_relation(route));
end
$$;
comment on function shardman.make_route(text, text) is 'a foreign table for the partition on a foreign server, not attached';

create or replace function shardman.fitting_route(part_name text) returns regclass
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    route  constant regclass := shardman.find_relation(shardman.route_table(part_name));
    server name;
begin
    if shardman.route_columns(route) = shardman.route_columns(shardman.find_relation(part_name)) then
        return route;
    end if;
    select s.srvname into strict server from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = route;
    execute format('drop foreign table %s', route);
    perform shardman.make_route(part_name, server);
    return shardman.find_relation(shardman.route_table(part_name));
end
$$;
comment on function shardman.fitting_route(text) is
    'the route of a partition that stands ready and is not attached; it is made anew where DDL of the table has come since';

create or replace function shardman.attach_route(part_name text) returns void
language sql set search_path = pg_catalog, pg_temp as $$
    select shardman.attach(part_name, shardman.route_table(part_name))
$$;
comment on function shardman.attach_route(text) is 'puts the route into the partition, which must be empty; does nothing where it is';
