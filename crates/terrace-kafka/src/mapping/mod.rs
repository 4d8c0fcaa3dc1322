//! From a message to what it invalidates, by rules of the configuration. Pure: no client, no clock.
//!
//! A rule says which messages it means (`serviceId=productInfoService`), which cache, which key
//! (`product_info_$productId`), prefix or tag, what to do (drop or refresh), and where the version of the change stands.
//! Every rule that matches a message applies. What a message does not tell is a [`Fault`], never a panic, and what the
//! other rules make of the message holds nevertheless.

mod path;
mod template;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use terrace_cache::{Scope, Version, version};

pub use path::{Path, SEGMENTS_MAX};
pub use template::Template;

use path::{Choice, Place};
use template::Rendered;

/// Number of keys that one rule may make of one message.
pub const KEYS_MAX: usize = 10_000;
/// Length of a key, prefix or tag in bytes.
pub const KEY_BYTES_MAX: usize = 8192;
/// Elements of lists that are looked at for one rule and one message; lists of lists that come to nothing count, too.
const STEPS_MAX: usize = 4 * KEYS_MAX;

/// What a message asks of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The cache's name.
    pub cache: Arc<str>,
    /// Which values.
    pub scope: Scope,
    /// The version that the source has now; zero if the message tells none.
    pub version: Version,
    /// To load the values anew instead of only dropping them.
    pub refresh: bool,
}

/// What one message came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// What to do.
    pub invalidations: Vec<Invalidation>,
    /// What the message does not tell though a rule needs it.
    pub faults: Vec<Fault>,
    /// Number of `invalidations` whose rule has a version field that the message does not fill. They apply to every
    /// version, which is the safe side.
    pub unversioned: usize,
}

/// Why a message, or a rule for it, comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The message is larger than the consumer takes.
    #[error("it has {0} bytes")]
    TooLarge(usize),
    /// The message is no JSON.
    #[error("it is no JSON: {0}")]
    NotJson(String),
    /// No rule means the message.
    #[error("no rule matches it")]
    Unmatched,
    /// A field of a key is not there, or null.
    #[error("it has no field \"{0}\"")]
    Missing(Box<str>),
    /// A field of a key is an object or a number that is not whole.
    #[error("the field \"{0}\" makes no key")]
    NotScalar(Box<str>),
    /// A key has more than [`KEY_BYTES_MAX`] bytes.
    #[error("a key has more than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// A rule makes more than [`KEYS_MAX`] keys of the message.
    #[error("it makes more than {KEYS_MAX} keys")]
    TooManyKeys,
}

/// What is wrong with a rule's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A path with an empty or too many segments.
    #[error("\"{0}\" is no field: names with dots between them, at most {SEGMENTS_MAX}")]
    Path(Box<str>),
    /// A brace that is not closed.
    #[error("a \"{{\" is not closed in \"{0}\"")]
    Brace(Box<str>),
    /// A condition without `=`.
    #[error("\"{0}\" is no condition: it must be field=value")]
    Condition(Box<str>),
}

/// A field and the value that a message must have there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    path: Path,
    value: Box<str>,
}

impl Condition {
    /// Reads `field=value`. What follows the first `=` is the value, as it is; of a list, one element must be it.
    ///
    /// # Errors
    /// When there is no `=` or the field is malformed.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let (field, value) = text.split_once('=').ok_or_else(|| MappingError::Condition(text.into()))?;
        Ok(Self { path: Path::parse(field)?, value: value.into() })
    }

    fn holds(&self, root: &Value) -> bool {
        match self.path.follow(root, &[]) {
            Place::Value(value) => self.is(value),
            Place::List(list) => list.iter().any(|value| self.is(value)),
            Place::Missing => false,
        }
    }

    fn is(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => **text == *self.value,
            Value::Bool(flag) => *self.value == *(if *flag { "true" } else { "false" }),
            Value::Number(number) => number.to_string() == *self.value,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}

/// What a rule's template names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Keys.
    Key(Template),
    /// Everything that begins with it.
    Prefix(Template),
    /// Everything with the tag.
    Tag(Template),
}

/// Which messages mean what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What a message must say; all of it. None: every message.
    pub conditions: Vec<Condition>,
    /// The cache that is meant.
    pub cache: Arc<str>,
    /// The values that are meant.
    pub target: Target,
    /// To load the values anew instead of only dropping them.
    pub refresh: bool,
    /// Where the version of the change stands: a whole number, or a text that [`version::from_text`] reads.
    pub version: Option<Path>,
}

/// The rules for the messages of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    rules: Vec<Rule>,
}

impl Mapping {
    /// A mapping by these rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// What a message asks for. One key is asked for once, whatever number of times a rule makes it.
    pub fn apply(&self, message: &[u8]) -> Mapped {
        let mut mapped = Mapped::default();
        let root: Value = match serde_json::from_slice(message) {
            Ok(root) => root,
            Err(error) => {
                mapped.faults.push(Fault::NotJson(error.to_string()));
                return mapped;
            }
        };
        let mut matched = false;
        for rule in self.rules.iter().filter(|rule| rule.conditions.iter().all(|c| c.holds(&root))) {
            matched = true;
            let mut expansion =
                Expansion { rule, root: &root, choices: Vec::new(), steps: 0, found: Vec::new() };
            if let Err(fault) = expansion.expand() {
                mapped.faults.push(fault);
            }
            take_distinct(rule, expansion.found, &mut mapped);
        }
        if !matched {
            mapped.faults.push(Fault::Unmatched);
        }
        mapped
    }
}

/// Turns what a rule found into invalidations; of one text with several versions the newest counts, and none at all if one
/// of them has none.
fn take_distinct(rule: &Rule, mut found: Vec<(String, Version)>, mapped: &mut Mapped) {
    // An absent version (zero) sorts as the newest, since it drops whatever is there.
    found.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.wrapping_sub(1).cmp(&a.1.wrapping_sub(1))));
    found.dedup_by(|later, first| later.0 == first.0);
    for (text, version) in found {
        mapped.unversioned += usize::from(rule.version.is_some() && version == 0);
        let scope = match &rule.target {
            Target::Key(_) => Scope::Key(Bytes::from(text)),
            Target::Prefix(_) => Scope::Prefix(Bytes::from(text)),
            Target::Tag(_) => Scope::Tag(text.into()),
        };
        mapped.invalidations.push(Invalidation {
            cache: Arc::clone(&rule.cache),
            scope,
            version,
            refresh: rule.refresh,
        });
    }
}

/// The work of one rule on one message: all combinations of elements of the lists that its template goes through.
struct Expansion<'v> {
    rule: &'v Rule,
    root: &'v Value,
    choices: Vec<Choice<'v>>,
    steps: usize,
    found: Vec<(String, Version)>,
}

impl Expansion<'_> {
    fn expand(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.found.len() >= KEYS_MAX {
            return Err(Fault::TooManyKeys);
        }
        let (Target::Key(template) | Target::Prefix(template) | Target::Tag(template)) = &self.rule.target;
        let list = match template.render(self.root, &self.choices)? {
            Rendered::Text(text) => {
                let version = self.version();
                self.found.push((text, version));
                return Ok(());
            }
            Rendered::List(list) => list,
        };
        // One element's fault does not stop the others; the first one is told.
        let mut first = Ok(());
        for index in 0..list.len() {
            self.choices.push(Choice { list, index });
            let result = self.expand();
            self.choices.pop();
            match result {
                Ok(()) => {}
                Err(Fault::TooManyKeys) => return Err(Fault::TooManyKeys),
                Err(fault) => first = first.and(Err(fault)),
            }
        }
        first
    }

    fn version(&self) -> Version {
        let Some(path) = &self.rule.version else { return 0 };
        match path.follow(self.root, &self.choices) {
            Place::Value(Value::Number(number)) => number.as_u64().unwrap_or(0),
            Place::Value(Value::String(text)) => version::from_text(text).unwrap_or(0),
            Place::Value(_) | Place::List(_) | Place::Missing => 0,
        }
    }
}

#[cfg(test)]
mod tests;
