-- What the nodes' role may not see, when it is no superuser, it must remember.

create table shardman.mapping_proofs (
    mapping oid primary key,
    proof   text not null
);
comment on table shardman.mapping_proofs is
    'this node only: user mappings that the nodes'' role has made and, being no superuser, may not look at: what they were made with';
comment on column shardman.mapping_proofs.mapping is 'pg_user_mappings.umid';
comment on column shardman.mapping_proofs.proof is 'hash of the options, with the secret of the road logins, without which nobody can tell a password from it';
