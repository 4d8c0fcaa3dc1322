//! Sizes that may depend on the request (nginx's complex sizes).

use terrace_base::log::Level;
use terrace_base::units;
use terrace_conf::{ConfError, Node};

use crate::{Builder, Request, Value};

/// A size in bytes, as configured.
#[derive(Debug, Clone)]
pub enum Size {
    /// The same for all requests.
    Fixed(u64),
    /// What a value with variables says.
    Computed(Value),
}

impl Size {
    /// The first word of a directive.
    ///
    /// # Errors
    /// A word without variables that is no size.
    pub fn read(b: &mut Builder, node: &Node) -> Result<Size, ConfError> {
        let value = Value::compile(b, node.arg(0)?)?;
        Ok(match value.as_literal() {
            None => Size::Computed(value),
            Some(_) => Size::Fixed(node.size(0)?),
        })
    }

    /// The size for a request. An empty value stands for 0, and so does one that is no size, which is logged.
    pub fn bytes(&self, r: &Request) -> u64 {
        let text = match self {
            Size::Fixed(bytes) => return *bytes,
            Size::Computed(value) => value.eval_bytes(r),
        };
        units::parse_size(&text).unwrap_or_else(|| {
            if !text.is_empty() {
                let text = String::from_utf8_lossy(&text);
                r.log(Level::Error, format_args!("invalid size \"{text}\""));
            }
            0
        })
    }
}
