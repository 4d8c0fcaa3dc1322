//! Rows to JSON, whatever database they come from; and what their columns say about the value: version, life and tags.
//!
//! Invariant: numbers keep the digits that the database has, so a decimal loses nothing on its way. Of columns with the
//! same name the last one counts.

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;
use sqlx::{Column, Row};
use terrace_cache::{LoadError, Loaded, TAGS_MAX, Version, version};

use super::{Columns, ROWS_MAX, RowShape, VALUE_BYTES_MAX};

/// Why a column's value cannot be read.
pub(super) type CellError = Box<dyn std::error::Error + Send + Sync>;

/// The value of one column of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// A number as JSON writes it.
    Number(String),
    Text(String),
    /// A text that is JSON.
    Json(String),
}

impl Cell {
    /// A float; null where JSON has no word for it.
    pub(super) fn float(value: f64) -> Self {
        if value.is_finite() { Self::Number(Value::from(value).to_string()) } else { Self::Null }
    }

    /// A float of four bytes, with as many digits as it has.
    pub(super) fn small_float(value: f32) -> Self {
        match serde_json::to_string(&value) {
            Ok(text) if value.is_finite() => Self::Number(text),
            _ => Self::Null,
        }
    }

    /// Bytes that are text.
    pub(super) fn text(bytes: &[u8]) -> Result<Self, CellError> {
        Ok(Self::Text(std::str::from_utf8(bytes)?.to_owned()))
    }

    /// As JSON.
    pub(super) fn json(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) | Self::Json(text) => text,
            Self::Text(text) => Value::from(text).to_string(),
        }
    }
}

/// What is done with the columns of one result; made from its first row.
struct Plan {
    /// The columns that the value has: index, `"name":`, and whether it is a text that holds JSON.
    members: Vec<(usize, String, bool)>,
    version: Option<usize>,
    ttl: Option<usize>,
    tags: Option<usize>,
}

/// Takes rows one by one and makes the value of them.
pub(super) struct Shaper<'a> {
    shape: RowShape,
    columns: &'a Columns,
    plan: Option<Plan>,
    /// The JSON so far; `None` until there is a value.
    json: Option<Vec<u8>>,
    rows: usize,
    version: Version,
    ttl_ms: Option<u64>,
    tags: Vec<Arc<str>>,
}

impl<'a> Shaper<'a> {
    pub(super) fn new(shape: RowShape, columns: &'a Columns) -> Self {
        Self { shape, columns, plan: None, json: None, rows: 0, version: 0, ttl_ms: None, tags: Vec::new() }
    }

    /// Takes a row, whose columns `cell` reads; breaks when no further row is wanted.
    pub(super) fn add<R: Row>(
        &mut self,
        row: &R,
        cell: impl Fn(&R, usize) -> Result<Cell, CellError>,
    ) -> Result<ControlFlow<()>, LoadError> {
        let names: Vec<&str> = row.columns().iter().map(Column::name).collect();
        let read = |index: usize| cell(row, index).map_err(|error| invalid(names[index], error));
        self.rows += 1;
        if self.rows > ROWS_MAX {
            return Err(LoadError::Invalid(format!("the result has more than {ROWS_MAX} rows").into()));
        }
        let plan = match self.plan.take() {
            Some(plan) => plan,
            None => Plan::new(&names, self.columns, self.shape)?,
        };
        self.note(&plan, &names, &read)?;
        let mut json = self.json.take().unwrap_or_default();
        let more = match self.shape {
            RowShape::Row => {
                object(&plan, &names, &read, &mut json)?;
                self.json = Some(json);
                ControlFlow::Break(())
            }
            RowShape::Column => {
                self.json = only_column(&plan, &names, &read)?;
                ControlFlow::Break(())
            }
            RowShape::Rows => {
                json.push(if json.is_empty() { b'[' } else { b',' });
                object(&plan, &names, &read, &mut json)?;
                self.json = Some(json);
                ControlFlow::Continue(())
            }
        };
        self.plan = Some(plan);
        match &self.json {
            Some(json) if json.len() > VALUE_BYTES_MAX => {
                Err(LoadError::Invalid(format!("the value is larger than {VALUE_BYTES_MAX} bytes").into()))
            }
            _ => Ok(more),
        }
    }

    /// The value, when no row is left.
    pub(super) fn finish(mut self) -> Loaded {
        let value = match (self.shape, self.json.take()) {
            (RowShape::Rows, json) => {
                let mut json = json.unwrap_or_else(|| b"[".to_vec());
                json.push(b']');
                json
            }
            (_, Some(json)) => json,
            (_, None) => return Loaded::NotFound { ttl_ms: self.ttl_ms },
        };
        Loaded::Found { value: value.into(), ttl_ms: self.ttl_ms, version: self.version, tags: self.tags }
    }

    /// Takes in what a row says about the value: the newest version, the shortest life and all tags count.
    fn note(
        &mut self,
        plan: &Plan,
        names: &[&str],
        read: &impl Fn(usize) -> Result<Cell, LoadError>,
    ) -> Result<(), LoadError> {
        if let Some(index) = plan.version {
            self.version = self.version.max(version_of(names[index], read(index)?)?);
        }
        if let Some(index) = plan.ttl
            && let Some(ttl_ms) = ttl_of(names[index], read(index)?)?
        {
            self.ttl_ms = Some(self.ttl_ms.map_or(ttl_ms, |known| known.min(ttl_ms)));
        }
        if let Some(index) = plan.tags {
            for tag in tags_of(names[index], read(index)?)? {
                if !self.tags.iter().any(|known| **known == *tag) {
                    self.tags.push(tag.into());
                }
            }
            if self.tags.len() > TAGS_MAX {
                return Err(LoadError::Invalid(format!("the value has more than {TAGS_MAX} tags").into()));
            }
        }
        Ok(())
    }
}

impl Plan {
    fn new(names: &[&str], columns: &Columns, shape: RowShape) -> Result<Self, LoadError> {
        let place = |wanted: &Option<String>, directive: &str| match wanted {
            None => Ok(None),
            Some(wanted) => names.iter().rposition(|name| name == wanted).map(Some).ok_or_else(|| {
                LoadError::Invalid(
                    format!("the result has no column {wanted}, the {directive} column").into(),
                )
            }),
        };
        let version = place(&columns.version, "version")?;
        let ttl = place(&columns.ttl, "ttl")?;
        let tags = place(&columns.tags, "tags")?;
        let special = |index: usize| [version, ttl, tags].contains(&Some(index));
        let is_member = |&(index, name): &(usize, &&str)| {
            let is_hidden = columns.hidden.iter().any(|hidden| hidden == *name);
            let is_beside = shape == RowShape::Column && special(index);
            !(is_hidden || is_beside || names[index + 1..].contains(name))
        };
        let member = |(index, name): (usize, &&str)| {
            (index, format!("{}:", Value::from(*name)), columns.json.iter().any(|json| json == *name))
        };
        let members: Vec<_> = names.iter().enumerate().filter(is_member).map(member).collect();
        if shape == RowShape::Column && members.len() != 1 {
            return Err(LoadError::Invalid(
                format!("the result has {} columns for the value, not one", members.len()).into(),
            ));
        }
        Ok(Self { members, version, ttl, tags })
    }
}

fn object(
    plan: &Plan,
    names: &[&str],
    read: &impl Fn(usize) -> Result<Cell, LoadError>,
    out: &mut Vec<u8>,
) -> Result<(), LoadError> {
    out.push(b'{');
    for (place, (index, head, is_json)) in plan.members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(head.as_bytes());
        match read(*index)? {
            Cell::Text(text) if *is_json => out.extend_from_slice(checked(names[*index], &text)?.as_bytes()),
            cell => out.extend_from_slice(cell.json().as_bytes()),
        }
    }
    out.push(b'}');
    Ok(())
}

fn only_column(
    plan: &Plan,
    names: &[&str],
    read: &impl Fn(usize) -> Result<Cell, LoadError>,
) -> Result<Option<Vec<u8>>, LoadError> {
    let index = plan.members[0].0;
    match read(index)? {
        Cell::Null => Ok(None),
        Cell::Text(text) => Ok(Some(checked(names[index], &text)?.as_bytes().to_vec())),
        cell => Ok(Some(cell.json().into_bytes())),
    }
}

/// The text, if it is JSON.
fn checked<'t>(column: &str, text: &'t str) -> Result<&'t str, LoadError> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Ok(text),
        Err(error) => Err(invalid(column, error.into())),
    }
}

fn version_of(column: &str, cell: Cell) -> Result<Version, LoadError> {
    match &cell {
        Cell::Null => Ok(0),
        Cell::Number(text) | Cell::Text(text) => version::from_text(text)
            .ok_or_else(|| invalid(column, format!("\"{text}\" is neither a number nor a time").into())),
        Cell::Bool(_) | Cell::Json(_) => Err(invalid(column, "it is neither a number nor a time".into())),
    }
}

/// Milliseconds from a number of seconds.
fn ttl_of(column: &str, cell: Cell) -> Result<Option<u64>, LoadError> {
    let seconds = match &cell {
        Cell::Null => return Ok(None),
        Cell::Number(text) | Cell::Text(text) => text.trim().parse::<f64>().ok(),
        Cell::Bool(_) | Cell::Json(_) => None,
    };
    match seconds.filter(|seconds| !seconds.is_nan()) {
        // A life that has ended stores nothing; the conversion ends at the type's bounds.
        Some(seconds) => Ok(Some((seconds.max(0.0) * 1000.0) as u64)),
        None => Err(invalid(column, "it is no number of seconds".into())),
    }
}

/// Tags from a text with commas or blanks between them, or from an array in JSON.
fn tags_of(column: &str, cell: Cell) -> Result<Vec<String>, LoadError> {
    let text = match cell {
        Cell::Null => return Ok(Vec::new()),
        Cell::Text(text) | Cell::Json(text) | Cell::Number(text) => text,
        Cell::Bool(_) => return Err(invalid(column, "it holds no tags".into())),
    };
    if !text.starts_with('[') {
        let tags = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|tag| !tag.is_empty());
        return Ok(tags.map(str::to_owned).collect());
    }
    let tags: Vec<Value> = serde_json::from_str(&text).map_err(|error| invalid(column, error.into()))?;
    let tag = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(invalid(column, "a tag is neither a text nor a number".into())),
    };
    tags.into_iter().map(tag).collect()
}

fn invalid(column: &str, error: CellError) -> LoadError {
    LoadError::Invalid(format!("column {column}: {error}").into())
}
