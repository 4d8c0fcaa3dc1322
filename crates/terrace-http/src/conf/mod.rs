//! The builder: takes the configuration's directives one by one and ends in a [`Generation`].
//!
//! Blocks nest as drafts. When the `http` block is read whole, each draft's settings are merged from the outside in
//! and the modules are asked what they add to each location.

mod assemble;
mod location_builder;
pub mod slots;
pub mod table;

use std::any::{Any, TypeId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_base::log::Level;
use terrace_conf::{ConfError, Contexts, Node, Position, Registry};
use terrace_regex::{Options, Regex};

pub use location_builder::LocationBuilder;
pub use slots::{Merge, MergeContext, Slots};

use crate::generation::Generation;
use crate::location_tree::{LocationIndex, Matcher};
use crate::module::Module;
use crate::persistent::Persistent;
use crate::vars::{VarIndex, VarTable};

/// What kind of block a draft is.
pub enum DraftKind {
    /// Outside of all blocks.
    Main,
    /// `http`.
    Http,
    /// `server`.
    Server,
    /// `location`; a named one has no matcher.
    Location(Option<Matcher>),
    /// `if` in a location, or `limit_except`.
    Inner,
}

/// A block being read.
pub struct Draft {
    kind: DraftKind,
    slots: Slots,
    children: Vec<Draft>,
    index: LocationIndex,
    name: Vec<u8>,
    at: Position,
}

/// How the process was started, for paths in the configuration.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `-p`: relative paths start here.
    pub prefix: PathBuf,
    /// The configuration file's directory.
    pub conf_dir: PathBuf,
    /// `-e`: where errors go that the configuration sends nowhere.
    pub error_log: Option<PathBuf>,
    /// `-t`: check only; nothing lasting may be opened or started.
    pub test_only: bool,
}

/// The named groups of a regex: the variables they set, and their numbers.
pub type NamedGroups = Vec<(VarIndex, usize)>;

/// Builds a generation from directives.
pub struct Builder {
    /// The directives.
    pub registry: Arc<Registry<Builder>>,
    /// The modules, in their order.
    pub modules: &'static [&'static dyn Module],
    /// Where the process runs.
    pub paths: Paths,
    /// The variables.
    pub vars: VarTable,
    /// What outlives generations: shared dictionaries, caches.
    pub persistent: Arc<Persistent>,
    drafts: Vec<Draft>,
    locations: u32,
    state: FxHashMap<TypeId, Box<dyn Any>>,
    shared: Vec<Arc<dyn Any + Send + Sync>>,
    warnings: Vec<(Level, String)>,
}

impl Builder {
    /// An empty configuration.
    pub fn new(
        registry: Arc<Registry<Builder>>,
        modules: &'static [&'static dyn Module],
        paths: Paths,
        persistent: Arc<Persistent>,
    ) -> Builder {
        let mut b = Builder {
            registry,
            modules,
            paths,
            vars: VarTable::default(),
            persistent,
            drafts: Vec::new(),
            locations: 0,
            state: FxHashMap::default(),
            shared: Vec::new(),
            warnings: Vec::new(),
        };
        b.drafts.push(Draft {
            kind: DraftKind::Main,
            slots: Slots::default(),
            children: Vec::new(),
            index: LocationIndex(0),
            name: Vec::new(),
            at: Position { file: "".into(), line: 0 },
        });
        crate::variables::define(&mut b.vars);
        for m in modules {
            m.variables(&mut b);
        }
        b
    }

    /// Reads all directives and builds the generation.
    pub fn build(
        mut self,
        nodes: &[Node],
        number: u64,
    ) -> Result<(Generation, Vec<(Level, String)>), ConfError> {
        let registry = Arc::clone(&self.registry);
        registry.apply(&mut self, Contexts::MAIN, nodes)?;
        // What tunes something else than Terrace is no matter of concern for those who watch a running server's log.
        registry.take_warnings(&mut |w| self.warnings.push((Level::Notice, w)));
        assemble::assemble(self, number)
    }

    /// The current block's settings of a module.
    pub fn conf<T: Merge>(&mut self) -> &mut T {
        self.draft().slots.of::<T>()
    }

    fn draft(&mut self) -> &mut Draft {
        self.drafts.last_mut().unwrap_or_else(|| unreachable!("the main draft is never left"))
    }

    /// State of a module while the configuration is read.
    pub fn state<T: Default + 'static>(&mut self) -> &mut T {
        let s = self.state.entry(TypeId::of::<T>()).or_insert_with(|| Box::<T>::default());
        s.downcast_mut().unwrap_or_else(|| unreachable!("state is keyed by its type"))
    }

    /// Keeps a value with the generation, for [`Generation::shared`].
    pub fn share<T: Any + Send + Sync>(&mut self, value: Arc<T>) {
        self.shared.push(value);
    }

    /// Says something that is no error.
    pub fn warn(&mut self, at: &Position, message: &str) {
        self.remark(Level::Warn, at, message);
    }

    /// Says something of this level.
    pub fn remark(&mut self, level: Level, at: &Position, message: &str) {
        self.warnings.push((level, format!("{message} in {at}")));
    }

    /// A path of the configuration: relative ones start at the prefix.
    pub fn full_path(&self, path: &str) -> PathBuf {
        self.paths.prefix.join(Path::new(path))
    }

    /// Reads a block as a draft of its own; for `http`, `server`, `location`, `if`. The index of the block's own
    /// settings as a location is returned.
    pub fn block(
        &mut self,
        kind: DraftKind,
        context: Contexts,
        name: &[u8],
        node: &Node,
    ) -> Result<LocationIndex, ConfError> {
        let index = LocationIndex(self.locations);
        self.locations += 1;
        self.drafts.push(Draft {
            kind,
            slots: Slots::default(),
            children: Vec::new(),
            index,
            name: name.to_vec(),
            at: node.at.clone(),
        });
        let registry = Arc::clone(&self.registry);
        let result = registry.apply(self, context, node.children());
        if let Some(done) = self.drafts.pop() {
            self.draft().children.push(done);
        }
        result.map(|()| index)
    }

    /// Runs the directives of a block that is no location (`upstream`, `types`, `map` …) in the current draft.
    pub fn nested(&mut self, context: Contexts, node: &Node) -> Result<(), ConfError> {
        let registry = Arc::clone(&self.registry);
        registry.apply(self, context, node.children())
    }

    /// The name of the location being read, and whether it is a regex; for directives that forbid some.
    pub fn location_name(&self) -> Option<(&[u8], bool)> {
        let d = self.drafts.iter().rev().find(|d| matches!(d.kind, DraftKind::Location(_)))?;
        Some((&d.name, matches!(d.kind, DraftKind::Location(Some(Matcher::Pattern(_))))))
    }

    /// Whether the block being read is an `if` (or `limit_except`) in a location.
    pub fn is_inner(&self) -> bool {
        self.drafts.last().is_some_and(|d| matches!(d.kind, DraftKind::Inner))
    }

    /// Whether the enclosing location is an exact one.
    pub fn is_exact(&self) -> bool {
        let d = self.drafts.iter().rev().find(|d| matches!(d.kind, DraftKind::Location(_)));
        d.is_some_and(|d| matches!(d.kind, DraftKind::Location(Some(Matcher::Exact(_)))))
    }

    /// `-e`: the error log named on the command line.
    pub fn error_log_override(&self) -> Option<PathBuf> {
        self.paths.error_log.clone()
    }

    /// Whether the enclosing location is a named one.
    pub fn is_named(&self) -> bool {
        self.location_name().is_some_and(|(n, _)| n.first() == Some(&b'@'))
    }

    /// Compiles a regex of the configuration; its named groups become variables.
    pub fn regex(
        &mut self,
        pattern: &[u8],
        caseless: bool,
        at: &Position,
    ) -> Result<(Arc<Regex>, NamedGroups), ConfError> {
        let options = Options { caseless, ..Options::default() };
        let regex = Regex::new(pattern, options).map_err(|e| ConfError::at(at, e.to_string()))?;
        let mut names = Vec::new();
        for (name, group) in regex.name_table() {
            let var = self.vars.define_stored(name.as_bytes()).map_err(|e| ConfError::at(at, e))?;
            names.push((var, *group));
        }
        Ok((Arc::new(regex), names))
    }
}
