insert into acc (id, grp, name, amount, active, made, note)
select i,
       nullif(i % 7, 3),
       case when i % 11 = 0 then null else 'name ' || i % 13 end,
       case when i % 10 = 0 then null else (i * 37 % 1000) / 4.0 end,
       i % 3 <> 0,
       timestamptz '2024-01-01 00:00+00' + i * interval '5 hours',
       case i % 4 when 0 then null when 1 then '' when 2 then 'Größe ' || i else 'it''s %' end
  from generate_series(1, 120) as i;

insert into item (acc_id, no, sku, qty, price, bought)
select i % 90 + 1, i / 90 + 1, 'sku' || i % 17, i % 9,
       case when i % 8 = 0 then null else i % 50 + 0.99 end,
       date '2024-01-01' + i % 60
  from generate_series(0, 299) as i;

insert into ev (kind, n, day, body)
select case i % 6 when 0 then null else 'kind ' || i % 6 end, i % 20, date '2024-02-01' + i % 10,
       case when i % 5 = 0 then null else jsonb_build_object('a', i % 3, 'b', array[i % 2, null]) end
  from generate_series(1, 80) as i;

insert into person (name, email, born, tags)
select case when i % 2 = 0 then upper('p' || i % 25) else 'p' || i % 25 end,
       case when i % 5 = 0 then null else 'p' || i || '@example.org' end,
       date '1970-01-01' + i * 100,
       case when i % 4 = 0 then null else array['t' || i % 3, 't' || i % 5] end
  from generate_series(1, 60) as i;
