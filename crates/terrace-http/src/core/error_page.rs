//! `error_page 404 =200 /page.html;`

use bytes::Bytes;
use terrace_conf::{ConfError, Node};

use crate::conf::slots::{Merge, MergeContext};
use crate::{Builder, Value};

/// Where an error is answered.
#[derive(Debug, Clone)]
pub enum Target {
    /// A URI of this server, or a URL to redirect to.
    Uri(Value),
    /// A named location.
    Named(Bytes),
}

/// One `error_page`.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    codes: Vec<u16>,
    /// `=200`: the status to answer with; 0 for `=` alone, which leaves it to the page.
    pub status: Option<u16>,
    /// Where to go.
    pub target: Target,
}

/// The error pages of a block; a block that has any does not inherit.
#[derive(Debug, Clone, Default)]
pub struct ErrorPages(Vec<ErrorPage>);

impl ErrorPages {
    /// The page for a status.
    pub fn find(&self, code: u16) -> Option<&ErrorPage> {
        self.0.iter().find(|p| p.codes.contains(&code))
    }
}

impl Merge for ErrorPages {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.0.is_empty() {
            self.0.clone_from(&parent.0);
        }
    }
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let (target, mut rest) = match node.args.split_last() {
        Some((t, rest)) => (t, rest),
        None => return Err(node.invalid_arity()),
    };
    let mut status = None;
    if let Some((last, codes)) = rest.split_last()
        && let Some(code) = last.value.strip_prefix(b"=")
    {
        status = Some(match code {
            b"" => 0,
            c => parse_code(c).ok_or_else(|| last.error(format!("invalid value \"{last}\"")))?,
        });
        rest = codes;
    }
    let mut codes = Vec::new();
    for arg in rest {
        let code = parse_code(&arg.value).ok_or_else(|| arg.error(format!("invalid value \"{arg}\"")))?;
        if code == 499 {
            return Err(arg.error("invalid value \"499\""));
        }
        if !(300..=599).contains(&code) {
            return Err(arg.error(format!("value \"{arg}\" must be between 300 and 599")));
        }
        codes.push(code);
    }
    if codes.is_empty() {
        return Err(node.invalid_arity());
    }
    let target = match target.value.first() {
        Some(b'@') => Target::Named(target.value.clone()),
        _ => Target::Uri(Value::compile(b, target)?),
    };
    b.conf::<ErrorPages>().0.push(ErrorPage { codes, status, target });
    Ok(())
}

fn parse_code(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
