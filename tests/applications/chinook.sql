-- The tables of Chinook, a shop of music, as they are publicly known; a few rows of our own.
create table artist (artist_id int primary key, name varchar(120));
create table album (album_id int primary key, title varchar(160) not null, artist_id int not null references artist);
create table employee (employee_id int primary key, last_name varchar(20) not null, first_name varchar(20) not null, title varchar(30),
    reports_to int references employee, birth_date timestamp, hire_date timestamp, city varchar(40), country varchar(40), email varchar(60));
create table customer (customer_id int primary key, first_name varchar(40) not null, last_name varchar(20) not null, company varchar(80),
    city varchar(40), country varchar(40), email varchar(60) not null, support_rep_id int references employee);
create table genre (genre_id int primary key, name varchar(120));
create table media_type (media_type_id int primary key, name varchar(120));
create table playlist (playlist_id int primary key, name varchar(120));
create table track (track_id int primary key, name varchar(200) not null, album_id int references album, media_type_id int not null references media_type,
    genre_id int references genre, composer varchar(220), milliseconds int not null, bytes int, unit_price numeric(10, 2) not null);
create table playlist_track (playlist_id int not null references playlist, track_id int not null references track, primary key (playlist_id, track_id));
create table invoice (invoice_id int primary key, customer_id int not null references customer, invoice_date timestamp not null,
    billing_city varchar(40), billing_country varchar(40), total numeric(10, 2) not null);
create table invoice_line (invoice_line_id int primary key, invoice_id int not null references invoice, track_id int not null references track,
    unit_price numeric(10, 2) not null, quantity int not null);
create index on album (artist_id);
create index on track (album_id);
create index on track (genre_id);
create index on track (media_type_id);
create index on playlist_track (track_id);
create index on customer (support_rep_id);
create index on invoice (customer_id);
create index on invoice_line (invoice_id);
create index on invoice_line (track_id);

insert into artist select i, 'artist ' || i from generate_series(1, 12) i;
insert into album select i, 'album ' || i, 1 + i % 12 from generate_series(1, 30) i;
insert into employee select i, 'last ' || i, 'first ' || i, 'agent', nullif(i / 3, 0) from generate_series(1, 8) i;
insert into customer select i, 'first ' || i, 'last ' || i, null, 'city ' || i % 7, 'country ' || i % 5, i || '@example.org', 1 + i % 8 from generate_series(1, 40) i;
insert into genre select i, 'genre ' || i from generate_series(1, 6) i;
insert into media_type select i, 'type ' || i from generate_series(1, 3) i;
insert into playlist select i, 'list ' || i from generate_series(1, 5) i;
insert into track select i, 'track ' || i, 1 + i % 30, 1 + i % 3, 1 + i % 6, null, i * 1000, i * 10, 0.99 from generate_series(1, 150) i;
insert into playlist_track select distinct 1 + i % 5, 1 + i * 7 % 150 from generate_series(1, 200) i;
insert into invoice select i, 1 + i % 40, timestamp '2024-01-01' + i * interval '1 day', 'city ' || i % 7, 'country ' || i % 5, i % 20 from generate_series(1, 120) i;
insert into invoice_line select i, 1 + i % 120, 1 + i * 11 % 150, 0.99, 1 + i % 3 from generate_series(1, 400) i;
