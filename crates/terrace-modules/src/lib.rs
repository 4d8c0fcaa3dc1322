//! One file a module: directives, merge, handler.
#![forbid(unsafe_code)]
