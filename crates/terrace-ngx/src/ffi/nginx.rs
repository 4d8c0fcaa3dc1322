//! Functions of nginx that Lua libraries call by their own names (`ffi.C.ngx_hex_dump`): the binary exports them.

/// nginx's `NGX_ERROR`.
const ERROR: isize = -1;

/// Writes `len` bytes as lower-case hexadecimal digits; the answer is the end of what was written.
///
/// # Safety
/// `src` has `len` bytes, and `dst` has room for twice as many, elsewhere.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_hex_dump(dst: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // SAFETY: the caller's promise.
    unsafe {
        for i in 0..len {
            let byte = *src.add(i);
            *dst.add(2 * i) = DIGITS[usize::from(byte >> 4)];
            *dst.add(2 * i + 1) = DIGITS[usize::from(byte & 15)];
        }
        dst.add(2 * len)
    }
}

/// The number that `len` decimal digits stand for; -1 for anything else, and for what is too large.
///
/// # Safety
/// `text` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_atoi(text: *const u8, len: usize) -> isize {
    if len == 0 {
        return ERROR;
    }
    // SAFETY: the caller's promise.
    let text = unsafe { std::slice::from_raw_parts(text, len) };
    let digit = |b: &u8| b.is_ascii_digit().then(|| isize::from(b - b'0'));
    let number = text.iter().try_fold(0_isize, |n, b| n.checked_mul(10)?.checked_add(digit(b)?));
    number.unwrap_or(ERROR)
}
