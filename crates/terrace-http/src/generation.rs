//! A generation: a loaded configuration with everything derived from it, immutable and shared by the workers.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_base::log::ErrorLog;
use terrace_conf::Position;
use terrace_net::{Address, ListenOptions};

use crate::conf::slots::Slots;
use crate::core::location_conf::CoreLocation;
use crate::core::server_conf::CoreServer;
use crate::location_tree::{LocationIndex, LocationTree};
use crate::module::Module;
use crate::phase::{BodyFilter, Handler, HeaderFilter, PHASES, Phase};
use crate::server_names::ServerNames;
use crate::vars::VarTable;

/// Index of a server in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIndex(pub u32);

/// A handler with the position of its module in the list of modules.
pub struct PhaseHandler {
    /// The module's position: the order within the phase.
    pub order: u16,
    /// The handler.
    pub handler: Arc<dyn Handler>,
}

/// A location, ready to serve. Servers have one of their own (their `root`), and so has each `if` block.
pub struct Location {
    /// As configured: `/path`, `@name`, the regex; empty for a server's own.
    pub name: Vec<u8>,
    /// nginx core's settings.
    pub core: CoreLocation,
    /// All modules' settings, merged.
    pub settings: Slots,
    /// Handlers of each phase.
    pub phases: [Vec<PhaseHandler>; PHASES],
    /// The handler that makes the response, in place of the content phase.
    pub content: Option<Arc<dyn Handler>>,
    /// Header filters, in their order.
    pub header_filters: Vec<Arc<dyn HeaderFilter>>,
    /// Whether one of them may wait.
    pub header_filters_may_wait: bool,
    /// Body filters, in their order.
    pub body_filters: Vec<Arc<dyn BodyFilter>>,
}

impl Location {
    /// The handlers of a phase.
    pub fn handlers(&self, phase: Phase) -> &[PhaseHandler] {
        &self.phases[phase as usize]
    }
}

/// A virtual server.
pub struct Server {
    /// nginx core's settings of the server.
    pub core: CoreServer,
    /// Its own settings as a location: what applies where no location does.
    pub root: LocationIndex,
    /// Its locations.
    pub locations: LocationTree,
    /// Its named locations.
    pub named: FxHashMap<Vec<u8>, LocationIndex>,
}

impl Server {
    /// The location `@name`.
    pub fn named(&self, name: &[u8]) -> Option<LocationIndex> {
        self.named.get(name).copied()
    }
}

/// An address that is listened on, with the servers behind it.
pub struct Listen {
    /// The address.
    pub address: Address,
    /// Its socket's options.
    pub options: ListenOptions,
    /// Where TLS is asked for, if it is.
    pub ssl: Option<Position>,
    /// Which server answers to which name.
    pub names: ServerNames,
}

/// A loaded configuration.
pub struct Generation {
    /// All locations.
    pub locations: Vec<Location>,
    /// All servers.
    pub servers: Vec<Server>,
    /// All addresses.
    pub listens: Vec<Listen>,
    /// All variables.
    pub vars: VarTable,
    /// The modules.
    pub modules: &'static [&'static dyn Module],
    /// The main `error_log`, for what belongs to no request.
    pub log: Arc<ErrorLog>,
    /// nginx's prefix (`-p`).
    pub prefix: PathBuf,
    /// Position among the generations of the process, from 1.
    pub number: u64,
    pub(crate) shared: Vec<Arc<dyn Any + Send + Sync>>,
}

impl Generation {
    /// A server.
    pub fn server(&self, index: ServerIndex) -> &Server {
        &self.servers[index.0 as usize]
    }

    /// A location.
    pub fn location(&self, index: LocationIndex) -> &Location {
        &self.locations[index.0 as usize]
    }

    /// What a module shared with [`crate::Builder::share`].
    pub fn shared<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.shared.iter().find_map(|s| Arc::clone(s).downcast().ok())
    }
}
