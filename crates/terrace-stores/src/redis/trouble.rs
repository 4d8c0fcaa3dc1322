//! What may go wrong between a command and its answer, and what is done about it.

use ::redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

use super::options::Address;

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The slot lives elsewhere now.
    Moved(Address),
    /// The slot is on its way elsewhere, and this key is there already.
    Ask(Address),
    /// The server does not have the script.
    NoScript,
    /// Not now: loading, failing over, no longer a master, out of memory.
    NotNow(String),
    /// The connection cannot be made or is gone. Whether the command was carried out is not known.
    Lost(String),
    /// No answer in time. Whether the command was carried out is not known.
    Timeout,
    /// Asked again, it fails again.
    Refused(String),
}

impl Trouble {
    /// A server's error. `host` is the server's own, for redirections that name none.
    pub(super) fn of_server(error: &ServerError, host: &str) -> Self {
        let text =
            || format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned();
        match error.kind() {
            Some(ServerErrorKind::Moved) => {
                redirection(error, host).map_or_else(|| Self::NotNow(text()), Self::Moved)
            }
            Some(ServerErrorKind::Ask) => {
                redirection(error, host).map_or_else(|| Self::NotNow(text()), Self::Ask)
            }
            Some(ServerErrorKind::NoScript) => Self::NoScript,
            Some(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly,
            ) => Self::NotNow(text()),
            _ => match error.code() {
                "BUSY" | "OOM" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED" | "FAILOVER" => Self::NotNow(text()),
                _ => Self::Refused(text()),
            },
        }
    }

    /// An error of the connection, or of making it.
    pub(super) fn of_connection(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => {
                Self::Refused(error.to_string())
            }
            ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
                Self::Refused(error.to_string())
            }
            ErrorKind::Extension if !matches!(error.code(), Some("LOADING" | "BUSY" | "MISCONF")) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Moved(to) => write!(f, "the slot has moved to {to}"),
            Self::Ask(to) => write!(f, "the slot is moving to {to}"),
            Self::NoScript => f.write_str("the script is not known"),
            Self::NotNow(why) | Self::Lost(why) | Self::Refused(why) => f.write_str(why),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

/// `<slot> <host>:<port>`; an empty host means the one that answered.
fn redirection(error: &ServerError, host: &str) -> Option<Address> {
    let (_, target) = error.details()?.split_once(' ')?;
    let (to, port) = target.trim().rsplit_once(':')?;
    let to = to.trim_start_matches('[').trim_end_matches(']');
    Some(Address::new(if to.is_empty() || to == "?" { host } else { to }, port.parse().ok()?))
}
