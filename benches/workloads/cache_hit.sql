CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, price REAL, description TEXT);
INSERT INTO product VALUES
    (1, 'Halden Table Lamp', 77.9, 'Throws a wide, warm circle and keeps the glare to itself.');
