//! A bound on how many of something begin each second: a bucket that fills steadily and holds one second's worth.

use parking_lot::Mutex;

/// The bucket, in thousandths of one.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<Option<(u64, u64)>>);

impl Rate {
    /// Whether one more may begin.
    pub(crate) fn take(&self, now_ms: u64, per_s: u32) -> bool {
        let full = u64::from(per_s) * 1000;
        let mut state = self.0.lock();
        let (level, at_ms) = state.unwrap_or((full, now_ms));
        let gained = now_ms.saturating_sub(at_ms).saturating_mul(u64::from(per_s));
        let level = level.saturating_add(gained).min(full);
        let may = level >= 1000;
        *state = Some((if may { level - 1000 } else { level }, now_ms.max(at_ms)));
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_and_then_the_rate() {
        let rate = Rate::default();
        assert_eq!((0..50).filter(|_| rate.take(1_000, 10)).count(), 10);
        assert!(!rate.take(1_099, 10));
        assert!(rate.take(1_100, 10));
        assert!(!rate.take(1_100, 10));
        assert!((0..5).all(|_| !rate.take(9_000, 0)));
    }
}
