-- LOCK TABLE of a sharded table on all nodes. PostgreSQL calls no event trigger for LOCK, so this is a function.

create or replace function shardman.lock_doors(relation_ text, open_ bool) returns int[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    name_ constant text := shardman.sharded_name(shardman.find_relation(relation_));
    nodes constant int[] := array(select n.id from shardman.reachable_nodes() n where n.lord or n.worker_status <> 'removed' order by n.id);
    node  int;
begin
    if name_ is null then
        raise exception '% is not a sharded table', relation_ using errcode = 'undefined_table', hint = 'The view shardman.tables lists those that are.';
    end if;
    perform shardman.need_owner(name_);
    perform set_config('shardman.ddl_busy', 'on', true);
    foreach node in array nodes loop
        if open_ then
            perform shardman.open_door(node);
        else
            execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
        end if;
    end loop;
    perform set_config('shardman.ddl_busy', '', true);
    return array(select n from unnest(nodes || shardman.my_id()) n order by n);
end
$$;
comment on function shardman.lock_doors(text, bool) is
    'for the owner of a sharded table: opens the doors of this transaction to all other nodes, or takes them away; all nodes in order, this one too';

create or replace function shardman.lock_table(relation text, mode text default 'ACCESS EXCLUSIVE') returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    modes  constant text[] := '{ACCESS SHARE,ROW SHARE,ROW EXCLUSIVE,SHARE UPDATE EXCLUSIVE,SHARE,SHARE ROW EXCLUSIVE,EXCLUSIVE,ACCESS EXCLUSIVE}';
    mode_  constant text := regexp_replace(upper(btrim(mode)), '\s+', ' ', 'g');
    -- No server sees a circle of waits over several nodes: a wait there has an end in any case.
    wait   constant text := coalesce(nullif(current_setting('lock_timeout'), '0'), '60s');
    nodes  int[];
    node   int;
begin
    if mode_ <> all (modes) then
        raise exception 'there is no lock mode %', mode using errcode = 'invalid_parameter_value', hint = format('The modes are %s.', array_to_string(modes, ', '));
    end if;
    nodes := shardman.lock_doors(relation, true);
    perform set_config('shardman.ddl_path', 'pg_catalog', true);
    -- Everywhere in the same order: two that lock a table do not wait for each other.
    foreach node in array nodes loop
        if to_regclass(format('shardman.%I', 'door_' || node || '_' || pg_backend_pid())) is null then
            perform shardman.hold_table(relation, mode_);
        else
            perform shardman.through_door(node, format('select shardman.hold_table(%L, %L)', relation, mode_), wait);
        end if;
    end loop;
    perform shardman.lock_doors(relation, false);
end
$$;
comment on function shardman.lock_table(text, text) is
    'LOCK TABLE of a sharded table on all nodes, until the transaction ends, for its owner: a lock_timeout of the session holds on each; '
    'without one a wait on another node ends after 60 s';
