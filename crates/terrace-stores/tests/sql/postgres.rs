//! PostgreSQL.

use e2e::stack::Postgres;
use terrace_cache::{LoadError, Loaded};
use terrace_stores::{Columns, Database, RowShape, ServerAddress, SqlOptions, SqlSource};

use super::support::{found, load, open, server};

fn source(database: &Postgres, query: &str, change: impl FnOnce(&mut SqlOptions)) -> SqlSource {
    open(SqlOptions::new(Database::Postgres(server(database.address())), query), change)
}

/// A table of this name with three products.
fn products(database: &Postgres, table: &str) {
    database.sql(&format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, name varchar(40), price numeric(10,2), modified_time timestamp);
         INSERT INTO {table} VALUES (1, 'Tea \"green\"', 12.50, '2024-01-02 03:04:05'), (2, 'Mug', 3.00, NULL),
         (3, '007', NULL, '2024-01-02 03:04:06');"
    ));
}

fn integer_id(options: &mut SqlOptions) {
    options.integers = vec!["id".to_owned()];
}

#[tokio::test]
async fn a_row_a_list_and_a_column() {
    let database = Postgres::shared();
    products(database, "shapes");
    let by_id = source(database, "SELECT * FROM shapes WHERE id = :id", integer_id);
    let tea = r#"{"id":1,"name":"Tea \"green\"","price":12.50,"modified_time":"2024-01-02 03:04:05"}"#;
    assert_eq!(load(&by_id, &[("id", "1")]).await, found(tea));
    let mug = r#"{"id":2,"name":"Mug","price":3.00,"modified_time":null}"#;
    assert_eq!(load(&by_id, &[("id", "2")]).await, found(mug));
    assert_eq!(load(&by_id, &[("id", "9")]).await, Ok(Loaded::not_found()));
    let query = "SELECT id, name FROM shapes WHERE id >= :low AND id <= :high OR id = :low ORDER BY id";
    let list = source(database, query, |options| {
        options.shape = RowShape::Rows;
        options.integers = vec!["low".to_owned(), "high".to_owned()];
    });
    let both = r#"[{"id":2,"name":"Mug"},{"id":3,"name":"007"}]"#;
    assert_eq!(load(&list, &[("high", "3"), ("low", "2")]).await, found(both));
    assert_eq!(load(&list, &[("high", "9"), ("low", "8")]).await, found("[]"));
    let query = "SELECT jsonb_build_object('b', id, 'a', name), modified_time FROM shapes WHERE id = :id";
    let column = source(database, query, |options| {
        integer_id(options);
        options.shape = RowShape::Column;
        options.columns.version = Some("modified_time".to_owned());
    });
    let loaded = load(&column, &[("id", "3")]).await;
    let version = 1_704_164_646_000_000;
    assert_eq!(loaded, Ok(Loaded::versioned(r#"{"a": "007", "b": 3}"#, None, version)));
}

#[tokio::test]
async fn every_type_of_column_has_its_form() {
    let database = Postgres::shared();
    database.sql("CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN tiny AS smallint;");
    let query = "SELECT true AS a, (-32768)::int2 AS b, (-2147483648)::int4 AS c, 9223372036854775807 AS d,
         0.1::float4 AS e, 1e300::float8 AS f, 'NaN'::float8 AS g, 12345678901234567890.0123456789 AS h,
         -0.05::numeric(5,2) AS i, 10000::numeric AS j, 'café'::text AS k, 'ab'::char(3) AS l, 'n'::name AS m,
         'bytes'::bytea AS n, '{\"z\": [1,  null]}'::json AS o, '{\"z\": [1,  null]}'::jsonb AS p,
         'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS q, '2024-02-29'::date AS r,
         '2024-01-02 03:04:05.25'::timestamp AS s, '2024-01-02 03:04:05+08'::timestamptz AS t, '03:04:05'::time AS u,
         'infinity'::timestamp AS v, ARRAY[[1,2],[3,NULL]] AS w, ARRAY['x \"y\"', NULL] AS x, '{}'::text[] AS y,
         'sad'::mood AS z, 7::tiny AS aa, '1 day'::interval::text AS bb, NULL::int AS cc, '1600-01-01'::date AS dd";
    let expected = concat!(
        r#"{"a":true,"b":-32768,"c":-2147483648,"d":9223372036854775807,"e":0.1,"f":1e+300,"g":null,"#,
        r#""h":12345678901234567890.0123456789,"i":-0.05,"j":10000,"k":"café","l":"ab ","m":"n","n":"bytes","#,
        r#""o":{"z": [1,  null]},"p":{"z": [1, null]},"q":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","#,
        r#""r":"2024-02-29","s":"2024-01-02 03:04:05.25","t":"2024-01-01 19:04:05","u":"03:04:05","v":"infinity","#,
        r#""w":[[1,2],[3,null]],"x":["x \"y\"",null],"y":[],"z":"sad","aa":7,"bb":"1 day","cc":null,"#,
        r#""dd":"1600-01-01"}"#,
    );
    assert_eq!(load(&source(database, query, |_| ()), &[]).await, found(expected));
    for query in ["SELECT '\\xff00'::bytea AS raw", "SELECT '1 day'::interval AS span"] {
        assert!(matches!(load(&source(database, query, |_| ()), &[]).await, Err(LoadError::Invalid(_))));
    }
}

#[tokio::test]
async fn values_are_bound_and_never_become_sql() {
    let database = Postgres::shared();
    products(database, "bound");
    let by_id = source(database, "SELECT name FROM bound WHERE id = :id", integer_id);
    let by_name = source(database, "SELECT id FROM bound WHERE name = :name", |_| ());
    for text in ["1 OR 1=1", "1; DROP TABLE bound", "' OR ''='", "\\", "\\' OR 1=1 -- ", "%"] {
        assert_eq!(load(&by_id, &[("id", text)]).await, Ok(Loaded::not_found()), "{text:?}");
        assert_eq!(load(&by_name, &[("name", text)]).await, Ok(Loaded::not_found()), "{text:?}");
    }
    assert_eq!(load(&by_name, &[("name", "007")]).await, found(r#"{"id":3}"#));
    // What cannot be a text, or not of the type that the query casts to, is the request's fault.
    assert!(matches!(load(&by_name, &[("name", "\0")]).await, Err(LoadError::Request(_))));
    let cast = source(database, "SELECT name FROM bound WHERE modified_time = :at::timestamp", |_| ());
    let tea = found(r#"{"name":"Tea \"green\""}"#);
    assert_eq!(load(&cast, &[("at", "2024-01-02 03:04:05")]).await, tea);
    assert!(matches!(load(&cast, &[("at", "yesterday noon")]).await, Err(LoadError::Request(_))));
    let operators =
        source(database, "SELECT '{\"a\":1}'::jsonb ? :key AS has, '[1]'::jsonb @> '1' AS in", |_| ());
    assert_eq!(load(&operators, &[("key", "a")]).await, found(r#"{"has":true,"in":true}"#));
}

#[tokio::test]
async fn the_result_gives_version_life_and_tags() {
    let database = Postgres::shared();
    products(database, "told");
    let query =
        "SELECT id, modified_time, 90 AS life, ARRAY['shop:' || id, 'all'] AS tags FROM told WHERE id = :id";
    let told = source(database, query, |options| {
        integer_id(options);
        options.columns = Columns {
            version: Some("modified_time".to_owned()),
            ttl: Some("life".to_owned()),
            tags: Some("tags".to_owned()),
            hidden: vec!["life".to_owned(), "tags".to_owned()],
            json: Vec::new(),
        };
    });
    let expected = Loaded::Found {
        value: r#"{"id":1,"modified_time":"2024-01-02 03:04:05"}"#.into(),
        ttl_ms: Some(90_000),
        version: 1_704_164_645_000_000,
        tags: vec!["shop:1".into(), "all".into()],
    };
    assert_eq!(load(&told, &[("id", "1")]).await, Ok(expected));
}

#[tokio::test]
async fn the_source_cannot_write_and_wrong_queries_are_said_to_be_wrong() {
    let database = Postgres::shared();
    products(database, "kept");
    for query in
        ["DELETE FROM kept RETURNING id", "SELECT nothing FROM nowhere", "SELEC 1", "SELECT 1/0 AS x"]
    {
        let wrong = source(database, query, |_| ());
        for _ in 0..2 {
            assert!(matches!(load(&wrong, &[]).await, Err(LoadError::Invalid(_))), "{query}");
        }
    }
    assert_eq!(database.sql("SELECT count(*) FROM kept"), "3\n");
}

#[tokio::test]
async fn a_slow_query_is_ended_by_the_server_and_keeps_its_connection() {
    let database = Postgres::shared();
    let query = "SELECT pg_sleep(:seconds::float8)::text AS slept, pg_backend_pid() AS pid";
    let slow = source(database, query, |options| {
        options.query_timeout_ms = 500;
        options.connections_max = 1;
    });
    assert_eq!(load(&slow, &[("seconds", "600")]).await, Err(LoadError::Timeout(500)));
    let list = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%AS slept, pg_back%' \
        AND pid <> pg_backend_pid()";
    while database.sql(list) != "0\n" {}
}

#[tokio::test]
async fn a_restart_of_the_server_costs_no_load() {
    let database = Postgres::start();
    products(&database, "products");
    let by_id = source(&database, "SELECT name FROM products WHERE id = :id", integer_id);
    let mug = found(r#"{"name":"Mug"}"#);
    for _ in 0..2 {
        let loads = (0..8).map(|_| load(&by_id, &[("id", "2")]));
        for loaded in futures_util::future::join_all(loads).await {
            assert_eq!(loaded, mug);
        }
        database.stop();
        database.start_again();
    }
    database.stop();
    match load(&by_id, &[("id", "2")]).await {
        Err(LoadError::Unavailable(text)) => assert!(text.contains("PostgreSQL at 127.0.0.1:"), "{text}"),
        other => panic!("{other:?}"),
    }
    database.start_again();
    assert_eq!(load(&by_id, &[("id", "2")]).await, mug);
}

#[tokio::test]
async fn a_changed_table_is_read_anew() {
    let database = Postgres::shared();
    products(database, "changing");
    let row = source(database, "SELECT * FROM changing WHERE id = 2", |options| options.connections_max = 1);
    assert!(load(&row, &[]).await.is_ok());
    database.sql("ALTER TABLE changing DROP COLUMN modified_time, ADD COLUMN stock int NOT NULL DEFAULT 4");
    assert_eq!(load(&row, &[]).await, found(r#"{"id":2,"name":"Mug","price":3.00,"stock":4}"#));
}

#[tokio::test]
async fn through_its_unix_socket() {
    let database = Postgres::shared();
    let folder = database.socket_folder().to_owned();
    let socket = folder.join(format!(".s.PGSQL.{}", database.port));
    let mut server = server(database.address());
    server.address = ServerAddress::Unix(socket);
    let one = open(SqlOptions::new(Database::Postgres(server), "SELECT 1 AS one"), |_| ());
    assert_eq!(load(&one, &[]).await, found(r#"{"one":1}"#));
}
