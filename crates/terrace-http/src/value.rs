//! Values with variables in them (nginx's complex values): compiled once, evaluated into a buffer.

use bytes::Bytes;
use terrace_conf::{Arg, ConfError};

use crate::vars::VarIndex;
use crate::{Builder, Request, intern};

#[derive(Debug, Clone)]
enum Part {
    Literal(Bytes),
    Variable(VarIndex),
    Capture(usize),
}

/// Text with variables (`$name`, `${name}`) and regex captures (`$1`).
#[derive(Debug, Clone, Default)]
pub struct Value {
    parts: Vec<Part>,
}

impl Value {
    /// Compiles an argument of a directive.
    pub fn compile(builder: &mut Builder, arg: &Arg) -> Result<Value, ConfError> {
        let text = &arg.value;
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut i = 0;
        while i < text.len() {
            if text[i] != b'$' {
                literal.push(text[i]);
                i += 1;
                continue;
            }
            let (name, next) = variable_name(text, i + 1).ok_or_else(|| match text.get(i + 1) {
                Some(b'{') => {
                    let rest = text.get(i + 2..).unwrap_or_default();
                    let end = rest.iter().position(|b| !is_name_byte(*b)).unwrap_or(rest.len());
                    let name = String::from_utf8_lossy(&rest[..end]);
                    arg.error(format!("the closing bracket in \"{name}\" variable is missing"))
                }
                _ => arg.error("invalid variable name"),
            })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(intern::text(&std::mem::take(&mut literal))));
            }
            parts.push(match name {
                [d @ b'0'..=b'9'] => Part::Capture(usize::from(d - b'0')),
                _ => Part::Variable(builder.vars.reference(name, &arg.at)),
            });
            i = next;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(intern::text(&literal)));
        }
        Ok(Value { parts })
    }

    /// A value without variables.
    pub fn literal(text: impl Into<Bytes>) -> Value {
        Value { parts: vec![Part::Literal(text.into())] }
    }

    /// The text, where no part of it depends on the request.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Literal(t)] => Some(t),
            _ => None,
        }
    }

    /// The text as shared bytes, where no part of it depends on the request.
    pub fn as_literal_bytes(&self) -> Option<Bytes> {
        match self.parts.as_slice() {
            [] => Some(Bytes::new()),
            [Part::Literal(t)] => Some(t.clone()),
            _ => None,
        }
    }

    /// The text as the one literal that the value is.
    pub fn as_one_literal(&self) -> Option<&Bytes> {
        match self.parts.as_slice() {
            [Part::Literal(t)] => Some(t),
            _ => None,
        }
    }

    /// Whether the value has no part at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a regex capture (`$1` …) stands in it.
    pub fn uses_captures(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Capture(_)))
    }

    /// Appends the text for this request. Variables without a value add nothing.
    pub fn eval(&self, r: &Request, out: &mut Vec<u8>) {
        for p in &self.parts {
            match p {
                Part::Literal(t) => out.extend_from_slice(t),
                Part::Capture(n) => r.append_capture(*n, out),
                Part::Variable(v) => {
                    r.append_var(*v, out);
                }
            }
        }
    }

    /// The text for this request; shares the literal where there are no variables.
    pub fn eval_bytes(&self, r: &Request) -> Bytes {
        if let Some(t) = self.as_literal_bytes() {
            return t;
        }
        let mut out = Vec::new();
        self.eval(r, &mut out);
        out.into()
    }

    /// As [`Value::eval`], with each capture's text passed through `map` (not the literals and variables).
    pub fn eval_captures_mapped(&self, r: &Request, out: &mut Vec<u8>, map: fn(&[u8], &mut Vec<u8>)) {
        for p in &self.parts {
            match p {
                Part::Literal(t) => out.extend_from_slice(t),
                Part::Capture(n) => {
                    if let Some(t) = r.captures().borrow().group(*n) {
                        map(t, out);
                    }
                }
                Part::Variable(v) => {
                    r.append_var(*v, out);
                }
            }
        }
    }
}

/// The variable name at `start` (just behind the `$`) and the index behind it.
fn variable_name(text: &[u8], start: usize) -> Option<(&[u8], usize)> {
    if text.get(start) == Some(&b'{') {
        let len = text[start + 1..].iter().position(|b| *b == b'}')?;
        let name = &text[start + 1..start + 1 + len];
        return (len > 0 && name.iter().all(|b| is_name_byte(*b))).then_some((name, start + len + 2));
    }
    if text.get(start).is_some_and(u8::is_ascii_digit) {
        return Some((&text[start..=start], start + 1));
    }
    let len = text[start..].iter().take_while(|b| is_name_byte(**b)).count();
    (len > 0).then(|| (&text[start..start + len], start + len))
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
