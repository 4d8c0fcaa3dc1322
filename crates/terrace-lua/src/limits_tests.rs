//! The limits that code cannot break, through the public surface.

use std::rc::Rc;
use std::time::Duration;

use crate::{ErrorKind, Finish, LuaError, Started, Vm, VmOptions, start};

fn timed(limit_ms: u64) -> Rc<Vm> {
    let running_time_max = Some(Duration::from_millis(limit_ms));
    Vm::new(VmOptions { running_time_max, ..VmOptions::default() }).unwrap()
}

fn run(vm: &Rc<Vm>, code: &str) -> Finish {
    let chunk = vm.load("=code", code.as_bytes()).unwrap();
    match start(&chunk, &[], ()) {
        Started::Done(ended) => ended.finish,
        Started::Waits(_) => panic!("it waits"),
    }
}

fn error(vm: &Rc<Vm>, code: &str) -> LuaError {
    match run(vm, code) {
        Finish::Error(e) => *e,
        other => panic!("no error but {other:?}"),
    }
}

#[test]
fn a_loop_without_end_is_ended_wherever_it_runs() {
    let vm = timed(50);
    for code in [
        "while true do end",
        "local n = 0 while true do n = n + 1 end",
        "jit.off(true, true) while true do end",
        "local t = {} while true do for i = 1, 1000 do t[i] = i * 2 end end",
        "local function f() return f() end return f()",
        "local s = '' while true do s = string.char(math.random(1, 255)) .. s:sub(1, 100) end",
        "repeat until false",
        "for _ in function() return true end do end",
        "coroutine.wrap(function() while true do end end)()",
    ] {
        let e = error(&vm, code);
        assert!(e.message.contains("lua_max_running_time"), "{code}: {}", e.message);
        assert!(e.traceback.contains("\tcode:"), "{code}: {}", e.traceback);
    }
    assert_eq!(vm.stretches_ended(), 9);
    assert!(matches!(run(&vm, "local n = 0 for i = 1, 1e6 do n = n + i end return n"), Finish::Returned));
}

#[test]
fn the_end_cannot_be_caught() {
    let vm = timed(50);
    let code = "while true do pcall(function() while true do end end) end";
    assert!(error(&vm, code).message.contains("lua_max_running_time"));
    let code = "while true do xpcall(function() while true do end end, function() while true do end end) end";
    error(&vm, code);
    let code = "debug.sethook(function() end, '', 1) while true do end";
    assert!(error(&vm, code).message.contains("lua_max_running_time"));
}

#[test]
fn memory_has_a_bound() {
    let vm = Vm::new(VmOptions { memory_bytes_max: Some(32 << 20), ..VmOptions::default() }).unwrap();
    let e = error(&vm, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100) .. i end");
    assert_eq!(e.kind, ErrorKind::Memory);
    assert!(e.message.contains("lua_max_memory"), "{}", e.message);
    let (refused, held) = (vm.allocations_refused(), vm.memory_bytes());
    assert!(refused > 0 && held <= 32 << 20, "{refused} {held}");
    let e = error(&vm, "return ('x'):rep(64 * 1024 * 1024)");
    assert_eq!(e.kind, ErrorKind::Memory);
    vm.gc_collect();
    // Garbage is no reason to fail: twenty times the bound goes through.
    let code = "for i = 1, 6000 do local s = ('x'):rep(100000) .. i end";
    assert!(matches!(run(&vm, code), Finish::Returned));
    let code = "local live = {} for i = 1, 150000 do live[i] = { i } end
        for i = 1, 3e6 do local t = { i } end assert(#live == 150000)";
    assert!(matches!(run(&vm, code), Finish::Returned));
}

#[test]
fn recursion_and_deep_patterns_are_errors() {
    // A C function that calls back takes C stack, of which workers have as much as is said.
    let thread = std::thread::Builder::new().stack_size(crate::THREAD_STACK_BYTES).spawn(recurse).unwrap();
    thread.join().unwrap();
}

fn recurse() {
    let vm = timed(60_000);
    assert!(
        error(&vm, "local function f(n) return 1 + f(n + 1) end return f(1)")
            .message
            .contains("stack overflow")
    );
    assert!(
        error(&vm, "return (('a'):rep(1e6)):find(('a?'):rep(1000) .. 'b')")
            .message
            .contains("pattern too complex")
    );
    assert!(error(&vm, "return (('a'):rep(1e3)):find(('(.)'):rep(100))").message.contains("captures"));
    let code = "local function f(s) return (s:gsub('.', f)) end return f('a')";
    assert!(error(&vm, code).message.contains("overflow"));
    let code = "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k + 1] end return t[1]";
    assert!(error(&vm, code).message.contains("overflow"));
}
