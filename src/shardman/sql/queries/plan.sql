-- name: options
-- What a command's SQL function has written down, before the call is rolled back.
select o.name, o.opt from shardman.cmd_opts o where o.cmd_id = %s order by o.id
