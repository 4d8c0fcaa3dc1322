//! Reads the servers' answers. An answer that makes no sense is none: the caller's miss.

use ::redis::Value;
use bytes::Bytes;
use terrace_cache::Version;

use super::names::narrow;

/// A value as it lies in Redis, not yet decoded.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) age_ms: u64,
    /// When it was filled, by Redis' clock; names the value when it turns out to be unreadable.
    pub(super) filled_ms: u64,
    pub(super) envelope: Bytes,
}

/// The answer of the lookup's script.
#[derive(Debug)]
pub(super) enum Got {
    Fresh(Raw),
    Lease(Option<Raw>),
    Held(u64, Option<Raw>),
}

/// The answer of the scripts that fill.
#[derive(Debug)]
pub(super) enum Done {
    Stored,
    Voided,
    Older(Version),
}

pub(super) fn got(value: Value) -> Option<Got> {
    let Value::Array(items) = value else { return None };
    let mut items = items.into_iter();
    let (kind, age_ms, filled_ms) = (number(items.next()?)?, number(items.next()?)?, number(items.next()?)?);
    let raw = bytes(items.next()?).map(|envelope| Raw { age_ms, filled_ms, envelope });
    match kind {
        1 => raw.map(Got::Fresh),
        2 => Some(Got::Lease(raw)),
        3 => Some(Got::Held(number(items.next()?)?, raw)),
        _ => None,
    }
}

pub(super) fn done(value: Value) -> Option<Done> {
    let Value::Array(items) = value else { return None };
    let mut items = items.into_iter();
    match number(items.next()?)? {
        1 => Some(Done::Stored),
        0 => Some(Done::Voided),
        2 => Some(Done::Older(narrow(&bytes(items.next()?)?)?)),
        _ => None,
    }
}

/// The answer to TIME, in milliseconds.
pub(super) fn time_ms(value: &Value) -> Option<u64> {
    let Value::Array(items) = value else { return None };
    let [Value::BulkString(seconds), Value::BulkString(micros)] = &items[..] else { return None };
    let parse = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    Some(parse(seconds)?.checked_mul(1000)? + parse(micros)? / 1000)
}

/// The answer to HMGET of the state and the value: the value if it is fresh at `now_ms`, and its version.
pub(super) fn fresh(value: Value, now_ms: u64) -> Option<(Version, Raw)> {
    let Value::Array(items) = value else { return None };
    let mut items = items.into_iter();
    let (state, envelope) = (bytes(items.next()?)?, bytes(items.next()?)?);
    let mut fields = state.split(|byte| *byte == b' ');
    let version = narrow(fields.next()?)?;
    narrow(fields.next()?)?;
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (filled_ms, ttl_ms) = (number()?, number()?);
    if filled_ms == 0 || now_ms >= filled_ms.saturating_add(ttl_ms) {
        return None;
    }
    Some((version, Raw { age_ms: now_ms.saturating_sub(filled_ms), filled_ms, envelope }))
}

pub(super) fn number(value: Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        _ => None,
    }
}
