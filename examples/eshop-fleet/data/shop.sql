-- The fleet's source of truth, for MariaDB: @products products (a million, when `make stack` runs it), a thousand
-- shops, and the shelves of the index page.
--
-- The column names are the JSON keys that the scripts read, and texts have the form that ../eshop/data/eshop.sql
-- explains. An UPDATE of a product or shop raises its `version` by one and sets its `modifiedTime` by itself.

CREATE TABLE shop (
    id              INT UNSIGNED    PRIMARY KEY,
    name            VARCHAR(64)     NOT NULL,
    level           TINYINT         NOT NULL,   -- 1 to 5
    goodCommentRate DOUBLE          NOT NULL,   -- share of good comments, 0 to 1
    city            VARCHAR(32)     NOT NULL,
    since           SMALLINT        NOT NULL,   -- year of foundation
    motto           VARCHAR(64)     NOT NULL,
    modifiedTime    DATETIME(3)     NOT NULL,
    version         BIGINT UNSIGNED NOT NULL DEFAULT 1
);

CREATE TABLE product (
    id            INT UNSIGNED    PRIMARY KEY,
    shopId        INT UNSIGNED    NOT NULL,
    category      VARCHAR(16)     NOT NULL,
    name          VARCHAR(64)     NOT NULL,
    price         DOUBLE          NOT NULL,     -- euros
    description   VARCHAR(255)    NOT NULL,
    pictureList   VARCHAR(128)    NOT NULL,
    specification VARCHAR(255)    NOT NULL,
    service       VARCHAR(128)    NOT NULL,
    color         VARCHAR(64)     NOT NULL,
    size          VARCHAR(64)     NOT NULL,
    modifiedTime  DATETIME(3)     NOT NULL,
    version       BIGINT UNSIGNED NOT NULL DEFAULT 1
);

CREATE TABLE shelf (
    name      VARCHAR(16)  NOT NULL,            -- 'all' or a category
    position  INT UNSIGNED NOT NULL,
    productId INT UNSIGNED NOT NULL,
    PRIMARY KEY (name, position)
);

CREATE TEMPORARY TABLE category (
    c INT PRIMARY KEY, name VARCHAR(16), picture VARCHAR(16), things VARCHAR(128), price INT, measure VARCHAR(32),
    sizes VARCHAR(64), materials VARCHAR(128), care VARCHAR(64)
);

INSERT INTO category VALUES
    (0, 'Lighting', 'lamp', 'Table Lamp,Reading Lamp,Bedside Lamp,Floor Lamp,Desk Lamp', 89, 'Cable: # cm',
        'Small,Large', 'linen and brass,powder-coated steel,turned ash', 'Dust with a dry cloth'),
    (1, 'Seating', 'armchair', 'Armchair,Lounge Chair,Reading Chair,Club Chair,Corner Chair', 449, 'Width: # cm',
        'One seat,With footstool', 'wool on oak,washed linen on beech,cotton velvet on walnut',
        'Covers come off for washing'),
    (2, 'Mugs', 'mug', 'Mug,Breakfast Mug,Espresso Mug,Tall Mug,Camp Mug', 18, 'Height: # mm',
        '200 ml,300 ml,400 ml', 'stoneware,enamelled steel,porcelain', 'Safe in the dishwasher'),
    (3, 'Bags', 'backpack', 'Day Pack,Roll-top Pack,City Backpack,Weekend Pack,School Pack', 119, 'Strap: # cm',
        '14 l,20 l,26 l', 'waxed canvas,recycled nylon,cotton twill and leather', 'Dry in the shade'),
    (4, 'Headphones', 'headphones',
        'Studio Headphones,Travel Headphones,Home Headphones,Kids Headphones,Open Headphones', 249, 'Cable: # cm',
        'Standard', 'aluminium and lambskin,recycled polycarbonate,beech and felt', 'Cushions can be replaced'),
    (5, 'Watches', 'watch', 'Field Watch,Dress Watch,Swim Watch,Night Watch,Station Watch', 279,
        'Water resistance: # m', '36 mm,40 mm', 'brushed steel,titanium,bronze', 'Service every five years'),
    (6, 'Teapots', 'teapot', 'Teapot,Small Teapot,Garden Teapot,Glazed Teapot,Winter Teapot', 58, 'Height: # mm',
        '0.6 l,0.9 l,1.2 l', 'stoneware,cast iron,porcelain', 'Rinse with warm water only'),
    (7, 'Vases', 'vase', 'Vase,Bud Vase,Branch Vase,Table Vase,Meadow Vase', 49, 'Height: # mm',
        'Low,Medium,Tall', 'stoneware,mouth-blown glass,terracotta', 'Wash by hand'),
    (8, 'Radios', 'radio', 'Radio,Kitchen Radio,Travel Radio,Workshop Radio,Bedside Radio', 159, 'Width: # mm',
        'Standard', 'oak veneer,recycled ABS,walnut and linen', 'Keep away from open water'),
    (9, 'Notebooks', 'notebook', 'Notebook,Sketchbook,Travel Journal,Recipe Book,Field Book', 16, 'Pages: #',
        'A6,A5,A4', 'linen boards,recycled card,vegetable-tanned leather', 'Opens flat');

CREATE TEMPORARY TABLE collection (k INT PRIMARY KEY, name VARCHAR(16), line VARCHAR(64), colors VARCHAR(64));

INSERT INTO collection VALUES
    (0,  'Halden',  'Calm lines from the north.',        'Sage,Terracotta,Ink,Oat'),
    (1,  'Brisa',   'As light as a door left open.',     'Ink,Mustard,Ivory'),
    (2,  'Morrow',  'Drawn for the day after tomorrow.', 'Blush,Plum,Charcoal,Oat'),
    (3,  'Fennel',  'A little green in every season.',   'Forest,Rust,Oat'),
    (4,  'Osier',   'Woven thoughts, plain outcome.',    'Sky,Ink,Mustard,Ivory'),
    (5,  'Tarn',    'Deep colour, still surface.',       'Charcoal,Terracotta,Sage'),
    (6,  'Lumen',   'Everything begins with the light.', 'Mustard,Forest,Charcoal'),
    (7,  'Quarry',  'Weight where weight is welcome.',   'Rust,Sky,Ivory,Ink'),
    (8,  'Pinna',   'Soft curves, clear purpose.',       'Plum,Sage,Blush'),
    (9,  'Alder',   'Grown, not invented.',              'Terracotta,Sky,Forest,Mustard'),
    (10, 'Cove',    'A quiet place, made portable.',     'Oat,Charcoal,Plum');

-- The rows go into an empty table in one piece, without an undo record each.
SET unique_checks = 0, foreign_key_checks = 0;
START TRANSACTION;

INSERT INTO product (id, shopId, category, name, price, description, pictureList, specification, service, color, size,
                     modifiedTime)
SELECT n + 1,
       1 + n * 37 % 1000,
       category,
       CONCAT(family, ' ', thing, IF(n < 550, '', CONCAT(' ', 1 + n DIV 550))),
       ROUND(price * (88 + n DIV 10 % 25) / 100) - 0.1,
       CONCAT(line, ' The ', thing, ' of this family is made of ', material, ' by people who use it themselves.'),
       CONCAT('/static/pictures/', picture, '.svg#front,/static/pictures/', picture, '.svg#detail,/static/pictures/',
              picture, '.svg#room'),
       CONCAT('Collection: ', family, '; Material: ', material, '; ',
              REPLACE(measure, '#', 80 + n DIV 10 % 60), '; Care: ', care, '; Article: ',
              UPPER(LEFT(picture, 2)), '-', LPAD(n + 1, 7, '0')),
       ELT(1 + n DIV 10 % 4,
           'Free delivery from €50; 30 days to return; 2-year guarantee',
           'Delivered in 2 working days; 60 days to return; 5-year guarantee',
           'Gift wrapping free of charge; 30 days to return; Repairs by the maker',
           'Carbon-neutral delivery; 100 days to return; Spare parts for ten years'),
       colors,
       sizes,
       TIMESTAMP('2026-01-05 08:00:00') + INTERVAL (n * 397 % 260000) MINUTE
  FROM (SELECT n, category.name AS category, picture, price, measure, sizes, care, collection.name AS family, line, colors,
               SUBSTRING_INDEX(SUBSTRING_INDEX(things, ',', 1 + n DIV 10 % 5), ',', -1) AS thing,
               SUBSTRING_INDEX(SUBSTRING_INDEX(materials, ',', 1 + n DIV 50 % 3), ',', -1) AS material
          FROM (SELECT seq - 1 AS n FROM seq_1_to_10000000 WHERE seq <= @products) AS number
          JOIN category   ON c = n % 10
          JOIN collection ON k = (n DIV 50 + n) % 11) AS made;

COMMIT;

INSERT INTO shop (id, name, level, goodCommentRate, city, since, motto, modifiedTime)
SELECT s + 1,
       REPLACE(ELT(1 + s DIV 10 % 5, '# & Daughters', 'Atelier #', '# Brothers', 'House of #', '# Supply'), '#',
               ELT(1 + s % 10, 'Lindqvist', 'Marchetti', 'Okafor', 'Brandt', 'Castelo', 'Van Dam', 'Sørensen',
                   'Kowalczyk', 'Duret', 'Ferreira')),
       3 + s * 5 % 3,
       ROUND(0.91 + s * 53 % 89 / 1000, 3),
       ELT(1 + (s DIV 50 + s) % 20, 'Gothenburg', 'Turin', 'Leeds', 'Leipzig', 'Porto', 'Ghent', 'Aarhus', 'Kraków',
           'Lyon', 'Braga', 'Bergen', 'Graz', 'Cork', 'Utrecht', 'Basel', 'Tartu', 'Bilbao', 'Brno', 'Turku', 'Trieste'),
       1921 + s * 17 % 97,
       ELT(1 + s DIV 10 % 5, 'Made slowly, packed by hand.', 'Small batches from our own workshop.',
           'Good tools, good rooms, fair prices.', 'Four generations behind one counter.',
           'Everything we sell, we also repair.'),
       '2026-01-05 08:00:00'
  FROM (SELECT seq - 1 AS s FROM seq_1_to_1000) AS number;

-- The index page shows 24 products: the first ones of each category, and a mixture of all.
INSERT INTO shelf (name, position, productId)
SELECT category, 1 + (id - 1) DIV 10, id FROM product WHERE id <= 240;

INSERT INTO shelf (name, position, productId)
SELECT 'all', seq, id FROM seq_1_to_24 JOIN product ON id = 1 + seq * 37 % 1000;

CREATE TRIGGER product_changes BEFORE UPDATE ON product FOR EACH ROW
    SET NEW.version = OLD.version + 1, NEW.modifiedTime = UTC_TIMESTAMP(3);

CREATE TRIGGER shop_changes BEFORE UPDATE ON shop FOR EACH ROW
    SET NEW.version = OLD.version + 1, NEW.modifiedTime = UTC_TIMESTAMP(3);
