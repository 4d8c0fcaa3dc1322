//! MariaDB.

use e2e::stack::MariaDb;
use terrace_cache::{LoadError, Loaded};
use terrace_stores::{Columns, Database, RowShape, SqlOptions, SqlSource};

use super::support::{found, load, open, server};

fn source(database: &MariaDb, query: &str, change: impl FnOnce(&mut SqlOptions)) -> SqlSource {
    open(SqlOptions::new(Database::MySql(server(database.address())), query), change)
}

/// A table of this name with three products.
fn products(database: &MariaDb, table: &str) {
    database.sql(&format!(
        "CREATE TABLE {table} (id BIGINT PRIMARY KEY, name VARCHAR(40), price DECIMAL(10,2), modified_time DATETIME);
         INSERT INTO {table} VALUES (1, 'Tea \"green\"', 12.50, '2024-01-02 03:04:05'), (2, 'Mug', 3.00, NULL),
         (3, '007', NULL, '2024-01-02 03:04:06');"
    ));
}

fn integer_id(options: &mut SqlOptions) {
    options.integers = vec!["id".to_owned()];
}

#[tokio::test]
async fn a_row_a_list_and_a_column() {
    let database = MariaDb::shared();
    products(database, "shapes");
    let by_id = source(database, "SELECT * FROM shapes WHERE id = :id", integer_id);
    let tea = r#"{"id":1,"name":"Tea \"green\"","price":12.50,"modified_time":"2024-01-02 03:04:05"}"#;
    assert_eq!(load(&by_id, &[("id", "1")]).await, found(tea));
    let mug = r#"{"id":2,"name":"Mug","price":3.00,"modified_time":null}"#;
    assert_eq!(load(&by_id, &[("id", "2")]).await, found(mug));
    assert_eq!(load(&by_id, &[("id", "9")]).await, Ok(Loaded::not_found()));
    let query = "SELECT id, name FROM shapes WHERE id >= :low AND id <= :high OR id = :low ORDER BY id";
    let list = source(database, query, |options| options.shape = RowShape::Rows);
    let both = r#"[{"id":2,"name":"Mug"},{"id":3,"name":"007"}]"#;
    assert_eq!(load(&list, &[("high", "3"), ("low", "2")]).await, found(both));
    assert_eq!(load(&list, &[("high", "9"), ("low", "8")]).await, found("[]"));
    let query = "SELECT JSON_OBJECT('b', id, 'a', name), modified_time FROM shapes WHERE id = :id";
    let column = source(database, query, |options| {
        options.shape = RowShape::Column;
        options.columns.version = Some("modified_time".to_owned());
    });
    let loaded = load(&column, &[("id", "3")]).await;
    let version = 1_704_164_646_000_000;
    assert_eq!(loaded, Ok(Loaded::versioned(r#"{"b": 3, "a": "007"}"#, None, version)));
}

#[tokio::test]
async fn every_type_of_column_has_its_form() {
    let database = MariaDb::shared();
    database.sql(
        "CREATE TABLE kinds (a TINYINT, b SMALLINT UNSIGNED, c MEDIUMINT, d INT UNSIGNED, e BIGINT UNSIGNED,
         f FLOAT, g DOUBLE, h DECIMAL(30,10), i BIT(12), j YEAR, k DATE, l DATETIME(6), m TIMESTAMP NULL, n TIME(2),
         o CHAR(3), p TEXT, q BLOB, r ENUM('x','y'), s SET('u','v'), t JSON, u BOOLEAN, v DATETIME, w VARBINARY(4));
         SET time_zone = '+08:00';
         INSERT INTO kinds VALUES (-1, 65535, -8388608, 4294967295, 18446744073709551615, 0.1, 1e300,
         12345678901234567890.0123456789, b'101', 2024, '2024-02-29', '2024-01-02 03:04:05.250000',
         '2024-01-02 11:04:05', '-26:03:04.5', 'abc', 'caf\u{e9} \u{1f375}', 'bytes', 'y', 'u,v', '{\"z\": [1, null]}',
         true, '2024-01-02', x'6869');",
    );
    let everything = source(database, "SELECT * FROM kinds", |options| {
        options.columns.json = vec!["t".to_owned()];
    });
    let expected = concat!(
        r#"{"a":-1,"b":65535,"c":-8388608,"d":4294967295,"e":18446744073709551615,"f":0.1,"g":1e+300,"#,
        r#""h":12345678901234567890.0123456789,"i":5,"j":2024,"k":"2024-02-29","l":"2024-01-02 03:04:05.25","#,
        r#""m":"2024-01-02 03:04:05","n":"-26:03:04.5","o":"abc","p":"café 🍵","q":"bytes","r":"y","s":"u,v","#,
        r#""t":{"z": [1, null]},"u":1,"v":"2024-01-02 00:00:00","w":"hi"}"#,
    );
    assert_eq!(load(&everything, &[]).await, found(expected));
    let bytes = source(database, "SELECT x'ff00' AS raw", |_| ());
    assert!(matches!(load(&bytes, &[]).await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn values_are_bound_and_never_become_sql() {
    let database = MariaDb::shared();
    products(database, "bound");
    let by_id = source(database, "SELECT name FROM bound WHERE id = :id", integer_id);
    let by_name = source(database, "SELECT id FROM bound WHERE name = :name", |_| ());
    for text in ["1 OR 1=1", "1; DROP TABLE bound", "' OR ''='", "\\", "\\' OR 1=1 -- ", "\0", "%"] {
        assert_eq!(load(&by_id, &[("id", text)]).await, Ok(Loaded::not_found()), "{text:?}");
        assert_eq!(load(&by_name, &[("name", text)]).await, Ok(Loaded::not_found()), "{text:?}");
    }
    assert_eq!(load(&by_name, &[("name", "007")]).await, found(r#"{"id":3}"#));
    assert_eq!(load(&by_name, &[("name", "7")]).await, Ok(Loaded::not_found()));
}

#[tokio::test]
async fn the_result_gives_version_life_and_tags() {
    let database = MariaDb::shared();
    products(database, "told");
    let query =
        "SELECT id, modified_time, 90 AS life, CONCAT('shop:', id, ',all') AS tags FROM told WHERE id = :id";
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
async fn the_source_cannot_write() {
    let database = MariaDb::shared();
    products(database, "kept");
    let writer = source(database, "DELETE FROM kept WHERE id = 1 RETURNING id", |_| ());
    assert!(load(&writer, &[]).await.is_err());
    assert_eq!(database.sql("SELECT count(*) FROM kept"), "3\n");
}

#[tokio::test]
async fn a_slow_query_is_ended_by_the_server() {
    let database = MariaDb::shared();
    let slow = source(database, "SELECT SLEEP(:seconds) AS slept, CONNECTION_ID() AS id", |options| {
        options.query_timeout_ms = 50;
        options.connections_max = 1;
    });
    assert_eq!(load(&slow, &[("seconds", "600")]).await, Err(LoadError::Timeout(50)));
    let list = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%AS slept, CONNECTION_ID%' \
        AND info NOT LIKE '%processlist%'";
    while database.sql(list) != "0\n" {}
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let database = MariaDb::shared();
    let query = "SELECT :n AS n, CONNECTION_ID() AS connection FROM (SELECT SLEEP(0.01)) AS slept";
    let narrow = source(database, query, |options| options.connections_max = 2);
    let numbers: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    let narrow = &narrow;
    let loads = numbers.iter().map(|n| async move {
        match load(narrow, &[("n", n)]).await {
            Ok(Loaded::Found { value, .. }) => {
                let value: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
                assert_eq!(value["n"], serde_json::Value::from(n.as_str()));
                value["connection"].as_u64()
            }
            other => panic!("{n}: {other:?}"),
        }
    });
    let mut connections = futures_util::future::join_all(loads).await;
    connections.sort_unstable();
    connections.dedup();
    assert!(connections.len() <= 2, "{connections:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said_at_each_load() {
    let database = MariaDb::shared();
    for query in ["SELECT nothing FROM nowhere", "SELEC 1", "SELECT 1 FROM information_schema.tables WHERE"] {
        let wrong = source(database, query, |_| ());
        for _ in 0..2 {
            assert!(matches!(load(&wrong, &[]).await, Err(LoadError::Invalid(_))), "{query}");
        }
    }
    let endless =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10001) SELECT x FROM n";
    let endless = source(database, endless, |options| options.shape = RowShape::Rows);
    // The server itself ends the recursion earlier unless it is told otherwise.
    database.sql("SET GLOBAL max_recursive_iterations = 100000");
    assert!(matches!(load(&endless, &[]).await, Err(LoadError::Invalid(_))));
    let refused = open(
        SqlOptions::new(
            Database::MySql(terrace_stores::DatabaseServer {
                password: terrace_stores::Password::new("wrong"),
                ..server(database.address())
            }),
            "SELECT 1",
        ),
        |_| (),
    );
    match load(&refused, &[]).await {
        Err(LoadError::Unavailable(text)) => assert!(text.contains("Access denied"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_restart_of_the_server_costs_no_load() {
    let database = MariaDb::start();
    products(&database, "products");
    let by_id = source(&database, "SELECT name FROM products WHERE id = :id", integer_id);
    let mug = found(r#"{"name":"Mug"}"#);
    // Several connections, so that more than one is dead afterwards.
    let loads = (0..8).map(|_| load(&by_id, &[("id", "2")]));
    for loaded in futures_util::future::join_all(loads).await {
        assert_eq!(loaded, mug);
    }
    database.process.restart();
    let loads = (0..8).map(|_| load(&by_id, &[("id", "2")]));
    for loaded in futures_util::future::join_all(loads).await {
        assert_eq!(loaded, mug);
    }
    database.process.kill();
    match load(&by_id, &[("id", "2")]).await {
        Err(LoadError::Unavailable(text)) => assert!(text.contains("MySQL at 127.0.0.1:"), "{text}"),
        other => panic!("{other:?}"),
    }
    database.process.restart();
    assert_eq!(load(&by_id, &[("id", "2")]).await, mug);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_timeout_and_then_works_again() {
    let database = MariaDb::start();
    let one = source(&database, "SELECT 1 AS one", |options| {
        options.query_timeout_ms = 100;
        options.acquire_timeout_ms = 60_000;
    });
    assert_eq!(load(&one, &[]).await, found(r#"{"one":1}"#));
    database.process.pause();
    assert_eq!(load(&one, &[]).await, Err(LoadError::Timeout(100)));
    database.process.resume();
    // The connection with the lost query is closed, and a new one is made.
    while load(&one, &[]).await != found(r#"{"one":1}"#) {}
}

#[tokio::test]
async fn a_changed_table_is_read_anew() {
    let database = MariaDb::shared();
    products(database, "changing");
    let row = source(database, "SELECT * FROM changing WHERE id = 2", |options| options.connections_max = 1);
    assert!(load(&row, &[]).await.is_ok());
    database.sql("ALTER TABLE changing DROP COLUMN modified_time, ADD COLUMN stock INT NOT NULL DEFAULT 4");
    assert_eq!(load(&row, &[]).await, found(r#"{"id":2,"name":"Mug","price":3.00,"stock":4}"#));
}
