//! The nginx.conf language: lexer, syntax tree with spans, includes, typed values, the directive-table mechanism.
#![forbid(unsafe_code)]
