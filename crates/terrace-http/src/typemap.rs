//! A small map from a type to its one value, for settings, worker state and per-request state of modules.

use std::any::{Any, TypeId};
use std::rc::Rc;

/// Values found by their type. A linear scan: such maps hold a handful of entries.
#[derive(Default)]
pub struct TypeMap {
    entries: Vec<(TypeId, Rc<dyn Any>)>,
}

impl TypeMap {
    /// The value of type `T`.
    pub fn find<T: 'static>(&self) -> Option<Rc<T>> {
        let id = TypeId::of::<T>();
        let (_, v) = self.entries.iter().find(|(t, _)| *t == id)?;
        Rc::clone(v).downcast().ok()
    }

    /// Puts `value` in place of an earlier one of its type.
    pub fn put<T: 'static>(&mut self, value: Rc<T>) {
        let id = TypeId::of::<T>();
        match self.entries.iter_mut().find(|(t, _)| *t == id) {
            Some((_, v)) => *v = value,
            None => self.entries.push((id, value)),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
