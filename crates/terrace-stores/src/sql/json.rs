//! Rows to JSON. Integers and reals become numbers, text becomes strings, NULL becomes null.
//!
//! A real that JSON cannot express (an infinity) becomes null. A blob becomes a string if it is UTF-8, and fails
//! the load if not. Of columns with the same name the last one counts.

use std::ops::ControlFlow;

use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Column, Decode, Row, Sqlite, TypeInfo, ValueRef};
use terrace_cache::{LoadError, Loaded};

use super::{ROWS_MAX, RowShape, VALUE_BYTES_MAX};

/// Takes rows one by one and makes the value of them.
pub(super) struct Shaper {
    shape: RowShape,
    /// The JSON so far; `None` until there is a value.
    json: Option<Vec<u8>>,
    rows: usize,
}

impl Shaper {
    pub(super) fn new(shape: RowShape) -> Self {
        Self { shape, json: None, rows: 0 }
    }

    /// Takes a row; breaks when no further row is wanted.
    pub(super) fn add(&mut self, row: &SqliteRow) -> Result<ControlFlow<()>, LoadError> {
        self.rows += 1;
        match self.shape {
            RowShape::Row => {
                self.json = Some(object(row)?);
                self.check_size()?;
                Ok(ControlFlow::Break(()))
            }
            RowShape::Column => {
                self.json = only_column(row)?;
                self.check_size()?;
                Ok(ControlFlow::Break(()))
            }
            RowShape::Rows => {
                if self.rows > ROWS_MAX {
                    return Err(LoadError::Invalid(
                        format!("the result has more than {ROWS_MAX} rows").into(),
                    ));
                }
                let object = object(row)?;
                let json = self.json.get_or_insert_with(Vec::new);
                json.push(if json.is_empty() { b'[' } else { b',' });
                json.extend_from_slice(&object);
                self.check_size()?;
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// The value, when no row is left.
    pub(super) fn finish(self) -> Result<Loaded, LoadError> {
        Ok(match (self.shape, self.json) {
            (RowShape::Rows, json) => {
                let mut json = json.unwrap_or_else(|| b"[".to_vec());
                json.push(b']');
                Loaded::found(json)
            }
            (_, Some(json)) => Loaded::found(json),
            (_, None) => Loaded::not_found(),
        })
    }

    fn check_size(&self) -> Result<(), LoadError> {
        match &self.json {
            Some(json) if json.len() > VALUE_BYTES_MAX => {
                Err(LoadError::Invalid(format!("the value is larger than {VALUE_BYTES_MAX} bytes").into()))
            }
            _ => Ok(()),
        }
    }
}

fn object(row: &SqliteRow) -> Result<Vec<u8>, LoadError> {
    let mut object = Map::with_capacity(row.columns().len());
    for (index, column) in row.columns().iter().enumerate() {
        let raw = row.try_get_raw(index).map_err(|error| invalid(column.name(), error.into()))?;
        object.insert(column.name().to_owned(), scalar(column.name(), raw)?);
    }
    serde_json::to_vec(&object).map_err(|error| LoadError::Invalid(error.to_string().into()))
}

fn only_column(row: &SqliteRow) -> Result<Option<Vec<u8>>, LoadError> {
    let [column] = row.columns() else {
        return Err(LoadError::Invalid(
            format!("the result has {} columns, not one", row.columns().len()).into(),
        ));
    };
    let raw = row.try_get_raw(0).map_err(|error| invalid(column.name(), error.into()))?;
    match scalar(column.name(), raw)? {
        Value::Null => Ok(None),
        Value::String(text) => match serde_json::from_str::<Value>(&text) {
            Ok(_) => Ok(Some(text.into_bytes())),
            Err(error) => Err(invalid(column.name(), error.into())),
        },
        number => Ok(Some(number.to_string().into_bytes())),
    }
}

fn scalar(column: &str, raw: SqliteValueRef<'_>) -> Result<Value, LoadError> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    // The type of the value itself; in SQLite it need not be the column's.
    let value = match raw.type_info().name() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(raw).map(Value::from),
        "REAL" => <f64 as Decode<Sqlite>>::decode(raw).map(Value::from),
        "BLOB" => <Vec<u8> as Decode<Sqlite>>::decode(raw)
            .and_then(|bytes| String::from_utf8(bytes).map_err(Into::into))
            .map(Value::from),
        _ => <String as Decode<Sqlite>>::decode(raw).map(Value::from),
    };
    value.map_err(|error| invalid(column, error))
}

fn invalid(column: &str, error: Box<dyn std::error::Error + Send + Sync>) -> LoadError {
    LoadError::Invalid(format!("column {column}: {error}").into())
}
