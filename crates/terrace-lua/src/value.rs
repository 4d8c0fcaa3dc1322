//! Values that cross between Lua and the host, and registry references that keep a Lua object alive from Rust.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::vm::Vm;

/// Arguments or results; up to four live without an allocation.
pub type Values = SmallVec<[Value; 4]>;

/// One Lua value as the host sees it.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `nil`.
    #[default]
    Nil,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A number given as an integer; Lua sees a double, so beyond 2^53 it is rounded. Never read back from Lua.
    Integer(i64),
    /// A byte string.
    String(Bytes),
    /// A light userdata; at most 47 bits of address are significant.
    LightUserdata(*mut c_void),
    /// A table, function, thread, userdata or cdata object of one VM. In another VM it reads as `nil`.
    Ref(LuaRef),
}

impl Value {
    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(n) => Some(*n),
            Value::Integer(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The bytes, if it is a string.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// Lua's truth: everything but `nil` and `false`.
    pub fn truthy(&self) -> bool {
        !matches!(self, Value::Nil | Value::Bool(false))
    }

    /// Whether pushing it neither allocates nor raises.
    pub(crate) fn is_plain(&self) -> bool {
        !matches!(self, Value::String(_) | Value::LightUserdata(_))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Value::String(Bytes::from_static(value.as_bytes()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::String(Bytes::from(value))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::String(Bytes::from(value))
    }
}

impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Value::String(value)
    }
}

/// A counted reference to an object in a VM's registry; the object is released with the last clone. It keeps the
/// VM alive.
#[derive(Clone)]
pub struct LuaRef(Rc<Slot>);

struct Slot {
    vm: Rc<Vm>,
    key: c_int,
}

impl LuaRef {
    /// Takes ownership of a registry key of `vm`.
    pub(crate) fn new(vm: &Rc<Vm>, key: c_int) -> Self {
        LuaRef(Rc::new(Slot { vm: Rc::clone(vm), key }))
    }

    pub(crate) fn vm(&self) -> &Rc<Vm> {
        &self.0.vm
    }

    pub(crate) fn key(&self) -> c_int {
        self.0.key
    }

    pub(crate) fn key_in(&self, vm: &Vm) -> Option<c_int> {
        std::ptr::eq(&*self.0.vm, vm).then_some(self.0.key)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.vm.release_key(self.key);
    }
}

impl fmt::Debug for LuaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LuaRef({})", self.0.key)
    }
}
