//! What a module is: a table of directives, variables, and what it adds to locations and workers.

use std::rc::Rc;

use terrace_conf::{ConfError, Contexts, Directive};

use crate::phase::LocalFuture;
use crate::{Builder, LocationBuilder, Worker};

/// One module, in nginx's sense. All hooks but the directives are optional.
pub trait Module: Send + Sync {
    /// Its directives. The concatenation of all modules' tables is the configuration language.
    fn directives(&self) -> &'static [Directive<Builder>] {
        &[]
    }

    /// The blocks that are its own: the context within, and the name for hints and the reference.
    fn contexts(&self) -> &'static [(Contexts, &'static str)] {
        &[]
    }

    /// Declares variables. Runs before the configuration is read.
    fn variables(&self, _builder: &mut Builder) {}

    /// Adds handlers and filters to a location whose settings are merged. Modules are called in their list's
    /// order, which is thus the order of handlers within a phase and of filters within a response.
    fn location(&self, _builder: &mut Builder, _location: &mut LocationBuilder) -> Result<(), ConfError> {
        Ok(())
    }

    /// The configuration is complete: last checks, state that the generation shares.
    fn finish(&self, _builder: &mut Builder) -> Result<(), ConfError> {
        Ok(())
    }

    /// A worker of a generation starts, before it accepts connections.
    fn worker_start(&self, _worker: &Rc<Worker>) -> Option<LocalFuture<Result<(), String>>> {
        None
    }

    /// A worker of a generation ends, after its last connection.
    fn worker_end(&self, _worker: &Rc<Worker>) -> Option<LocalFuture<()>> {
        None
    }
}
