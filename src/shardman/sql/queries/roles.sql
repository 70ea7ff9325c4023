-- name: proofs
select p.name, p.proof
  from (select r ->> 'name' as name, shardman.role_proof(r) as proof from jsonb_array_elements(shardman.roles_here(null)) r) as p
 where p.proof is not null and shardman.setting('sync_roles', 'on') = 'on'

-- name: role
select r, shardman.role_proof(r) from jsonb_array_elements(shardman.roles_here(%s)) r where r ->> 'name' = %s

-- name: follow
select shardman.follow_role(%s, %s)
