//! A sans-io HTTP/1 codec for both the server and the client side.
//!
//! The server side reads requests ([`RequestHead`]), the client side reads the responses of an upstream
//! ([`ResponseHead`]); both name the framing of the body that follows ([`Framing`]) and share one [`BodyDecoder`].
//! [`uri`] turns a request target into the path that locations are matched against, [`encode`] writes heads and
//! chunks.
//!
//! Where nginx and RFC 9112 leave room the codec does as nginx does, except where nginx's leniency can be used to
//! smuggle a request: there it refuses. The codec owns no buffer: heads hold [`Span`]s (offsets) into the caller's,
//! so that the caller can keep the bytes as one cheaply shared buffer. Nothing here touches a socket or a clock,
//! and a request whose head has up to [`HEADERS_INLINE`] lines is read without allocating.
#![forbid(unsafe_code)]

mod body;
pub mod encode;
mod error;
mod framing;
mod header;
pub mod host;
mod limits;
mod line;
mod request;
mod request_line;
mod response;
mod span;
mod status;
pub mod uri;

pub use body::{BodyDecoder, CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, Decoded, TRAILER_BYTES_MAX};
pub use error::{BodyError, RequestError, ResponseError};
pub use framing::Framing;
pub use header::{HEADERS_INLINE, HeaderLine, Headers, KnownHeader, NameSet};
pub use limits::{HEADERS_MAX_DEFAULT, HeadLimits, ResponseLimits};
pub use request::{Progress, RequestHead};
pub use request_line::{Method, RequestLine, Version};
pub use response::ResponseHead;
pub use span::Span;
pub use status::{reason, status_line};

#[cfg(test)]
mod mutation_tests;
