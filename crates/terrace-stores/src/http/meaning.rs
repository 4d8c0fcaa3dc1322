//! What the header of an answer says about its value: life (RFC 9111 section 5.2.2) and version.

use jiff::fmt::rfc2822::DateTimeParser;
use terrace_cache::{LoadError, Version, version};

use super::client::Answer;

/// The life that Cache-Control gives to a shared cache, less Age; none if it gives none. Zero: not to be stored.
pub(super) fn ttl_ms(answer: &Answer) -> Option<u64> {
    let (mut max_age, mut s_maxage) = (None, None);
    for field in answer.all("cache-control") {
        for directive in field.split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || value.trim().trim_matches('"').parse::<u64>().ok();
            let name = name.trim();
            if ["no-store", "no-cache", "private"].iter().any(|it| name.eq_ignore_ascii_case(it)) {
                return Some(0);
            } else if name.eq_ignore_ascii_case("max-age") {
                max_age = max_age.or_else(seconds);
            } else if name.eq_ignore_ascii_case("s-maxage") {
                s_maxage = s_maxage.or_else(seconds);
            }
        }
    }
    let age = answer.first("age").and_then(|age| age.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(s_maxage.or(max_age)?.saturating_sub(age).saturating_mul(1000))
}

/// The version in the field of this name; zero without the field.
pub(super) fn version(answer: &Answer, name: &str) -> Result<Version, LoadError> {
    let Some(field) = answer.first(name) else { return Ok(0) };
    let text = field.strip_prefix("W/").unwrap_or(field).trim_matches('"');
    let date = || {
        let at = DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(at.as_microsecond()).ok()
    };
    version::from_text(text).or_else(date).ok_or_else(|| {
        LoadError::Invalid(format!("the header {name}: \"{field}\" is neither a number nor a time").into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&str, &str)]) -> Answer {
        let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Answer { status: 200, fields, body: Vec::new() }
    }

    #[test]
    fn lives() {
        let ttl = |control: &str, age: &str| ttl_ms(&answer(&[("Cache-Control", control), ("Age", age)]));
        assert_eq!(ttl("max-age=60", "0"), Some(60_000));
        assert_eq!(ttl("public, Max-Age=\"60\"", "45"), Some(15_000));
        assert_eq!(ttl("max-age=60, s-maxage=10", "45"), Some(0));
        assert_eq!(ttl("max-age=60, no-store", "0"), Some(0));
        assert_eq!(ttl("private", "0"), Some(0));
        assert_eq!(ttl("max-age=soon", "0"), None);
        assert_eq!(ttl("public", "7"), None);
        assert_eq!(ttl("max-age=60", "old"), Some(60_000));
        assert_eq!(ttl_ms(&answer(&[])), None);
        let two = [("cache-control", "public"), ("cache-control", "max-age=3")];
        assert_eq!(ttl_ms(&answer(&two)), Some(3_000));
    }

    #[test]
    fn versions() {
        let of = |text: &str| version(&answer(&[("X-Version", text)]), "x-version").ok();
        assert_eq!(of("42"), Some(42));
        assert_eq!(of("W/\"42\""), Some(42));
        assert_eq!(of("2024-01-02T03:04:05Z"), Some(1_704_164_645_000_000));
        assert_eq!(of("Tue, 02 Jan 2024 03:04:05 GMT"), Some(1_704_164_645_000_000));
        assert_eq!(of("\"abc\""), None);
        assert_eq!(version(&answer(&[]), "ETag"), Ok(0));
    }
}
