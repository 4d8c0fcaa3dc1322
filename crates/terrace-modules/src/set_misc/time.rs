//! Times as text.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use terrace_base::clock;
use terrace_base::log::Level;
use terrace_http::Request;

/// Today's date in local time.
pub(super) fn local_today(_: &Request, _: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&clock::iso8601()[..10]);
    true
}

/// The time in GMT, in a format of `strftime`.
pub(super) fn formatted_gmt(r: &Request, format: &[u8], out: &mut Vec<u8>) -> bool {
    // Unlike UTC itself, this zone has the name that `%Z` shows in C.
    let zone = TimeZone::posix("GMT0").unwrap_or(TimeZone::UTC);
    formatted(r, format, zone, out)
}

/// The local time, in a format of `strftime`.
pub(super) fn formatted_local(r: &Request, format: &[u8], out: &mut Vec<u8>) -> bool {
    formatted(r, format, TimeZone::system(), out)
}

fn formatted(r: &Request, format: &[u8], zone: TimeZone, out: &mut Vec<u8>) -> bool {
    let now = i64::try_from(clock::now_secs()).ok().and_then(|secs| Timestamp::from_second(secs).ok());
    let text = now.and_then(|now| {
        let format = std::str::from_utf8(format).ok()?;
        strtime::format(format, &now.to_zoned(zone)).ok()
    });
    let Some(text) = text else {
        let format = String::from_utf8_lossy(format);
        r.log(Level::Error, format_args!("the time format \"{format}\" is invalid"));
        return false;
    };
    out.extend_from_slice(text.as_bytes());
    true
}
