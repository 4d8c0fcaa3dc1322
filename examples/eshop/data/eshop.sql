-- The shop's source of truth: 1,000 products, 50 shops and the shelves of the index page.
--
-- Terrace runs this file once, when data/eshop.db does not exist. It holds no transaction statement of its own, so
-- that whoever runs it decides about that. Delete data/eshop.db to start afresh.
--
-- The column names are the JSON keys that the scripts read. Lists are texts: pictures, colours and sizes are
-- separated by commas, specification and service by semicolons.

CREATE TABLE shop (
    id              INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL,
    level           INTEGER NOT NULL,   -- 1 to 5
    goodCommentRate REAL    NOT NULL,   -- share of good comments, 0 to 1
    city            TEXT    NOT NULL,
    since           INTEGER NOT NULL,   -- year of foundation
    motto           TEXT    NOT NULL
);

CREATE TABLE product (
    id            INTEGER PRIMARY KEY,
    shopId        INTEGER NOT NULL REFERENCES shop (id),
    category      TEXT    NOT NULL,
    name          TEXT    NOT NULL UNIQUE,
    price         REAL    NOT NULL,     -- euros
    description   TEXT    NOT NULL,
    pictureList   TEXT    NOT NULL,
    specification TEXT    NOT NULL,
    service       TEXT    NOT NULL,
    color         TEXT    NOT NULL,
    size          TEXT    NOT NULL,
    modifiedTime  TEXT    NOT NULL
);

CREATE TABLE shelf (
    name      TEXT    NOT NULL,         -- 'all' or a category
    position  INTEGER NOT NULL,
    productId INTEGER NOT NULL REFERENCES product (id),
    PRIMARY KEY (name, position)
) WITHOUT ROWID;

-- Fifty shops: ten families, each with five houses.
INSERT INTO shop (id, name, level, goodCommentRate, city, since, motto)
WITH
family (f, name, city) AS (VALUES
    (0, 'Lindqvist',  'Gothenburg'), (1, 'Marchetti', 'Turin'),    (2, 'Okafor',  'Leeds'),
    (3, 'Brandt',     'Leipzig'),    (4, 'Castelo',   'Porto'),    (5, 'Van Dam', 'Ghent'),
    (6, 'Sørensen',   'Aarhus'),     (7, 'Kowalczyk', 'Kraków'),   (8, 'Duret',   'Lyon'),
    (9, 'Ferreira',   'Braga')),
house (h, pattern, motto) AS (VALUES
    (0, '%s & Daughters',  'Made slowly, packed by hand.'),
    (1, 'Atelier %s',      'Small batches from our own workshop.'),
    (2, '%s Brothers',     'Good tools, good rooms, fair prices.'),
    (3, 'House of %s',     'Four generations behind one counter.'),
    (4, '%s Supply',       'Everything we sell, we also repair.'))
SELECT 1 + f + 10 * h,
       printf(pattern, family.name),
       3 + (f * 3 + h * 2) % 3,
       round(0.91 + ((f * 37 + h * 53) % 89) / 1000.0, 3),
       city,
       1921 + (f * 29 + h * 17) % 97,
       motto
  FROM family CROSS JOIN house;

-- A thousand products: ten categories, five things in each, twenty collections.
INSERT INTO product (id, shopId, category, name, price, description, pictureList, specification, service, color,
                     size, modifiedTime)
WITH RECURSIVE
number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 999),
category (c, name, picture, sizes, measures, care) AS (VALUES
    (0, 'Lighting',   'lamp',       'Small,Large',             'Height: %d cm; Shade: %d cm across',
        'Dust with a dry cloth'),
    (1, 'Seating',    'armchair',   'One seat,With footstool', 'Height: %d cm; Seat height: %d cm',
        'Covers come off for washing at 30 °C'),
    (2, 'Mugs',       'mug',        '200 ml,300 ml,400 ml',    'Height: %d mm; Diameter: %d mm',
        'Safe in dishwasher and microwave'),
    (3, 'Bags',       'backpack',   '14 l,20 l,26 l',          'Height: %d cm; Depth: %d cm',
        'Wipe clean, dry in the shade'),
    (4, 'Headphones', 'headphones', 'Standard',                'Playing time: %d h; Driver: %d mm',
        'Cushions can be replaced without tools'),
    (5, 'Watches',    'watch',      '36 mm,40 mm',             'Power reserve: %d h; Water resistance: %d m',
        'Service every five years'),
    (6, 'Teapots',    'teapot',     '0.6 l,0.9 l,1.2 l',       'Height: %d mm; Spout to handle: %d mm',
        'Rinse with warm water only'),
    (7, 'Vases',      'vase',       'Low,Medium,Tall',         'Height: %d cm; Opening: %d mm',
        'Wash by hand'),
    (8, 'Radios',     'radio',      'Standard',                'Width: %d cm; Playing time: %d h',
        'Keep away from open water'),
    (9, 'Notebooks',  'notebook',   'A6,A5,A4',                'Pages: %d; Paper: %d g/m²',
        'Opens flat; refills available')),
-- measure1 and measure2 fill the two numbers of the category's measures.
thing (c, t, name, price, measure1, measure2, line) AS (VALUES
    (0, 0, 'Table Lamp',        89, 46, 28, 'Throws a wide, warm circle and keeps the glare to itself.'),
    (0, 1, 'Reading Lamp',      79, 52, 18, 'Bends to the page and stays exactly where you leave it.'),
    (0, 2, 'Bedside Lamp',      59, 34, 20, 'Dims down to the glow of the last chapter.'),
    (0, 3, 'Floor Lamp',       169, 158, 42, 'Stands behind the armchair as if it had always been there.'),
    (0, 4, 'Desk Lamp',         99, 44, 22, 'Even light from edge to edge, with a dimmer under the thumb.'),
    (1, 0, 'Armchair',         449, 82, 42, 'Deep enough to curl up in, upright enough to write in.'),
    (1, 1, 'Lounge Chair',     589, 76, 38, 'Leans back by the few degrees that an evening needs.'),
    (1, 2, 'Reading Chair',    519, 98, 44, 'High sides keep the draught and the conversation out.'),
    (1, 3, 'Club Chair',       649, 74, 41, 'Round, low and generous, like the company it likes.'),
    (1, 4, 'Corner Chair',     399, 79, 43, 'Made for the corner that never found its purpose.'),
    (2, 0, 'Mug',               18, 92, 84, 'Holds the heat and sits well in both hands.'),
    (2, 1, 'Breakfast Mug',     22, 96, 98, 'Wide enough for a croissant, heavy enough for a Monday.'),
    (2, 2, 'Espresso Mug',      14, 62, 60, 'Thick walls, small volume, no hurry.'),
    (2, 3, 'Tall Mug',          24, 118, 80, 'For the long coffee and the longer letter.'),
    (2, 4, 'Camp Mug',          19, 84, 86, 'Survives the rucksack, the fire and the fall.'),
    (3, 0, 'Day Pack',         119, 42, 14, 'Opens wide, closes with one hand, never looks full.'),
    (3, 1, 'Roll-top Pack',    139, 48, 16, 'Grows with the shopping and keeps the rain outside.'),
    (3, 2, 'City Backpack',    129, 44, 13, 'A padded sleeve for the laptop, a quiet pocket for the keys.'),
    (3, 3, 'Weekend Pack',     169, 52, 20, 'Two days, three books, one good pair of shoes.'),
    (3, 4, 'School Pack',       89, 40, 15, 'Light on the shoulders and hard to wear out.'),
    (4, 0, 'Studio Headphones',249, 30, 45, 'Honest from the lowest string to the breath of the singer.'),
    (4, 1, 'Travel Headphones',299, 42, 40, 'Folds flat and turns the engine down to a whisper.'),
    (4, 2, 'Home Headphones',  189, 36, 40, 'Soft on the ears through both sides of the record.'),
    (4, 3, 'Kids Headphones',   69, 24, 32, 'Limited to 85 dB and tested against sofas.'),
    (4, 4, 'Open Headphones',  329, 28, 50, 'Lets the room in, and the orchestra out.'),
    (5, 0, 'Field Watch',      279, 42, 100, 'Reads at a glance, in the dark and in the rain.'),
    (5, 1, 'Dress Watch',      349, 44, 30, 'Slips under a cuff and stays modest about it.'),
    (5, 2, 'Swim Watch',       319, 40, 200, 'At home in salt water, chlorine and the bath.'),
    (5, 3, 'Night Watch',      299, 48, 50, 'A dark dial with hands that keep their glow until morning.'),
    (5, 4, 'Station Watch',    259, 46, 50, 'Bold hands, clear minutes, trains not included.'),
    (6, 0, 'Teapot',            58, 140, 230, 'Pours without a drip and keeps a second cup warm.'),
    (6, 1, 'Small Teapot',      44, 110, 180, 'For one reader and one long afternoon.'),
    (6, 2, 'Garden Teapot',     64, 160, 250, 'A wide handle for cold fingers and a lid that stays on.'),
    (6, 3, 'Glazed Teapot',     72, 145, 235, 'Every firing gives the glaze another sky.'),
    (6, 4, 'Winter Teapot',     69, 150, 240, 'Double walls and a felt-lined lid.'),
    (7, 0, 'Vase',              49, 24, 58, 'Looks finished even before the flowers come.'),
    (7, 1, 'Bud Vase',          27, 16, 24, 'One stem is enough.'),
    (7, 2, 'Branch Vase',       79, 38, 70, 'Heavy at the foot, so that the cherry may lean.'),
    (7, 3, 'Table Vase',        42, 20, 66, 'Low enough to see who sits opposite.'),
    (7, 4, 'Meadow Vase',       55, 26, 82, 'A wide mouth for everything the field had.'),
    (8, 0, 'Radio',            159, 28, 18, 'Two knobs, one big loudspeaker, nothing to update.'),
    (8, 1, 'Kitchen Radio',    129, 24, 16, 'Loud enough for frying, kind enough for mornings.'),
    (8, 2, 'Travel Radio',      99, 18, 30, 'Finds a station wherever the train stops.'),
    (8, 3, 'Workshop Radio',   189, 32, 24, 'Rubber corners and a voice above the saw.'),
    (8, 4, 'Bedside Radio',    109, 20, 20, 'Wakes you gently, or with the news. Your choice.'),
    (9, 0, 'Notebook',          16, 192, 100, 'Thread-bound, takes ink well and forgives corrections.'),
    (9, 1, 'Sketchbook',        24, 96, 160, 'Paper with enough tooth for charcoal and courage.'),
    (9, 2, 'Travel Journal',    21, 176, 90, 'A pocket at the back for tickets and pressed leaves.'),
    (9, 3, 'Recipe Book',       23, 160, 120, 'Wipes clean, and has room for grandmother''s remarks.'),
    (9, 4, 'Field Book',        18, 128, 110, 'Stitched, stiff-backed and unimpressed by drizzle.')),
material (c, m, name) AS (VALUES
    (0, 0, 'linen and brass'),        (0, 1, 'powder-coated steel'),   (0, 2, 'turned ash'),
    (1, 0, 'wool bouclé on oak'),     (1, 1, 'washed linen on beech'), (1, 2, 'cotton velvet on walnut'),
    (2, 0, 'stoneware'),              (2, 1, 'enamelled steel'),       (2, 2, 'porcelain'),
    (3, 0, 'waxed canvas'),           (3, 1, 'recycled nylon'),        (3, 2, 'cotton twill and leather'),
    (4, 0, 'aluminium and lambskin'), (4, 1, 'recycled polycarbonate'),(4, 2, 'beech and wool felt'),
    (5, 0, 'brushed steel'),          (5, 1, 'titanium'),              (5, 2, 'bronze'),
    (6, 0, 'stoneware'),              (6, 1, 'cast iron'),             (6, 2, 'porcelain'),
    (7, 0, 'stoneware'),              (7, 1, 'mouth-blown glass'),     (7, 2, 'terracotta'),
    (8, 0, 'oak veneer'),             (8, 1, 'recycled ABS'),          (8, 2, 'walnut and linen'),
    (9, 0, 'linen boards'),           (9, 1, 'recycled card'),         (9, 2, 'vegetable-tanned leather')),
collection (k, name, line) AS (VALUES
    (0,  'Halden',  'Calm lines from the north.'),        (1,  'Brisa',   'As light as a door left open.'),
    (2,  'Morrow',  'Drawn for the day after tomorrow.'), (3,  'Fennel',  'A little green in every season.'),
    (4,  'Osier',   'Woven thoughts, plain outcome.'),    (5,  'Tarn',    'Deep colour, still surface.'),
    (6,  'Lumen',   'Everything begins with the light.'), (7,  'Quarry',  'Weight where weight is welcome.'),
    (8,  'Pinna',   'Soft curves, clear purpose.'),       (9,  'Alder',   'Grown, not invented.'),
    (10, 'Cove',    'A quiet place, made portable.'),     (11, 'Sorrel',  'Sharp, fresh and unafraid of colour.'),
    (12, 'Marlow',  'Old proportions, new joints.'),      (13, 'Vesper',  'At its best after sunset.'),
    (14, 'Juniper', 'Clean, dry and slightly wild.'),     (15, 'Ebb',     'Nothing that could be left out.'),
    (16, 'Ridge',   'Built for weather and use.'),        (17, 'Solace',  'The softest thing in the room.'),
    (18, 'Tally',   'Simple, counted, exact.'),           (19, 'Wren',    'Small, bright and hard to forget.')),
palette (p, colors) AS (VALUES
    (0, 'Sage,Terracotta,Ink,Oat'),       (1, 'Ink,Mustard,Ivory'),             (2, 'Blush,Plum,Charcoal,Oat'),
    (3, 'Forest,Rust,Oat'),               (4, 'Sky,Ink,Mustard,Ivory'),         (5, 'Charcoal,Terracotta,Sage'),
    (6, 'Mustard,Forest,Charcoal'),       (7, 'Rust,Sky,Ivory,Ink'),            (8, 'Plum,Sage,Blush'),
    (9, 'Terracotta,Sky,Forest,Mustard'), (10, 'Oat,Charcoal,Plum')),
service (s, promises) AS (VALUES
    (0, 'Free delivery from €50; 30 days to return; 2-year guarantee'),
    (1, 'Delivered in 2 working days; 60 days to return; 5-year guarantee'),
    (2, 'Gift wrapping free of charge; 30 days to return; Repairs by the maker'),
    (3, 'Carbon-neutral delivery; 100 days to return; Spare parts for ten years'))
SELECT n + 1,
       1 + category.c + 10 * ((n / 10 + n / 50) % 5),
       category.name,
       collection.name || ' ' || thing.name,
       round(round(thing.price * (88 + 3 * ((k * 7 + t) % 12)) / 100.0) - 0.10, 2),
       thing.line || ' ' || collection.line || ' Made of ' || material.name || ' by people who use it themselves.',
       printf('/static/pictures/%s.svg#front,/static/pictures/%s.svg#detail,/static/pictures/%s.svg#room',
              picture, picture, picture),
       'Collection: ' || collection.name || '; Material: ' || material.name || '; '
           || printf(measures, measure1 + k % 5, measure2 + k % 3)
           || '; Care: ' || care || printf('; Article: %s-%04d', upper(substr(picture, 1, 2)), n + 1),
       promises,
       colors,
       sizes,
       datetime('2026-01-05 08:00:00', printf('+%d minutes', n * 397 % 260000))
-- CROSS JOIN keeps this order, in which every further table gives one row for each number.
  FROM number
 CROSS JOIN category   ON category.c = n % 10
 CROSS JOIN thing      ON thing.c = n % 10 AND t = n / 10 % 5
 CROSS JOIN material   ON material.c = n % 10 AND m = (n / 50 + n) % 3
 CROSS JOIN collection ON k = (n / 50 + n % 10 * 7 + n / 10 % 5 * 3) % 20
 CROSS JOIN palette    ON p = n % 11
 CROSS JOIN service    ON s = n / 10 % 4;

-- The index page shows 24 products: the first ones of each category, and a mixture of all.
INSERT INTO shelf (name, position, productId)
SELECT category, position, id
  FROM (SELECT category, id, row_number() OVER (PARTITION BY category ORDER BY id) AS position FROM product)
 WHERE position <= 24;

INSERT INTO shelf (name, position, productId)
WITH RECURSIVE place (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM place WHERE i < 23)
SELECT 'all', i + 1, 1 + i * 3 % 10 + 10 * ((i * 37 + i / 10 * 13 + 21) % 100)
  FROM place;
