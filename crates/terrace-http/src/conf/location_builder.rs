//! What modules add to one location.

use std::sync::Arc;

use terrace_conf::Position;

use crate::conf::slots::Slots;
use crate::core::location_conf::CoreLocation;
use crate::generation::{Location, PhaseHandler};
use crate::phase::{BodyFilter, Handler, HeaderFilter, PHASES, Phase};

/// A location whose settings are merged and whose handlers are being collected.
pub struct LocationBuilder {
    /// All modules' settings, merged.
    pub settings: Slots,
    /// nginx core's settings, resolved.
    pub core: CoreLocation,
    /// As configured; empty for a server's own.
    pub name: Vec<u8>,
    /// Whether it is an `if` block.
    pub is_if: bool,
    /// Whether it is a server's own, not a `location`.
    pub is_server: bool,
    /// Where it stands.
    pub at: Position,
    pub(crate) order: u16,
    pub(crate) phases: [Vec<PhaseHandler>; PHASES],
    pub(crate) content: Option<Arc<dyn Handler>>,
    pub(crate) content_is_own: bool,
    pub(crate) header_filters: Vec<Arc<dyn HeaderFilter>>,
    pub(crate) body_filters: Vec<Arc<dyn BodyFilter>>,
}

impl LocationBuilder {
    /// Adds a handler to a phase.
    pub fn add(&mut self, phase: Phase, handler: impl Handler + 'static) {
        let handler = PhaseHandler { order: self.order, handler: Arc::new(handler) };
        self.phases[phase as usize].push(handler);
    }

    /// Adds a handler that runs before those of all other modules in its phase.
    pub fn add_first(&mut self, phase: Phase, handler: impl Handler + 'static) {
        self.phases[phase as usize].insert(0, PhaseHandler { order: 0, handler: Arc::new(handler) });
    }

    /// Makes `handler` the location's one content handler, unless an `if` block has one of its own already.
    pub fn set_content(&mut self, handler: impl Handler + 'static) {
        if !self.content_is_own {
            self.content = Some(Arc::new(handler));
        }
    }

    /// Makes `handler` the content handler of a block whose own directives ask for it: it stays, also where an `if`
    /// block takes over another from the location around it.
    pub fn set_own_content(&mut self, handler: impl Handler + 'static) {
        self.content = Some(Arc::new(handler));
        self.content_is_own = true;
    }

    /// Adds a header filter.
    pub fn add_header_filter(&mut self, filter: impl HeaderFilter + 'static) {
        self.header_filters.push(Arc::new(filter));
    }

    /// Adds a body filter.
    pub fn add_body_filter(&mut self, filter: impl BodyFilter + 'static) {
        self.body_filters.push(Arc::new(filter));
    }

    pub(crate) fn finish(self) -> Location {
        Location {
            name: self.name,
            core: self.core,
            settings: self.settings,
            phases: self.phases,
            content: self.content,
            header_filters_may_wait: self.header_filters.iter().any(|f| f.may_wait()),
            header_filters: self.header_filters,
            body_filters: self.body_filters,
        }
    }
}
