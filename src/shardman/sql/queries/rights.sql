-- What the cluster's role may do on a server, and what it must be given. Nothing of ours is needed for the question: it is asked
-- before there is a schema.

-- name: missing
-- The rights that the session's role lacks, and what gives each. One that is a superuser lacks none. $1: whether the session
-- was begun with a password.
with me as (
    select r.*, quote_ident(r.rolname) as me, d.datdba, quote_ident(d.datname) as database
      from pg_roles r, pg_database d where r.rolname = current_user and d.datname = current_database()
), wanted (held, what, give) as (
    select m.rolcreaterole, 'CREATEROLE', format('alter role %%s createrole', me) from me m
    union all
    select m.rolreplication, 'REPLICATION', format('alter role %%s replication', me) from me m
    union all
    select m.rolbypassrls, 'BYPASSRLS', format('alter role %%s bypassrls', me) from me m
    union all
    -- By name, for 15 does not know the first.
    select exists (select from pg_roles p where p.rolname = w.role and pg_has_role(m.oid, p.oid, w.how)),
           'member of ' || w.role || w.much, format('grant %%s to %%s%%s', w.role, me, w.much)
      from me m, (values ('pg_create_subscription', 'usage', ''), ('pg_signal_backend', 'usage', ''),
                         ('pg_monitor', 'usage with admin option', ' with admin option')) as w (role, how, much)
    union all
    select pg_has_role(m.oid, m.datdba, 'usage'), 'owner of the database', format('alter database %%s owner to %%s', database, me) from me m
    union all
    select exists (select from pg_extension e where e.extname = 'postgres_fdw'), 'the extension postgres_fdw', 'create extension postgres_fdw'
    union all
    select exists (select from pg_foreign_data_wrapper f where f.fdwname = 'postgres_fdw' and has_foreign_data_wrapper_privilege(f.oid, 'usage')),
           'USAGE on postgres_fdw', format('grant usage on foreign data wrapper postgres_fdw to %%s', me) from me m
    union all
    select has_function_privilege(w.function, 'execute'), 'EXECUTE on ' || w.function, format('grant execute on function %%s to %%s', w.function, me)
      from me m, (values ('pg_reload_conf()'), ('pg_replication_origin_progress(text, boolean)'),
                         ('pg_show_replication_origin_status()')) as w (function)
    union all
    select has_table_privilege('pg_replication_origin_status', 'select'), 'SELECT on pg_replication_origin_status',
           format('grant select on pg_replication_origin_status to %%s', me) from me m
    union all
    select has_parameter_privilege(w.parameter, w.how), w.how || ' on ' || w.parameter,
           format('grant %%s on parameter %%s to %%s', lower(w.how), w.parameter, me)
      from me m, (values ('synchronous_standby_names', 'ALTER SYSTEM'), ('session_replication_role', 'SET'), ('deadlock_timeout', 'SET'),
                         ('log_statement', 'SET'), ('log_min_duration_statement', 'SET'), ('log_min_error_statement', 'SET')) as w (parameter, how)
    union all
    select %s, 'a password', format('alter role %%s password ''...''', me) from me m
)
select w.what, w.give from wanted w, me m where not w.held and not m.rolsuper
