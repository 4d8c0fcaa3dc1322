//! A way to ZooKeeper that breaks when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Hands bytes on in both directions.
pub struct Relay {
    /// Where it listens.
    pub address: String,
    breaks: Arc<AtomicBool>,
}

impl Relay {
    /// A way to the server at `to`.
    pub async fn start(to: String) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let breaks = Arc::new(AtomicBool::new(false));
        let relay = Relay { address, breaks: Arc::clone(&breaks) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.expect("the server is there");
                tokio::spawn(hand_on(client, server, Arc::clone(&breaks)));
            }
        });
        relay
    }

    /// The next bytes of a client get lost, and its connection is reset.
    pub fn break_next(&self) {
        self.breaks.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub fn has_broken(&self) -> bool {
        !self.breaks.load(Ordering::SeqCst)
    }
}

async fn hand_on(mut client: TcpStream, mut server: TcpStream, breaks: Arc<AtomicBool>) {
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            n = client.read(&mut asked) => match n {
                Ok(0) | Err(_) => return,
                Ok(_) if breaks.swap(false, Ordering::SeqCst) => {
                    // Closing then resets.
                    client.set_zero_linger().expect("an option of sockets");
                    return;
                }
                Ok(n) => server.write_all(&asked[..n]).await.expect("the server is there"),
            },
            n = server.read(&mut answered) => match n {
                Ok(0) | Err(_) => return,
                Ok(n) => if client.write_all(&answered[..n]).await.is_err() { return },
            },
        }
    }
}
