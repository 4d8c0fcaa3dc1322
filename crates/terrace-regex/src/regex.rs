//! A compiled expression: compiling, running, and its table of names.
//!
//! Invariant: the compiled code is not changed after [`Regex::new`] returned, which is what makes it `Send` and `Sync`.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::ptr::{self, NonNull};

use pcre2_sys::{
    PCRE2_ALLOW_EMPTY_CLASS, PCRE2_ALT_BSUX, PCRE2_ANCHORED, PCRE2_CASELESS, PCRE2_DOTALL, PCRE2_DUPNAMES,
    PCRE2_ERROR_HEAP_FAILED, PCRE2_ERROR_NOMATCH, PCRE2_EXTENDED, PCRE2_INFO_CAPTURECOUNT,
    PCRE2_INFO_JITSIZE, PCRE2_INFO_NAMECOUNT, PCRE2_INFO_NAMEENTRYSIZE, PCRE2_INFO_NAMETABLE,
    PCRE2_JIT_COMPLETE, PCRE2_MATCH_INVALID_UTF, PCRE2_MATCH_UNSET_BACKREF, PCRE2_MULTILINE,
    PCRE2_NEVER_BACKSLASH_C, PCRE2_UTF, pcre2_code_8, pcre2_code_free_8, pcre2_compile_8, pcre2_dfa_match_8,
    pcre2_get_error_message_8, pcre2_jit_compile_8, pcre2_match_8, pcre2_pattern_info_8,
};

use crate::scratch::{self, Scratch};
use crate::{Captures, Limits, MatchError, Options, RegexError};

/// A compiled expression, to be shared between threads at will.
pub struct Regex {
    code: NonNull<pcre2_code_8>,
    pattern: Vec<u8>,
    options: Options,
    limits: Limits,
    capture_count: usize,
    names: Vec<(String, usize)>,
}

// SAFETY: compiled code is read-only after compilation (PCRE2 documents it as usable from several threads at once), and
// what a match writes lies in the scratch of the calling thread.
unsafe impl Send for Regex {}
// SAFETY: as above.
unsafe impl Sync for Regex {}

impl Regex {
    /// Compiles `pattern` with the default [`Limits`].
    pub fn new(pattern: &[u8], options: Options) -> Result<Self, RegexError> {
        Self::with_limits(pattern, options, Limits::default())
    }

    /// Compiles `pattern`; every match is bounded by `limits`. A pattern may lower them for itself (`(*LIMIT_MATCH=n)`),
    /// never raise them. The JIT is tried; where it cannot be had (some verbs, an exotic machine), the interpreter runs.
    pub fn with_limits(pattern: &[u8], options: Options, limits: Limits) -> Result<Self, RegexError> {
        let (mut error_code, mut error_offset) = (0, 0);
        // SAFETY: pointer and length describe `pattern`, the out pointers are live, and a null compile context asks for
        // the defaults.
        let code = unsafe {
            pcre2_compile_8(
                pattern.as_ptr(),
                pattern.len(),
                compile_bits(pattern, options),
                &mut error_code,
                &mut error_offset,
                ptr::null_mut(),
            )
        };
        let Some(code) = NonNull::new(code) else {
            if error_code == PCRE2_ERROR_HEAP_FAILED as i32 {
                return Err(RegexError::NoMemory(pattern.to_vec()));
            }
            let message = error_message(error_code);
            return Err(RegexError::Compile { message, pattern: pattern.to_vec(), offset: error_offset });
        };
        // From here on `Drop` frees the code.
        let mut regex =
            Self { code, pattern: pattern.to_vec(), options, limits, capture_count: 0, names: Vec::new() };
        if !options.dfa {
            // SAFETY: the code is live and not yet shared. A failure leaves it as it was, for the interpreter.
            let _ = unsafe { pcre2_jit_compile_8(code.as_ptr(), PCRE2_JIT_COMPLETE) };
            regex.capture_count = regex.info::<u32>(PCRE2_INFO_CAPTURECOUNT) as usize;
        }
        regex.names = regex.read_names();
        Ok(regex)
    }

    /// Looks for a match in `subject` from byte `start` on (what lies before is still seen by look-behinds and anchors).
    ///
    /// `Ok(Some(count))`: matched, and `captures` holds `count` groups, the whole match first; groups beyond took no part.
    /// `Ok(None)`: no match, `captures` is empty. `Err`: a bound was hit, the subject is not the UTF-8 asked for, or `start`
    /// lies behind the end.
    pub fn exec(
        &self,
        subject: &[u8],
        start: usize,
        captures: &mut Captures,
    ) -> Result<Option<usize>, MatchError> {
        captures.clear();
        scratch::with(|scratch| {
            let count = self.run(scratch, subject, start)?;
            if let Some(count) = count {
                captures.set(scratch.offsets(count));
            }
            Ok(count)
        })
    }

    /// Whether the expression matches anywhere in `subject`.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, MatchError> {
        scratch::with(|scratch| Ok(self.run(scratch, subject, 0)?.is_some()))
    }

    /// How many groups the pattern has, without the whole match; 0 in DFA mode, which has no captures.
    pub fn capture_count(&self) -> usize {
        self.capture_count
    }

    /// The named groups with their numbers, in order of the names. With duplicate names each number has its entry. Empty
    /// where the pattern names no group.
    pub fn name_table(&self) -> &[(String, usize)] {
        &self.names
    }

    /// The pattern as it was given.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// The options as they were given.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Whether matches run as machine code.
    pub fn is_jit(&self) -> bool {
        self.info::<usize>(PCRE2_INFO_JITSIZE) > 0
    }

    /// One match on the scratch of this thread: the number of groups set, `None` without a match.
    fn run(&self, scratch: &mut Scratch, subject: &[u8], start: usize) -> Result<Option<usize>, MatchError> {
        let (data, context) = scratch.prepare(self.capture_count + 1, self.limits)?;
        let (subject_ptr, len) = (subject.as_ptr(), subject.len());
        let code = self.code.as_ptr();
        let result = if self.options.dfa {
            let (workspace, workspace_len) = scratch.dfa_workspace();
            // SAFETY: the code is live, pointer and length describe `subject`, data, context and workspace belong to this
            // thread; the library checks `start` and, with no option to skip it, the UTF-8.
            unsafe {
                pcre2_dfa_match_8(code, subject_ptr, len, start, 0, data, context, workspace, workspace_len)
            }
        } else {
            // SAFETY: as above.
            unsafe { pcre2_match_8(code, subject_ptr, len, start, 0, data, context) }
        };
        match result {
            PCRE2_ERROR_NOMATCH => Ok(None),
            error if error < 0 => Err(MatchError::new(error)),
            // The DFA reports every length it found, longest first; only that one is a capture.
            _ if self.options.dfa => Ok(Some(1)),
            count => Ok(Some(count as usize)),
        }
    }

    /// Asks the library about the code. `T` must be the type it documents for `what`.
    fn info<T: Default>(&self, what: u32) -> T {
        let mut value = T::default();
        // SAFETY: the code is live and the private callers pass the type that belongs to `what`. An error leaves the
        // default.
        unsafe { pcre2_pattern_info_8(self.code.as_ptr(), what, ptr::from_mut(&mut value).cast::<c_void>()) };
        value
    }

    fn read_names(&self) -> Vec<(String, usize)> {
        let count = self.info::<u32>(PCRE2_INFO_NAMECOUNT) as usize;
        let entry_len = self.info::<u32>(PCRE2_INFO_NAMEENTRYSIZE) as usize;
        let mut table: *const u8 = ptr::null();
        // SAFETY: the code is live and the library stores a pointer into it.
        unsafe {
            pcre2_pattern_info_8(
                self.code.as_ptr(),
                PCRE2_INFO_NAMETABLE,
                ptr::from_mut(&mut table).cast::<c_void>(),
            )
        };
        if count == 0 || entry_len < 3 || table.is_null() {
            return Vec::new();
        }
        // SAFETY: the table lies inside the live code and has `count` entries of `entry_len` bytes.
        let table = unsafe { std::slice::from_raw_parts(table, count * entry_len) };
        table
            .chunks_exact(entry_len)
            .map(|entry| {
                // Two bytes of group number, big-endian, then the name, NUL-terminated.
                let number = usize::from(entry[0]) << 8 | usize::from(entry[1]);
                let name = entry[2..].split(|&byte| byte == 0).next().unwrap_or_default();
                (String::from_utf8_lossy(name).into_owned(), number)
            })
            .collect()
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: the code is owned by this value alone and is not used afterwards.
        unsafe { pcre2_code_free_8(self.code.as_ptr()) };
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regex")
            .field("pattern", &String::from_utf8_lossy(&self.pattern))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The library's option bits.
fn compile_bits(pattern: &[u8], options: Options) -> u32 {
    let utf = options.utf || options.utf_lenient;
    let bits = [
        (options.anchored, PCRE2_ANCHORED),
        (options.caseless, PCRE2_CASELESS),
        (options.dup_names, PCRE2_DUPNAMES),
        (options.javascript, PCRE2_ALT_BSUX | PCRE2_ALLOW_EMPTY_CLASS | PCRE2_MATCH_UNSET_BACKREF),
        (options.multiline, PCRE2_MULTILINE),
        (options.dotall, PCRE2_DOTALL),
        (options.extended, PCRE2_EXTENDED),
        (utf, PCRE2_UTF),
        (options.utf_lenient && !options.dfa, PCRE2_MATCH_INVALID_UTF),
        // `\C` could leave the matcher inside a character, which is undefined in UTF mode; that mode may also be turned
        // on by a leading `(*UTF)`.
        (utf || pattern.starts_with(b"(*"), PCRE2_NEVER_BACKSLASH_C),
    ];
    bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit)
}

fn error_message(code: i32) -> String {
    /// PCRE2 promises that its messages are shorter.
    const MESSAGE_LEN_MAX: usize = 256;
    let mut buffer = [0_u8; MESSAGE_LEN_MAX];
    // SAFETY: pointer and length describe the buffer.
    let len = unsafe { pcre2_get_error_message_8(code, buffer.as_mut_ptr(), MESSAGE_LEN_MAX) };
    if len < 0 {
        return format!("error {code}");
    }
    // SAFETY: the library terminates the text with a NUL inside the buffer, which outlives the reference.
    unsafe { CStr::from_ptr(buffer.as_ptr().cast::<c_char>()) }.to_string_lossy().into_owned()
}
