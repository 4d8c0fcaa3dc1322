//! `ngx.re.*`: expressions compiled for Lua, their matches, and whole substitutions by a template.
//!
//! Invariant: Lua holds a compiled expression or template as a pointer with a finalizer and passes it on no further,
//! so that it is freed once and not used afterwards. No call here enters Lua, so none is under way twice.

use std::ffi::c_int;

use terrace_base::log::Level;
use terrace_regex::{Captures, Limits, Options, Regex, set_jit_stack_bytes};

use super::{DONE, NOT_FOUND, Text, bytes, fail, functions, give};
use crate::host::current;

functions! {
    "int (*re_flags)(const char *, size_t, terrace_text *)" => re_flags,
    "int (*re_cache_max)(void)" => re_cache_max,
    "void *(*re_compile)(const char *, size_t, const char *, size_t, terrace_text *)" => re_compile,
    "int (*re_name)(void *, int, terrace_text *)" => re_name,
    "void (*re_free)(void *)" => re_free,
    "int (*re_exec)(void *, const char *, size_t, size_t)" => re_exec,
    "void *(*re_template)(const char *, size_t)" => re_template,
    "void (*re_template_free)(void *)" => re_template_free,
    "int (*re_sub)(void *, void *, const char *, size_t, int, terrace_text *)" => re_sub,
    "int (*re_jit_stack)(double, terrace_text *)" => re_jit_stack,
}

/// What `re_flags` answers, by bits.
const ONCE: c_int = 1;
const DUP_NAMES: c_int = 2;
const UTF: c_int = 4;

/// The default of `lua_regex_cache_max_entries`.
const CACHE_MAX_DEFAULT: usize = 1024;

/// No substitution makes more; a Lua string could not be much longer.
const RESULT_BYTES_MAX: usize = 1 << 30;
/// The result would be longer than that. PCRE2's own codes are far from this one.
const TOO_LONG: c_int = -1000;

/// A compiled expression. Lua sees the first two fields.
#[repr(C)]
struct Compiled {
    /// Start and end of each group of the last match by turns, -1 for groups that took no part.
    captures: *const c_int,
    /// How many groups there are beside the whole match.
    capture_count: c_int,
    /// The memory behind `captures`.
    offsets: Box<[c_int]>,
    regex: Regex,
    found: Captures,
}

/// A replacement such as `$1-${2}`.
struct Template(Vec<Part>);

enum Part {
    Text(Vec<u8>),
    Group(usize),
}

/// The meaning of flags, or a text of what is wrong with them.
extern "C" fn re_flags(flags: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let flags = unsafe { bytes(flags, len) };
    match Options::from_flags(flags) {
        Ok(options) => {
            let once = if flags.contains(&b'o') { ONCE } else { 0 };
            let dup_names = if options.dup_names { DUP_NAMES } else { 0 };
            once | dup_names | if options.utf || options.utf_lenient { UTF } else { 0 }
        }
        // SAFETY: Lua passes a text of its own.
        Err(e) => unsafe { fail(out, &e.to_string()) },
    }
}

extern "C" fn re_cache_max() -> c_int {
    let max = current(|h| h.lua.main.regex_cache_max).flatten().unwrap_or(CACHE_MAX_DEFAULT);
    c_int::try_from(max).unwrap_or(c_int::MAX)
}

/// Null if the pattern is wrong; `out` then has the text.
extern "C" fn re_compile(
    pattern: *const u8,
    len: usize,
    flags: *const u8,
    flags_len: usize,
    out: *mut Text,
) -> *mut Compiled {
    // SAFETY: Lua strings.
    let (pattern, flags) = unsafe { (bytes(pattern, len), bytes(flags, flags_len)) };
    let mut limits = Limits::default();
    if let Some(max) = current(|h| h.lua.main.regex_match_limit).flatten().filter(|max| *max > 0) {
        limits.match_limit = max;
    }
    let options = Options::from_flags(flags).unwrap_or_default();
    match Regex::with_limits(pattern, options, limits) {
        Ok(regex) => {
            let groups = regex.capture_count();
            let offsets = vec![-1; (groups + 1) * 2].into_boxed_slice();
            Box::into_raw(Box::new(Compiled {
                captures: offsets.as_ptr(),
                capture_count: c_int::try_from(groups).unwrap_or(0),
                offsets,
                regex,
                found: Captures::new(),
            }))
        }
        Err(e) => {
            // SAFETY: Lua passes a text of its own.
            unsafe { fail(out, &e.to_string()) };
            std::ptr::null_mut()
        }
    }
}

/// The number of the group that the `index`th name stands for.
extern "C" fn re_name(re: *const Compiled, index: c_int, out: *mut Text) -> c_int {
    // SAFETY: from `re_compile`, not yet freed.
    let Some(re) = (unsafe { re.as_ref() }) else { return NOT_FOUND };
    let entry = usize::try_from(index).ok().and_then(|i| re.regex.name_table().get(i));
    let Some((name, group)) = entry else { return NOT_FOUND };
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| b.extend_from_slice(name.as_bytes())) };
    c_int::try_from(*group).unwrap_or(NOT_FOUND)
}

extern "C" fn re_free(re: *mut Compiled) {
    if !re.is_null() {
        // SAFETY: from `re_compile`, given back once, by Lua's collector.
        drop(unsafe { Box::from_raw(re) });
    }
}

/// 1 and the captures for a match, 0 for none, PCRE2's code for an error.
extern "C" fn re_exec(re: *mut Compiled, subject: *const u8, len: usize, start: usize) -> c_int {
    // SAFETY: from `re_compile`, not yet freed, in use by this call alone.
    let Some(re) = (unsafe { re.as_mut() }) else { return 0 };
    // SAFETY: a Lua string.
    let subject = unsafe { bytes(subject, len) };
    match re.regex.exec(subject, start, &mut re.found) {
        Ok(Some(_)) => {}
        Ok(None) => return 0,
        Err(e) => return e.code(),
    }
    for (group, pair) in re.offsets.chunks_exact_mut(2).enumerate() {
        let (start, end) = match re.found.range(group) {
            // Lua's strings are shorter than 2 GiB.
            Some(range) => (range.start as c_int, range.end as c_int),
            None => (-1, -1),
        };
        if let [first, second] = pair {
            (*first, *second) = (start, end);
        }
    }
    1
}

/// Null if the replacement is wrong, which is logged.
extern "C" fn re_template(text: *const u8, len: usize) -> *mut Template {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    match Template::parse(text) {
        Ok(template) => Box::into_raw(Box::new(template)),
        Err(message) => {
            current(|h| h.request.log(Level::Error, format_args!("{message}")));
            std::ptr::null_mut()
        }
    }
}

extern "C" fn re_template_free(template: *mut Template) {
    if !template.is_null() {
        // SAFETY: from `re_template`, given back once, by Lua's collector.
        drop(unsafe { Box::from_raw(template) });
    }
}

/// How many matches were replaced (the first, or all); the new text is in `out` if there was any.
extern "C" fn re_sub(
    re: *mut Compiled,
    template: *const Template,
    subject: *const u8,
    len: usize,
    global: c_int,
    out: *mut Text,
) -> c_int {
    // SAFETY: from `re_compile` and `re_template`, not yet freed, the first in use by this call alone.
    let (Some(re), Some(template)) = (unsafe { (re.as_mut(), template.as_ref()) }) else { return 0 };
    // SAFETY: a Lua string.
    let subject = unsafe { bytes(subject, len) };
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |buf| substitute(re, template, subject, global != 0, buf)) }
}

fn substitute(
    re: &mut Compiled,
    template: &Template,
    subject: &[u8],
    global: bool,
    buf: &mut Vec<u8>,
) -> c_int {
    let options = re.regex.options();
    let utf = options.utf || options.utf_lenient;
    let (mut count, mut copied, mut at): (c_int, usize, usize) = (0, 0, 0);
    while at <= subject.len() {
        match re.regex.exec(subject, at, &mut re.found) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(e) => return e.code(),
        }
        let Some(whole) = re.found.range(0) else { break };
        count = count.saturating_add(1);
        // A look-behind with \K may begin a match before the end of the one before.
        buf.extend_from_slice(subject.get(copied..whole.start).unwrap_or_default());
        template.expand(subject, &re.found, buf);
        if buf.len() > RESULT_BYTES_MAX {
            return TOO_LONG;
        }
        copied = whole.end;
        at = whole.end.max(at);
        if whole.is_empty() {
            at += 1;
            while utf && subject.get(at).is_some_and(|b| b & 0xC0 == 0x80) {
                at += 1;
            }
        }
        if !global {
            break;
        }
    }
    buf.extend_from_slice(subject.get(copied..).unwrap_or_default());
    count
}

impl Template {
    /// `$1` and `${1}` are groups, `$$` is a dollar sign; everything else stands for itself.
    fn parse(text: &[u8]) -> Result<Template, String> {
        let invalid = || {
            let text = String::from_utf8_lossy(text);
            format!("lua script: invalid capturing variable name found in \"{text}\"")
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'$', rest) {
            push_text(&mut parts, &rest[..at]);
            rest = &rest[at + 1..];
            if let [b'$', tail @ ..] = rest {
                push_text(&mut parts, b"$");
                rest = tail;
                continue;
            }
            let bracket = rest.first() == Some(&b'{');
            rest = if bracket { &rest[1..] } else { rest };
            let is_number = rest.first().is_some_and(u8::is_ascii_digit);
            let in_name = |b: &u8| {
                if is_number { b.is_ascii_digit() } else { b.is_ascii_alphanumeric() || *b == b'_' }
            };
            let (name, tail) = rest.split_at(rest.iter().take_while(|b| in_name(b)).count());
            let shown = String::from_utf8_lossy(name);
            rest = match tail {
                [b'}', tail @ ..] if bracket && !name.is_empty() => tail,
                _ if bracket && !(rest.is_empty() || tail.first() == Some(&b'}')) => {
                    return Err(format!("the closing bracket in \"{shown}\" variable is missing"));
                }
                _ if bracket || name.is_empty() => return Err(invalid()),
                tail => tail,
            };
            if !is_number {
                return Err(format!(
                    "attempt to use named capturing variable \"{shown}\" (named captures not supported yet)"
                ));
            }
            // A number beyond all bounds names a group that does not exist, and so nothing.
            parts.push(Part::Group(shown.parse().unwrap_or(usize::MAX)));
        }
        push_text(&mut parts, rest);
        Ok(Template(parts))
    }

    fn expand(&self, subject: &[u8], groups: &Captures, buf: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => buf.extend_from_slice(text),
                Part::Group(group) => {
                    let text = groups.range(*group).and_then(|range| subject.get(range));
                    buf.extend_from_slice(text.unwrap_or_default());
                }
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &[u8]) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.extend_from_slice(text),
        _ => parts.push(Part::Text(text.to_vec())),
    }
}

extern "C" fn re_jit_stack(size_bytes: f64, out: *mut Text) -> c_int {
    match set_jit_stack_bytes(size_bytes as usize) {
        Ok(()) => DONE,
        // SAFETY: Lua passes a text of its own.
        Err(e) => unsafe { fail(out, &e.to_string()) },
    }
}
