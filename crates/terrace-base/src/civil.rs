//! Calendar arithmetic: seconds since the epoch to a Gregorian date and back, without time zones.
//!
//! Pure integer arithmetic, so that formatting a date never allocates, locks or fails.

pub(crate) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
pub(crate) const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];

/// 9999-12-31 23:59:59: the last second whose year has four digits, to which formatting is clamped.
pub(crate) const SECONDS_MAX: i64 = 253_402_300_799;

const SECONDS_PER_DAY: i64 = 86_400;
/// Days in 400 Gregorian years, the period of the calendar.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// A broken-down time of day and date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

impl Civil {
    /// Breaks down seconds since 1970-01-01, clamped to the years 1 to 9999.
    pub fn from_seconds(seconds: i64) -> Civil {
        // -62135596800 is 0001-01-01.
        let seconds = seconds.clamp(-62_135_596_800, SECONDS_MAX);
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let in_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        // Years begin in March here, so that the leap day is the last one.
        let shifted = days + EPOCH_DAYS;
        let era = shifted.div_euclid(DAYS_PER_ERA);
        let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_PER_ERA - 1)) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Civil {
            year: (era * 400 + year_of_era + i64::from(month <= 2)) as u32,
            month: month as u32,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            weekday: (days + 4).rem_euclid(7) as u32,
        }
    }

    /// Seconds since 1970-01-01, or `None` when a field is out of its range. The weekday is not looked at.
    pub fn to_seconds(self) -> Option<i64> {
        if !(1..=12).contains(&self.month)
            || self.day == 0
            || self.day > days_in_month(self.year, self.month)
            || self.hour > 23
            || self.minute > 59
            || self.second > 59
        {
            return None;
        }
        let march_year = i64::from(self.year) - i64::from(self.month <= 2);
        let march_month = i64::from((self.month + 9) % 12);
        let era = march_year.div_euclid(400);
        let year_of_era = march_year.rem_euclid(400);
        let day_of_year = (153 * march_month + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_PER_ERA + day_of_era - EPOCH_DAYS;
        Some(days * SECONDS_PER_DAY + i64::from(self.hour * 3600 + self.minute * 60 + self.second))
    }
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Writes `value` as decimal digits that fill all of `out`, with leading zeros.
pub(crate) fn put_digits(out: &mut [u8], mut value: u32) {
    for slot in out.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_goes_there_and_back() {
        let mut previous = Civil::from_seconds(-86_400);
        for day in 0..40_000 {
            let seconds = day * SECONDS_PER_DAY + 12_345;
            let civil = Civil::from_seconds(seconds);
            assert_eq!(civil.to_seconds(), Some(seconds));
            assert_eq!(civil.weekday, (previous.weekday + 1) % 7);
            assert!((civil.year, civil.month, civil.day) > (previous.year, previous.month, previous.day));
            previous = civil;
        }
    }

    #[test]
    fn out_of_range_fields_are_refused() {
        let good = Civil { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59, weekday: 0 };
        assert!(good.to_seconds().is_some());
        assert_eq!(Civil { year: 2023, ..good }.to_seconds(), None);
        assert_eq!(Civil { year: 1900, ..good }.to_seconds(), None);
        assert_eq!(Civil { month: 13, ..good }.to_seconds(), None);
        assert_eq!(Civil { hour: 24, ..good }.to_seconds(), None);
        assert_eq!(Civil { second: 60, ..good }.to_seconds(), None);
        assert_eq!(Civil { day: 0, ..good }.to_seconds(), None);
    }
}
