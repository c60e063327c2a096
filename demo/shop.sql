-- A small shop, owned by a role nobody logs in as, read and written through two group roles.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_reader NOLOGIN;
CREATE ROLE shop_writer NOLOGIN;
CREATE ROLE dbaccess_owner NOLOGIN CREATEROLE;
CREATE ROLE dbaccess_bot LOGIN IN ROLE dbaccess_owner;
GRANT shop_reader, shop_writer TO dbaccess_owner WITH ADMIN OPTION;

REVOKE CONNECT, TEMPORARY ON DATABASE shop FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO shop_reader, shop_writer;
GRANT CONNECT ON DATABASE shop TO dbaccess_owner WITH GRANT OPTION;

CREATE SCHEMA shop AUTHORIZATION shop_owner;
SET ROLE shop_owner;
CREATE TABLE shop.customers (id int PRIMARY KEY, name text NOT NULL, city text NOT NULL, since date NOT NULL);
CREATE TABLE shop.orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES shop.customers, placed_at timestamptz NOT NULL, total numeric(9, 2) NOT NULL);
CREATE TABLE shop.payments (id int PRIMARY KEY, "order" int NOT NULL REFERENCES shop.orders, paid_at timestamptz, amount numeric(9, 2) NOT NULL, state text NOT NULL);
INSERT INTO shop.customers
  SELECT n, (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Katherine'])[1 + n % 6] || ' ' || (ARRAY['Moss', 'Reed', 'Stone', 'Vale', 'Wren'])[1 + n % 5],
         (ARRAY['Berlin', 'Lisbon', 'Oslo', 'Porto'])[1 + n % 4], date '2020-01-01' + n
  FROM generate_series(1, 200) n;
INSERT INTO shop.orders SELECT n, 1 + n % 200, timestamptz '2026-01-01' + n * interval '3 hours', (n * 37 % 40000) / 100.0 FROM generate_series(1, 1500) n;
INSERT INTO shop.payments SELECT n, n, timestamptz '2026-01-01' + n * interval '3 hours 5 minutes', (n * 37 % 40000) / 100.0, CASE WHEN n % 97 = 0 THEN 'refunded' ELSE 'paid' END FROM generate_series(1, 1500) n;
GRANT USAGE ON SCHEMA shop TO shop_reader, shop_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_reader, shop_writer;
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO shop_writer;
GRANT USAGE ON SCHEMA shop TO dbaccess_owner WITH GRANT OPTION;
GRANT SELECT ON shop.customers, shop.orders TO dbaccess_owner WITH GRANT OPTION;
RESET ROLE;
