//! A configured site for tests: requests go through a socket pair and the real connection code.

use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use terrace_conf::ConfError;
use terrace_http::{Module, Worker, connection};
use terrace_net::{Address, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::testing::Rig;

/// A worker with a configuration and a directory of its own.
pub(crate) struct Site {
    rig: Rig,
    worker: Rc<Worker>,
    runtime: Runtime,
}

impl Site {
    /// A site whose `http` block has this text.
    pub(crate) fn new(modules: &'static [&'static dyn Module], http: &str) -> Site {
        Site::build(modules, http).unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`Site::new`], for configurations that may be wrong.
    pub(crate) fn build(modules: &'static [&'static dyn Module], http: &str) -> Result<Site, ConfError> {
        let rig = Rig::new();
        for name in ["logs", "html"] {
            std::fs::create_dir(rig.path(name)).expect("a directory below the site's");
        }
        let generation = rig.load(modules, &format!("http {{ {http} }}"), false)?;
        let worker = Worker::new(0, Arc::new(generation));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Site { rig, worker, runtime: runtime.expect("a runtime") })
    }

    /// Writes a file below the site's directory and sets its time of change (Unix seconds).
    pub(crate) fn file(&self, name: &str, content: &[u8], modified_secs: u64) {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("the file's directory");
        }
        let mut file = std::fs::File::create(&path).expect("the file");
        file.write_all(content).expect("its content");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified_secs);
        file.set_modified(time).expect("its time");
    }

    /// A path below the site's directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
        self.rig.path(name)
    }

    /// The content of a file below the site's directory; empty if there is none.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Sends a request line and header lines (each of `fields` with its line end left out) and returns the answer.
    pub(crate) fn ask(&self, line: &str, fields: &[&str]) -> Answer {
        let mut text = format!("{line} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n");
        for field in fields {
            text.push_str(field);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        Answer::parse(&self.send(text.as_bytes()))
    }

    /// Sends bytes over a connection of their own and returns everything that comes back.
    pub(crate) fn send(&self, bytes: &[u8]) -> Vec<u8> {
        self.runtime.block_on(LocalSet::new().run_until(async {
            let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
            let peer = Address::Ip(([127, 0, 0, 1], 40_000).into());
            let worker = Rc::clone(&self.worker);
            tokio::task::spawn_local(connection::serve(worker, Stream::Unix(far), peer, 0, 1, 0));
            near.write_all(bytes).await.expect("the request is taken");
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.expect("the answer ends");
            answer
        }))
    }
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
