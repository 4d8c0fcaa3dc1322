//! Numbers from and to text: as C's `strtod` reads and as `printf`'s `%.<precision>g` writes them, with short ways for the
//! numbers that documents are made of.

use std::ffi::c_int;

/// Powers of ten that are exact as `f64`.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Whole numbers up to this are exact as `f64`.
const EXACT_MAX: u64 = 1 << 53;
/// The greatest precision for which a decimal that converts to a number is also what `%g` writes for it.
const ROUND_TRIP_DIGITS: usize = 15;
/// Bytes that `%.16g` can need, with the terminating zero: sign, point, exponent and 16 digits, and room to spare.
const FORMAT_LEN_MAX: usize = 40;

/// Reads the decimal number at the start of `text`: its value and length. `None` when it does not start with one, or when
/// it is hexadecimal.
#[inline]
pub(super) fn parse(text: &[u8]) -> Option<(f64, usize)> {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let negative = byte(0) == b'-';
    let mut at = usize::from(negative);
    let digits_start = at;
    let mut mantissa = 0_u64;
    let mut scan = |at: &mut usize| {
        let start = *at;
        while let digit @ b'0'..=b'9' = byte(*at) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            *at += 1;
        }
        *at - start
    };
    let whole_digits = scan(&mut at);
    if whole_digits == 0 || (whole_digits == 1 && byte(digits_start) == b'0' && byte(at) | 0x20 == b'x') {
        return None;
    }
    let mut fraction_digits = 0;
    if byte(at) == b'.' {
        at += 1;
        fraction_digits = scan(&mut at);
    }
    let mut exponent = 0_i64;
    if byte(at) | 0x20 == b'e' {
        let sign_len = usize::from(matches!(byte(at + 1), b'+' | b'-'));
        let exponent_start = at + 1 + sign_len;
        let mut end = exponent_start;
        while let digit @ b'0'..=b'9' = byte(end) {
            exponent = exponent.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            end += 1;
        }
        if end > exponent_start {
            if byte(at + 1) == b'-' {
                exponent = -exponent;
            }
            at = end;
        }
    }
    // 18 digits cannot overflow 64 bits.
    let scale = exponent.saturating_sub(fraction_digits as i64);
    if whole_digits + fraction_digits <= 18 && mantissa <= EXACT_MAX && scale.unsigned_abs() <= 22 {
        // Both are exact, so that the one operation rounds correctly.
        let power = POWERS[scale.unsigned_abs() as usize];
        let value = if scale < 0 { mantissa as f64 / power } else { mantissa as f64 * power };
        return Some((if negative { -value } else { value }, at));
    }
    let literal = str::from_utf8(text.get(..at)?).ok()?;
    Some((literal.parse().ok()?, at))
}

/// Reads whatever C's `strtod` accepts at the start of `text`: its value and length. `None` when that is nothing.
#[cold]
pub(super) fn parse_like_c(text: &[u8]) -> Option<(f64, usize)> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.()_".contains(byte);
    let candidate = text.iter().take_while(|byte| is_part(byte));
    let terminated: Vec<u8> = candidate.copied().chain([0]).collect();
    let mut end = std::ptr::null_mut();
    // SAFETY: the text is terminated by a zero byte and outlives the call; `end` is set to a place inside it. Lua is not
    // called, so that the vector is dropped in order.
    let (value, len) = unsafe {
        let value = libc::strtod(terminated.as_ptr().cast(), &mut end);
        (value, end.offset_from(terminated.as_ptr().cast()))
    };
    (len > 0).then_some((value, len.unsigned_abs()))
}

/// Whether `text`, which starts like a number, starts with something JSON does not allow though `strtod` does: a plus, a
/// leading zero, hexadecimal digits, an infinity or NaN. Other things may still be wrong with it.
pub(super) fn is_invalid_json(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', next, ..] => next.is_ascii_digit() || next | 0x20 == b'x',
        [a, b, c, ..] => {
            let word = [a | 0x20, b | 0x20, c | 0x20];
            word == *b"inf" || word == *b"nan"
        }
        _ => false,
    }
}

/// Appends a finite `value` as `%.<precision>g` writes it. `precision` is 1 to 16.
#[inline]
pub(super) fn append(out: &mut Vec<u8>, value: f64, precision: c_int) {
    let digits_max = (precision.max(1) as usize).min(ROUND_TRIP_DIGITS);
    let magnitude = value.abs();
    if magnitude < POWERS[digits_max] {
        let whole = value as i64;
        if whole as f64 == value {
            if whole == 0 && value.is_sign_negative() {
                out.push(b'-');
            }
            out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
            return;
        }
        if magnitude >= 1e-4
            && precision as usize <= ROUND_TRIP_DIGITS
            && append_decimal(out, value, digits_max)
        {
            return;
        }
    }
    append_like_c(out, value, precision);
}

/// Appends a fraction that is the nearest number to a decimal of at most `digits_max` significant digits; false, with
/// nothing appended, for any other.
///
/// Such a decimal is what `%g` rounds to: it lies within half a unit in the last place of the number, far closer than any
/// other decimal of 15 digits or less.
fn append_decimal(out: &mut Vec<u8>, value: f64, digits_max: usize) -> bool {
    let magnitude = value.abs();
    let whole = magnitude as u64;
    let whole_digits = if whole == 0 { 0 } else { whole.ilog10() as usize + 1 };
    let mut places = digits_max.saturating_sub(whole_digits);
    let power = POWERS[places];
    let scaled = (magnitude * power).round();
    if scaled >= POWERS[digits_max] || scaled / power != magnitude {
        return false;
    }
    let mut digits = scaled as u64;
    for (zeros, divisor) in [(8, 100_000_000), (4, 10_000), (2, 100), (1, 10)] {
        if zeros <= places && digits.is_multiple_of(divisor) {
            digits /= divisor;
            places -= zeros;
        }
    }
    if value < 0.0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(digits).as_bytes();
    let (head, tail) = text.split_at(text.len().saturating_sub(places));
    out.extend_from_slice(if head.is_empty() { b"0" } else { head });
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', places - tail.len()));
    out.extend_from_slice(tail);
    true
}

#[cold]
fn append_like_c(out: &mut Vec<u8>, value: f64, precision: c_int) {
    let mut buffer = [0_u8; FORMAT_LEN_MAX];
    // SAFETY: pointer and length describe the buffer, and the arguments have the types that the format names.
    let len = unsafe {
        libc::snprintf(buffer.as_mut_ptr().cast(), FORMAT_LEN_MAX, c"%.*g".as_ptr(), precision, value)
    };
    let len = usize::try_from(len).unwrap_or(0).min(FORMAT_LEN_MAX - 1);
    out.extend_from_slice(&buffer[..len]);
}
