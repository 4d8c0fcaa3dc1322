//! The one place that orders the modules, and so the handlers within each phase and the filters of a response.

use std::sync::{Arc, LazyLock};

use terrace_conf::{Known, Registry};
use terrace_http::{Builder, Module};

use crate::main_conf::MainModule;

/// All modules in their order: nginx's own before the proxies and before Lua, so that `rewrite` and `realip` run
/// ahead of scripts of the same phase, as in OpenResty.
pub fn modules() -> &'static [&'static dyn Module] {
    static ALL: LazyLock<Vec<&'static dyn Module>> = LazyLock::new(|| {
        let own: [&'static dyn Module; 2] = [&MainModule, &terrace_http::core::Core];
        let lists = [&own, terrace_modules::ALL, terrace_proxy::ALL, terrace_ngx::ALL, terrace_modules::LATE];
        lists.concat()
    });
    &ALL
}

/// nginx's directives that are known by name only; a module's row of the same name counts.
fn known() -> &'static [Known] {
    static ALL: LazyLock<Vec<Known>> = LazyLock::new(|| {
        [terrace_modules::known::KNOWN, terrace_modules::charset::KNOWN, terrace_proxy::KNOWN].concat()
    });
    &ALL
}

/// The configuration language: the tables of all modules.
pub fn registry() -> Arc<Registry<Builder>> {
    static REGISTRY: LazyLock<Arc<Registry<Builder>>> = LazyLock::new(|| {
        let tables: Vec<_> = modules().iter().map(|m| m.directives()).collect();
        let contexts: Vec<_> = modules().iter().flat_map(|m| m.contexts()).copied().collect();
        Arc::new(Registry::new(&tables, known()).with_contexts(&contexts))
    });
    Arc::clone(&REGISTRY)
}
