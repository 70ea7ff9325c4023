-- Entrances of tables that are held while nodes commit: see routines/95_entrances.sql.

-- name: look
select session, relation, xact from shardman.look_for_entrances()

-- name: be_holder
select shardman.be_holder(%s, %s)

-- name: hold
select shardman.hold_entrance(%s, %s)

-- name: await
select shardman.await_end_of(%s)
