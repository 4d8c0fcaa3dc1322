-- 8,000 rows, all of the text that upstream.conf has.

CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, price REAL, description TEXT);
WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 8000)
INSERT INTO product
SELECT id, 'Halden Table Lamp', 77.9, 'Throws a wide, warm circle and keeps the glare to itself.' FROM numbers;
