-- 8,000 products and shops, all of the text that upstream.conf has.

CREATE TABLE product (
    id INTEGER PRIMARY KEY, shopId INTEGER, category TEXT, name TEXT, price REAL, description TEXT, pictureList TEXT,
    specification TEXT, service TEXT, color TEXT, size TEXT, modifiedTime TEXT
);
CREATE TABLE shop (
    id INTEGER PRIMARY KEY, name TEXT, level INTEGER, goodCommentRate REAL, city TEXT, since INTEGER, motto TEXT
);
WITH RECURSIVE numbers(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM numbers WHERE id < 8000)
INSERT INTO product
SELECT id, id, 'Lighting', 'Halden Table Lamp', 77.9,
       'Throws a wide, warm circle and keeps the glare to itself. Calm lines from the north. Made of linen and brass by people who use it themselves.',
       '/static/pictures/lamp.svg#front,/static/pictures/lamp.svg#detail,/static/pictures/lamp.svg#room',
       'Collection: Halden; Material: linen and brass; Height: 46 cm; Shade: 28 cm across; Care: Dust with a dry cloth; Article: LA-0001',
       'Free delivery from €50; 30 days to return; 2-year guarantee', 'Sage,Terracotta,Ink,Oat', 'Small,Large',
       '2026-01-05 08:00:00'
  FROM numbers;
INSERT INTO shop
SELECT id, 'Lindqvist & Daughters', 3, 0.91, 'Gothenburg', 1921, 'Made slowly, packed by hand.' FROM product;
