//! Tests of the SQL source on real database files.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use terrace_cache::{Cache, Clock, Level, Lookup, Param, Policy};

use super::*;

const BY_ID: &str = "SELECT id, name, price, note FROM products WHERE id = :product_id";

/// A database with three products, the second with a NULL.
async fn make_database(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.expect("a new database");
    let setup = "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT, json TEXT, raw BLOB);
        INSERT INTO products VALUES (1, 'Tea \"green\"', 4.5, 'caf\u{e9}', '{\"b\":1, \"a\":2}', x'ff00');
        INSERT INTO products VALUES (2, 'Mug', 12.0, NULL, NULL, x'616263');
        INSERT INTO products VALUES (3, '007', -0.25, '', '{broken', NULL);";
    sqlx::raw_sql(setup).execute(&mut connection).await.expect("the setup is good SQL");
    connection.close().await.expect("the database closes");
}

struct Rig {
    dir: TempDir,
    source: SqlSource,
}

impl Rig {
    /// A source over the database `shop.db` of a new directory.
    async fn new(query: &str, change: impl FnOnce(&mut SqlOptions)) -> Self {
        let rig = Self::without_database(query, change);
        make_database(&rig.path()).await;
        rig
    }

    fn without_database(query: &str, change: impl FnOnce(&mut SqlOptions)) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut options = SqlOptions::new(Database::Sqlite(dir.path().join("shop.db")), query);
        change(&mut options);
        let source = SqlSource::open(options).expect("good options");
        Self { dir, source }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("shop.db")
    }

    fn pool(&self) -> SqlitePool {
        match &self.source.engine {
            Engine::Sqlite(file) => file.pool().expect("the file is there").1,
            _ => panic!("another database"),
        }
    }

    async fn load(&self, params: &[(&str, &str)]) -> Result<Loaded, LoadError> {
        let params = params.iter().map(|(name, value)| Param::new(*name, value.to_string())).collect();
        self.source.load(LoadRequest { key: Bytes::from_static(b"key"), params }).await
    }

    async fn product(&self, id: &str) -> Result<Loaded, LoadError> {
        self.load(&[("product_id", id)]).await
    }
}

fn found(json: &str) -> Result<Loaded, LoadError> {
    Ok(Loaded::found(json.to_owned()))
}

#[tokio::test]
async fn a_row_is_an_object_in_the_order_of_its_columns() {
    let rig = Rig::new(BY_ID, |_| ()).await;
    assert_eq!(rig.product("1").await, found(r#"{"id":1,"name":"Tea \"green\"","price":4.5,"note":"café"}"#));
    assert_eq!(rig.product("2").await, found(r#"{"id":2,"name":"Mug","price":12.0,"note":null}"#));
    assert_eq!(rig.product("9").await, Ok(Loaded::not_found()));
}

#[tokio::test]
async fn values_are_bound_and_never_become_sql() {
    for integers in [vec![], vec!["product_id".to_owned()]] {
        let rig = Rig::new(BY_ID, |options| options.integers = integers).await;
        for text in [
            "1 OR 1=1",
            "1; DROP TABLE products",
            "' OR ''='",
            "1--",
            "",
            "abc",
            "0x1",
            "99999999999999999999",
        ] {
            assert_eq!(rig.product(text).await, Ok(Loaded::not_found()), "{text}");
        }
        assert!(matches!(rig.product("1").await, Ok(Loaded::Found { .. })));
    }
}

#[tokio::test]
async fn strict_integers_are_bound_as_numbers_and_nothing_else_matches() {
    let typed = "SELECT typeof(:n) AS type, :n AS n";
    let rig = Rig::new(typed, |options| options.integers = vec!["n".to_owned()]).await;
    assert_eq!(rig.load(&[("n", "-42")]).await, found(r#"{"type":"integer","n":-42}"#));
    assert_eq!(rig.load(&[("n", "0")]).await, found(r#"{"type":"integer","n":0}"#));
    for text in [" 1", "1 ", "+1", "01", "-0", "-", "", "1.0", "1e3", "9223372036854775808"] {
        assert_eq!(rig.load(&[("n", text)]).await, Ok(Loaded::not_found()), "{text:?}");
    }
    let rig = Rig::new(typed, |_| ()).await;
    assert_eq!(rig.load(&[("n", "-42")]).await, found(r#"{"type":"text","n":"-42"}"#));
}

#[tokio::test]
async fn text_columns_keep_leading_zeros_apart() {
    let rig = Rig::new("SELECT id FROM products WHERE name = :name", |_| ()).await;
    assert_eq!(rig.load(&[("name", "007")]).await, found(r#"{"id":3}"#));
    assert_eq!(rig.load(&[("name", "7")]).await, Ok(Loaded::not_found()));
}

#[tokio::test]
async fn rows_are_an_array_and_may_be_none() {
    let query = "SELECT id, name FROM products WHERE id >= :low AND id <= :high OR id = :low ORDER BY id";
    let rig = Rig::new(query, |options| options.shape = RowShape::Rows).await;
    let all = rig.load(&[("high", "3"), ("low", "2")]).await;
    assert_eq!(all, found(r#"[{"id":2,"name":"Mug"},{"id":3,"name":"007"}]"#));
    assert_eq!(rig.load(&[("low", "7"), ("high", "9")]).await, found("[]"));
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    let rig = Rig::new(endless, |options| options.shape = RowShape::Rows).await;
    assert!(matches!(rig.load(&[]).await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn one_column_is_the_value_itself_and_must_be_json() {
    let query = "SELECT json FROM products WHERE id = :product_id";
    let rig = Rig::new(query, |options| options.shape = RowShape::Column).await;
    assert_eq!(rig.product("1").await, found(r#"{"b":1, "a":2}"#));
    assert_eq!(rig.product("2").await, Ok(Loaded::not_found()));
    assert!(matches!(rig.product("3").await, Err(LoadError::Invalid(_))));
    assert_eq!(rig.product("4").await, Ok(Loaded::not_found()));
    let rig = Rig::new(BY_ID, |options| options.shape = RowShape::Column).await;
    assert!(matches!(rig.product("1").await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn blobs_are_strings_if_they_are_text() {
    let rig = Rig::new("SELECT raw FROM products WHERE id = :product_id", |_| ()).await;
    assert!(matches!(rig.product("1").await, Err(LoadError::Invalid(_))));
    assert_eq!(rig.product("2").await, found(r#"{"raw":"abc"}"#));
}

#[tokio::test]
async fn missing_and_malformed_parameters_are_the_callers_fault() {
    let rig = Rig::new(BY_ID, |_| ()).await;
    assert!(matches!(rig.load(&[("other", "1")]).await, Err(LoadError::Request(_))));
    let params = [Param::new("product_id", vec![0xff])].into_iter().collect();
    let request = LoadRequest { key: Bytes::new(), params };
    assert!(matches!(rig.source.load(request).await, Err(LoadError::Request(_))));
}

#[tokio::test]
async fn a_wrong_query_fails_each_load_as_a_fault_of_the_configuration() {
    let rig = Rig::new("SELECT nothing FROM nowhere", |_| ()).await;
    assert!(matches!(rig.load(&[]).await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn the_source_cannot_write() {
    let rig = Rig::new("DELETE FROM products RETURNING id", |_| ()).await;
    assert!(rig.load(&[]).await.is_err());
    let reader = SqlOptions::new(Database::Sqlite(rig.path()), "SELECT count(*) AS n FROM products");
    let reader = SqlSource::open(reader).expect("good options");
    let loaded = reader.load(LoadRequest { key: Bytes::new(), params: Params::new() }).await;
    assert_eq!(loaded, found(r#"{"n":3}"#));
}

#[tokio::test]
async fn a_database_that_comes_later_is_found() {
    let rig = Rig::without_database(BY_ID, |_| ());
    assert!(matches!(rig.product("1").await, Err(LoadError::Unavailable(_))));
    assert!(!rig.path().exists(), "the source creates nothing");
    make_database(&rig.path()).await;
    assert!(matches!(rig.product("1").await, Ok(Loaded::Found { .. })));
}

#[tokio::test]
async fn a_removed_database_fails_and_recovers_when_it_is_back() {
    let rig = Rig::new(BY_ID, |_| ()).await;
    let before = rig.product("1").await;
    assert!(before.is_ok());
    let aside = rig.dir.path().join("aside.db");
    std::fs::rename(rig.path(), &aside).expect("moved away");
    assert!(matches!(rig.product("1").await, Err(LoadError::Unavailable(_))));
    std::fs::rename(&aside, rig.path()).expect("moved back");
    assert_eq!(rig.product("1").await, before);
}

#[tokio::test]
async fn a_replaced_database_is_read_anew() {
    let rig = Rig::new("SELECT count(*) AS n FROM products", |_| ()).await;
    assert_eq!(rig.load(&[]).await, found(r#"{"n":3}"#));
    let other = rig.dir.path().join("other.db");
    make_database(&other).await;
    let mut connection =
        SqliteConnectOptions::new().filename(&other).connect().await.expect("the other database opens");
    sqlx::raw_sql("DELETE FROM products WHERE id > 1").execute(&mut connection).await.expect("good SQL");
    connection.close().await.expect("the database closes");
    std::fs::rename(&other, rig.path()).expect("replaced");
    assert_eq!(rig.load(&[]).await, found(r#"{"n":1}"#));
}

#[tokio::test]
async fn changes_of_a_writer_are_seen_whatever_its_journal() {
    for journal in ["DELETE", "WAL"] {
        let rig = Rig::new("SELECT name FROM products WHERE id = 1", |_| ()).await;
        let writer = SqliteConnectOptions::new().filename(rig.path());
        let mut writer = writer.connect().await.expect("the database opens");
        for name in ["first", "second"] {
            let change =
                format!("PRAGMA journal_mode = {journal}; UPDATE products SET name = '{name}' WHERE id = 1");
            sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut writer).await.expect("good SQL");
            assert_eq!(rig.load(&[]).await, found(&format!(r#"{{"name":"{name}"}}"#)), "{journal}");
        }
        writer.close().await.expect("the database closes");
        assert_eq!(rig.load(&[]).await, found(r#"{"name":"second"}"#), "{journal}");
    }
}

#[tokio::test]
async fn a_damaged_database_fails_and_recovers_when_it_is_restored_in_place() {
    let rig = Rig::new(BY_ID, |_| ()).await;
    let before = rig.product("1").await;
    let good = std::fs::read(rig.path()).expect("the file can be read");
    std::fs::write(rig.path(), vec![b'#'; good.len()]).expect("damaged in place");
    assert!(matches!(rig.product("1").await, Err(LoadError::Unavailable(_))));
    std::fs::write(rig.path(), b"").expect("emptied in place");
    assert!(rig.product("1").await.is_err());
    std::fs::write(rig.path(), &good).expect("restored in place");
    assert_eq!(rig.product("1").await, before);
}

#[tokio::test]
async fn an_endless_query_is_interrupted_and_frees_its_connection() {
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
        SELECT max(x) FROM n WHERE :go = 'on'";
    let rig = Rig::new(endless, |options| {
        options.connections_max = 1;
        options.query_timeout_ms = 1;
        options.acquire_timeout_ms = 60_000;
    })
    .await;
    // The inner deadline is the query's, the outer one the sum of both: this tells them apart.
    for _ in 0..3 {
        assert_eq!(rig.load(&[("go", "on")]).await, Err(LoadError::Timeout(1)));
    }
    assert_eq!(rig.pool().size(), 1, "the one connection served all three");
}

#[tokio::test]
async fn a_connection_that_does_not_come_free_is_unavailable() {
    let rig = Rig::new(BY_ID, |options| {
        options.connections_max = 1;
        options.acquire_timeout_ms = 1;
        options.query_timeout_ms = 60_000;
    })
    .await;
    let pool = rig.pool();
    let connection = loop {
        // Opening the connection may itself take longer than the millisecond.
        if let Ok(connection) = pool.acquire().await {
            break connection;
        }
    };
    assert!(matches!(rig.product("1").await, Err(LoadError::Unavailable(_))));
    assert_eq!(rig.pool().size(), 1, "being busy opens no further connection");
    drop(connection);
}

#[test]
fn options_are_checked_when_the_source_is_opened() {
    let open = |path: &str, query: &str, integer: Option<&str>| {
        let mut options = SqlOptions::new(Database::Sqlite(path.into()), query);
        options.integers = integer.into_iter().map(str::to_owned).collect();
        SqlSource::open(options).map(|_| ())
    };
    assert_eq!(open("absent/shop.db", BY_ID, Some("product_id")), Ok(()));
    for path in ["", ":memory:", "file:shop.db?mode=memory"] {
        assert!(matches!(open(path, BY_ID, None), Err(SqlError::File { .. })), "{path}");
    }
    assert!(matches!(open("shop.db", "SELECT ?", None), Err(SqlError::Query { at: 7, .. })));
    assert_eq!(open("shop.db", BY_ID, Some("id")), Err(SqlError::NoSuchParameter("id".to_owned())));
    let password = Password::new("secret");
    assert!(!format!("{password:?}").contains("secret"));
}

fn shaped(columns: Columns) -> impl FnOnce(&mut SqlOptions) {
    move |options| options.columns = columns
}

#[tokio::test]
async fn columns_give_version_life_and_tags() {
    let query = "SELECT id, '2024-01-02 03:04:05' AS changed, 1.5 AS life, 'a,b  a' AS tags FROM products \
        WHERE id = :product_id";
    let columns = Columns {
        version: Some("changed".to_owned()),
        ttl: Some("life".to_owned()),
        tags: Some("tags".to_owned()),
        hidden: vec!["life".to_owned(), "tags".to_owned()],
        json: Vec::new(),
    };
    let expected = |value: &'static str, version| {
        let tags = vec!["a".into(), "b".into()];
        Ok(Loaded::Found { value: value.into(), ttl_ms: Some(1_500), version, tags })
    };
    let time = 1_704_164_645_000_000;
    let rig = Rig::new(query, shaped(columns.clone())).await;
    let loaded = rig.product("1").await;
    assert_eq!(loaded, expected(r#"{"id":1,"changed":"2024-01-02 03:04:05"}"#, time));
    assert_eq!(rig.product("9").await, Ok(Loaded::not_found()));
    let in_column = |options: &mut SqlOptions| {
        options.columns = columns.clone();
        options.shape = RowShape::Column;
    };
    assert_eq!(Rig::new(query, in_column).await.product("1").await, expected("1", time));
    let rows = "SELECT id, id * 10 AS changed, 4 - id AS life, CASE id WHEN 2 THEN '[\"b\",7]' ELSE 'a' END AS tags \
        FROM products WHERE id <= 2";
    let in_rows = |options: &mut SqlOptions| {
        options.columns = columns.clone();
        options.shape = RowShape::Rows;
    };
    let loaded = Rig::new(rows, in_rows).await.load(&[]).await;
    let tags = vec!["a".into(), "b".into(), "7".into()];
    let value = r#"[{"id":1,"changed":10},{"id":2,"changed":20}]"#.into();
    assert_eq!(loaded, Ok(Loaded::Found { value, ttl_ms: Some(2_000), version: 20, tags }));
}

#[tokio::test]
async fn columns_that_say_nothing_and_columns_that_say_nonsense() {
    let columns = |name: &str| Columns {
        version: Some(name.to_owned()),
        ttl: Some(name.to_owned()),
        tags: Some(name.to_owned()),
        ..Columns::default()
    };
    let rig = Rig::new("SELECT NULL AS a", shaped(columns("a"))).await;
    assert_eq!(rig.load(&[]).await, found(r#"{"a":null}"#));
    let rig =
        Rig::new("SELECT -1 AS life", shaped(Columns { ttl: Some("life".into()), ..Columns::default() }));
    let value = r#"{"life":-1}"#;
    assert_eq!(rig.await.load(&[]).await, Ok(Loaded::versioned(value, Some(0), 0)));
    for query in ["SELECT 1 AS b", "SELECT 'soon' AS a", "SELECT -1 AS a", "SELECT 1e400 AS b"] {
        let rig = Rig::new(query, shaped(columns("a"))).await;
        assert!(matches!(rig.load(&[]).await, Err(LoadError::Invalid(_))), "{query}");
    }
    let seventeen: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    let query = format!("SELECT '{}' AS a", seventeen.join(","));
    let rig = Rig::new(&query, shaped(Columns { tags: Some("a".into()), ..Columns::default() })).await;
    assert!(matches!(rig.load(&[]).await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn json_columns_become_parts_of_the_value() {
    let columns = Columns { json: vec!["json".to_owned()], ..Columns::default() };
    let rig = Rig::new("SELECT id, json FROM products WHERE id = :product_id", shaped(columns)).await;
    assert_eq!(rig.product("1").await, found(r#"{"id":1,"json":{"b":1, "a":2}}"#));
    assert_eq!(rig.product("2").await, found(r#"{"id":2,"json":null}"#));
    assert!(matches!(rig.product("3").await, Err(LoadError::Invalid(_))));
}

#[tokio::test]
async fn behind_the_cache_warm_values_outlive_the_database() {
    let rig = Rig::new(BY_ID, |_| ()).await;
    let path = rig.path();
    let policy = Policy { jitter_percent: 0, stale_while_revalidate_ms: 0, ..Policy::default() };
    let runtime = tokio::runtime::Handle::current();
    let time = Arc::new(AtomicU64::new(1_000));
    let clock: Clock = {
        let time = time.clone();
        Arc::new(move || time.load(Ordering::SeqCst))
    };
    let cache = Cache::new(policy, Some(Arc::new(rig.source)), runtime, clock, 1);
    let lookup = |id: &'static str, now_ms: u64| {
        time.store(now_ms, Ordering::SeqCst);
        let cache = cache.clone();
        async move {
            match cache.lookup(id.as_bytes(), now_ms, || [Param::new("product_id", id)].into_iter().collect())
            {
                Lookup::Hit(answer) => Ok(answer),
                Lookup::Wait(wait) => wait.await,
                Lookup::Failed(error) => Err(error),
            }
        }
    };
    assert_eq!(lookup("1", 1_000).await.map(|answer| answer.level), Ok(Level::Source));
    assert_eq!(lookup("9", 1_000).await.map(|answer| answer.value), Ok(None));
    std::fs::remove_file(path).expect("removed");
    assert_eq!(lookup("1", 2_000).await.map(|answer| answer.level), Ok(Level::L1));
    assert_eq!(lookup("1", 700_000).await.map(|answer| answer.level), Ok(Level::Stale));
    let failed = lookup("2", 700_000).await.expect_err("never loaded, and the database is gone");
    assert!(failed.retry_may_help());
}

#[tokio::test]
async fn a_path_may_hold_any_character() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("50% off? yes.db");
    make_database(&path).await;
    let options = SqlOptions::new(Database::Sqlite(path), "SELECT :a AS a, :b AS b, :a AS c");
    let source = SqlSource::open(options).expect("good options");
    assert_eq!(source.parameters().collect::<Vec<_>>(), ["a", "b"]);
    let params = Params::from_iter([Param::new("a", "1"), Param::new("b", "2")]);
    let loaded = source.load(LoadRequest { key: Bytes::from_static(b"k"), params }).await;
    assert_eq!(loaded, Ok(Loaded::found(r#"{"a":"1","b":"2","c":"1"}"#)));
}
