-- Splitting: the exchange, in which the new partitions take the place of the old ones (82_split.sql).

create or replace function shardman.hold_for_exchange(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    l record;
begin
    for l in select s.part, s.leaf, s.kind from shardman.leaves(shardman.find_relation(relation)) s order by s.part loop
        if l.kind = 'data' then
            execute format('lock table only %s in access exclusive mode', l.part::regclass);
            execute format('lock table only %s in exclusive mode', l.leaf::regclass);
        else
            -- By its partition alone can a route be locked.
            execute format('lock table %s in access exclusive mode', l.part::regclass);
        end if;
    end loop;
end
$$;
comment on function shardman.hold_for_exchange(text) is
    'for who has locked the table alone: locks its partitions, and data tables so that they can be read: the last rows come to the new ones in another transaction';

create or replace function shardman.take_partitions_off(relation text, former int, partitions_count int, gone text[], cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  text;
    child oid;
    data  text;
begin
    for j in 0 .. former - 1 loop
        part := shardman.suffixed(relation, '_' || j);
        child := shardman.attached_to(part);
        if child = shardman.find_relation(shardman.route_table(part)) then
            perform shardman.drop_route(part);
        elsif child is not null then
            execute format('alter table %s detach partition %s', shardman.sql_name(part), child::regclass);
        end if;
        execute format('alter table %s detach partition %s', shardman.sql_name(relation), shardman.sql_name(part));
        data := shardman.data_table(part);
        if data = any (gone) then
            perform shardman.unpublish(data);
            execute format('alter table %s rename to %I', shardman.sql_name(data), shardman.aside_name(part, cmd_id));
            perform shardman.leave_to_owner(shardman.find_relation(shardman.relation_text((shardman.relation_parts(part))[1],
                                                                                         shardman.aside_name(part, cmd_id))));
        end if;
        if j >= partitions_count then
            execute format('drop table %s', shardman.sql_name(part));
        end if;
    end loop;
end
$$;
comment on function shardman.take_partitions_off(text, int, int, text[], bigint) is
    'in the exchange: takes all old partitions off the table; those that stay by name are empty then. gone: the old data tables, which are renamed';

create or replace function shardman.bring_in(definition jsonb, k int, made text, primary_here bool) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    part  constant text := shardman.suffixed(definition ->> 'relation', '_' || k);
    data  constant oid := shardman.find_relation(made);
    pub   text;
begin
    for pub in select p.pubname from pg_publication p join pg_publication_rel r on r.prpubid = p.oid where r.prrelid = data loop
        -- It is there already, with a filter that lets nothing through.
        execute format('alter publication %I drop table only %s', pub, data::regclass);
        execute format('alter publication %I add table only %s', pub, data::regclass);
    end loop;
    if made <> shardman.data_table(part) then
        execute format('alter table %s rename to %I', data::regclass, (shardman.relation_parts(shardman.data_table(part)))[2]);
    end if;
    if primary_here then
        perform shardman.attach_data(part);
        perform shardman.follow_parent(data, shardman.find_relation(definition ->> 'relation'));
    else
        perform shardman.make_read_only(shardman.data_table(part));
    end if;
end
$$;
comment on function shardman.bring_in(jsonb, int, text, bool) is
    'in the exchange: a new data table becomes the primary''s, in its partition, or a replica''s; it takes its name, and channels let its rows through';

create or replace function shardman.split_swap(definition jsonb, former int, owners int[], cmd_id bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    relation constant text := definition ->> 'relation';
    count_   constant int := (definition ->> 'partitions_count')::int;
    parent   constant oid := shardman.find_relation(relation);
    split    constant text := shardman.split_table(relation, cmd_id);
    here     constant jsonb := (select jsonb_object_agg(g.k, g.made) from shardman.split_groups(relation, former, count_, cmd_id) g);
    gone     constant text[] := array(select distinct g.old from shardman.split_groups(relation, former, count_, cmd_id) g);
    owner_   int;
    part     text;
begin
    perform set_config('shardman.exchanging', 'on', true);
    -- Events of what was replayed would be in the way of what follows.
    set constraints all immediate;
    perform shardman.drop_keys(parent);
    perform shardman.take_partitions_off(relation, former, count_, gone, cmd_id);
    for k in 0 .. count_ - 1 loop
        part := shardman.suffixed(relation, '_' || k);
        owner_ := owners[k + 1];
        if shardman.find_relation(part) is null then
            perform shardman.make_partition(definition, relation, part, count_, k);
        else
            execute format('alter table %s attach partition %s for values with (modulus %s, remainder %s)', parent::regclass,
                           shardman.sql_name(part), count_, k);
            perform shardman.follow_parent(shardman.find_relation(part), parent) where k >= former;
        end if;
        if here ? k::text then
            execute format('alter table %s detach partition %s', shardman.sql_name(split), shardman.sql_name(here ->> k::text));
            perform shardman.bring_in(definition, k, here ->> k::text, owner_ = shardman.my_id());
        end if;
        if owner_ <> shardman.my_id() then
            -- Over a server of its own: a session may have a connection to that node whose snapshot is older than the new tables' rows.
            perform shardman.make_attached_route(part, shardman.node_server(owner_) || '_c' || cmd_id);
        end if;
    end loop;
    perform shardman.mend_keys(definition, parent);
end
$$;
comment on function shardman.split_swap(jsonb, int, int[], bigint) is
    'in the cut-over, on every node: the table gets its new partitions in place of the old ones. definition: with the new number; owners: of the '
    'primaries of the new partitions, in the order of their numbers';

create or replace function shardman.split_refer(definition jsonb, owners int[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    for k in 0 .. cardinality(owners) - 1 loop
        if owners[k + 1] = shardman.my_id() then
            perform shardman.add_references(shardman.suffixed(definition ->> 'relation', '_' || k), definition),
                    shardman.attached_row_triggers(shardman.suffixed(definition ->> 'relation', '_' || k), definition);
        end if;
    end loop;
end
$$;
comment on function shardman.split_refer(jsonb, int[]) is
    'in the cut-over, when all tables of the group have their new partitions: the new data tables get their foreign keys, which lead to new ones, and triggers';

create or replace function shardman.settle_names(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    def constant jsonb := (select t.definition from shardman.tables t where t.relation = settle_names.relation);
    c   record;
begin
    for c in
        with here as (
            select d.oid, d.relnamespace, shardman.table_number(d.oid) as k
              from shardman.partitions p join pg_class d on d.oid = shardman.find_relation(shardman.data_table(p.part_name))
             where p.relation = settle_names.relation and p.owner = shardman.my_id()
        )
        select 'index' as kind, x.oid::regclass::text as name, shardman.numbered_name(e ->> 'name', h.k) as wanted
          from here h join pg_index i on i.indrelid = h.oid join pg_class x on x.oid = i.indexrelid
          join jsonb_array_elements((def -> 'keys') || (def -> 'indexes') || coalesce(def -> 'shared_indexes', '[]')) e
            on shardman.is_other_name(x.relname, e ->> 'name', h.k)
         where not exists (select from pg_class o where o.relnamespace = h.relnamespace and o.relname = shardman.numbered_name(e ->> 'name', h.k))
        union all
        select 'statistics', format('%I.%I', n.nspname, s.stxname), shardman.numbered_name(e ->> 'name', h.k)
          from here h join pg_statistic_ext s on s.stxrelid = h.oid join pg_namespace n on n.oid = s.stxnamespace
          join jsonb_array_elements(def -> 'statistics') e on shardman.is_other_name(s.stxname, e ->> 'name', h.k)
         where not exists (select from pg_statistic_ext o
                            where o.stxnamespace = s.stxnamespace and o.stxname = shardman.numbered_name(e ->> 'name', h.k))
    loop
        execute format('alter %s %s rename to %I', c.kind, c.name, c.wanted);
    end loop;
end
$$;
comment on function shardman.settle_names(text) is
    'gives indexes and statistics objects of data tables here the names that they could not have while the old tables had them';
