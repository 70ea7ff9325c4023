"""Everything in a database that a command could have left there."""

from __future__ import annotations

import psycopg

_PICTURE = """
select 'schema ' || nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'
union all
select c.relkind::text || ' ' || c.oid::regclass::text from pg_class c
 where c.relnamespace in (select oid from pg_namespace where nspname !~ '^(pg_|information_schema)')
union all
select 'function ' || p.oid::regprocedure::text from pg_proc p
 where p.pronamespace in (select oid from pg_namespace where nspname !~ '^(pg_|information_schema)')
union all
select 'type ' || t.oid::regtype::text from pg_type t
 where t.typnamespace in (select oid from pg_namespace where nspname !~ '^(pg_|information_schema)')
union all select 'extension ' || extname from pg_extension
union all select 'server ' || srvname || ' ' || coalesce(srvoptions::text, '') from pg_foreign_server
union all select 'mapping ' || srvname || ' ' || usename || ' ' || coalesce(umoptions::text, '')
  from pg_user_mappings
union all select 'publication ' || pubname from pg_publication
union all select 'subscription ' || subname from pg_subscription
 where subdbid = (select oid from pg_database where datname = current_database())
union all select 'slot ' || slot_name from pg_replication_slots where database = current_database()
union all select 'prepared ' || gid from pg_prepared_xacts where database = current_database()
union all select 'setting ' || setconfig::text from pg_db_role_setting
 where setdatabase = (select oid from pg_database where datname = current_database())
"""
_NODES = """
select 'node ' || id || ' ' || coalesce(worker_status::text, '') from shardman.nodes
union all select 'secret ' || node_id from shardman.node_secrets
"""


def picture(dsn: str) -> set[str]:
    """Two that are equal show that nothing was left behind.

    Raises:
        psycopg.errors.UndefinedTable: the schema went while it was looked at.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = {str(row[0]) for row in conn.execute(_PICTURE).fetchall()}
        if "r shardman.nodes" in found:
            found |= {str(row[0]) for row in conn.execute(_NODES).fetchall()}
    return found
