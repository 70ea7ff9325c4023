-- Deadlocks over several nodes: see routines/99_deadlocks.sql.

-- name: waits
select pid, since, blockers from shardman.lock_waits(make_interval(secs => %s))

-- name: sessions
select pid, session_id, began, login, role, acts_as::text[], application, idle from shardman.open_transactions()

-- name: note
select shardman.note_deadlock(%s, %s, %s, %s, %s, %s)

-- name: forget
delete from shardman.deadlocks where id = %s

-- name: end
select shardman.end_wait(%s, %s, %s)

-- name: why
select shardman.deadlock_of(%s) as circle
