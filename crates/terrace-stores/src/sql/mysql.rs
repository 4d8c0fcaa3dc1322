//! MySQL and MariaDB.
//!
//! Values come in the binary protocol of prepared statements (dev.mysql.com: "Binary Protocol Resultset"), and are read
//! by the type of their column. The session is in UTC, reads only, and its queries end by themselves.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use sqlx::mysql::{
    MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Decode, MySql, Row, TypeInfo, ValueRef};

use super::json::{Cell, CellError};
use super::server::{Dialect, Verdict};
use super::{Bound, DatabaseServer, Limits, ServerAddress, millis};

/// How connections are opened.
pub(super) struct MySqlDialect {
    options: MySqlConnectOptions,
    /// What a new session is told.
    setup: String,
}

impl MySqlDialect {
    pub(super) fn new(server: &DatabaseServer, limits: Limits) -> Self {
        let options = MySqlConnectOptions::new()
            .username(&server.user)
            .password(server.password.text())
            .database(&server.database)
            .ssl_mode(MySqlSslMode::Disabled)
            // A source has one query.
            .statement_cache_capacity(4)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .disable_statement_logging();
        let options = match &server.address {
            ServerAddress::Tcp { host, port } => options.host(host).port(*port),
            ServerAddress::Unix(path) => options.socket(path),
        };
        let timeout_ms = millis(limits.query_timeout).max(1);
        // Either server skips the comment that is meant for the other.
        let setup = format!(
            "SET SESSION TRANSACTION READ ONLY; SET @@session.autocommit = 1 \
             /*M!100101 , @@session.max_statement_time = {}.{:03} */ \
             /*!50708 , @@session.max_execution_time = {timeout_ms} */",
            timeout_ms / 1000,
            timeout_ms % 1000,
        );
        Self { options, setup }
    }
}

impl Dialect for MySqlDialect {
    type Connection = MySqlConnection;
    type Row = MySqlRow;

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(self.setup.as_str())).execute(&mut connection).await?;
        Ok(connection)
    }

    fn rows<'c>(
        connection: &'c mut MySqlConnection,
        sql: Arc<str>,
        bounds: Vec<Bound>,
    ) -> Result<BoxStream<'c, Result<MySqlRow, sqlx::Error>>, CellError> {
        let mut arguments = MySqlArguments::default();
        for bound in bounds {
            match bound {
                Bound::Integer(number) => arguments.add(number)?,
                Bound::Text(text) => arguments.add(text)?,
            }
        }
        Ok(sqlx::query_with(AssertSqlSafe(sql), arguments).fetch(connection))
    }

    fn cell(row: &MySqlRow, index: usize) -> Result<Cell, CellError> {
        let raw = row.try_get_raw(index)?;
        // A date of zeros counts as NULL here.
        if raw.is_null() {
            return Ok(Cell::Null);
        }
        let kind = raw.type_info().into_owned();
        let bytes = <&[u8] as Decode<MySql>>::decode(raw)?;
        value(kind.name(), bytes)
    }

    fn verdict(error: &sqlx::Error, code: &str) -> Verdict {
        let number = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .map_or(0, MySqlDatabaseError::number);
        match number {
            // The server shuts down, or has ended the connection: ER_SERVER_SHUTDOWN, ER_NET_READ_INTERRUPTED,
            // ER_NET_WRITE_INTERRUPTED, ER_CONNECTION_KILLED, ER_CLIENT_INTERACTION_TIMEOUT; and a prepared statement
            // that the server does not know (a proxy in between): ER_UNKNOWN_STMT_HANDLER.
            1053 | 1159 | 1161 | 1927 | 4031 | 1243 => Verdict::Lost,
            // ER_STATEMENT_TIMEOUT of MariaDB, ER_QUERY_TIMEOUT of MySQL.
            1969 | 3024 => Verdict::Timeout,
            // Lock waits, deadlocks, too many connections or statements, no memory or disk, interrupted.
            1021 | 1037 | 1038 | 1040 | 1041 | 1135 | 1203 | 1205 | 1213 | 1226 | 1317 | 1461 => {
                Verdict::Unavailable
            }
            _ if code.starts_with("08") => Verdict::Lost,
            _ => Verdict::Invalid,
        }
    }
}

/// Reads one value in the binary protocol by the name of its type.
fn value(kind: &str, bytes: &[u8]) -> Result<Cell, CellError> {
    let unsigned = kind.ends_with(" UNSIGNED");
    Ok(match kind {
        "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT" | "BOOLEAN" | "YEAR" | "TINYINT UNSIGNED"
        | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "INT UNSIGNED" | "BIGINT UNSIGNED" => {
            Cell::Number(integer(bytes, unsigned)?)
        }
        "FLOAT" => Cell::small_float(f32::from_le_bytes(bytes.try_into()?)),
        "DOUBLE" => Cell::float(f64::from_le_bytes(bytes.try_into()?)),
        "DECIMAL" => Cell::Number(decimal(bytes)?),
        "BIT" => {
            let mut number = [0; 8];
            let start = number.len().checked_sub(bytes.len()).ok_or("a BIT of more than 64 bits")?;
            number[start..].copy_from_slice(bytes);
            Cell::Number(u64::from_be_bytes(number).to_string())
        }
        "DATE" | "DATETIME" | "TIMESTAMP" => Cell::Text(date(bytes, kind == "DATE")?),
        "TIME" => Cell::Text(time(bytes)?),
        "JSON" => Cell::Json(std::str::from_utf8(bytes)?.to_owned()),
        // Texts of all lengths, ENUM, SET, and bytes that may be text.
        _ => Cell::text(bytes)?,
    })
}

fn integer(bytes: &[u8], unsigned: bool) -> Result<String, CellError> {
    let high = bytes.last().ok_or("an integer of no bytes")?;
    let fill = if !unsigned && high & 0x80 != 0 { 0xff } else { 0 };
    let mut number = [fill; 8];
    number.get_mut(..bytes.len()).ok_or("an integer of more than 8 bytes")?.copy_from_slice(bytes);
    Ok(if unsigned { u64::from_le_bytes(number).to_string() } else { i64::from_le_bytes(number).to_string() })
}

/// A decimal comes as text; with ZEROFILL it has zeros in front, which JSON forbids.
fn decimal(bytes: &[u8]) -> Result<String, CellError> {
    let text = std::str::from_utf8(bytes)?;
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let stripped = digits.trim_start_matches('0');
    let zero = if stripped.is_empty() || stripped.starts_with('.') { "0" } else { "" };
    Ok(format!("{sign}{zero}{stripped}"))
}

/// Length, year (2 bytes), month, day; then hour, minute, second; then microseconds (4 bytes).
fn date(bytes: &[u8], day_only: bool) -> Result<String, CellError> {
    let part = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let &[_, low, high, month, day, ..] = bytes else { return Err("a date of less than 4 bytes".into()) };
    let year = u16::from_le_bytes([low, high]);
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if !day_only {
        text.push_str(&format!(" {:02}:{:02}:{:02}", part(5), part(6), part(7)));
        push_fraction(&mut text, u32::from_le_bytes([part(8), part(9), part(10), part(11)]));
    }
    Ok(text)
}

/// Length, sign, days (4 bytes), hour, minute, second; then microseconds (4 bytes). No bytes are midnight.
fn time(bytes: &[u8]) -> Result<String, CellError> {
    let part = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let days = u32::from_le_bytes([part(2), part(3), part(4), part(5)]);
    let hours = u64::from(days) * 24 + u64::from(part(6));
    let sign = if part(1) == 0 { "" } else { "-" };
    let mut text = format!("{sign}{hours:02}:{:02}:{:02}", part(7), part(8));
    push_fraction(&mut text, u32::from_le_bytes([part(9), part(10), part(11), part(12)]));
    Ok(text)
}

/// A fraction of a second, where there is one, without zeros at its end.
pub(super) fn push_fraction(text: &mut String, micros: u32) {
    if micros != 0 {
        let digits = format!(".{micros:06}");
        text.push_str(digits.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Cell {
        Cell::Number(text.to_owned())
    }

    fn read(kind: &str, bytes: &[u8]) -> Cell {
        value(kind, bytes).expect("a value")
    }

    #[test]
    fn integers_keep_their_sign() {
        assert_eq!(read("TINYINT", &[0xff]), number("-1"));
        assert_eq!(read("TINYINT UNSIGNED", &[0xff]), number("255"));
        assert_eq!(read("MEDIUMINT", &[0, 0, 0x80, 0xff]), number("-8388608"));
        assert_eq!(read("BIGINT UNSIGNED", &[0xff; 8]), number("18446744073709551615"));
        assert_eq!(read("BIT", &[1, 0]), number("256"));
        assert!(value("BIGINT", &[0; 9]).is_err() && value("INT", &[]).is_err());
    }

    #[test]
    fn decimals_are_numbers_that_json_knows() {
        for (text, expected) in
            [("12.50", "12.50"), ("-0.05", "-0.05"), ("0007.10", "7.10"), ("0", "0"), ("000", "0")]
        {
            assert_eq!(read("DECIMAL", text.as_bytes()), number(expected));
        }
    }

    #[test]
    fn times_are_written_as_the_server_writes_them() {
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(read("DATE", &[4, 0xe8, 7, 2, 29]), text("2024-02-29"));
        assert_eq!(read("DATETIME", &[4, 0xe8, 7, 2, 29]), text("2024-02-29 00:00:00"));
        assert_eq!(read("TIMESTAMP", &[7, 0xe8, 7, 2, 29, 3, 4, 5]), text("2024-02-29 03:04:05"));
        let micros = [11, 0xe8, 7, 2, 29, 3, 4, 5, 0x20, 0xa1, 7, 0];
        assert_eq!(read("DATETIME", &micros), text("2024-02-29 03:04:05.5"));
        assert_eq!(read("TIME", &[0]), text("00:00:00"));
        assert_eq!(read("TIME", &[8, 1, 1, 0, 0, 0, 2, 3, 4]), text("-26:03:04"));
        assert!(value("DATE", &[1]).is_err());
    }
}
