-- The tables of Pagila, a shop of films, as they are publicly known: an enum, a domain, triggers, views and a partitioned table of payments.
create type mpaa_rating as enum ('G', 'PG', 'PG-13', 'R', 'NC-17');
create domain year as int check (value >= 1901 and value <= 2155);
create function last_updated() returns trigger language plpgsql as $$ begin new.last_update = current_timestamp; return new; end $$;
create function _group_concat(text, text) returns text language sql immutable as $$ select case when $2 is null then $1 when $1 is null then $2 else $1 || ', ' || $2 end $$;
create aggregate group_concat(text) (sfunc = _group_concat, stype = text);
-- As pg_dump writes it: the sequence belongs to the table but in name.
create sequence actor_actor_id_seq;
create table actor (actor_id int not null default nextval('actor_actor_id_seq') primary key, first_name text not null, last_name text not null, last_update timestamptz not null default now());
create table category (category_id serial primary key, name text not null, last_update timestamptz not null default now());
create table country (country_id serial primary key, country text not null, last_update timestamptz not null default now());
create table city (city_id serial primary key, city text not null, country_id int not null references country on update cascade on delete restrict,
    last_update timestamptz not null default now());
create table address (address_id serial primary key, address text not null, district text not null, city_id int not null references city on update cascade on delete restrict,
    phone text not null, last_update timestamptz not null default now());
create table language (language_id serial primary key, name char(20) not null, last_update timestamptz not null default now());
create table film (film_id serial primary key, title text not null, description text, release_year year,
    language_id int not null references language on update cascade on delete restrict, original_language_id int references language on update cascade on delete restrict,
    rental_duration smallint not null default 3, rental_rate numeric(4, 2) not null default 4.99, length smallint, replacement_cost numeric(5, 2) not null default 19.99,
    rating mpaa_rating default 'G', special_features text[], last_update timestamptz not null default now(), fulltext tsvector);
create table film_actor (actor_id int not null references actor on update cascade on delete restrict, film_id int not null references film on update cascade on delete restrict,
    last_update timestamptz not null default now(), primary key (actor_id, film_id));
create table film_category (film_id int not null references film on update cascade on delete restrict, category_id int not null references category on update cascade on delete restrict,
    last_update timestamptz not null default now(), primary key (film_id, category_id));
create table store (store_id serial primary key, manager_staff_id int not null, address_id int not null references address on update cascade on delete restrict,
    last_update timestamptz not null default now());
create table staff (staff_id serial primary key, first_name text not null, last_name text not null, address_id int not null references address on update cascade on delete restrict,
    store_id int not null references store, username text not null, picture bytea, last_update timestamptz not null default now());
create table customer (customer_id serial primary key, store_id int not null references store on update cascade on delete restrict, first_name text not null, last_name text not null,
    email text, address_id int not null references address on update cascade on delete restrict, activebool bool not null default true,
    create_date date not null default '2024-01-01', last_update timestamptz default now());
create table inventory (inventory_id serial primary key, film_id int not null references film on update cascade on delete restrict,
    store_id int not null references store on update cascade on delete restrict, last_update timestamptz not null default now());
create table rental (rental_id serial primary key, rental_date timestamptz not null, inventory_id int not null references inventory on update cascade on delete restrict,
    customer_id int not null references customer on update cascade on delete restrict, return_date timestamptz, staff_id int not null references staff on update cascade on delete restrict,
    last_update timestamptz not null default now(), unique (rental_date, inventory_id, customer_id));
create table payment (payment_id serial not null, customer_id int not null references customer, staff_id int not null references staff,
    rental_id int not null references rental, amount numeric(5, 2) not null, payment_date timestamptz not null, primary key (payment_date, payment_id))
    partition by range (payment_date);
create table payment_p2024_01 partition of payment for values from ('2024-01-01 00:00+00') to ('2024-02-01 00:00+00');
create table payment_p2024_02 partition of payment for values from ('2024-02-01 00:00+00') to ('2024-03-01 00:00+00');
create index on city (country_id);
create index on film using gin (to_tsvector('english'::regconfig, title));
create view customer_list as
    select c.customer_id as id, c.first_name || ' ' || c.last_name as name, a.address, y.city, o.country
      from customer c join address a using (address_id) join city y using (city_id) join country o using (country_id);
create view film_list as
    select f.film_id as fid, f.title, c.name as category, group_concat(a.first_name || ' ' || a.last_name order by a.actor_id) as actors
      from film f left join film_category using (film_id) left join category c using (category_id)
      left join film_actor using (film_id) left join actor a using (actor_id) group by f.film_id, c.name;
create view sales_by_store as
    select store_id, sum(p.amount) as total_sales from payment p join rental using (rental_id) join inventory using (inventory_id) group by 1;
create trigger film_fulltext_trigger before insert or update on film for each row
    execute function tsvector_update_trigger('fulltext', 'pg_catalog.english', 'title', 'description');
create trigger last_updated before update on actor for each row execute function last_updated();
create trigger last_updated before update on film for each row execute function last_updated();

insert into actor (first_name, last_name) select 'first ' || i, 'last ' || i from generate_series(1, 10) i;
insert into category (name) select 'category ' || i from generate_series(1, 4) i;
insert into country (country) select 'country ' || i from generate_series(1, 5) i;
insert into city (city, country_id) select 'city ' || i, 1 + i % 5 from generate_series(1, 15) i;
insert into address (address, district, city_id, phone) select 'street ' || i, 'd', 1 + i % 15, '1' from generate_series(1, 30) i;
insert into language (name) values ('English'), ('Deutsch');
insert into film (title, language_id, release_year, rating) select 'film ' || i, 1 + i % 2, 1990 + i % 30, (enum_range(null::mpaa_rating))[1 + i % 5] from generate_series(1, 40) i;
insert into film_actor (actor_id, film_id) select distinct 1 + i % 10, 1 + i * 7 % 40 from generate_series(1, 90) i;
insert into film_category (film_id, category_id) select i, 1 + i % 4 from generate_series(1, 40) i;
insert into store (manager_staff_id, address_id) values (1, 1), (2, 2);
insert into staff (first_name, last_name, address_id, store_id, username) values ('a', 'b', 3, 1, 'ab'), ('c', 'd', 4, 2, 'cd');
insert into customer (store_id, first_name, last_name, address_id) select 1 + i % 2, 'first ' || i, 'last ' || i, 1 + i % 30 from generate_series(1, 25) i;
insert into inventory (film_id, store_id) select 1 + i % 40, 1 + i % 2 from generate_series(1, 80) i;
insert into rental (rental_date, inventory_id, customer_id, staff_id)
    select timestamptz '2024-01-01 00:00+00' + i * interval '3 hours', 1 + i % 80, 1 + i % 25, 1 + i % 2 from generate_series(1, 200) i;
insert into payment (customer_id, staff_id, rental_id, amount, payment_date)
    select 1 + i % 25, 1 + i % 2, i, 2.99, timestamptz '2024-01-01 00:00+00' + i * interval '3 hours' from generate_series(1, 200) i;
