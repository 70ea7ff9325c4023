-- name: after_rows
select pg_catalog.setval(s.seqrelid::pg_catalog.regclass, coalesce(max(t.{column}), s.seqmin), max(t.{column}) is not null)
  from pg_catalog.pg_sequence s left join {table} t on t.{column} between s.seqmin and s.seqmax
 where s.seqrelid = pg_catalog.pg_get_serial_sequence({named}, {column_name})::pg_catalog.regclass
 group by s.seqrelid, s.seqmin

-- name: to_beginning
select pg_catalog.setval(s.seqrelid::pg_catalog.regclass, s.seqstart, false) from pg_catalog.pg_sequence s
 where s.seqrelid = pg_catalog.pg_get_serial_sequence({named}, {column_name})::pg_catalog.regclass
