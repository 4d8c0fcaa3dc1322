//! Starts `redis-server`, and ends it with the test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::Value;
use tempfile::TempDir;

use crate::support::eventually;

/// A running server.
pub struct Server {
    pub port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// A server with further options, once it answers.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_at(free_port(), args).await
    }

    /// The same on a port.
    pub async fn start_at(port: u16, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { port, dir: tempfile::tempdir().unwrap(), args, child: None };
        server.run().await;
        server
    }

    /// Starts a server again that was killed, on the same port.
    pub async fn run(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.dir.path())
            .args(&self.args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        eventually("the server answers", async || self.try_command(&["PING"]).await.is_ok()).await;
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal: STOP, CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it is running").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Sends it a command past the store.
    pub async fn command(&self, words: &[&str]) -> Value {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.bytes(&bytes).await
    }

    /// The same with binary words.
    pub async fn bytes(&self, words: &[&[u8]]) -> Value {
        self.try_bytes(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub async fn try_command(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.try_bytes(&bytes).await
    }

    async fn try_bytes(&self, words: &[&[u8]]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query_async(&mut connection).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
