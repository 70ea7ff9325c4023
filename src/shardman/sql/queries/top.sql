-- What `shardman top` asks the lord for beside what `status` and `metrics` ask.

-- name: commands
(select * from shardman.commands where status in ('waiting', 'in progress') order by id)
union all
(select * from shardman.commands where status not in ('waiting', 'in progress') order by id desc limit 30)
