-- DDL heals. Nodes commit a change of the schema one after the other, so a crash in between leaves some without it, and a node
-- that holds no partition may be away when it is made. So each node writes down, in the same transaction, which changes it has
-- (shardman.schema_changes). What one node has committed all shall have: the shardlord looks at what each has, and lets one
-- that has a change repeat it on one that lacks it (lord/watchers/schema_changes.py), the way on which it came first: through a
-- door, as who sent it, by his road login. So nobody's text, and no function that it calls, runs with the cluster's rights.

create or replace function shardman.ddl_sender() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when shardman.is_ordinary(r.oid) then r.rolname::text else '' end
      from pg_roles r where r.rolname = (select shardman.caller())
$$;
comment on function shardman.ddl_sender() is 'as whom the caller goes to other nodes: as himself, or (empty) as the nodes'' role';

create or replace function shardman.add_change(change shardman.schema_changes) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever is writing the same row, as a transaction that is just committing, is waited for.
    insert into shardman.schema_changes (id, sender, statement, path, words, tag, target, tables, nodes, made_at)
    values (change.id, change.sender, change.statement, change.path, change.words, change.tag, change.target, change.tables, change.nodes, change.made_at)
        on conflict do nothing;
    if not found then
        raise exception 'this node has this change already' using errcode = 'SHM17', hint = 'Nothing is to be done.';
    end if;
end
$$;
comment on function shardman.add_change(shardman.schema_changes) is 'writes down that this node has a change; raises where that is written already';

create or replace function shardman.note_cluster_change(change jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
    select shardman.add_change(jsonb_populate_record(null::shardman.schema_changes, change || '{"sender": ""}'))
$$;
comment on function shardman.note_cluster_change(jsonb) is 'shardman.note_change for the cluster''s role and superusers, who alone may write what it writes';

create or replace function shardman.note_owners_change(change jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    c shardman.schema_changes := jsonb_populate_record(null::shardman.schema_changes, change);
begin
    c.sender := shardman.ddl_sender();
    -- A function of somebody's that runs in a superuser's session is not the superuser.
    if c.sender = '' then
        raise exception 'this is for roles that are no superusers' using errcode = 'insufficient_privilege', hint = 'Call shardman.note_change.';
    end if;
    -- What waits for its turn behind others of the same table must be of somebody who may change that.
    if c.target <> '' and c.tag not in ('GRANT', 'REVOKE') then
        perform shardman.need_owner(c.target);
    end if;
    perform shardman.add_change(c);
end
$$;
comment on function shardman.note_owners_change(jsonb) is 'shardman.note_change for everybody else, in his own name';

create or replace function shardman.note_change(change jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- As who calls, which nobody can feign: in functions that act as others it would be a guess.
    if shardman.is_ordinary(r.oid) from pg_roles r where r.rolname = current_user then
        perform shardman.note_owners_change(change);
    else
        perform shardman.note_cluster_change(change);
    end if;
end
$$;
comment on function shardman.note_change(jsonb) is
    'what comes through a door before the statement itself: the caller writes down, in his name, that this node has it';

create or replace function shardman.change_sent(query text, tag text, target text, tables text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('id', current_setting('shardman.ddl_change', true), 'statement', shardman.one_statement(query), 'tag', tag,
                              'path', current_setting('shardman.ddl_path', true), 'words', nullif(current_setting('shardman.ddl_words', true), '')::jsonb, 'target', coalesce(target, ''), 'tables', coalesce(tables, '{}'), 'made_at', statement_timestamp(),
                              'nodes', string_to_array(current_setting('shardman.ddl_wanted', true), ',')::int[])
$$;
comment on function shardman.change_sent(text, text, text, text[]) is 'the change that is just being made by a statement, as shardman.note_change takes it';

create or replace function shardman.keep_change(change jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    c shardman.schema_changes := jsonb_populate_record(null::shardman.schema_changes, change);
begin
    c.sender := shardman.ddl_sender();
    perform shardman.add_change(c);
    perform set_config('shardman.ddl_change', '', true);
end
$$;
comment on function shardman.keep_change(jsonb) is 'the same on the node where the statement was sent, when it has been done';

create or replace function shardman.missing_values(relation text) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO' set intervalstyle = 'postgres' as $$
declare
    values_ jsonb := '{}';
    a       record;
begin
    -- Written out, and neither read nor cast: that could run code of the type's owner.
    for a in select distinct on (x.attname) x.attname, quote_literal(array_to_string(x.attmissingval, '')) as value
               from shardman.leaves(shardman.find_relation(relation)) l join pg_attribute x on x.attrelid = l.leaf and x.atthasmissing and not x.attisdropped loop
        values_ := values_ || jsonb_build_object(a.attname, a.value);
    end loop;
    return values_;
end
$$;
comment on function shardman.missing_values(text) is 'what rows on this node have in columns that were added to them without being written';

create or replace function shardman.repeat_through(c shardman.schema_changes, node int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    -- Whoever has dropped a shared table knows of no copies; a sharded one is never dropped so.
    shared constant bool := c.target <> '' and (c.tag = 'DROP TABLE' or cardinality((shardman.shared_nodes(c.target)).nodes) > 0);
    modes constant text[] := case when c.target = '' or shared then '{}' else shardman.gate_modes(c.target, c.tag, c.statement, c.path) end;
    mode_ text;
    name  text;
begin
    perform set_config('shardman.ddl_path', c.path, true);
    if shared then
        perform shardman.repeat_shared_through(c, node);
        return;
    end if;
    perform shardman.through_door(node, format('select shardman.note_change(%L)', to_jsonb(c)), '500ms');
    foreach mode_ in array coalesce(modes, '{}') loop
        perform shardman.through_door(node, format('select shardman.hold_table(%L, %L)', c.target, mode_), '500ms');
    end loop;
    -- What the metadata have brought it by now it has.
    perform shardman.through_door(node, shardman.read_alike(
        case when c.tag = 'CREATE INDEX' and 'stand-in' = any (modes) then regexp_replace(c.statement, '^(create\s+unique\s+index\s+)(?!if\s+not\s|on\s)', '\1if not exists ', 'i')
             else c.statement end, c.words::text), '5s');
    if modes && array['stand-in', 'tuning'] then
        perform shardman.through_door(node, format('select shardman.finish_stand_in(%L, %L)', c.target,
            shardman.missing_values(c.target) || jsonb_build_object('', shardman.numbers_here(c.target))), '5s');
    end if;
    foreach name in array c.tables loop
        perform shardman.through_door(node, format('select shardman.follow_copies(%L)', name), '5s');
    end loop;
    if 'keys' = any (modes) then
        perform shardman.through_door(node, format('select shardman.give_keys_back(%L)', c.target), '5s');
    end if;
end
$$;
comment on function shardman.repeat_through(shardman.schema_changes, int) is
    'as who sent a change: the same on a node that lacks it, behind a gate on that node, in one transaction with the note that it has it';

create or replace function shardman.repeat_change(id_ uuid, sender_ text, node int, out state text, out reason text)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    c shardman.schema_changes;
begin
    select * into c from shardman.schema_changes x where (x.id, x.sender) = (id_, sender_);
    if not found then
        state := '00000';
        return;
    end if;
    begin
        perform shardman.open_door(node);
        if c.sender <> '' then
            -- From here on nothing of the cluster's acts: what he owns runs on the other node only, where he comes in by his road login.
            perform set_config('role', c.sender, true);
        end if;
        perform shardman.repeat_through(c, node);
        perform set_config('role', 'none', true);
        execute format('drop foreign table shardman.%I', 'door_' || node || '_' || pg_backend_pid());
        state := '00000';
    exception when others then
        get stacked diagnostics state = returned_sqlstate, reason = message_text;
    end;
end
$$;
comment on function shardman.repeat_change(uuid, text, int) is
    'repeats a change that this node has on one that lacks it; state: 00000, or the error that stood in the way (SHM17: it has it by now)';

create or replace function shardman.shape_of(relation text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when exists (select from shardman.shared_copies c where c.relation = shape_of.relation) then coalesce(shardman.shared_shape(relation), '')
                else coalesce(string_agg(concat_ws(' ', s.aspect, s.item), E'\n' order by s.aspect collate "C", s.item collate "C"), '') end
      from shardman.schema_items() s where s.rel = shardman.find_relation(relation)
$$;
comment on function shardman.shape_of(text) is 'what a sharded or shared table is on this node, as a text to compare';

create or replace function shardman.skip_change(id_ uuid, node_ int) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    update shardman.pending_changes set skipped = true where (id, node) = (id_, node_);
    if not found then
        raise exception 'no change % is pending on node %', id_, node_
            using errcode = 'no_data_found', hint = 'Call it in the lord''s database; shardman.pending_changes has what is pending.';
    end if;
end
$$;
comment on function shardman.skip_change(uuid, int) is
    'in the lord''s database: a change that cannot be repeated on a node, and need not be any more, for somebody has put that node right';
