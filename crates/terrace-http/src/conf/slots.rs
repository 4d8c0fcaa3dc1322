//! Typed slots for the settings of modules, one set a configuration block, merged from the outside in.

use std::any::{Any, TypeId};

use rustc_hash::FxHashMap;

/// What a merge may want to know about the block it merges into.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeContext {
    /// The inner block is an `if` (or `limit_except`) within a location: content handlers carry over.
    pub is_if: bool,
}

/// Settings of one module at one block.
pub trait Merge: Any + Default + Send + Sync {
    /// Takes over from the enclosing block what this one does not set.
    fn merge(&mut self, parent: &Self, context: MergeContext);
}

trait Erased: Any + Send + Sync {
    fn merge_from(&mut self, parent: &dyn Erased, context: MergeContext);
    fn fresh(&self) -> Box<dyn Erased>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Merge> Erased for T {
    fn merge_from(&mut self, parent: &dyn Erased, context: MergeContext) {
        if let Some(p) = parent.as_any().downcast_ref::<T>() {
            self.merge(p, context);
        }
    }

    fn fresh(&self) -> Box<dyn Erased> {
        Box::<T>::default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// The settings of one block.
#[derive(Default)]
pub struct Slots {
    map: FxHashMap<TypeId, Box<dyn Erased>>,
}

impl Slots {
    /// This block's settings of a module, made with defaults where it has none yet.
    pub fn of<T: Merge>(&mut self) -> &mut T {
        let slot = self.map.entry(TypeId::of::<T>()).or_insert_with(|| Box::<T>::default());
        let any = (**slot).as_any_mut();
        any.downcast_mut().unwrap_or_else(|| unreachable!("slots are keyed by their type"))
    }

    /// The settings, if this block or (after merging) an enclosing one has any.
    pub fn find<T: Merge>(&self) -> Option<&T> {
        (**self.map.get(&TypeId::of::<T>())?).as_any().downcast_ref()
    }

    /// Merges every slot of the enclosing block into this one.
    pub fn merge_from(&mut self, parent: &Slots, context: MergeContext) {
        for (id, theirs) in &parent.map {
            let mine = self.map.entry(*id).or_insert_with(|| theirs.fresh());
            mine.merge_from(theirs.as_ref(), context);
        }
    }
}
