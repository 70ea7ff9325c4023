-- name: here
select id::text, sender, statement, tag, target, tables, nodes, settled, extract(epoch from made_at)::float8 from shardman.schema_changes order by nr

-- name: names
select r.former, r.wanted from shardman.renamed_tables r where shardman.called_here(r.former) = r.wanted

-- name: follow
-- In vain is tried again after a while.
select case when x.dropped then shardman.submit('drop_table', json_build_object('relation', x.former, 'aside', false, 'follow', true))
            else shardman.submit('rename_table', json_build_object('relation', x.former, 'new_name', x.wanted, 'follow', true)) end
  from (select n.*, n.wanted = shardman.away(n.former) as dropped from (select %s::text as former, %s::text as wanted) n) x
 where not exists (select from shardman.cmd_log l
                    where l.cmd_type = case when x.dropped then 'drop_table' else 'rename_table' end
                      and (l.ended_at is null or l.ended_at > now() - interval '20 s')
                      and exists (select from shardman.cmd_opts o where o.cmd_id = l.id and o.opt = case when x.dropped then x.former else x.wanted end))

-- name: made
select s.relation from shardman.shared_tables s where s.definition ? 'made_now'

-- name: dropped
-- DROP TABLE takes the copies out of this node's metadata, and the command that it submits the table.
select s.relation from shardman.shared_tables s
 where not s.definition ? 'made_now' and not exists (select from shardman.shared_copies c where c.relation = s.relation)
   and not shardman.is_a_copy(s.relation)

-- name: copy
select shardman.is_a_copy(%s)

-- name: drop
-- Only where the command has failed since the table was shared last: what this node's metadata say may be old. In vain is tried again after a while.
select shardman.submit('drop_table', json_build_object('relation', t.relation, 'aside', false, 'follow', true))
  from shardman.shared_tables t
 cross join lateral (
       select l.* from shardman.cmd_log l
        where l.cmd_type in ('drop_table', 'create_shared_table')
          and exists (select from shardman.cmd_opts o where o.cmd_id = l.id and (o.name, o.opt) = ('relation', t.relation))
        order by l.id desc limit 1) as last
 where t.relation = %s and last.cmd_type = 'drop_table' and last.status in ('failed', 'canceled') and last.ended_at < now() - interval '5 s'

-- name: record
select shardman.submit('create_shared_table', json_build_object('relation', x.relation, 'node_id', x.node))
  from (select %s::text as relation, %s::int as node) x
 where not exists (select from shardman.cmd_log l
                    where l.cmd_type = 'create_shared_table' and (l.ended_at is null or l.ended_at > now() - interval '20 s')
                      and exists (select from shardman.cmd_opts o where o.cmd_id = l.id and (o.name, o.opt) = ('relation', x.relation)))

-- name: repeat
select state, reason from shardman.repeat_change(%s::uuid, %s, %s)

-- name: shapes
select array_agg(shardman.shape_of(t) order by t) from unnest(%s::text[]) t

-- name: note
-- What is on this node by now, however it came there.
insert into shardman.schema_changes (id, sender, statement, path, words, tag, target, tables, nodes, made_at)
select r.id, r.sender, r.statement, r.path, r.words, r.tag, r.target, r.tables, r.nodes, r.made_at
  from jsonb_populate_record(null::shardman.schema_changes, %s) r
    on conflict do nothing

-- name: whole
select to_jsonb(c) from shardman.schema_changes c where (c.id, c.sender) = (%s::uuid, %s)

-- name: settle
update shardman.schema_changes set settled = true where (id, sender) = (%s::uuid, %s)

-- name: forget
delete from shardman.schema_changes where (id, sender) = (%s::uuid, %s) and settled

-- name: skipped
select id::text, sender, node from shardman.pending_changes where skipped

-- name: pending
insert into shardman.pending_changes (id, sender, node, statement, reason)
values (%s::uuid, %s, %s, %s, %s)
    on conflict (id, sender, node) do update set reason = excluded.reason

-- name: not_pending
delete from shardman.pending_changes p
 where not exists (select from jsonb_to_recordset(%s) as k (id uuid, sender text, node int)
                    where (k.id, k.sender, k.node) = (p.id, p.sender, p.node))

-- name: refresh
select shardman.submit('refresh_table', json_build_object('relation', t.relation))
  from shardman.tables t where t.relation = any (%s)

-- name: refresh_again
-- What DDL has made of a table and was not written down, for the command has failed: nobody who has its rows was there, say. In vain
-- it is tried again after twice as long, up to five minutes.
with failed as (
    select o.relation, max(l.id) as id, max(l.ended_at) + least(interval '300 s', interval '1 s' * 2 ^ least(count(*), 16)) as again
      from shardman.cmd_log l cross join lateral (select shardman.option(l.id, 'relation', 1) as relation) o
     where l.cmd_type = 'refresh_table' and l.status = 'failed' and l.id > (select max(m.id) - 1000 from shardman.cmd_log m)
     group by o.relation
)
select shardman.submit('refresh_table', json_build_object('relation', f.relation))
  from failed f
 where f.again < now()
   and not exists (select from shardman.cmd_log l
                    where l.id > f.id and l.cmd_type = 'refresh_table' and shardman.option(l.id, 'relation', 1) = f.relation)
   and (exists (select from shardman.tables t where t.relation = f.relation)
        or exists (select from shardman.shared_tables t where t.relation = f.relation))

-- name: refresh_shared
-- Rows that a statement has written anew may be others on a node where it was repeated.
select shardman.submit(c.verb, case c.verb when 'create_shared_table' then json_build_object('relation', t.relation, 'node_id', w.source)
                                           else json_build_object('relation', t.relation) end)
  from shardman.shared_tables t cross join (select %s as tag, %s::int as source) w
 cross join lateral unnest(case w.tag when 'DROP TABLE' then array['drop_table'] when 'ALTER TABLE' then array['refresh_table', 'create_shared_table']
                                      else array['refresh_table'] end) as c (verb)
 where t.relation = any (%s)
