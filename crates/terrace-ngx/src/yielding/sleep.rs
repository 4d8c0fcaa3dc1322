//! `ngx.sleep`.

use std::ffi::c_int;
use std::time::Duration;

use terrace_lua::{Values, pending};

use crate::ffi::{AWAIT, FAILED, functions};

functions! {
    "int (*sleep)(double)" => sleep,
}

/// The longest sleep: a year.
const SECONDS_MAX: f64 = 366.0 * 86400.0;

extern "C" fn sleep(seconds: f64) -> c_int {
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return FAILED;
    }
    let duration = Duration::from_secs_f64(seconds);
    pending::set(Box::pin(async move {
        if duration.is_zero() {
            terrace_event::yield_now().await;
        } else {
            terrace_event::sleep(duration).await;
        }
        Values::new()
    }));
    AWAIT
}
