//! The mapping through its public surface.

use super::*;

fn rule(condition: &str, cache: &str, key: &str) -> Rule {
    Rule {
        conditions: vec![Condition::parse(condition).expect("a condition")],
        cache: cache.into(),
        target: Target::Key(Template::parse(key).expect("a template")),
        refresh: false,
        version: None,
    }
}

fn everything(key: &str) -> Rule {
    Rule { conditions: Vec::new(), ..rule("a=b", "c", key) }
}

fn shop() -> Mapping {
    let product =
        Rule { refresh: true, ..rule("serviceId=productInfoService", "product", "product_info_$productId") };
    Mapping::new(vec![product, rule("serviceId=shopInfoService", "shop", "shop_info_$shopId")])
}

fn keys(mapped: &Mapped) -> Vec<String> {
    mapped
        .invalidations
        .iter()
        .map(|i| match &i.scope {
            Scope::Key(key) | Scope::Prefix(key) => String::from_utf8_lossy(key).into_owned(),
            Scope::Tag(tag) => tag.to_string(),
        })
        .collect()
}

#[test]
fn a_changed_product_refreshes_its_key() {
    let mapped = shop().apply(br#"{"serviceId":"productInfoService","productId":1,"shopId":1}"#);
    let expected = Invalidation {
        cache: "product".into(),
        scope: Scope::Key(Bytes::from_static(b"product_info_1")),
        version: 0,
        refresh: true,
    };
    assert_eq!(mapped, Mapped { invalidations: vec![expected], faults: vec![], unversioned: 0 });
}

#[test]
fn the_condition_chooses_the_cache() {
    let mapped = shop().apply(br#"{"serviceId":"shopInfoService","productId":1,"shopId":"7"}"#);
    assert_eq!(&*mapped.invalidations[0].cache, "shop");
    assert!(!mapped.invalidations[0].refresh);
    assert_eq!(keys(&mapped), ["shop_info_7"]);
}

#[test]
fn every_matching_rule_applies_and_a_fault_of_one_leaves_the_others() {
    let mapping = Mapping::new(vec![everything("a_$missing"), everything("b_$id"), everything("c_$id")]);
    let mapped = mapping.apply(br#"{"id":5}"#);
    assert_eq!(keys(&mapped), ["b_5", "c_5"]);
    assert_eq!(mapped.faults, [Fault::Missing("missing".into())]);
}

#[test]
fn messages_that_mean_nothing_are_faults() {
    type Expected = fn(&Fault) -> bool;
    let cases: [(&[u8], Expected); 8] = [
        (b"", |f| matches!(f, Fault::NotJson(_))),
        (b"productId=1", |f| matches!(f, Fault::NotJson(_))),
        (b"{\"serviceId\":\"productInfoService\"", |f| matches!(f, Fault::NotJson(_))),
        (b"\xff\xfe", |f| matches!(f, Fault::NotJson(_))),
        (b"[1]", |f| *f == Fault::Unmatched),
        (b"{\"serviceId\":\"other\"}", |f| *f == Fault::Unmatched),
        (b"{\"serviceId\":\"productInfoService\"}", |f| matches!(f, Fault::Missing(_))),
        (b"{\"serviceId\":\"productInfoService\",\"productId\":{}}", |f| matches!(f, Fault::NotScalar(_))),
    ];
    for (message, expected) in cases {
        let mapped = shop().apply(message);
        assert!(mapped.invalidations.is_empty());
        assert!(mapped.faults.iter().all(expected) && mapped.faults.len() == 1, "{:?}", mapped.faults);
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(shop().apply(deep.as_bytes()).faults[..], [Fault::NotJson(_)]));
}

#[test]
fn templates_read_as_in_nginx_conf() {
    let message = br#"{"id":5,"a":{"b":{"c":"x"}},"flag":true,"list":[10,20]}"#;
    for (template, expected) in [
        ("k", "k"),
        ("$id", "5"),
        ("$id-$id", "5-5"),
        ("${id}0", "50"),
        ("${a.b.c}/$flag", "x/true"),
        ("$$id", "$id"),
        ("${list.1}", "20"),
    ] {
        let mapped = Mapping::new(vec![everything(template)]).apply(message);
        assert_eq!(keys(&mapped), [expected], "{template}");
    }
    for bad in ["$", "a$", "$-", "${a", "${}", "${a..b}", "${.a}"] {
        assert!(Template::parse(bad).is_err(), "{bad}");
    }
    assert!(Condition::parse("serviceId").is_err());
    assert!(Condition::parse("=x").is_err());
}

#[test]
fn numbers_of_keys_are_whole_and_keep_their_digits() {
    let mapping = Mapping::new(vec![everything("k$id")]);
    assert_eq!(keys(&mapping.apply(br#"{"id":18446744073709551615}"#)), ["k18446744073709551615"]);
    assert_eq!(keys(&mapping.apply(br#"{"id":-3}"#)), ["k-3"]);
    for message in [r#"{"id":18446744073709551616}"#, r#"{"id":1.5}"#, r#"{"id":1e3}"#] {
        let faults = mapping.apply(message.as_bytes()).faults;
        assert_eq!(faults, [Fault::NotScalar("id".into())], "{message}");
    }
}

#[test]
fn lists_make_several_keys() {
    let mapping = Mapping::new(vec![everything("p_$ids")]);
    assert_eq!(keys(&mapping.apply(br#"{"ids":[3,1,2,1]}"#)), ["p_1", "p_2", "p_3"]);
    assert_eq!(mapping.apply(br#"{"ids":[]}"#), Mapped::default());

    let together = Mapping::new(vec![everything("${items.shop}_${items.id}")]);
    let message = br#"{"items":[{"id":1,"shop":"a"},{"id":2,"shop":"b"},{"id":3}]}"#;
    let mapped = together.apply(message);
    assert_eq!(keys(&mapped), ["a_1", "b_2"]);
    assert_eq!(mapped.faults, [Fault::Missing("items.shop".into())]);

    let nested = Mapping::new(vec![everything("${o.i}")]);
    assert_eq!(keys(&nested.apply(br#"{"o":[{"i":[1,2]},{"i":[3]},{"i":[[4]]}]}"#)), ["1", "2", "3", "4"]);

    let product = Mapping::new(vec![everything("$a$b")]);
    assert_eq!(keys(&product.apply(br#"{"a":[1,2],"b":["x","y"]}"#)), ["1x", "1y", "2x", "2y"]);
}

#[test]
fn conditions_look_into_lists_and_numbers() {
    let mapping =
        Mapping::new(vec![rule("kinds=price", "c", "k"), rule("v.n=7", "d", "k"), rule("on=true", "e", "k")]);
    assert_eq!(&*mapping.apply(br#"{"kinds":["stock","price"]}"#).invalidations[0].cache, "c");
    assert_eq!(&*mapping.apply(br#"{"v":{"n":7}}"#).invalidations[0].cache, "d");
    assert_eq!(&*mapping.apply(br#"{"on":true}"#).invalidations[0].cache, "e");
    assert_eq!(mapping.apply(br#"{"kinds":null,"v":7}"#).faults, [Fault::Unmatched]);
}

#[test]
fn versions_are_numbers_or_times() {
    let versioned = Rule { version: Some(Path::parse("modified_time").expect("a path")), ..everything("k") };
    let mapping = Mapping::new(vec![versioned]);
    for (message, version, unversioned) in [
        (r#"{"modified_time":12}"#, 12, 0),
        (r#"{"modified_time":"13"}"#, 13, 0),
        (r#"{"modified_time":"1970-01-01 00:00:01"}"#, 1_000_000, 0),
        (r#"{"modified_time":"soon"}"#, 0, 1),
        (r#"{"modified_time":1.5}"#, 0, 1),
        (r#"{}"#, 0, 1),
    ] {
        let mapped = mapping.apply(message.as_bytes());
        assert_eq!(
            (mapped.invalidations[0].version, mapped.unversioned),
            (version, unversioned),
            "{message}"
        );
    }
}

#[test]
fn each_element_brings_its_own_version_and_the_newest_of_a_key_counts() {
    let versioned = Rule { version: Some(Path::parse("l.v").expect("a path")), ..everything("${l.k}") };
    let mapped = Mapping::new(vec![versioned])
        .apply(br#"{"l":[{"k":"a","v":1},{"k":"b","v":5},{"k":"a","v":3},{"k":"c","v":9},{"k":"c"}]}"#);
    let versions: Vec<_> = mapped.invalidations.iter().map(|i| i.version).collect();
    assert_eq!((keys(&mapped), versions), (vec!["a".into(), "b".into(), "c".into()], vec![3, 5, 0]));
}

#[test]
fn prefixes_and_tags_are_scopes_of_their_own() {
    let target = |target| Mapping::new(vec![Rule { target, ..everything("k") }]);
    let template = || Template::parse("shop_$id").expect("a template");
    let prefix = target(Target::Prefix(template())).apply(br#"{"id":1}"#);
    assert_eq!(prefix.invalidations[0].scope, Scope::Prefix(Bytes::from_static(b"shop_1")));
    let tag = target(Target::Tag(template())).apply(br#"{"id":1}"#);
    assert_eq!(tag.invalidations[0].scope, Scope::Tag("shop_1".into()));
}

#[test]
fn a_message_is_bounded_in_what_it_asks_for() {
    let list = |n: usize| format!("[{}]", (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    let many =
        Mapping::new(vec![everything("$a")]).apply(format!(r#"{{"a":{}}}"#, list(KEYS_MAX + 1)).as_bytes());
    assert_eq!((many.invalidations.len(), &many.faults[..]), (KEYS_MAX, &[Fault::TooManyKeys][..]));

    let empty = format!(r#"{{"a":{},"b":{},"c":[]}}"#, list(3000), list(3000));
    let none = Mapping::new(vec![everything("$a$b$c")]).apply(empty.as_bytes());
    assert_eq!((none.invalidations.len(), &none.faults[..]), (0, &[Fault::TooManyKeys][..]));

    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(KEY_BYTES_MAX + 1));
    assert_eq!(Mapping::new(vec![everything("$a")]).apply(long.as_bytes()).faults, [Fault::KeyTooLong]);
}
