//! The nginx.conf language: lexer, syntax tree with positions, includes, typed values, the directive-table mechanism.
//!
//! The grammar and the texts of its errors are nginx's, so that an existing file means the same here and an
//! operator finds the messages they know. The crate knows the mechanism and no directive: tables come from the
//! modules, as [`Directive`]s generic over what they build. Values are bytes, as the files may be in any encoding.
#![forbid(unsafe_code)]

mod error;
mod lexer;
mod lua_block;
mod parser;
mod print;
mod registry;
mod suggest;
mod tree;
mod values;

pub use error::ConfError;
pub use lexer::WORD_BYTES_MAX;
pub use parser::{
    BLOCK_DEPTH_MAX, FILE_BYTES_MAX, INCLUDE_DEPTH_MAX, INCLUDES_MAX, parse_file, parse_parameter, parse_text,
};
pub use print::print;
pub use registry::{Arity, Contexts, Directive, Known, KnownKind, Registry, Shape};
pub use tree::{Arg, Body, Node, Position, SourceFile, Tree};
pub use values::Param;

#[cfg(test)]
mod tests;
