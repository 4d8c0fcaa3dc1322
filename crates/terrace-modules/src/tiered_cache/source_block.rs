//! `cache_source name { … }`: where the values of a cache come from.

use std::path::PathBuf;
use std::sync::Arc;

use terrace_conf::{ConfError, Node, Position};
use terrace_http::Builder;
use terrace_stores::{RowShape, SqlOptions, SqlSource};

use super::{IN_SOURCE, is_name};

/// A source as configured. It is open, which touches no file.
pub(super) struct SourceSpec {
    pub(super) name: Arc<str>,
    pub(super) options: SqlOptions,
    pub(super) source: Arc<SqlSource>,
    database: PathBuf,
    init_script: Option<PathBuf>,
    at: Position,
}

/// All sources, in their order.
#[derive(Default)]
pub(super) struct Sources(pub(super) Vec<SourceSpec>);

/// A block being read.
#[derive(Default)]
struct Draft {
    driver: Option<()>,
    database: Option<PathBuf>,
    init_script: Option<PathBuf>,
    query: Option<String>,
    shape: Option<RowShape>,
    integers: Vec<String>,
    connections_max: Option<u32>,
    acquire_timeout_ms: Option<u64>,
    query_timeout_ms: Option<u64>,
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
    let missing = |what: &str| node.end_error(format!("no \"{what}\" in cache source \"{name}\""));
    draft.driver.ok_or_else(|| missing("driver"))?;
    let database = draft.database.ok_or_else(|| missing("database"))?;
    let query = draft.query.ok_or_else(|| missing("query"))?;
    let refused = |error| node.end_error(format!("cache source \"{name}\": {error}"));
    let defaults = SqlOptions::sqlite(&database, query).map_err(refused)?;
    let options = SqlOptions {
        shape: draft.shape.unwrap_or(defaults.shape),
        integers: draft.integers,
        connections_max: draft.connections_max.unwrap_or(defaults.connections_max),
        acquire_timeout_ms: draft.acquire_timeout_ms.unwrap_or(defaults.acquire_timeout_ms),
        query_timeout_ms: draft.query_timeout_ms.unwrap_or(defaults.query_timeout_ms),
        ..defaults
    };
    let source = Arc::new(SqlSource::open(options.clone()).map_err(refused)?);
    let init_script = draft.init_script;
    let other = b.state::<Sources>().0.iter().find(|it| it.database == database);
    if let Some(other) = other.filter(|it| it.init_script != init_script) {
        let message = format!(
            "cache source \"{name}\" has another \"init_script\" than \"{}\" for the same database",
            other.name
        );
        return Err(node.end_error(message));
    }
    let at = node.at.clone();
    b.state::<Sources>().0.push(SourceSpec { name: name.into(), options, source, database, init_script, at });
    Ok(())
}

/// Makes the databases that do not exist yet; with `-t`, only looks whether their scripts are there.
pub(super) fn init_databases(b: &mut Builder) -> Result<(), ConfError> {
    let test_only = b.paths.test_only;
    for spec in &b.state::<Sources>().0 {
        let Some(script) = &spec.init_script else { continue };
        let refused =
            |error: String| ConfError::at(&spec.at, format!("cache source \"{}\": {error}", spec.name));
        if !test_only {
            terrace_stores::init(&spec.database, script).map_err(|error| refused(error.to_string()))?;
        } else if !spec.database.exists() {
            std::fs::File::open(script).map_err(|error| {
                refused(format!("the script {} cannot be read: {error}", script.display()))
            })?;
        }
    }
    Ok(())
}

pub(super) fn set_driver(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.one_of(0, &[("sqlite", ())])?;
    node.set_once(&mut b.state::<Draft>().driver, ())
}

pub(super) fn set_database(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    node.set_once(&mut b.state::<Draft>().database, path)
}

pub(super) fn set_init_script(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    node.set_once(&mut b.state::<Draft>().init_script, path)
}

pub(super) fn set_query(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().query, node.text(0)?.to_owned())
}

pub(super) fn set_result(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let shapes = [("row", RowShape::Row), ("rows", RowShape::Rows), ("column", RowShape::Column)];
    let shape = node.one_of(0, &shapes)?;
    node.set_once(&mut b.state::<Draft>().shape, shape)
}

pub(super) fn set_integers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        let name = arg.text()?.to_owned();
        b.state::<Draft>().integers.push(name);
    }
    Ok(())
}

pub(super) fn set_max_connections(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let max: u32 = node.number(0)?;
    if max == 0 {
        return Err(node.error("\"max_connections\" must be at least 1"));
    }
    node.set_once(&mut b.state::<Draft>().connections_max, max)
}

pub(super) fn set_connection_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().acquire_timeout_ms, node.time_ms(0)?)
}

pub(super) fn set_query_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().query_timeout_ms, node.time_ms(0)?)
}
