//! `cache_source name { … }`: where the values of a cache come from.
//!
//! Every directive knows the drivers that it is for, so that one which would do nothing is refused where it stands.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use terrace_cache::Source;
use terrace_conf::{ConfError, Node, Position};
use terrace_http::Builder;
use terrace_stores::{
    BreakerOptions, BreakerStats, Columns, Database, DatabaseServer, Guarded, HttpOptions, HttpSource,
    MYSQL_PORT, POSTGRES_PORT, Password, RowShape, ServerAddress, SqlOptions, SqlSource,
};

use super::{IN_SOURCE, is_name};

/// The longest password file.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

/// What is needed to open a source; two that are equal may share one.
#[derive(Clone, PartialEq)]
pub(super) struct SourceOptions {
    kind: Kind,
    breaker: Option<BreakerOptions>,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Sql(SqlOptions),
    Http(HttpOptions),
}

/// An open source, which has touched neither file nor network yet.
#[derive(Clone)]
pub(super) struct OpenSource {
    pub(super) source: Arc<dyn Source>,
    guarded: Option<Arc<Guarded>>,
}

impl OpenSource {
    /// What its breaker did; none without one.
    pub(super) fn breaker(&self) -> Option<BreakerStats> {
        self.guarded.as_ref().map(|it| it.stats())
    }
}

/// A source as configured.
pub(super) struct SourceSpec {
    pub(super) name: Arc<str>,
    pub(super) options: SourceOptions,
    pub(super) open: OpenSource,
    /// The parameters that each load needs.
    pub(super) parameters: Vec<String>,
    /// SQLite's file, and the script that makes it.
    file: Option<(PathBuf, Option<PathBuf>)>,
    at: Position,
}

/// All sources, in their order.
#[derive(Default)]
pub(super) struct Sources(pub(super) Vec<SourceSpec>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Sqlite,
    MySql,
    Postgres,
    Http,
}

use Driver::{Http, MySql, Postgres, Sqlite};

const DRIVERS: &[(&str, Driver)] =
    &[("sqlite", Sqlite), ("mysql", MySql), ("postgres", Postgres), ("http", Http)];

impl Driver {
    fn name(self) -> &'static str {
        DRIVERS.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }
}

/// The directives that are not for every driver.
const ONLY: &[(&str, &[Driver])] = &[
    ("database", SQL),
    ("init_script", &[Sqlite]),
    ("server", &[MySql, Postgres]),
    ("user", &[MySql, Postgres]),
    ("password", &[MySql, Postgres]),
    ("password_file", &[MySql, Postgres]),
    ("query", SQL),
    ("result", SQL),
    ("version_column", SQL),
    ("ttl_column", SQL),
    ("tags_column", SQL),
    ("hide_columns", SQL),
    ("json_columns", SQL),
    ("url", &[Http]),
    ("header", &[Http]),
    ("honor_cache_control", &[Http]),
    ("version_header", &[Http]),
    ("max_body", &[Http]),
];

const SQL: &[Driver] = &[Sqlite, MySql, Postgres];

/// A block being read.
#[derive(Default)]
struct Draft {
    driver: Option<Driver>,
    /// The directives that were given, and where.
    given: Vec<(String, Position)>,
    database: Option<String>,
    init_script: Option<PathBuf>,
    server: Option<String>,
    user: Option<String>,
    password: Option<Password>,
    query: Option<String>,
    shape: Option<RowShape>,
    columns: Columns,
    integers: Vec<String>,
    connections_max: Option<u32>,
    acquire_timeout_ms: Option<u64>,
    query_timeout_ms: Option<u64>,
    url: Option<String>,
    headers: Vec<(String, String)>,
    honor_cache_control: Option<bool>,
    version_header: Option<String>,
    body_bytes_max: Option<u64>,
    breaker: Option<Option<BreakerOptions>>,
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    if !is_name(name) {
        return Err(node.error(format!("invalid cache source name \"{name}\"")));
    }
    if b.state::<Sources>().0.iter().any(|it| *it.name == *name) {
        return Err(node.error(format!("duplicate cache source \"{name}\"")));
    }
    *b.state::<Draft>() = Draft::default();
    b.nested(IN_SOURCE, node)?;
    let draft = std::mem::take(b.state::<Draft>());
    let Some(driver) = draft.driver else {
        return Err(node.end_error(format!("no \"driver\" in cache source \"{name}\"")));
    };
    draft.check(driver)?;
    let missing = |what: &str| {
        let driver = driver.name();
        node.end_error(format!("no \"{what}\" in cache source \"{name}\", which \"driver {driver}\" needs"))
    };
    let refused = |error: String| node.end_error(format!("cache source \"{name}\": {error}"));
    let breaker = draft.breaker.flatten();
    let (kind, source, parameters, file): (_, Arc<dyn Source>, Vec<String>, _) = if driver == Http {
        let options = draft.http().ok_or_else(|| missing("url"))?;
        let source = HttpSource::open(options.clone()).map_err(|error| refused(error.to_string()))?;
        let parameters = source.parameters().map(str::to_owned).collect();
        (Kind::Http(options), Arc::new(source), parameters, None)
    } else {
        let database = draft.database.clone().ok_or_else(|| missing("database"))?;
        let file = (driver == Sqlite).then(|| (b.full_path(&database), draft.init_script.clone()));
        let database = match (&file, driver) {
            (Some((path, _)), _) => Database::Sqlite(path.clone()),
            (None, Postgres) => {
                Database::Postgres(draft.server(database, POSTGRES_PORT, &missing, &refused)?)
            }
            (None, _) => Database::MySql(draft.server(database, MYSQL_PORT, &missing, &refused)?),
        };
        let options = draft.sql(database).ok_or_else(|| missing("query"))?;
        let source = SqlSource::open(options.clone()).map_err(|error| refused(error.to_string()))?;
        let parameters = source.parameters().map(str::to_owned).collect();
        (Kind::Sql(options), Arc::new(source), parameters, file)
    };
    if let Some((path, script)) = &file {
        check_script(b, node, name, path, script)?;
    }
    let (open, options) = (guard(source, breaker), SourceOptions { kind, breaker });
    let (name, at) = (name.into(), node.at.clone());
    b.state::<Sources>().0.push(SourceSpec { name, options, open, parameters, file, at });
    Ok(())
}

fn guard(source: Arc<dyn Source>, breaker: Option<BreakerOptions>) -> OpenSource {
    match breaker {
        None => OpenSource { source, guarded: None },
        Some(options) => {
            let guarded = Arc::new(Guarded::new(source, options));
            OpenSource { source: guarded.clone(), guarded: Some(guarded) }
        }
    }
}

impl Draft {
    /// Refuses directives that the driver has no use for.
    fn check(&self, driver: Driver) -> Result<(), ConfError> {
        for (name, at) in &self.given {
            let only = ONLY.iter().find(|(it, _)| it == name);
            if let Some((_, drivers)) = only.filter(|(_, drivers)| !drivers.contains(&driver)) {
                let names: Vec<_> = drivers.iter().map(|it| it.name()).collect();
                let error = ConfError::at(at, format!("\"{name}\" is not for \"driver {}\"", driver.name()));
                return Err(error.with_hint(format!("it is for {}", names.join(", "))));
            }
        }
        Ok(())
    }

    fn server(
        &self,
        database: String,
        port: u16,
        missing: &impl Fn(&str) -> ConfError,
        refused: &impl Fn(String) -> ConfError,
    ) -> Result<DatabaseServer, ConfError> {
        let server = self.server.as_deref().ok_or_else(|| missing("server"))?;
        let address = address(server, port).ok_or_else(|| refused(format!("invalid server \"{server}\"")))?;
        let user = self.user.clone().ok_or_else(|| missing("user"))?;
        Ok(DatabaseServer { address, database, user, password: self.password.clone().unwrap_or_default() })
    }

    fn sql(self, database: Database) -> Option<SqlOptions> {
        let defaults = SqlOptions::new(database, self.query?);
        Some(SqlOptions {
            shape: self.shape.unwrap_or(defaults.shape),
            columns: self.columns,
            integers: self.integers,
            connections_max: self.connections_max.unwrap_or(defaults.connections_max),
            acquire_timeout_ms: self.acquire_timeout_ms.unwrap_or(defaults.acquire_timeout_ms),
            query_timeout_ms: self.query_timeout_ms.unwrap_or(defaults.query_timeout_ms),
            ..defaults
        })
    }

    fn http(self) -> Option<HttpOptions> {
        let defaults = HttpOptions::new(self.url?);
        let body_bytes_max = self.body_bytes_max.and_then(|bytes| usize::try_from(bytes).ok());
        Some(HttpOptions {
            headers: self.headers,
            integers: self.integers,
            honor_cache_control: self.honor_cache_control.unwrap_or(defaults.honor_cache_control),
            version_header: self.version_header,
            body_bytes_max: body_bytes_max.unwrap_or(defaults.body_bytes_max),
            connections_max: self.connections_max.unwrap_or(defaults.connections_max),
            acquire_timeout_ms: self.acquire_timeout_ms.unwrap_or(defaults.acquire_timeout_ms),
            query_timeout_ms: self.query_timeout_ms.unwrap_or(defaults.query_timeout_ms),
            ..defaults
        })
    }
}

/// `host`, `host:port`, `[address]:port` or `unix:path`.
fn address(text: &str, port: u16) -> Option<ServerAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return (!path.is_empty()).then(|| ServerAddress::Unix(path.into()));
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if rest.is_empty() => port,
        None => return None,
    };
    (!host.is_empty()).then(|| ServerAddress::Tcp { host: host.to_owned(), port })
}

/// Sources of one file must agree on how it is made.
fn check_script(
    b: &mut Builder,
    node: &Node,
    name: &str,
    path: &PathBuf,
    script: &Option<PathBuf>,
) -> Result<(), ConfError> {
    let differs =
        |it: &&SourceSpec| it.file.as_ref().is_some_and(|file| file.0 == *path && file.1 != *script);
    match b.state::<Sources>().0.iter().find(differs) {
        None => Ok(()),
        Some(other) => Err(node.end_error(format!(
            "cache source \"{name}\" has another \"init_script\" than \"{}\" for the same database",
            other.name
        ))),
    }
}

/// Makes the databases that do not exist yet; with `-t`, only looks whether their scripts are there.
pub(super) fn init_databases(b: &mut Builder) -> Result<(), ConfError> {
    let test_only = b.paths.test_only;
    for spec in &b.state::<Sources>().0 {
        let Some((database, Some(script))) = &spec.file else { continue };
        let refused =
            |error: String| ConfError::at(&spec.at, format!("cache source \"{}\": {error}", spec.name));
        if !test_only {
            terrace_stores::init(database, script).map_err(|error| refused(error.to_string()))?;
        } else if !database.exists() {
            std::fs::File::open(script).map_err(|error| {
                refused(format!("the script {} cannot be read: {error}", script.display()))
            })?;
        }
    }
    Ok(())
}

/// The block being read, where a directive is noted.
fn draft<'b>(b: &'b mut Builder, node: &Node) -> &'b mut Draft {
    let draft = b.state::<Draft>();
    draft.given.push((node.name.to_string(), node.at.clone()));
    draft
}

macro_rules! values {
    ($($set:ident $field:ident $read:ident),* $(,)?) => {
        $(pub(super) fn $set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
            let value = node.$read(0)?.to_owned();
            node.set_once(&mut draft(b, node).$field, value)
        })*
    };
}

values! {
    set_database database text,
    set_server server text,
    set_user user text,
    set_query query text,
    set_connection_timeout acquire_timeout_ms time_ms,
    set_query_timeout query_timeout_ms time_ms,
    set_url url text,
    set_honor_cache_control honor_cache_control flag,
    set_version_header version_header text,
    set_max_body body_bytes_max size,
}

macro_rules! columns {
    ($($set:ident $field:ident),* $(,)?) => {
        $(pub(super) fn $set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
            let name = node.text(0)?.to_owned();
            node.set_once(&mut draft(b, node).columns.$field, name)
        })*
    };
}

columns! {
    set_version_column version,
    set_ttl_column ttl,
    set_tags_column tags,
}

pub(super) fn set_driver(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let driver = node.one_of(0, DRIVERS)?;
    node.set_once(&mut b.state::<Draft>().driver, driver)
}

pub(super) fn set_init_script(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    node.set_once(&mut draft(b, node).init_script, path)
}

pub(super) fn set_header(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let header = (node.text(0)?.to_owned(), node.text(1)?.to_owned());
    draft(b, node).headers.push(header);
    Ok(())
}

pub(super) fn set_password(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let password = Password::new(node.text(0)?);
    put_password(b, node, password)
}

fn put_password(b: &mut Builder, node: &Node, password: Password) -> Result<(), ConfError> {
    let draft = draft(b, node);
    let is_other = |(name, _): &(String, Position)| *name != node.name && name.starts_with("password");
    if draft.given.iter().any(is_other) {
        return Err(node.error("\"password\" and \"password_file\" exclude each other"));
    }
    node.set_once(&mut draft.password, password)
}

pub(super) fn set_password_file(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    let refused = |reason: String| node.error(format!("the password file {}: {reason}", path.display()));
    let size = std::fs::metadata(&path).map_err(|error| refused(error.to_string()))?.len();
    if size > PASSWORD_FILE_BYTES_MAX {
        return Err(refused(format!("it is larger than {PASSWORD_FILE_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
    let password = Password::new(text.lines().next().unwrap_or_default());
    put_password(b, node, password)
}

pub(super) fn set_result(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let shapes = [("row", RowShape::Row), ("rows", RowShape::Rows), ("column", RowShape::Column)];
    let shape = node.one_of(0, &shapes)?;
    node.set_once(&mut draft(b, node).shape, shape)
}

pub(super) fn set_integers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let names = texts(node)?;
    draft(b, node).integers.extend(names);
    Ok(())
}

pub(super) fn set_hide_columns(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let names = texts(node)?;
    draft(b, node).columns.hidden.extend(names);
    Ok(())
}

pub(super) fn set_json_columns(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let names = texts(node)?;
    draft(b, node).columns.json.extend(names);
    Ok(())
}

fn texts(node: &Node) -> Result<Vec<String>, ConfError> {
    node.args.iter().map(|arg| Ok(arg.text()?.to_owned())).collect()
}

pub(super) fn set_max_connections(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let max: u32 = node.number(0)?;
    if max == 0 {
        return Err(node.error("\"max_connections\" must be at least 1"));
    }
    node.set_once(&mut draft(b, node).connections_max, max)
}

pub(super) fn set_breaker(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut options = BreakerOptions::default();
    let is_off = matches!(&node.args[..], [arg] if arg.value == "off");
    for param in node.params(0).filter(|_| !is_off) {
        match param.name {
            b"failures" => options.failures = param.number::<u32>()?,
            b"open" => options.open_ms = param.time_ms()?,
            b"window" => options.window_ms = param.time_ms()?,
            b"loads" => options.loads_min = param.number::<u32>()?,
            b"share" => {
                let percent = param.text()?.strip_suffix('%').and_then(|it| it.parse().ok());
                let percent = percent.filter(|it| (1..=100).contains(it)).ok_or_else(|| param.error())?;
                options.share_percent = Some(percent);
            }
            _ => return Err(node.invalid_parameter(param.arg)),
        }
    }
    if options.failures == 0 || options.loads_min == 0 || options.open_ms == 0 || options.window_ms < 10 {
        return Err(
            node.error("\"breaker\" needs failures, loads and open above zero and a window of 10ms or more")
        );
    }
    node.set_once(&mut draft(b, node).breaker, (!is_off).then_some(options))
}
