//! The one place that orders the modules, and so the handlers within each phase and the filters of a response.

use std::sync::{Arc, LazyLock};

use terrace_conf::Registry;
use terrace_http::{Builder, Module};

use crate::main_conf::MainModule;

/// All modules in their order: nginx's own before the proxies and before Lua, so that `rewrite` and `realip` run
/// ahead of scripts of the same phase, as in OpenResty.
pub fn modules() -> &'static [&'static dyn Module] {
    static ALL: LazyLock<Vec<&'static dyn Module>> = LazyLock::new(|| {
        let own: [&'static dyn Module; 2] = [&MainModule, &terrace_http::core::Core];
        own.into_iter().collect()
    });
    &ALL
}

/// The configuration language: the tables of all modules.
pub fn registry() -> Arc<Registry<Builder>> {
    static REGISTRY: LazyLock<Arc<Registry<Builder>>> = LazyLock::new(|| {
        let tables: Vec<_> = modules().iter().map(|m| m.directives()).collect();
        Arc::new(Registry::new(&tables, &[]))
    });
    Arc::clone(&REGISTRY)
}
