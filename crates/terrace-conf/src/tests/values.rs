//! Typed values and their errors.

use super::parse;
use crate::{ConfError, Node};

fn node(text: &str) -> Node {
    parse(text).unwrap().remove(0)
}

fn message<T: std::fmt::Debug>(result: Result<T, ConfError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn values_of_each_type() {
    let node = node("d on 8k 1h30m 7 Least x=y;");
    assert_eq!(node.flag(0), Ok(true));
    assert_eq!(node.size(1), Ok(8192));
    assert_eq!(node.time_ms(2), Ok(5_400_000));
    assert_eq!(node.time_secs(2), Ok(5400));
    assert_eq!(node.number::<u8>(3), Ok(7));
    assert_eq!(node.one_of(4, &[("most", 1), ("least", 2)]), Ok(2));
    assert_eq!(node.text(5), Ok("x=y"));
}

#[test]
fn errors_are_nginx_s() {
    let node = node("\nd yes 300;");
    assert_eq!(
        message(node.flag(0)),
        "invalid value \"yes\" in \"d\" directive, it must be \"on\" or \"off\" in t.conf:2"
    );
    assert_eq!(message(node.size(0)), "\"d\" directive invalid value in t.conf:2");
    assert_eq!(message(node.time_ms(0)), "\"d\" directive invalid value in t.conf:2");
    assert_eq!(message(node.number::<u64>(0)), "\"d\" directive invalid number in t.conf:2");
    assert_eq!(message(node.number::<u8>(1)), "\"d\" directive invalid number in t.conf:2");
    assert_eq!(
        message(node.one_of(0, &[("a", 1), ("b", 2)])),
        "invalid value \"yes\" in t.conf:2\nit must be \"a\" or \"b\""
    );
    assert_eq!(message(node.text(2)), "invalid number of arguments in \"d\" directive in t.conf:2");
}

#[test]
fn parameters() {
    let node = node("server host weight=5 fail_timeout=10s backup key=a=b max=x;");
    let params: Vec<_> = node.params(1).collect();
    assert_eq!((params[0].name, params[0].number::<u32>()), (&b"weight"[..], Ok(5)));
    assert_eq!(params[1].time_secs(), Ok(10));
    assert_eq!((params[2].name, params[2].value), (&b"backup"[..], None));
    assert_eq!(params[3].text(), Ok("a=b"));
    assert_eq!(&params[3].bytes().unwrap()[..], b"a=b");
    assert_eq!(message(params[4].number::<u32>()), "invalid parameter \"max=x\" in t.conf:1");
    assert_eq!(message(params[2].size()), "invalid parameter \"backup\" in t.conf:1");
}

#[test]
fn a_slot_is_filled_once() {
    let node = node("d;");
    let mut slot = None;
    assert_eq!(node.set_once(&mut slot, 1), Ok(()));
    assert_eq!(message(node.set_once(&mut slot, 2)), "\"d\" directive is duplicate in t.conf:1");
    assert_eq!(slot, Some(1));
}
