-- What has a name of ours and is somebody else's: where, and what it is. No row where there is none.

-- name: publication
with ours as (
    select coalesce((select n.nspowner from pg_namespace n where n.nspname = 'shardman'),
                    (select r.oid from pg_roles r where r.rolname = current_user)) as owner
)
select 'the database ' || current_database(), format('a publication %%s of %%s', p.pubname, pg_get_userbyid(p.pubowner))
  from pg_publication p join pg_roles r on r.oid = p.pubowner, ours
 where p.pubname = %s and p.pubowner <> ours.owner and not r.rolsuper

-- name: subscription
with ours as (
    select coalesce((select n.nspowner from pg_namespace n where n.nspname = 'shardman'),
                    (select r.oid from pg_roles r where r.rolname = current_user)) as owner
)
select 'the database ' || current_database(), format('a subscription %%s of %%s', s.subname, pg_get_userbyid(s.subowner))
  from pg_subscription s join pg_roles r on r.oid = s.subowner, ours
 where s.subname = %s and s.subdbid = (select oid from pg_database where datname = current_database())
   and s.subowner <> ours.owner and not r.rolsuper

-- name: slot
select 'the server', format('a replication slot %%s of %%s', s.slot_name,
                            case when s.slot_type <> 'logical' then 'another kind'
                                 when s.database <> current_database() then 'the database ' || s.database
                                 else 'the plugin ' || s.plugin end)
  from pg_replication_slots s
 where s.slot_name = %s and (s.slot_type, s.database, s.plugin) is distinct from ('logical', current_database(), 'pgoutput')

-- name: anything
-- Of whatever kind and owner.
select format('a publication %%s of %%s', p.pubname, pg_get_userbyid(p.pubowner)), format('drop publication %%I', p.pubname)
  from pg_publication p where p.pubname = %(name)s
union all
select format('a subscription %%s of %%s', s.subname, pg_get_userbyid(s.subowner)), format('drop subscription %%I', s.subname)
  from pg_subscription s where s.subname = %(name)s and s.subdbid = (select oid from pg_database where datname = current_database())
union all
select format('a replication slot %%s', s.slot_name), format('select pg_drop_replication_slot(%%L)', s.slot_name)
  from pg_replication_slots s where s.slot_name = %(name)s
limit 1

-- name: servers
select 'the database ' || current_database(), format('a foreign server %s of %s', s.srvname, pg_get_userbyid(s.srvowner))
  from pg_foreign_server s join pg_roles r on r.oid = s.srvowner
 where s.srvname ~ '^shardman_(node_[0-9]+(_c[0-9]+)?|missing)$' and not r.rolsuper
   and s.srvowner <> coalesce((select n.nspowner from pg_namespace n where n.nspname = 'shardman'),
                              (select x.oid from pg_roles x where x.rolname = current_user))
 limit 1

-- name: schema
with schema as (
    select n.oid, n.nspowner as owner, r.rolsuper or n.nspowner = (select oid from pg_roles where rolname = current_user) as ours
      from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'shardman'
), things as (
    select 'a schema shardman' as what, s.owner from schema s where not s.ours
    union all
    select 'a relation shardman.' || c.relname, c.relowner from schema s join pg_class c on c.relnamespace = s.oid
     where c.relowner <> s.owner
    union all
    select 'a function shardman.' || p.proname, p.proowner from schema s join pg_proc p on p.pronamespace = s.oid
     where p.proowner <> s.owner
    union all
    select 'a type shardman.' || t.typname, t.typowner from schema s join pg_type t on t.typnamespace = s.oid
     where t.typowner <> s.owner
)
select 'the database ' || current_database(), format('%s of %s', t.what, pg_get_userbyid(t.owner))
  from things t join pg_roles r on r.oid = t.owner
 where not r.rolsuper and t.owner <> (select oid from pg_roles where rolname = current_user)
 limit 1
