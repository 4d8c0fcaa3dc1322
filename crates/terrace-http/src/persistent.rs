//! What outlives generations: shared dictionaries, caches, statistics. One value a type, made on first use.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

/// Values that reloads keep.
#[derive(Default)]
pub struct Persistent {
    background: Option<Handle>,
    map: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Persistent {
    /// With the runtime for what is not on the request path.
    pub fn new(background: Handle) -> Persistent {
        Persistent { background: Some(background), ..Persistent::default() }
    }

    /// The runtime for what is not on the request path; none when a configuration is only checked.
    pub fn background(&self) -> Option<Handle> {
        self.background.clone()
    }

    /// The value of type `T`, made on first use. Not for the request path: it takes a lock.
    pub fn of<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = map.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(T::default()));
        Arc::clone(entry).downcast().unwrap_or_else(|_| unreachable!("values are keyed by their type"))
    }
}
