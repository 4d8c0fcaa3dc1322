//! One contender for one lock: its node, who stands before it, and the end of both.
//!
//! Invariant: from the moment the node is known until the contender is dropped, somebody owns it; then it is deleted, or
//! the session ends, whichever comes first.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::hex;

/// What contenders of a lock have in their names, before the sequence number.
const MARK: &str = "lock-";
/// How much of its key a node holds as its value, for people who look at the tree.
const KEY_BYTES_SHOWN: usize = 256;
/// Pause before a step that lost its connection is taken again; the session's end limits the number.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A node that contends for a lock, or holds it. Dropping it deletes the node.
pub(super) struct Contender {
    client: Client,
    runtime: Handle,
    dir: String,
    name: String,
}

impl Contender {
    /// Creates a node in the folder of a lock, and the folder if need be.
    pub async fn create(client: Client, dir: String, key: Bytes) -> Result<Self, Error> {
        let prefix = format!("_c_{}-{MARK}", unique()?);
        let path = format!("{dir}/{prefix}");
        let shown = &key[..key.len().min(KEY_BYTES_SHOWN)];
        let node = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let folder = CreateMode::Container.with_acls(Acls::anyone_all());
        let name = loop {
            match client.create(&path, shown, &node).await {
                Ok((_, sequence)) => break format!("{prefix}{sequence}"),
                Err(Error::NoNode) => match client.mkdir(&dir, &folder).await {
                    Ok(()) | Err(Error::NodeExists) => {}
                    Err(error) if is_loss(&error) => tokio::time::sleep(RETRY_PAUSE).await,
                    Err(error) => return Err(error),
                },
                // It may have been created nevertheless: its name tells.
                Err(error) if is_loss(&error) => match children(&client, &dir).await {
                    Ok(names) => {
                        if let Some(name) = names.into_iter().find(|name| name.starts_with(&prefix)) {
                            break name;
                        }
                    }
                    Err(Error::NoNode) => {}
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        };
        Ok(Self { client, runtime: Handle::current(), dir, name })
    }

    /// The name of the contender that stands right before this one; none if this one holds the lock.
    pub async fn predecessor(&self) -> Result<Option<String>, Error> {
        let own = sequence(&self.name).ok_or(Error::RuntimeInconsistent)?;
        let names = children(&self.client, &self.dir).await?;
        if !names.contains(&self.name) {
            // Somebody deleted it: the lock is not to be had any more.
            return Err(Error::RuntimeInconsistent);
        }
        let before = names.into_iter().filter_map(|name| Some((sequence(&name)?, name)));
        Ok(before.filter(|(number, _)| *number < own).max().map(|(_, name)| name))
    }

    /// Waits for the turn of this contender, at first behind `predecessor`.
    pub async fn wait_behind(&self, mut predecessor: String) -> Result<(), Error> {
        loop {
            match self.client.get_and_watch_data(&format!("{}/{predecessor}", self.dir)).await {
                // Its end, or that of the session; both are seen in the next look.
                Ok((_, _, watcher)) => drop(watcher.changed().await),
                Err(Error::NoNode) => {}
                Err(error) if is_loss(&error) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error),
            }
            match self.predecessor().await? {
                None => return Ok(()),
                Some(next) => predecessor = next,
            }
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let client = self.client.clone();
        let path = format!("{}/{}", self.dir, self.name);
        self.runtime.spawn(async move {
            while client.delete(&path, None).await.is_err_and(|error| is_loss(&error)) {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        });
    }
}

async fn children(client: &Client, dir: &str) -> Result<Vec<String>, Error> {
    loop {
        match client.list_children(dir).await {
            Err(error) if is_loss(&error) => tokio::time::sleep(RETRY_PAUSE).await,
            result => return result,
        }
    }
}

/// Whether a step is to be taken again: its answer was lost with the connection, or the service has too much to do. That a
/// connection was reset or has fallen silent is an error of the client's own; the session's end is told by others.
fn is_loss(error: &Error) -> bool {
    matches!(error, Error::ConnectionLoss | Error::Custom(_) | Error::Throttled)
}

/// The number at the end of a contender's name; none for other nodes.
fn sequence(name: &str) -> Option<i64> {
    let (_, number) = name.rsplit_once(MARK)?;
    number.parse().ok()
}

/// Random, in the form of a UUID of version 4 (RFC 9562).
fn unique() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::UnexpectedError(e.to_string()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]))
}
