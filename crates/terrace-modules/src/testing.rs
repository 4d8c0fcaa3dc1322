//! For the modules' unit tests: a generation from a text in a temporary directory, and requests without sockets.

use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use terrace_conf::{ConfError, Registry};
use terrace_http::conf::Paths;
use terrace_http::generation::ServerIndex;
use terrace_http::persistent::Persistent;
use terrace_http::{Builder, Generation, Module, Request, Worker, engine};
use tokio::runtime::Handle;

/// A directory as the prefix, and what outlives generations.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    persistent: Arc<Persistent>,
}

impl Rig {
    /// With the runtime of the test, if it has one, as the background runtime.
    pub(crate) fn new() -> Rig {
        let persistent = Handle::try_current().map_or_else(|_| Persistent::default(), Persistent::new);
        Rig { dir: tempfile::tempdir().expect("a directory"), persistent: Arc::new(persistent) }
    }

    /// A path below the prefix.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Reads a configuration; `main` is its text but for the `error_log`.
    pub(crate) fn load(
        &self,
        modules: &'static [&'static dyn Module],
        main: &str,
        test_only: bool,
    ) -> Result<Generation, ConfError> {
        let tables: Vec<_> = modules.iter().map(|it| it.directives()).collect();
        let registry = Arc::new(Registry::new(&tables, &[]));
        let text = format!("error_log error.log; {main}");
        let nodes = terrace_conf::parse_text(text.as_bytes(), "test.conf", &|name| registry.is_raw(name))?;
        let prefix = self.dir.path().to_owned();
        let paths = Paths { conf_dir: prefix.clone(), prefix, error_log: None, test_only };
        let builder = Builder::new(registry, modules, paths, self.persistent.clone());
        builder.build(&nodes, 1).map(|(generation, _)| generation)
    }

    /// The error of a configuration that is wrong.
    pub(crate) fn refusal(&self, modules: &'static [&'static dyn Module], main: &str) -> String {
        self.load(modules, main, true)
            .map(|_| "accepted".to_owned())
            .unwrap_or_else(|error| error.to_string())
    }

    /// A worker of a configuration that is right, started.
    pub(crate) fn start(&self, modules: &'static [&'static dyn Module], main: &str) -> Rc<Worker> {
        let generation = self.load(modules, main, false).expect("the configuration is right");
        let worker = Worker::new(0, Arc::new(generation));
        for module in modules {
            assert!(module.worker_start(&worker).is_none(), "this rig awaits no start");
        }
        worker
    }

    /// What was logged so far.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }
}

/// The response to a request.
pub(crate) struct Shown<'a>(pub(crate) &'a Request);

impl Shown<'_> {
    /// `Content-Type`, or nothing.
    pub(crate) fn content_type(&self) -> String {
        let value = self.0.headers_out.content_type.borrow();
        value.as_deref().map(|it| String::from_utf8_lossy(it).into_owned()).unwrap_or_default()
    }

    /// A field of the list, or nothing.
    pub(crate) fn field(&self, name: &str) -> String {
        let value = self.0.headers_out.with(name.as_bytes(), |it| String::from_utf8_lossy(it).into_owned());
        value.unwrap_or_default()
    }

    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.0.headers_out.status.get()
    }
}

/// Serves a request as a part of one that no client made, so that its body is kept; answers with the body.
pub(crate) async fn serve(worker: &Rc<Worker>, method: &str, target: &str) -> (Rc<Request>, String) {
    let mut r = Request::detached(worker, ServerIndex(0));
    Rc::get_mut(&mut r).expect("nobody else has it").parent = Some(Weak::new());
    let (path, args) = target.split_once('?').unwrap_or((target, ""));
    r.set_method(method.as_bytes().to_vec());
    r.set_uri(path.as_bytes().to_vec());
    r.set_args(args.as_bytes().to_vec());
    engine::run(&r).await;
    let body = String::from_utf8(r.output.take_captured()).expect("text");
    (r, body)
}
