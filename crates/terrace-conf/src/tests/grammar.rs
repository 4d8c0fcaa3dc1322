//! Words, quotes, escapes, blocks and the errors of each.

use super::{brief, parse};
use crate::{WORD_BYTES_MAX, parse_parameter, print};
use std::path::Path;

#[test]
fn words_and_blocks() {
    for (text, expected) in [
        ("", ""),
        ("  # only a comment", ""),
        ("a;", "<a>;"),
        ("a b\tc\r\nd ;", "<a><b><c><d>;"),
        ("a{b;c{}}", "<a>{<b>;<c>{}}"),
        ("a # no;\n b;", "<a><b>;"),
        ("a b#c;", "<a><b#c>;"),
        ("a 'b c' \"d;{}\";", "<a><b c><d;{}>;"),
        ("a '' \"\";", "<a><><>;"),
        ("a b'c';", "<a><b'c'>;"),
        ("\"a\" 1;", "<a><1>;"),
        ("a ${b}c;", "<a><${b}c>;"),
        ("a b${c};", "<a><b${c}>;"),
        ("a $b{c;}", "<a><$b>{<c>;}"),
        ("a b}c;", "<a><b}c>;"),
        ("if ($a = \"b\") { c; }", "<if><($a><=><b><)>{<c>;}"),
        ("a \"b\"{}", "<a><b>{}"),
        ("a 'b';", "<a><b>;"),
    ] {
        assert_eq!(parse(text).map(|nodes| brief(&nodes)).as_deref(), Ok(expected), "{text:?}");
    }
}

#[test]
fn escapes() {
    for (text, expected) in [
        (r#"a "x\"y";"#, r#"x"y"#),
        (r"a 'x\'y';", "x'y"),
        (r#"a "x'y";"#, "x'y"),
        (r"a 'x\\y';", r"x\y"),
        (r"a 'x\ty\rz\n';", "x\ty\rz\n"),
        (r"a '\d+\.\$';", r"\d+\.\$"),
        (r"a x\ y;", r"x\ y"),
        (r"a x\;y;", r"x\;y"),
        (r"a \{y;", r"\{y"),
        (r"a x\\;", r"x\"),
        (r"a x\t;", "x\t"),
        (r"a \#y;", r"\#y"),
        (r#"a \"y;"#, r#""y"#),
        (r"a $\{y;", r"$\{y"),
    ] {
        let nodes = parse(text).unwrap();
        assert_eq!(nodes[0].args[0].text(), Ok(expected), "{text:?}");
    }
}

#[test]
fn quotes_and_bytes_are_kept() {
    let nodes = crate::parse_text(b"a 'b' c \xff\xfe; \xe9 1;", "t.conf", &|_| false).unwrap();
    let quoted: Vec<bool> = nodes[0].args.iter().map(|arg| arg.quoted).collect();
    assert_eq!(quoted, [true, false, false]);
    assert_eq!(&nodes[0].args[2].value[..], b"\xff\xfe");
    assert_eq!(&nodes[1].key.value[..], b"\xe9");
    assert!(nodes[0].args[2].text().unwrap_err().to_string().ends_with("is not valid UTF-8 in t.conf:1"));
}

#[test]
fn errors_are_nginx_s() {
    for (text, expected) in [
        ("a", "unexpected end of file, expecting \";\" or \"}\" in t.conf:1"),
        ("a\nb\n", "unexpected end of file, expecting \";\" or \"}\" in t.conf:3"),
        ("a 'b", "unexpected end of file, expecting \";\" or \"}\" in t.conf:1"),
        ("a 'b'", "unexpected end of file, expecting \";\" or \"}\" in t.conf:1"),
        ("a b\\", "unexpected end of file, expecting \";\" or \"}\" in t.conf:1"),
        ("a {\n b;\n", "unexpected end of file, expecting \"}\" in t.conf:3"),
        ("a;\n}", "unexpected \"}\" in t.conf:2"),
        ("a }", "unexpected \"}\" in t.conf:1"),
        (";", "unexpected \";\" in t.conf:1"),
        ("\n{", "unexpected \"{\" in t.conf:2"),
        ("a 'b'c;", "unexpected \"c\" in t.conf:1"),
        ("a {\n include x {}\n}", "directive \"include\" is not terminated by \";\" in t.conf:2"),
        ("include;", "invalid number of arguments in \"include\" directive in t.conf:1"),
    ] {
        assert_eq!(parse(text).map(|nodes| brief(&nodes)), Err(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn long_words() {
    let fits = format!("a {};", "x".repeat(WORD_BYTES_MAX - 1));
    assert!(parse(&fits).is_ok());
    let bare = format!("\na {};", "x".repeat(WORD_BYTES_MAX));
    assert_eq!(parse(&bare).unwrap_err(), "too long parameter \"xxxxxxxxxx...\" started in t.conf:2");
    let quoted = format!("\na \"{}", "x\n".repeat(WORD_BYTES_MAX));
    assert_eq!(
        parse(&quoted).unwrap_err(),
        "too long parameter, probably missing terminating \"\"\" character in t.conf:2"
    );
    let comment = format!("# {}\na;", "x".repeat(3 * WORD_BYTES_MAX));
    assert_eq!(brief(&parse(&comment).unwrap()), "<a>;");
}

#[test]
fn lines_are_those_nginx_reports() {
    let nodes = parse("a\n b\n ;\nc {\n d 'x\ny' z;\n}\n").unwrap();
    assert_eq!((nodes[0].at.line, nodes[0].args[0].at.line), (3, 2));
    assert_eq!((nodes[1].at.line, nodes[1].end_line), (4, 7));
    let inner = &nodes[1].children()[0];
    assert_eq!((inner.at.line, inner.args[0].at.line, inner.args[1].at.line), (6, 5, 6));
    assert_eq!(nodes[1].end_error("x").to_string(), "x in t.conf:7");
}

#[test]
fn raw_blocks() {
    let nodes = parse("a_by_lua_block $x {\n if x then t = {} end -- }\n} b;").unwrap();
    assert_eq!(brief(&nodes), "<a_by_lua_block><$x>[\n if x then t = {} end -- }\n]<b>;");
    assert_eq!((nodes[0].at.line, nodes[0].end_line, nodes[1].at.line), (1, 3, 3));
    assert_eq!(&nodes[0].raw().unwrap()[..4], b"\n if");
    assert_eq!(nodes[1].raw().unwrap_err().to_string(), "directive \"b\" has no opening \"{\" in t.conf:3");
}

#[test]
fn raw_blocks_that_do_not_end() {
    let unclosed = "unexpected end of file, expecting terminating characters for lua code block in";
    assert_eq!(parse("\na_by_lua_block {\n x\n"), Err(format!("{unclosed} t.conf:2")));
    assert_eq!(parse("a_by_lua_block {\n x\n {"), Err(format!("{unclosed} t.conf:3")));
    assert_eq!(
        parse("a_by_lua_block {\n x = [==[ ]]\n}").unwrap_err(),
        "Lua code block missing the closing long bracket \"]==]\", the inlined Lua code may be too long in t.conf:2"
    );
}

#[test]
fn deep_nesting_is_an_error() {
    assert!(parse(&"a{".repeat(100_000)).unwrap_err().contains("nested blocks"));
}

#[test]
fn the_g_option() {
    let none = Path::new("");
    let parse = |text: &str| parse_parameter(text.as_bytes(), none).map_err(|error| error.to_string());
    assert_eq!(brief(&parse("daemon off; pid x;").unwrap()), "<daemon><off>;<pid><x>;");
    assert_eq!(
        parse("daemon off").unwrap_err(),
        "unexpected end of parameter, expecting \";\" in command line"
    );
    assert_eq!(
        parse("events {}").unwrap_err(),
        "block directives are not supported in -g option in command line"
    );
}

#[test]
fn printing() {
    let nodes = parse("a 'b' c\"d \\d { e ''; f_by_lua_block { g() } }").unwrap();
    let text = String::from_utf8(print(&nodes)).unwrap();
    assert_eq!(text, "a \"b\" \"c\\\"d\" \"\\\\d\" {\n    e \"\";\n    f_by_lua_block { g() }\n}\n");
}
