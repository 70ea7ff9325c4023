-- What the generated statements are about: accounts and their items lie side by side (same key type,
-- same number of partitions), events have no key and a text to be sharded by, names are sharded by an
-- expression. No floating point: sums of it depend on the order.

create table acc (
    id      int primary key,
    grp     int,
    name    text,
    amount  numeric(12, 2) default 10.50,
    active  bool not null default true,
    made    timestamptz not null default '2024-01-01 00:00:00+00',
    note    text default 'none',
    doubled int generated always as (grp * 2) stored,
    check (amount > -1000000)
);

create table item (
    acc_id int not null,
    no     int not null,
    sku    text not null,
    qty    int not null default 1 check (qty >= 0),
    price  numeric(10, 2),
    bought date,
    primary key (acc_id, no)
);
create index on item (sku);

create table ev (
    kind text,
    n    int,
    day  date,
    body jsonb
);

create table person (
    name  text not null,
    email varchar(40),
    born  date,
    tags  text[]
);
