//! Tests of target normalisation.

use super::*;

fn normal(target: &str, merge_slashes: bool) -> Result<(String, Option<String>), UriError> {
    let mut out = b"left over".to_vec();
    let parts = normalize(target.as_bytes(), &mut out, merge_slashes)?;
    let path = String::from_utf8_lossy(parts.path(target.as_bytes(), &out)).into_owned();
    Ok((path, parts.args.map(|args| target[args.range()].to_owned())))
}

#[test]
fn paths_are_normalised() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("/", "/", None),
        ("/a/b.html", "/a/b.html", None),
        ("/a?b=c&d", "/a", Some("b=c&d")),
        ("/a?", "/a", Some("")),
        ("/a?b?c/../d%zz", "/a", Some("b?c/../d%zz")),
        ("/a#f", "/a", None),
        ("/a?b#f?g", "/a", Some("b")),
        ("?a=b", "/", Some("a=b")),
        ("//a///b//", "/a/b/", None),
        ("/./a/./b/.", "/a/b/", None),
        ("/a/../b", "/b", None),
        ("/a/b/..", "/a/", None),
        ("/a/b/../..", "/", None),
        ("/a/..?x", "/", Some("x")),
        ("/a/.#x", "/a/", None),
        ("/a/...", "/a/...", None),
        ("/a/..b/.c/..", "/a/..b/", None),
        ("/.well-known/x", "/.well-known/x", None),
        ("/a./b../c", "/a./b../c", None),
        ("/%41%62", "/Ab", None),
        ("/a%2Fb%2f%2e%2e/c", "/a/c", None),
        ("/a%2f/b", "/a/b", None),
        ("/%2e/a/.%2E/b", "/b", None),
        ("/a%3Fb%23c%25d", "/a?b#c%d", None),
        ("/.%3f/../x", "/x", None),
        ("/%2541", "/%41", None),
        ("/a+b%2B", "/a+b+", None),
        ("/%0a%20", "/\n ", None),
        ("/\u{e9}%c3%a9", "/\u{e9}\u{e9}", None),
    ];
    for &(target, path, args) in cases {
        let expected = Ok((path.to_owned(), args.map(str::to_owned)));
        assert_eq!(normal(target, true), expected, "{target}");
    }
}

#[test]
fn slashes_are_kept_when_asked() {
    assert_eq!(normal("//a//b", false), Ok(("//a//b".to_owned(), None)));
    assert_eq!(normal("/a//../b", false), Ok(("/a/b".to_owned(), None)));
    assert_eq!(normal("//..", false), Ok(("/".to_owned(), None)));
}

#[test]
fn bad_targets_are_refused() {
    for target in [
        "",
        "a",
        "*",
        "/..",
        "/../",
        "/a/../..",
        "/a/../../b",
        "/%2e%2e",
        "//..",
        "/%",
        "/%4",
        "/%4g",
        "/%g4",
        "/%00",
        "/a%",
        "/a b",
        "/a\tb",
        "/a\u{0}",
        "/a\u{7f}",
        "/a?b c",
        "/a?\u{1}",
        "/a#b c",
        "/..?x",
        "/%?x",
        "/%4?1",
    ] {
        assert_eq!(normal(target, true), Err(UriError), "{target:?}");
    }
}

#[test]
fn a_normal_path_is_not_copied() {
    let mut out = b"untouched".to_vec();
    let parts = normalize(b"/a/b?c", &mut out, true).expect("valid");
    assert_eq!(parts.path, Path::AsSent(Span::new(0, 4)));
    assert_eq!(out, b"untouched");
}
