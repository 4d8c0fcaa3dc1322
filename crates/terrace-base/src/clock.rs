//! The cached clock of a thread, as in nginx: read once per turn of the event loop, then free to ask.
//!
//! A worker calls [`update`] when it wakes up; everything else reads thread-local cells. All functions of one turn
//! therefore agree on the time. A thread that never called [`update`] reads the clocks at its first question and
//! keeps that answer, so threads that run for long call [`update`] themselves. Dates in text are rendered at most
//! once per second and thread.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::civil::{Civil, MONTHS, put_digits};
use crate::http_date::{self, put_time};

/// Local date of the error log, `2026/11/21 07:38:00`.
pub type LogTime = [u8; 19];
/// Local date of the common log format, `21/Nov/2026:07:38:00 +0000`.
pub type ClfTime = [u8; 26];
/// Local date in ISO 8601, `2026-11-21T07:38:00+00:00`.
pub type Iso8601 = [u8; 25];

/// Reads the real-time and the monotonic clock into this thread's cache.
pub fn update() {
    CACHE.with(|cache| cache.real_time.set(None));
    update_at(Instant::now());
}

/// [`update`] where the monotonic clock has just been read. The real-time clock is read only where that was long ago; in
/// between it is taken to have gone on as the monotonic one has.
pub fn update_at(now: Instant) {
    CACHE.with(|cache| {
        let read = cache.real_time.get().filter(|r| now.saturating_duration_since(r.at) < REAL_TIME_KEPT);
        let read = read.unwrap_or_else(|| {
            let read = RealTime { at: now, since_epoch: since_epoch() };
            cache.real_time.set(Some(read));
            read
        });
        cache.now_ms.set(whole_ms(read.since_epoch + now.saturating_duration_since(read.at)));
        cache.monotonic_ms.set(whole_ms(now.saturating_duration_since(monotonic_origin())));
        cache.ready.set(true);
    });
}

/// Milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn now_ms() -> u64 {
    with_cache(|cache| cache.now_ms.get())
}

/// Whole seconds since 1970-01-01 UTC.
#[must_use]
pub fn now_secs() -> u64 {
    now_ms() / 1000
}

/// Milliseconds of the monotonic clock, counted from its first use in this process. Comparable between threads.
#[must_use]
pub fn monotonic_ms() -> u64 {
    with_cache(|cache| cache.monotonic_ms.get())
}

/// The current second as an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT`.
#[must_use]
pub fn http_date() -> [u8; 29] {
    with_cache(|cache| {
        let seconds = cache.now_ms.get() / 1000;
        if cache.http_second.replace(seconds) != seconds {
            cache.http_date.set(http_date::format(seconds));
        }
        cache.http_date.get()
    })
}

/// The current second as the error log writes it, in local time.
#[must_use]
pub fn log_time() -> LogTime {
    with_local(|cache| cache.log_time.get())
}

/// The current second in the common log format, in local time.
#[must_use]
pub fn clf_time() -> ClfTime {
    with_local(|cache| cache.clf_time.get())
}

/// The current second in ISO 8601, in local time.
#[must_use]
pub fn iso8601() -> Iso8601 {
    with_local(|cache| cache.iso8601.get())
}

/// The present second as syslog writes it, `Nov 21 07:38:00`, in local time; not cached.
pub(crate) fn syslog_time() -> [u8; 15] {
    let (civil, _) = local_civil(unix_ms() / 1000);
    let mut out = *b"Jan 00 00:00:00";
    out[0..3].copy_from_slice(MONTHS[civil.month as usize - 1]);
    put_digits(&mut out[4..6], civil.day);
    if out[4] == b'0' {
        out[4] = b' ';
    }
    put_time(&mut out[7..15], civil);
    out
}

/// The second `seconds` since the epoch as the error log writes it, in local time; not cached.
pub(crate) fn format_log_time(seconds: u64) -> LogTime {
    let (civil, _) = local_civil(seconds);
    let mut out = *b"0000/00/00 00:00:00";
    put_digits(&mut out[0..4], civil.year);
    put_digits(&mut out[5..7], civil.month);
    put_digits(&mut out[8..10], civil.day);
    put_time(&mut out[11..19], civil);
    out
}

/// Reads the real-time clock without touching the cache.
pub(crate) fn unix_ms() -> u64 {
    whole_ms(since_epoch())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn whole_ms(time: Duration) -> u64 {
    time.as_secs() * 1000 + u64::from(time.subsec_millis())
}

/// How soon a change of the real-time clock is noticed.
const REAL_TIME_KEPT: Duration = Duration::from_millis(10);

/// What the real-time clock said at a time.
#[derive(Clone, Copy)]
struct RealTime {
    at: Instant,
    since_epoch: Duration,
}

/// A second that no clock shows: the rendered dates are not valid yet.
const NO_SECOND: u64 = u64::MAX;

struct Cache {
    ready: Cell<bool>,
    real_time: Cell<Option<RealTime>>,
    now_ms: Cell<u64>,
    monotonic_ms: Cell<u64>,
    http_second: Cell<u64>,
    http_date: Cell<[u8; 29]>,
    local_second: Cell<u64>,
    log_time: Cell<LogTime>,
    clf_time: Cell<ClfTime>,
    iso8601: Cell<Iso8601>,
}

thread_local! {
    static CACHE: Cache = const {
        Cache {
            ready: Cell::new(false),
            real_time: Cell::new(None),
            now_ms: Cell::new(0),
            monotonic_ms: Cell::new(0),
            http_second: Cell::new(NO_SECOND),
            http_date: Cell::new([0; 29]),
            local_second: Cell::new(NO_SECOND),
            log_time: Cell::new([0; 19]),
            clf_time: Cell::new([0; 26]),
            iso8601: Cell::new([0; 25]),
        }
    };
}

fn with_cache<R>(read: impl FnOnce(&Cache) -> R) -> R {
    CACHE.with(|cache| {
        if !cache.ready.get() {
            update();
        }
        read(cache)
    })
}

fn with_local<R>(read: impl FnOnce(&Cache) -> R) -> R {
    with_cache(|cache| {
        let seconds = cache.now_ms.get() / 1000;
        if cache.local_second.replace(seconds) != seconds {
            let (civil, offset_secs) = local_civil(seconds);
            cache.log_time.set(format_log_time(seconds));
            cache.clf_time.set(format_clf(civil, offset_secs));
            cache.iso8601.set(format_iso8601(civil, offset_secs));
        }
        read(cache)
    })
}

/// The local date of a second, and by how many seconds local time is ahead of UTC then.
fn local_civil(seconds: u64) -> (Civil, i32) {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let zone = ZONE.get_or_init(TimeZone::system);
    let offset_secs = Timestamp::from_second(seconds).map_or(0, |at| zone.to_offset(at).seconds());
    (Civil::from_seconds(seconds.saturating_add(i64::from(offset_secs))), offset_secs)
}

fn format_clf(civil: Civil, offset_secs: i32) -> ClfTime {
    let mut out = *b"00/Jan/0000:00:00:00 +0000";
    put_digits(&mut out[0..2], civil.day);
    out[3..6].copy_from_slice(MONTHS[civil.month as usize - 1]);
    put_digits(&mut out[7..11], civil.year);
    put_time(&mut out[12..20], civil);
    let (sign, hours, minutes) = split_offset(offset_secs);
    out[21] = sign;
    put_digits(&mut out[22..24], hours);
    put_digits(&mut out[24..26], minutes);
    out
}

fn format_iso8601(civil: Civil, offset_secs: i32) -> Iso8601 {
    let mut out = *b"0000-00-00T00:00:00+00:00";
    put_digits(&mut out[0..4], civil.year);
    put_digits(&mut out[5..7], civil.month);
    put_digits(&mut out[8..10], civil.day);
    put_time(&mut out[11..19], civil);
    let (sign, hours, minutes) = split_offset(offset_secs);
    out[19] = sign;
    put_digits(&mut out[20..22], hours);
    put_digits(&mut out[23..25], minutes);
    out
}

fn split_offset(offset_secs: i32) -> (u8, u32, u32) {
    let minutes = offset_secs.unsigned_abs() / 60;
    (if offset_secs < 0 { b'-' } else { b'+' }, minutes / 60, minutes % 60)
}

fn monotonic_origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_one_turn_agree() {
        update();
        let second = now_secs();
        assert_eq!(now_ms() / 1000, second);
        assert_eq!(http_date(), http_date::format(second));
        assert_eq!(log_time(), format_log_time(second));
        assert!(second > 1_700_000_000);
    }

    #[test]
    fn a_thread_that_never_updates_still_has_a_time() {
        let seen = std::thread::spawn(|| (now_ms(), monotonic_ms(), now_ms())).join().unwrap();
        assert!(seen.0 > 0);
        assert_eq!(seen.0, seen.2);
    }

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        update();
        let before = monotonic_ms();
        update();
        assert!(monotonic_ms() >= before);
    }

    #[test]
    fn the_real_time_goes_on_with_the_monotonic_one_until_it_is_read_again() {
        let at = Instant::now();
        update_at(at);
        let before_ms = now_ms();
        update_at(at + Duration::from_millis(5));
        assert_eq!(now_ms(), before_ms + 5);
        // Far ahead of the real time, so this one is read.
        update_at(at + Duration::from_secs(3600));
        assert!(now_ms() < before_ms + 3_600_000);
        assert!(monotonic_ms() >= 3_600_000);
    }

    #[test]
    fn local_forms() {
        let civil = Civil::from_seconds(784_111_777 + 5 * 3600 + 1800);
        assert_eq!(&format_clf(civil, 19_800), b"06/Nov/1994:14:19:37 +0530");
        assert_eq!(&format_iso8601(civil, 19_800), b"1994-11-06T14:19:37+05:30");
        assert_eq!(&format_clf(civil, -12_600)[21..], b"-0330");
        assert_eq!(&format_iso8601(civil, -12_600)[19..], b"-03:30");
    }

    #[test]
    fn the_cached_local_forms_have_one_date() {
        update();
        let (log, clf, iso) = (log_time(), clf_time(), iso8601());
        assert_eq!(&log[11..], &clf[12..20]);
        assert_eq!(&log[11..], &iso[11..19]);
        assert_eq!(&log[0..4], &iso[0..4]);
        assert_eq!(&log[8..10], &clf[0..2]);
    }
}
