//! Status lines and nginx's extra codes.

pub use terrace_http1::reason;

/// The client was too slow; as in nginx, the connection is closed without an answer.
pub const REQUEST_TIMEOUT: u16 = 408;
/// Close the connection without an answer (nginx's 444).
pub const CLOSE: u16 = 444;
/// Header too large (nginx's 494, sent as 400).
pub const HEADER_TOO_LARGE: u16 = 494;
/// The client went away first (nginx's 499, seen only in logs).
pub const CLIENT_CLOSED: u16 = 499;
/// 500.
pub const INTERNAL: u16 = 500;

/// Whether a response with this status has no body (RFC 9110 section 6.4.1).
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}
