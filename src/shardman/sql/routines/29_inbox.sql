-- How a command gets into the log. On the lord a call is a row in cmd_log; on a worker it is handed to the lord through
-- postgres_fdw, inside the caller's transaction, so a rolled-back call submits nothing.

create or replace function shardman.my_id() returns int
language sql stable parallel safe as $$ select node_id from shardman.local $$;
comment on function shardman.my_id() is 'the id of this node; null when the database is in no cluster';

create or replace function shardman.caller() returns name
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
    -- Whoever analyzes a table, or builds an index, runs functions of the table's owner as that owner, in a session of his own. An autovacuum's
    -- is a superuser's, and what such a function calls must not take it for one. By what PostgreSQL forbids there it is known.
    execute 'deallocate "shardman has none of this name"';
    raise exception 'somebody has prepared a statement "shardman has none of this name"' using errcode = 'insufficient_privilege';
exception when invalid_sql_statement_name then
    return coalesce(nullif(current_setting('role'), 'none'), session_user)::name;
end
$$;
comment on function shardman.caller() is
    'as whom the session acts, also within functions that act as the nodes'' role; raises insufficient_privilege in what is restricted, where somebody else''s function may ask';

-- What runs with the rights of the nodes' role for others looks for relations in pg_temp last: whatever is not said to be
-- elsewhere is looked for there first, and everybody may make temporary tables of any name.
create or replace function shardman.may_administer() returns bool
language sql stable set search_path = pg_catalog, pg_temp as $$
    select r.rolsuper or pg_has_role(session_user, (select nspowner from pg_namespace where nspname = 'shardman'), 'member')
      from pg_roles r where r.rolname = session_user and shardman.caller() is not null
$$;
comment on function shardman.may_administer() is 'whether who has logged in is a superuser, or a member of the nodes'' role';

create or replace function shardman.submit(cmd_type text, options json, secret text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    here shardman.local;
    id_  bigint;
begin
    -- Whoever owns a node reads the passwords of all: that would be more than an operator was given.
    if cmd_type = 'sync_roles' and not shardman.may_administer() then
        raise exception 'only a superuser may give roles to all nodes'
            using errcode = 'insufficient_privilege', hint = 'Submit sync_roles as the nodes'' role or as a superuser.';
    elsif cmd_type = 'add_node' and not shardman.may_administer() then
        raise exception 'only a superuser may add a node: it is given the passwords of the others'
            using errcode = 'insufficient_privilege', hint = 'Submit add_node as the nodes'' role or as a superuser.';
    end if;
    select * into here from shardman.local;
    if here.cluster is null then
        raise exception 'this database is not part of a cluster'
            using errcode = 'SHM06', hint = 'Make it the lord''s with "shardman init", or connect to a node of the cluster.';
    elsif not here.lord then
        insert into shardman.lord_inbox (cmd_type, options, secret, submitted_by)
        values (submit.cmd_type, submit.options, submit.secret, session_user)
        returning id into id_;
        return id_;
    end if;
    return shardman.accept(submit.cmd_type, submit.options, submit.secret, session_user);
end
$$;
comment on function shardman.submit(text, json, text) is
    'hands a command to the lord and returns its id; options: the arguments by name, in their order';

create or replace function shardman.accept(cmd_type text, options json, secret text, submitted_by text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    id_ bigint;
begin
    perform shardman.must_be_lord();
    insert into shardman.cmd_log (cmd_type, submitted_by) values (accept.cmd_type, accept.submitted_by) returning id into id_;
    insert into shardman.cmd_opts (cmd_id, name, opt)
    select id_, o.key, o.value from json_each_text(accept.options) with ordinality as o (key, value, n) order by o.n;
    if accept.secret is not null then
        insert into shardman.cmd_secrets (cmd_id, connstring) values (id_, accept.secret);
    end if;
    perform pg_notify('shardman', 'command');
    return id_;
end
$$;
comment on function shardman.accept(text, json, text, text) is 'lord only: writes a command down and wakes the shardlord';

create or replace function shardman.on_its_way(cmd_type text, options json) returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(l.id) from shardman.cmd_log l
     where l.cmd_type = on_its_way.cmd_type and l.status in ('waiting', 'in progress')
       and not exists (select key, value from json_each_text(on_its_way.options)
                       except select o.name, o.opt from shardman.cmd_opts o where o.cmd_id = l.id)
$$;
comment on function shardman.on_its_way(text, json) is 'a command with these options that has not ended; null when there is none';

create or replace function shardman.accept_because(cmd_type text, options json, because text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    id_ bigint := shardman.on_its_way(accept_because.cmd_type, accept_because.options);
begin
    if id_ is null then
        id_ := shardman.accept(accept_because.cmd_type, accept_because.options, null, session_user);
        update shardman.cmd_log l set reason = accept_because.because where l.id = id_;
    end if;
    return id_;
end
$$;
comment on function shardman.accept_because(text, json, text) is
    'lord only: submits a command of the shardlord''s own and writes down why, unless the same is on its way; its id';

create or replace function shardman.accept_once(cmd_type text, options json) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if shardman.on_its_way(accept_once.cmd_type, accept_once.options) is not null then
        return null;
    end if;
    return shardman.accept(accept_once.cmd_type, accept_once.options, null, session_user);
end
$$;
comment on function shardman.accept_once(text, json) is
    'lord only: submits a command of the shardlord''s own unless the same is on its way; null then';

create or replace function shardman.option(cmd_id bigint, option_name text, place int) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select o.opt from (select p.name, p.opt, row_number() over (order by p.id) as n
                         from shardman.cmd_opts p where p.cmd_id = option.cmd_id) as o
     where o.name = option_name or o.name is null and o.n = place
$$;
comment on function shardman.option(bigint, text, int) is
    'an argument of a command; place: where it stands among those of a command that was submitted without names';

-- What a worker's postgres_fdw inserts into; the worker's foreign table of it is shardman.lord_inbox. One of version 0.1
-- inserts opts, the values without their names.
create or replace view shardman.inbox as
    select null::bigint as id, null::text as cmd_type, null::text[] as opts, null::text as secret, null::text as submitted_by,
           null::json as options
     where false;
comment on view shardman.inbox is 'lord only: a command is submitted by inserting it here';

create or replace function shardman.accept_without_names(cmd_type text, opts text[], secret text, submitted_by text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    id_ constant bigint := shardman.accept(accept_without_names.cmd_type, '{}', accept_without_names.secret,
                                           accept_without_names.submitted_by);
begin
    insert into shardman.cmd_opts (cmd_id, opt)
    select id_, o.opt from unnest(accept_without_names.opts) with ordinality as o (opt, n) order by o.n;
    return id_;
end
$$;
comment on function shardman.accept_without_names(text, text[], text, text) is
    'lord only: what a worker of version 0.1 submits; the shardlord reads the values in the order of the arguments';

create or replace function shardman.inbox_insert() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Then the null that a worker of version 0.1 sent has been read as a word.
    if current_setting('array_nulls') = 'off' then
        new.opts := array_replace(new.opts, 'NULL', null);
    end if;
    new.id := case when new.cmd_type = 'cancel'
                   then shardman.cancel_here(coalesce(new.options ->> 'cmd_id', new.opts[1])::bigint,
                                             coalesce(new.submitted_by, session_user))::int
                   when new.options is not null
                   then shardman.accept(new.cmd_type, new.options, new.secret, new.submitted_by)
                   else shardman.accept_without_names(new.cmd_type, new.opts, new.secret, new.submitted_by) end;
    return new;
end
$$;
create or replace trigger inbox_insert instead of insert on shardman.inbox
    for each row execute function shardman.inbox_insert();
