//! Modules in Rust that scripts `require` under the names of C modules.

mod cjson;
mod html;
mod print;

use terrace_lua::{LuaError, Vm};

/// Makes the modules known to a VM, behind the user's own.
pub fn preload(vm: &Vm) -> Result<(), LuaError> {
    // SAFETY: these are `luaopen_*` functions written for Lua's C API.
    unsafe {
        vm.preload("cjson", cjson::luaopen_cjson)?;
        vm.preload("cjson.safe", cjson::luaopen_cjson_safe)?;
        vm.preload("terrace.html", html::open)?;
        vm.preload("terrace.print", print::open)
    }
}
