//! Short forms for the rows of directive tables, and for settings whose fields are plain values.

use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Shape};

use crate::Builder;

/// `http`, `server`, `location`.
pub const HSL: Contexts = Contexts::HTTP.union(Contexts::SERVER).union(Contexts::LOCATION);
/// `http`, `server`, `location`, `if` in a location.
pub const HSLI: Contexts = HSL.union(Contexts::LOCATION_IF);
/// `http`, `server`.
pub const HS: Contexts = Contexts::HTTP.union(Contexts::SERVER);

/// How a directive is carried out.
pub type SetFn = fn(&mut Builder, &Node) -> Result<(), ConfError>;

/// A directive that ends with `;`. An empty `default` means none.
pub const fn simple(
    name: &'static str,
    contexts: Contexts,
    arity: Arity,
    default: &'static str,
    doc: &'static str,
    set: SetFn,
) -> Directive<Builder> {
    let default = if default.is_empty() { None } else { Some(default) };
    Directive { name, contexts, arity, shape: Shape::Simple, default, doc, set }
}

/// A directive with a block.
pub const fn block(
    name: &'static str,
    contexts: Contexts,
    arity: Arity,
    doc: &'static str,
    set: SetFn,
) -> Directive<Builder> {
    Directive { name, contexts, arity, shape: Shape::Block, default: None, doc, set }
}

/// A reader for [`setting!`]: `on` or `off`.
pub fn flag(node: &Node) -> Result<bool, ConfError> {
    node.flag(0)
}

/// A reader for [`setting!`]: a size in bytes.
pub fn size(node: &Node) -> Result<u64, ConfError> {
    node.size(0)
}

/// A reader for [`setting!`]: a time in milliseconds.
pub fn time_ms(node: &Node) -> Result<u64, ConfError> {
    node.time_ms(0)
}

/// How a directive is carried out that sets one field of the block's settings, once: type, field, and a function that
/// reads the value.
#[macro_export]
macro_rules! setting {
    ($settings:ty, $field:ident, $read:expr) => {
        |builder, node| {
            let value = $read(node)?;
            node.set_once(&mut builder.conf::<$settings>().$field, value)
        }
    };
}

/// Settings that are plain values with defaults: makes a struct of `Option`s that merges from the outside in, and an
/// accessor a field that falls back to the default.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $name { $($(#[$fmeta])* $vis $field: Option<$type>,)* }

        impl $crate::Merge for $name {
            fn merge(&mut self, parent: &Self, _context: $crate::MergeContext) {
                $(if self.$field.is_none() { self.$field.clone_from(&parent.$field); })*
            }
        }

        impl $name {
            $($(#[$fmeta])* $vis fn $field(&self) -> $type { self.$field.clone().unwrap_or($default) })*
        }
    };
}
