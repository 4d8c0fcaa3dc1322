//! Tests through the public interface: meaning of the options, bounds, bad input, threads.

use std::sync::Arc;
use std::thread;

use super::*;

fn regex(pattern: &str, flags: &str) -> Regex {
    Regex::new(pattern.as_bytes(), Options::from_flags(flags.as_bytes()).unwrap()).unwrap()
}

fn find(regex: &Regex, subject: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut captures = Captures::new();
    let count = regex.exec(subject, 0, &mut captures).unwrap()?;
    assert_eq!(count, captures.len());
    Some((0..count).map(|i| captures.range(i).map(|range| subject[range].to_vec())).collect())
}

fn whole(pattern: &str, flags: &str, subject: &[u8]) -> Option<Vec<u8>> {
    find(&regex(pattern, flags), subject).map(|groups| groups[0].clone().unwrap())
}

#[test]
fn captures_are_reported_by_number() {
    let re = regex(r"^/(\w+)(?:/(\d+))?(\.html)?", "");
    assert_eq!(re.capture_count(), 3);
    let groups = find(&re, b"/item/42?x").unwrap();
    assert_eq!(groups, [Some(b"/item/42".to_vec()), Some(b"item".to_vec()), Some(b"42".to_vec())]);
    let groups = find(&re, b"/item.html").unwrap();
    assert_eq!(groups[2], None);
    assert_eq!(groups[3], Some(b".html".to_vec()));
    assert_eq!(find(&re, b"item"), None);
}

#[test]
fn captures_are_cleared_by_a_failed_match() {
    let re = regex("(a)(b)", "");
    let mut captures = Captures::new();
    assert_eq!(re.exec(b"xxab", 0, &mut captures), Ok(Some(3)));
    assert_eq!(captures.range(1), Some(2..3));
    assert_eq!(captures.range(3), None);
    assert_eq!(captures.range(usize::MAX), None);
    assert_eq!(re.exec(b"xxba", 0, &mut captures), Ok(None));
    assert!(captures.is_empty());
    assert_eq!(captures.range(0), None);
}

#[test]
fn start_offset_still_sees_what_lies_before() {
    let re = regex(r"(?<=a)b|^b", "");
    let mut captures = Captures::new();
    assert_eq!(re.exec(b"ab", 1, &mut captures), Ok(Some(1)));
    assert_eq!(captures.range(0), Some(1..2));
    assert_eq!(re.exec(b"cb", 1, &mut captures), Ok(None));
    assert_eq!(re.exec(b"cb", 2, &mut captures), Ok(None));
    let beyond = re.exec(b"cb", 3, &mut captures).unwrap_err();
    assert_eq!(beyond.code(), -33);
    assert!(!beyond.is_limit());
}

#[test]
fn each_flag_has_its_meaning() {
    assert_eq!(whole("ab", "", b"xab"), Some(b"ab".to_vec()));
    assert_eq!(whole("ab", "a", b"xab"), None);
    assert_eq!(whole("ab", "i", b"xAB"), Some(b"AB".to_vec()));
    assert_eq!(whole("ab", "", b"xAB"), None);
    assert_eq!(whole("^b$", "m", b"a\nb\nc"), Some(b"b".to_vec()));
    assert_eq!(whole("^b$", "", b"a\nb\nc"), None);
    assert_eq!(whole("a.b", "s", b"a\nb"), Some(b"a\nb".to_vec()));
    assert_eq!(whole("a.b", "", b"a\nb"), None);
    assert_eq!(whole("a b # both", "x", b"ab"), Some(b"ab".to_vec()));
    assert_eq!(whole("^.$", "u", "é".as_bytes()), Some("é".as_bytes().to_vec()));
    assert_eq!(whole("^.$", "", "é".as_bytes()), None);
    assert_eq!(whole("^.$", "U", "é".as_bytes()), Some("é".as_bytes().to_vec()));
    assert_eq!(whole(r"\u0041[^]", "J", b"A\n"), Some(b"A\n".to_vec()));
    assert_eq!(whole("ab", "joi", b"AB"), Some(b"AB".to_vec()));
}

#[test]
fn unknown_flags_are_named() {
    let error = Options::from_flags(b"iz").unwrap_err();
    assert_eq!(error.to_string(), "unknown flag \"z\" (flags \"iz\")");
}

#[test]
fn dfa_mode_finds_the_longest_match_and_no_groups() {
    assert_eq!(whole("a|ab|abc", "", b"xabcd"), Some(b"a".to_vec()));
    let re = regex("(a|ab|abc)(d)?", "d");
    assert_eq!(re.capture_count(), 0);
    assert_eq!(find(&re, b"xabcde"), Some(vec![Some(b"abcd".to_vec())]));
    assert_eq!(find(&re, b"xyz"), None);
    // Wider match data left by another expression changes nothing.
    assert!(find(&regex(&"(a)".repeat(40), ""), &[b'a'; 40]).is_some());
    assert_eq!(find(&re, b"xabcde"), Some(vec![Some(b"abcd".to_vec())]));
    assert!(re.is_match(b"xabcde").unwrap());
}

#[test]
fn names_come_with_their_numbers() {
    let re = regex(r"(?<year>\d+)-(?<month>\d+)(-)(?P<day>\d+)", "");
    let names = [("day".to_owned(), 4), ("month".to_owned(), 2), ("year".to_owned(), 1)];
    assert_eq!(re.name_table(), names);
    assert!(regex("(a)", "").name_table().is_empty());
}

#[test]
fn duplicate_names_need_their_flag() {
    let pattern = "(?<n>a)|(?<n>b)";
    assert!(Regex::new(pattern.as_bytes(), Options::default()).is_err());
    let re = regex(pattern, "D");
    let mut numbers: Vec<_> = re.name_table().iter().map(|(name, number)| (name.as_str(), *number)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [("n", 1), ("n", 2)]);
    assert_eq!(find(&re, b"b").unwrap(), [Some(b"b".to_vec()), None, Some(b"b".to_vec())]);
}

#[test]
fn compile_errors_read_like_nginx() {
    let text = |pattern: &[u8]| Regex::new(pattern, Options::default()).unwrap_err().to_string();
    assert_eq!(text(b"("), "pcre2_compile() failed: missing closing parenthesis in \"(\"");
    let at = "pcre2_compile() failed: quantifier does not follow a repeatable item in \"a|*b\" at \"*b\"";
    assert_eq!(text(b"a|*b"), at);
    assert!(text(b"[\xff").contains('\u{fffd}'));
}

#[test]
fn hostile_patterns_are_errors() {
    for pattern in [&b"(?<n"[..], b"\\", b"(?z)", b"a{99999}", b"(*NOSUCHVERB)a", b"[[:x:]]", b"(*UTF)\xff"] {
        assert!(Regex::new(pattern, Options::default()).is_err(), "{pattern:?}");
    }
    let deep = [b"(".repeat(5_000), b")".repeat(5_000)].concat();
    assert!(Regex::new(&deep, Options::default()).is_err());
    let huge = b"(a|b)".repeat(100_000);
    assert!(Regex::new(&huge, Options::default()).is_err());
    assert!(Regex::new(b"(*UTF)a\\Cb", Options::default()).is_err());
    assert!(Regex::new(b"a\\Cb", Options { utf: true, ..Options::default() }).is_err());
}

#[test]
fn zero_bytes_are_ordinary_bytes() {
    let re = Regex::new(b"a\0b", Options::default()).unwrap();
    assert!(re.is_match(b"xa\0by").unwrap());
    assert!(!re.is_match(b"ab").unwrap());
    assert!(regex("^$", "").is_match(b"").unwrap());
}

#[test]
fn catastrophic_patterns_stop_at_the_match_limit() {
    let limits = Limits { match_limit: 20_000, ..Limits::default() };
    let subject = [b"a".repeat(40), b"!".to_vec()].concat();
    for pattern in ["^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "(*NO_JIT)^(a+)+$"] {
        let re = Regex::with_limits(pattern.as_bytes(), Options::default(), limits).unwrap();
        assert_eq!(re.is_jit(), !pattern.contains("NO_JIT"), "{pattern}");
        let error = re.is_match(&subject).unwrap_err();
        assert!(error.is_limit(), "{pattern}: {error}");
        assert_eq!(error.to_string(), "pcre2_match() failed: -47");
        // The thread's scratch is as good as new, and the limits of one expression are not another's.
        assert!(regex("^a+!$", "").is_match(&subject).unwrap());
    }
}

#[test]
fn deep_backtracking_is_bounded_in_memory() {
    let subject = b"ab".repeat(2_000_000);
    let jit = regex("^(?:(a)|(b))*c", "");
    assert!(jit.is_jit());
    assert!(jit.is_match(&subject).unwrap_err().is_limit());
    let limits = Limits { heap_limit_kib: 100, ..Limits::default() };
    let interpreted = Regex::with_limits(b"(*NO_JIT)^(?:(a)|(b))*c", Options::default(), limits).unwrap();
    assert!(interpreted.is_match(&subject).unwrap_err().is_limit());
    let dfa = Options { dfa: true, ..Options::default() };
    let recursive = Regex::with_limits(b"^(a(?1)?b)c", dfa, limits).unwrap();
    let nested = [b"a".repeat(200_000), b"b".repeat(200_000)].concat();
    assert!(recursive.is_match(&nested).is_err());
}

#[test]
fn jit_stack_can_be_widened_for_a_thread() {
    let subject = b"ab".repeat(20_000);
    let re = regex("^(?:(a)|(b))*$", "");
    thread::spawn(move || {
        set_jit_stack_bytes(0).unwrap();
        assert_eq!(re.is_match(&subject).unwrap_err().code(), -46);
        set_jit_stack_bytes(usize::MAX).unwrap();
        assert!(re.is_match(&subject).unwrap());
    })
    .join()
    .unwrap();
}

#[test]
fn invalid_utf8_is_an_error_or_no_character() {
    for bytes in [&b"a\xffb"[..], b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"ab\x80"] {
        let error = regex("b", "u").is_match(bytes).unwrap_err();
        assert!(error.is_invalid_utf8(), "{bytes:?}: {error}");
        assert!(regex("b", "ud").is_match(bytes).unwrap_err().is_invalid_utf8());
        assert!(regex("b", "Ud").is_match(bytes).unwrap_err().is_invalid_utf8());
        assert_eq!(regex("b", "U").is_match(bytes), Ok(bytes.contains(&b'b')), "{bytes:?}");
        assert_eq!(regex("^.*$", "Us").is_match(bytes), Ok(false), "{bytes:?}");
    }
    // A start inside a character.
    let mut captures = Captures::new();
    assert_eq!(regex(".", "u").exec("é".as_bytes(), 1, &mut captures).unwrap_err().code(), -36);
    assert!(Regex::new(b"\xff", Options { utf_lenient: true, ..Options::default() }).is_err());
}

#[test]
fn one_expression_serves_many_threads() {
    let re = Arc::new(regex(r"^(?<word>\w+)-(\d+)$", "i"));
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let re = Arc::clone(&re);
            thread::spawn(move || {
                let mut captures = Captures::new();
                for number in 0..2_000 {
                    let subject = format!("Item-{}", number * 4 + seed);
                    assert_eq!(re.exec(subject.as_bytes(), 0, &mut captures), Ok(Some(3)));
                    assert_eq!(captures.range(2), Some(5..subject.len()));
                    assert_eq!(re.is_match(b"Item-"), Ok(false));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
