//! The VM and the scheduler through the public surface.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;

use super::*;

const BUILTIN: &[(&str, &[u8])] = &[
    ("demo.one", b"return { name = 'builtin', args = ... }"),
    ("string", b"return 'must not be found'"),
    ("demo.broken", b"return +"),
];

fn vm() -> Rc<Vm> {
    let vm = Vm::new(VmOptions { builtin: BUILTIN, ..VmOptions::default() }).expect("vm");
    // SAFETY: both functions keep Lua's rules: they hold nothing to drop when they raise.
    unsafe {
        vm.preload("test.sleep", open_sleep).expect("preload");
        vm.preload("test.ready", open_ready).expect("preload");
    }
    let setup = b"
        sched = require 'terrace.sched'
        local start, ready = require 'test.sleep', require 'test.ready'
        function sleep(ms, value) start(ms, value or 0) return sched.await() end
        function now(value) ready(value) return sched.await() end
        log = {}
        function say(...) log[#log + 1] = table.concat({...}, ' ') end
        function said() local s = table.concat(log, ',') log = {} return s end
    ";
    vm.run_setup("=setup", setup, &[]).expect("setup");
    vm
}

/// `start(ms, value)`: records a timer that yields `value`; below zero, one turn of the executor.
unsafe extern "C-unwind" fn sleep(state: *mut sys::lua_State) -> c_int {
    // SAFETY: arguments are checked before anything that needs dropping exists.
    let (ms, value) = unsafe { (sys::luaL_checknumber(state, 1), sys::luaL_checknumber(state, 2)) };
    pending::set(Box::pin(async move {
        if ms < 0.0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(ms as u64)).await;
        }
        smallvec![Value::Number(value), Value::from("slept")]
    }));
    0
}

unsafe extern "C-unwind" fn open_sleep(state: *mut sys::lua_State) -> c_int {
    // SAFETY: pushes one function.
    unsafe { sys::lua_pushcclosure(state, sleep, 0) };
    1
}

unsafe extern "C-unwind" fn ready(state: *mut sys::lua_State) -> c_int {
    // SAFETY: as in `sleep`.
    let value = unsafe { sys::luaL_checknumber(state, 1) };
    pending::set(Box::pin(async move { smallvec![Value::Number(value)] }));
    0
}

unsafe extern "C-unwind" fn open_ready(state: *mut sys::lua_State) -> c_int {
    // SAFETY: pushes one function.
    unsafe { sys::lua_pushcclosure(state, ready, 0) };
    1
}

/// Runs code inside a paused runtime from the first step on, and gives its first value as text.
fn text(vm: &Rc<Vm>, code: &str) -> String {
    let ended = outcome(vm, code, ());
    match ended.finish {
        Finish::Returned => match ended.returned.first() {
            Some(Value::String(s)) => String::from_utf8_lossy(s).into_owned(),
            other => format!("{other:?}"),
        },
        Finish::Exit(code) => format!("exit {code}"),
        Finish::Error(error) => format!("error {error}"),
    }
}

fn inside_runtime<H: Host + Unpin>(vm: &Rc<Vm>, code: &str, host: H) -> Finish {
    outcome(vm, code, host).finish
}

fn outcome<H: Host + Unpin>(vm: &Rc<Vm>, code: &str, host: H) -> Ended<H> {
    let chunk = vm.load("=t", code.as_bytes()).expect("load");
    runtime().block_on(async {
        match start(&chunk, &[], host) {
            Started::Done(ended) => ended,
            Started::Waits(run) => run.await,
        }
    })
}

/// What the chunk returns, which it does without waiting.
fn returned(chunk: &Chunk, args: &[Value]) -> Vec<Value> {
    match start(chunk, args, ()) {
        Started::Done(Ended { finish: Finish::Returned, returned, .. }) => returned,
        _ => panic!("not returned"),
    }
}

/// A runtime whose clock moves only when everything waits.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("runtime")
}

fn error(vm: &Rc<Vm>, code: &str) -> LuaError {
    match inside_runtime(vm, code, ()) {
        Finish::Error(error) => *error,
        other => panic!("not an error: {other:?}"),
    }
}

#[derive(Clone, Default)]
struct Recorder(Rc<RefCell<Vec<String>>>);

impl Host for Recorder {
    fn enter(&self) {
        self.0.borrow_mut().push("enter".into());
    }
    fn leave(&self) {
        self.0.borrow_mut().push("leave".into());
    }
    fn thread_error(&self, error: &LuaError) {
        self.0.borrow_mut().push(format!("{error}\n{}", error.traceback));
    }
}

#[test]
fn a_trivial_run_returns_in_the_first_step() {
    let vm = vm();
    let chunk = vm.load("=t", b"local a, b, c = ... return 1 + a, b, c, true, nil").expect("load");
    let args = [Value::Integer(2), Value::from("x"), Value::LightUserdata(16 as *mut c_void)];
    let values = returned(&chunk, &args);
    assert_eq!(values.len(), 5);
    assert_eq!(values[0].as_number(), Some(3.0));
    assert_eq!(values[1].as_bytes(), Some(&b"x"[..]));
    assert!(matches!(values[2], Value::LightUserdata(p) if p as usize == 16));
    assert!(values[3].truthy() && !values[4].truthy());
}

#[test]
fn operations_resume_with_their_values() {
    let vm = vm();
    assert_eq!(text(&vm, "local v, s = sleep(5, 7) return s .. v"), "slept7");
    // Ready on the first poll: done in the first step.
    let chunk = vm.load("=t", b"local n = 0 for i = 1, 10 do n = n + now(i) end return n").expect("load");
    assert_eq!(returned(&chunk, &[])[0].as_number(), Some(55.0));
    assert_eq!(text(&vm, "return select(2, sched.await())"), "no operation to wait for");
}

#[test]
fn light_threads_interleave_in_order() {
    let vm = vm();
    let code = "
        local yield = coroutine.yield
        say '0' yield() say '1'
        sched.spawn(function() say 'f1' yield() say 'f2' yield() say 'f3' end)
        say '2' yield() say '3' yield() say '4'
        return said()";
    assert_eq!(text(&vm, code), "0,1,f1,2,f2,3,f3,4");
    let code = "
        local a = sched.spawn(function(x) say(x) sleep(20) say 'a' return 'A' end, 'x')
        local b = sched.spawn(function() sleep(10) say 'b' return 'B', 2 end)
        say(coroutine.status(a))
        local ok, first, two = sched.wait(a, b)
        say(tostring(ok), first, two)
        say(select(2, sched.wait(a)))
        say(tostring(sched.wait(a)), select(2, sched.wait(b)))
        return said()";
    assert_eq!(text(&vm, code), "x,running,b,true B 2,a,A,nil already waited or killed");
}

#[test]
fn a_run_ends_when_all_its_threads_have() {
    let vm = vm();
    let code = "for i = 3, 1, -1 do sched.spawn(function() sleep(i) say(i) end) end return 'entry'";
    assert_eq!(text(&vm, code), "entry");
    assert_eq!(text(&vm, "return said()"), "1,2,3");
}

#[test]
fn zombies_failures_and_strangers() {
    let vm = vm();
    let recorder = Recorder::default();
    let code = "
        local z = sched.spawn(function() return 'early' end)
        say(coroutine.status(z), select(2, sched.wait(z)), coroutine.status(z))
        local bad = sched.spawn(function() sleep(1) error({ code = 3 }) end)
        local ok, err = sched.wait(bad)
        say(tostring(ok), err.code)
        local other
        sched.spawn(function() other = sched.spawn(function() sleep(1) end) end)
        coroutine.yield()
        say(select(2, pcall(sched.wait, other)), select(2, sched.kill(other)))
        say(select(2, pcall(sched.wait, coroutine.create(print))))
        say(select(2, pcall(sched.wait)))
        return said()";
    let Ended { finish, returned, .. } = outcome(&vm, code, recorder.clone());
    assert!(matches!(finish, Finish::Returned), "{finish:?}");
    let expected = "zombie early dead,false 3,only the parent coroutine can wait on the thread killer not parent,\
        attempt to wait on a coroutine that is not a user thread,at least one coroutine should be specified";
    assert_eq!(String::from_utf8_lossy(returned[0].as_bytes().unwrap()), expected);
    let seen = recorder.0.borrow();
    let errors: Vec<_> = seen.iter().filter(|line| line.starts_with("unknown reason\n")).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("stack traceback:\ncoroutine 0:\n"));
    let enters = seen.iter().filter(|line| *line == "enter").count();
    assert_eq!(enters, seen.iter().filter(|line| *line == "leave").count());
}

#[test]
fn kill_drops_the_operation() {
    let vm = vm();
    let code = "
        local a = sched.spawn(function() sleep(5) say 'never' end)
        local b = sched.spawn(function() sleep(6) say 'b' end)
        local c = sched.spawn(function() sleep(7) say 'never' end)
        local d = sched.spawn(function() end)
        say(sched.kill(a), coroutine.status(a), select(2, sched.kill(a)))
        say(sched.kill(c), select(2, sched.kill(d)))
        say(tostring(sched.kill(coroutine.create(print))))
        sched.wait(b)
        sleep(50)
        return said()";
    assert_eq!(text(&vm, code), "1 dead already waited or killed,1 already terminated,nil,b");
}

#[test]
fn exit_ends_the_run_from_anywhere() {
    let vm = vm();
    let code = "
        sched.spawn(function() sleep(1000) say 'never' end)
        pcall(function() coroutine.wrap(function() pcall(sched.exit, -3) end)() end)
        say 'never'";
    assert_eq!(text(&vm, code), "exit -3");
    assert_eq!(text(&vm, "return said()"), "");
    assert_eq!(
        text(&vm, "sched.spawn(function() sleep(1) sched.exit(404) end) sleep(9) return 1"),
        "exit 404"
    );
}

#[test]
fn host_yields_pass_through_user_coroutines() {
    let vm = vm();
    let code = "
        local function numbers(n)
            return coroutine.wrap(function()
                for i = 1, n do sleep(1) coroutine.yield((sleep(1, i))) end
            end)
        end
        local inner = coroutine.wrap(function() for i in numbers(3) do coroutine.yield(i * 10) end end)
        for i in inner do say(i) end
        local co = coroutine.create(function(a) local b = coroutine.yield(a) sleep(1) return b, nil end)
        say(tostring(coroutine.resume(co, 'p')), coroutine.status(co))
        say(select('#', coroutine.resume(co, 'q')), coroutine.status(co))
        say(tostring(select(2, coroutine.resume(co))))
        say(select('#', coroutine.resume(coroutine.create(function() end))))
        say(select('#', coroutine.resume(coroutine.create(function() sleep(1) end))))
        return said()";
    let expected = "10,20,30,true suspended,3 dead,cannot resume dead coroutine,1,1";
    assert_eq!(text(&vm, code), expected);
    let code = "
        local co = coroutine.create(function() sleep(5) say 'in' end)
        sched.spawn(function() coroutine.resume(co) end)
        say(coroutine.status(co), select(2, coroutine.resume(co)))
        sleep(10)
        say(coroutine.status(co))
        return said()";
    assert_eq!(text(&vm, code), "running cannot resume running coroutine,in,dead");
}

#[test]
fn errors_carry_openresty_tracebacks() {
    let vm = vm();
    let e = error(&vm, "local function f() error('boom') end f()");
    assert_eq!((e.kind, e.message.as_str()), (ErrorKind::Runtime, "t:1: boom"));
    assert!(
        e.traceback.starts_with(
            "stack traceback:\ncoroutine 0:\n\t[C]: in function 'error'\n\tt:1: in function 'f'"
        )
    );
    assert!(e.traceback.ends_with("\n\tt:1: in main chunk"), "{}", e.traceback);
    let e =
        error(&vm, "coroutine.wrap(function()\n coroutine.wrap(function() error('deep', 0) end)() end)()");
    assert_eq!(e.message, "deep");
    for part in ["\ncoroutine 0:", "\ncoroutine 1:\n", "\ncoroutine 2:\n"] {
        assert!(e.traceback.contains(part), "{}", e.traceback);
    }
    assert!(!e.traceback.contains("[terrace]"), "{}", e.traceback);
    assert_eq!(error(&vm, "error()").message, "unknown reason");
    assert_eq!(error(&vm, "error({})").message, "unknown reason");
    assert_eq!(error(&vm, "error(42, 0)").message, "42");
    let object = "error(setmetatable({}, { __tostring = function() return 'own' end }))";
    assert_eq!(error(&vm, object).message, "own");
    let object = "error(setmetatable({}, { __tostring = function() error('again') end }))";
    assert_eq!(error(&vm, object).message, "unknown reason");
    let e = vm.load("=t", b"x = = 1").expect_err("syntax");
    assert_eq!(e.kind, ErrorKind::Syntax);
    let e = vm.run_setup("=init", b"local function g() error('init') end g()", &[]).expect_err("runtime");
    assert_eq!(e.message, "init:1: init");
    assert!(e.traceback.contains("in function 'g'"), "{}", e.traceback);
    assert!(vm.run_setup("=init", b"sleep(1)", &[]).is_err(), "the main state cannot wait");
}

#[test]
fn runaway_recursion_is_an_error() {
    let body = || {
        let vm = vm();
        let e = error(&vm, "local function f() return 1 + f() end return f()");
        assert!(e.message.contains("stack overflow"), "{}", e.message);
        let e = error(&vm, "local function f() return coroutine.wrap(f)() end return f()");
        assert!(e.message.contains("C stack overflow"), "{}", e.message);
        let e = error(&vm, "local function f() return (string.gsub('x', 'x', f)) end return f()");
        assert!(e.message.contains("overflow"), "{}", e.message);
        let e = error(
            &vm,
            "local t = {} t = setmetatable({}, { __index = function(t, k) return t[k .. 'x'] end }) return t.a",
        );
        assert!(!e.message.is_empty());
        assert_eq!(text(&vm, "return 'alive'"), "alive");
    };
    let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(body).expect("thread");
    thread.join().expect("survived");
}

#[test]
fn a_dropped_run_leaves_nothing() {
    let vm = vm();
    let chunk = vm.load("=t", b"held = {} sched.spawn(function() sleep(9) end) sleep(10)").expect("load");
    let runtime = runtime();
    let _guard = runtime.enter();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        for _ in 0..200 {
            assert!(matches!(start(&chunk, &[], ()), Started::Waits(_)));
        }
        vm.gc_collect();
        vm.gc_collect();
        sizes.push(vm.memory_bytes());
    }
    // A collection may free more than the next, so one round alone says nothing.
    assert!(sizes[2] <= sizes[0].max(sizes[1]) + 1024, "{sizes:?}");
}

#[test]
fn a_chunk_that_does_not_look_at_its_arguments_takes_none() {
    let vm = vm();
    let about = "local me = debug.getinfo(1, 'Sf') \
                 return tostring(require('jit.util').funcinfo(me.func).isvararg) .. ' ' .. me.what .. ' ' .. me.short_src";
    let of = |code: &str| text(&vm, &format!("{code} {about}"));
    assert_eq!(of(""), "false main t");
    assert_eq!(of("local first = ..."), "true main t");
    assert_eq!(of("local f = function(...) return ... end f()"), "false main t");
    assert_eq!(text(&vm, &format!("{about} -- a comment")), "false main t");
    assert_eq!(of("local list = { 1, 2, 3 }"), "true main t");
    // Only as a chunk's code is this no function.
    assert!(vm.load("=t", b"end, function()").is_err());
}

#[test]
fn the_length_of_a_list_with_holes_is_that_of_the_source() {
    let code = "local list = { 1, 2, 3, 4, 5 } list[4] = nil return tostring(#list)";
    let nested = format!("local code = {code:?} return loadstring(code)()");
    assert_eq!(text(&vm(), code), text(&vm(), &nested));
}

#[test]
fn many_runs_reuse_one_coroutine_and_do_not_leak() {
    let vm = vm();
    let chunk = vm.load("=t", b"local s = ... return s .. 'x', {}").expect("load");
    let mut sizes = Vec::new();
    let made = vm.coroutines_made();
    for round in 0..3 {
        for i in 0..33_334 {
            let args = [Value::from(format!("{round}-{}", i % 10))];
            assert_eq!(returned(&chunk, &args).len(), 2);
        }
        vm.gc_collect();
        vm.gc_collect();
        sizes.push(vm.memory_bytes());
    }
    assert_eq!(vm.coroutines_made() - made, 1);
    assert!(sizes[2] <= sizes[0] + 4096, "{sizes:?}");
}

#[test]
fn a_failed_or_altered_coroutine_is_not_reused() {
    let vm = vm();
    let made = vm.coroutines_made();
    error(&vm, "error('x')");
    assert_eq!(text(&vm, "setfenv(0, { said = said }) return 'own globals'"), "own globals");
    assert_eq!(text(&vm, "return type(string)"), "\"table\"".trim_matches('"'));
    assert_eq!(vm.coroutines_made() - made, 3);
}

#[test]
fn a_users_module_wins_over_a_builtin_one() {
    let dir = std::env::temp_dir().join(format!("terrace-lua-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("demo")).expect("dir");
    let vm = vm();
    assert_eq!(text(&vm, "return require('demo.one').name .. require('demo.one').args"), "builtindemo.one");
    assert_eq!(text(&vm, "return type(require 'string')"), "table");
    let e = error(&vm, "require 'demo.none'");
    assert!(e.message.contains("no built-in module 'demo.none'"), "{e}");
    assert!(error(&vm, "require 'demo.broken'").message.contains("builtin:demo.broken"));
    std::fs::write(dir.join("demo/one.lua"), "return { name = 'file' }").expect("write");
    let path = format!("{}/?.lua;;", dir.display());
    vm.set_package_paths(Some(&path), None).expect("paths");
    assert_eq!(text(&vm, "package.loaded['demo.one'] = nil return require('demo.one').name"), "file");
    assert_eq!(text(&vm, "return tostring(package.path:find('/?.lua;./?.lua', 1, true) ~= nil)"), "true");
    std::fs::remove_dir_all(dir).expect("clean");
}

#[test]
fn references_and_pointers_cross() {
    let vm = vm();
    let values =
        vm.run_setup("=t", b"return function(a) return a.x end, { x = 'kept' }", &[]).expect("setup");
    let [Value::Ref(function), table] = &values[..] else { panic!("{values:?}") };
    vm.gc_collect();
    let chunk = Chunk::from_ref(function.clone());
    let got = vm.call_main(&chunk, std::slice::from_ref(table)).expect("call");
    assert_eq!(got[0].as_bytes(), Some(&b"kept"[..]));
    let other = Vm::new(VmOptions::default()).expect("vm");
    assert!(other.call_main(&chunk, &[]).is_err(), "a reference means nothing in another VM");
    static NUMBER: i32 = 77;
    let pointer = Value::LightUserdata(std::ptr::from_ref(&NUMBER).cast_mut().cast());
    let code = b"local ffi = require 'ffi' return ffi.cast('int *', (...))[0]";
    assert_eq!(vm.run_setup("=t", code, &[pointer]).expect("ffi")[0].as_number(), Some(77.0));
}

#[test]
fn hundreds_of_waiting_threads() {
    let vm = vm();
    let code = "
        local sum, threads = 0, {}
        for i = 1, 500 do threads[i] = sched.spawn(function() return (sleep(i % 7, i)) end) end
        for i = 1, 500 do sum = sum + select(2, sched.wait(threads[i])) end
        return tostring(sum)";
    assert_eq!(text(&vm, code), "125250");
    // Yielding in a loop for what another thread waits for must not starve it.
    let code = "
        local done
        sched.spawn(function() sleep(-1) done = true end)
        while not done do coroutine.yield() end
        return 'ok'";
    assert_eq!(text(&vm, code), "ok");
}
