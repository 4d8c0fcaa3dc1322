//! How a key is made of a message's fields: `product_info_$productId`, `order_${payload.after.id}`.
//!
//! `$name` ends where the letters, digits and underscores end; a dotted path takes braces; `$$` is one dollar.

use serde_json::Value;

use super::path::{Choice, Path, Place};
use super::{Fault, KEY_BYTES_MAX, MappingError};

/// A text with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Path),
}

/// What a template became.
pub(super) enum Rendered<'v> {
    /// The text.
    Text(String),
    /// Nothing yet: an element of this list has to be chosen first.
    List(&'v [Value]),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a dollar is followed by no field, a brace is not closed, or a path is malformed.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            literal.push_str(&rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let name = match rest.strip_prefix('{') {
                Some(inner) => {
                    let Some(end) = inner.find('}') else {
                        return Err(MappingError::Brace(text.into()));
                    };
                    rest = &inner[end + 1..];
                    &inner[..end]
                }
                None => {
                    let end =
                        rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                    let (name, after) = rest.split_at(end);
                    rest = after;
                    name
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Field(Path::parse(name)?));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self(parts))
    }

    /// Fills the fields in. Numbers must be whole: a fraction, or a number that lost digits, would be another key.
    pub(super) fn render<'v>(&self, root: &'v Value, choices: &[Choice<'v>]) -> Result<Rendered<'v>, Fault> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(path) => match path.follow(root, choices) {
                    Place::List(list) => return Ok(Rendered::List(list)),
                    Place::Value(Value::String(text)) => out.push_str(text),
                    Place::Value(Value::Bool(flag)) => out.push_str(if *flag { "true" } else { "false" }),
                    Place::Value(Value::Number(number)) if !number.is_f64() => {
                        out.push_str(&number.to_string())
                    }
                    Place::Missing | Place::Value(Value::Null) => {
                        return Err(Fault::Missing(path.as_str().into()));
                    }
                    Place::Value(_) => return Err(Fault::NotScalar(path.as_str().into())),
                },
            }
            if out.len() > KEY_BYTES_MAX {
                return Err(Fault::KeyTooLong);
            }
        }
        Ok(Rendered::Text(out))
    }
}
