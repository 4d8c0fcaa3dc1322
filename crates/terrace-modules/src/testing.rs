//! For the modules' tests: a generation from a text in a temporary directory, and requests to it over a pair of
//! sockets and the real connection code.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use terrace_base::clock;
use terrace_conf::{ConfError, Registry};
use terrace_event::EventLoop;
use terrace_http::conf::Paths;
use terrace_http::persistent::Persistent;
use terrace_http::{Builder, Generation, Module, Worker, connection};
use terrace_net::{Address, Stream};
use tokio::runtime::Handle;

/// The modules that a test is about.
pub(crate) type Modules = &'static [&'static dyn Module];

/// A directory as the prefix, and what outlives generations.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    persistent: Arc<Persistent>,
}

impl Rig {
    /// With the runtime of the test, if it has one, as the background runtime.
    pub(crate) fn new() -> Rig {
        let persistent = Handle::try_current().map_or_else(|_| Persistent::default(), Persistent::new);
        let rig = Rig { dir: tempfile::tempdir().expect("a directory"), persistent: Arc::new(persistent) };
        for name in ["logs", "html"] {
            std::fs::create_dir(rig.path(name)).expect("a directory below the prefix");
        }
        rig
    }

    /// A path below the prefix.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file below the prefix and sets its time of change (Unix seconds).
    pub(crate) fn file(&self, name: impl AsRef<Path>, content: &[u8], modified_secs: u64) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a path below the prefix"))
            .expect("the file's directory");
        let mut file = std::fs::File::create(&path).expect("the file");
        file.write_all(content).expect("its content");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(modified_secs)).expect("its time");
    }

    /// The content of a file below the prefix; empty if there is none.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What was logged so far.
    pub(crate) fn errors(&self) -> String {
        self.read("error.log")
    }

    /// Reads a configuration; `main` is its text but for the `error_log`.
    pub(crate) fn load(
        &self,
        modules: Modules,
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
    pub(crate) fn refusal(&self, modules: Modules, main: &str) -> String {
        let loaded = self.load(modules, main, true);
        loaded.map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    /// A worker of a configuration that is right. No module is told that it starts.
    pub(crate) fn worker(&self, modules: Modules, main: &str) -> Rc<Worker> {
        let generation = self.load(modules, main, false).unwrap_or_else(|error| panic!("{error}"));
        Worker::new(Some(0), Arc::new(generation))
    }

    /// The same, started.
    pub(crate) fn start(&self, modules: Modules, main: &str) -> Rc<Worker> {
        let worker = self.worker(modules, main);
        for module in modules {
            assert!(module.worker_start(&worker).is_none(), "this rig awaits no start");
        }
        worker
    }
}

/// Runs a test as a worker runs its tasks, with a background runtime beside it.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let background = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let background = background.expect("a runtime");
    let _entered = background.enter();
    EventLoop::new(clock::update_at).expect("an event loop").block_on(test)
}

/// A rig, and a worker whose `http` block has this text.
pub(crate) fn site(modules: Modules, http: &str) -> (Rig, Rc<Worker>) {
    let rig = Rig::new();
    let worker = rig.worker(modules, &format!("http {{ {http} }}"));
    (rig, worker)
}

/// Sends `GET` for a target and returns the answer.
pub(crate) async fn get(worker: &Rc<Worker>, target: &str) -> Answer {
    ask(worker, &format!("GET {target}"), &[]).await
}

/// Sends a request line and header lines (each of `fields` with its line end left out) and returns the answer.
pub(crate) async fn ask(worker: &Rc<Worker>, line: &str, fields: &[&str]) -> Answer {
    let mut text = format!("{line} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n");
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Answer::parse(&send(worker, text.as_bytes()).await)
}

/// Sends bytes over a connection of their own and returns everything that comes back.
pub(crate) async fn send(worker: &Rc<Worker>, bytes: &[u8]) -> Vec<u8> {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    let [near, far] = [near, far].map(|end| {
        end.set_nonblocking(true).expect("an end that does not block");
        Stream::new(end.into()).expect("an event loop")
    });
    let peer = Address::Ip(([127, 0, 0, 1], 40_000).into());
    let served = connection::serve(Rc::clone(worker), far, peer, 0, 1, 0);
    let asked = async move {
        near.write_all(bytes).await.expect("the request is taken");
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match near.read(&mut part).await.expect("the answer ends") {
                0 => return answer,
                n => answer.extend_from_slice(&part[..n]),
            }
        }
    };
    tokio::join!(served, asked).1
}

/// A response, taken apart.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    /// The values of all fields with this name, joined by ` | `.
    pub(crate) fn field(&self, name: &str) -> String {
        let lines = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        let values: Vec<&str> = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect();
        values.join(" | ")
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not text)")
    }
}
