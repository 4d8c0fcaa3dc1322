//! PostgreSQL.
//!
//! A text parameter is declared as `text` and a strict integer as `bigint`; a query that compares another type casts
//! (`:id::uuid`). Sessions are in UTC, read only, and their queries end by themselves.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, PgSslMode, PgTypeInfo, PgTypeKind};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Row, TypeInfo, ValueRef};

use super::json::{Cell, CellError};
use super::pg_values;
use super::server::{Dialect, Verdict};
use super::{Bound, DatabaseServer, Limits, ServerAddress, millis};

/// How connections are opened.
pub(super) struct PostgresDialect {
    options: PgConnectOptions,
    /// What a new session is told.
    setup: String,
}

impl PostgresDialect {
    pub(super) fn new(server: &DatabaseServer, limits: Limits) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .username(&server.user)
            .password(server.password.text())
            .database(&server.database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("terrace")
            // A source has one query.
            .statement_cache_capacity(4)
            .disable_statement_logging();
        let options = match &server.address {
            ServerAddress::Tcp { host, port } => options.host(host).port(*port),
            // The folder of the socket; the port is part of the socket's name.
            ServerAddress::Unix(path) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                match name.strip_prefix(SOCKET_PREFIX).and_then(|port| port.parse().ok()) {
                    Some(port) => options.socket(path.parent().unwrap_or(path)).port(port),
                    None => options.socket(path).port(PORT),
                }
            }
        };
        let timeout_ms = millis(limits.query_timeout).clamp(1, i32::MAX as u64);
        let setup = format!("SET statement_timeout = {timeout_ms}; SET default_transaction_read_only = on");
        Self { options, setup }
    }
}

/// The port of PostgreSQL.
pub(super) const PORT: u16 = 5432;

/// What the name of a server's socket begins with; the port follows.
const SOCKET_PREFIX: &str = ".s.PGSQL.";

impl Dialect for PostgresDialect {
    type Connection = PgConnection;
    type Row = PgRow;

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(self.setup.as_str())).execute(&mut connection).await?;
        Ok(connection)
    }

    fn rows<'c>(
        connection: &'c mut PgConnection,
        sql: Arc<str>,
        bounds: Vec<Bound>,
    ) -> Result<BoxStream<'c, Result<PgRow, sqlx::Error>>, CellError> {
        let mut arguments = PgArguments::default();
        for bound in bounds {
            match bound {
                Bound::Integer(number) => arguments.add(number)?,
                Bound::Text(text) => arguments.add(text)?,
            }
        }
        Ok(sqlx::query_with(AssertSqlSafe(sql), arguments).fetch(connection))
    }

    fn cell(row: &PgRow, index: usize) -> Result<Cell, CellError> {
        let raw = row.try_get_raw(index)?;
        if raw.is_null() {
            return Ok(Cell::Null);
        }
        let kind = raw.type_info().into_owned();
        let bytes = raw.as_bytes()?;
        match kind.kind() {
            PgTypeKind::Array(element) => pg_values::array(base_name(element), bytes),
            _ => pg_values::value(base_name(&kind), bytes),
        }
    }

    fn verdict(error: &sqlx::Error, code: &str) -> Verdict {
        match code {
            // The server shuts down, crashed, or ended an idle session.
            "57P01" | "57P02" | "57P05" => Verdict::Lost,
            // A prepared statement that the server lost, or that a change of a table made useless.
            "26000" => Verdict::Lost,
            "0A000" if error.to_string().contains("cached plan") => Verdict::Lost,
            // query_canceled: what statement_timeout says.
            "57014" => Verdict::Timeout,
            // A parameter that is no number, no time, out of range, or has a character that the database lacks.
            "22P02" | "22003" | "22007" | "22008" | "22021" | "22P05" => Verdict::Request,
            _ => match &code[..code.len().min(2)] {
                "08" => Verdict::Lost,
                // Rolled back, out of resources, not in the right state, operator intervention, system error.
                "40" | "53" | "55" | "57" | "58" => Verdict::Unavailable,
                _ => Verdict::Invalid,
            },
        }
    }
}

/// The name of a type, or of what lies under a domain; enums are text.
fn base_name(kind: &PgTypeInfo) -> &str {
    match kind.kind() {
        PgTypeKind::Domain(under) => base_name(under),
        PgTypeKind::Enum(_) => "TEXT",
        _ => kind.name(),
    }
}
