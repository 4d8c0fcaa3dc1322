//! What the tests of all servers share.

use std::net::SocketAddr;

use bytes::Bytes;
use terrace_cache::{LoadError, LoadRequest, Loaded, Param, Source};
use terrace_stores::{DatabaseServer, Password, ServerAddress, SqlOptions, SqlSource};

/// The user, the password and the database that the launcher makes have one name.
pub const NAME: &str = "shop";

pub fn server(address: SocketAddr) -> DatabaseServer {
    DatabaseServer {
        address: ServerAddress::Tcp { host: address.ip().to_string(), port: address.port() },
        database: NAME.to_owned(),
        user: NAME.to_owned(),
        password: Password::new(NAME),
    }
}

/// Opens a source that has all the time a loaded machine needs.
pub fn open(mut options: SqlOptions, change: impl FnOnce(&mut SqlOptions)) -> SqlSource {
    (options.acquire_timeout_ms, options.query_timeout_ms) = (60_000, 60_000);
    change(&mut options);
    SqlSource::open(options).expect("good options")
}

pub async fn load(source: &SqlSource, params: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let params = params.iter().map(|(name, value)| Param::new(*name, value.to_string())).collect();
    source.load(LoadRequest { key: Bytes::from_static(b"key"), params }).await
}

pub fn found(json: &str) -> Result<Loaded, LoadError> {
    Ok(Loaded::found(json.to_owned()))
}
