//! PCRE2 with its JIT behind a small safe interface.
