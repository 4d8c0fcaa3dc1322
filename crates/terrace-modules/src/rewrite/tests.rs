//! One server whose locations each show one behaviour; the expectations are what nginx answers to the same file.

use crate::testing::{Rig, get, run};
use terrace_http::Module;

static MODULES: &[&dyn Module] = &[
    &terrace_http::core::Core,
    &crate::map::Map,
    &crate::rewrite::Rewrite,
    &crate::try_files::TryFiles,
    &crate::index::Index,
    &crate::static_files::StaticFiles,
];

const SERVER: &str = r#"http {
    error_log error.log warn;
    default_type text/x-test;
    absolute_redirect off;
    map $arg_m $mapped {
        default none;
        one 1;
        "" empty;
        ~^(?<head>\w)-(.*)$ "$head+$2";
        \default literal;
    }
    map $arg_m$arg_n $both { ab yes; }
    split_clients $arg_m $share { 50% low; * high; }
    server {
        set $server_wide from-server;
        if ($arg_stop = server) { return 410 "stopped by the server\n"; }
        rewrite ^/early/(.*)$ /late/$1;
        location /late/ { return 200 "$uri|$args|$server_wide\n"; }

        location = /text { return 200 hello; }
        location = /nothing { return 204; }
        location = /empty { return 200; }
        location = /teapot { return 418 "short\n"; }
        location = /gone { return 410; }
        location = /moved { return 301 /there?x=1; }
        location = /see { return http://other.example/$arg_x; }
        location = /odd { return 307 "relative"; }
        location = /typed.html { return 200 "<p>"; }

        location /r/ {
            rewrite ^/r/cap/(\w+)/(\d+)$ /shown?word=$1&n=$2 last;
            rewrite ^/r/drop$ /shown? last;
            rewrite ^/r/named/(?<id>\d+)$ /shown/$id last;
            rewrite ^/r/break$ /r/broken break;
            rewrite ^/r/away$ https://away.example/x redirect;
            rewrite ^/r/for-good$ /elsewhere permanent;
            rewrite ^/r/for-good-args$ /elsewhere?a=1 permanent;
            rewrite ^/r/chain1$ /r/chain2;
            rewrite ^/r/chain2$ /shown/chain last;
            rewrite ^/r/loop /r/loop last;
            return 200 "kept:$uri\n";
        }
        location = /r/broken { return 200 "never\n"; }
        location /r2/ { rewrite ^/r2/(.*)$ /files/$1 break; }
        location /shown { return 200 "$uri|$args\n"; }

        location /set {
            set $a "1";
            set $b "${a}2$arg_x";
            set $a 3;
            set $args changed=yes;
            return 200 "$a $b $args\n";
        }
        location /unset { return 200 "[$never]\n"; set $never 1; }
        location /quiet { uninitialized_variable_warn off; return 200 "[$never]\n"; }

        location /if {
            set $r "";
            if ($arg_a) { set $r "${r}true "; }
            if ($arg_a = "x") { set $r "${r}x "; }
            if ($arg_a != "x") { set $r "${r}notx "; }
            if ($arg_a ~ ^(A+)$) { set $r "${r}A:$1 "; }
            if ($arg_a ~* ^(a+)$) { set $r "${r}a:$1 "; }
            if ($arg_a !~ b) { set $r "${r}nob "; }
            if ( $arg_a !~* B ) { set $r "${r}noB "; }
            if ($arg_a = "") { set $r "${r}empty "; }
            if ($arg_a = $arg_b) { set $r "${r}same"; }
            return 200 "$r\n";
        }
        location /files-if {
            set $r "";
            if (-f $document_root/files/a.txt) { set $r "${r}f"; }
            if (-d $document_root/files) { set $r "${r}d"; }
            if (-e $document_root/files) { set $r "${r}e"; }
            if (!-e $document_root/nothing) { set $r "${r}E"; }
            if (!-f $document_root/files) { set $r "${r}F"; }
            if (-x $document_root/files/a.txt) { set $r "${r}x"; }
            return 200 "$r\n";
        }
        location /pseudo {
            default_type text/x-outer;
            if ($arg_in) {
                root other;
                break;
            }
            try_files /files/a.txt =404;
        }
        location /inherits {
            if ($arg_in) { error_page 410 /shown/error; }
            return 410;
        }

        location /map { return 200 "$mapped\n"; }
        location /map2 { return 200 "[$both]\n"; }
        location /split { return 200 "$share\n"; }

        location /try/ { try_files $uri /files$arg_f @else; }
        location /try-code { try_files /nothing =410; }
        location /try-dir { try_files /files/ /nothing; }
        location /try-uri { try_files /nothing /shown/try?from=try; }
        location @else { return 200 "else:$uri\n"; }

        location /dir/ { index nothing.html $arg_i a.txt; }
        location /dir-abs/ { index nothing.html /shown/index; }
        location /dir-default/ { }
    }
}"#;

/// Target, status, what the body or `Location` is.
const CASES: &[(&str, u16, &str)] = &[
    ("/x?stop=server", 410, "stopped by the server\n"),
    ("/early/bird?x=1", 200, "/late/bird|x=1|from-server\n"),
    ("/text", 200, "hello"),
    ("/empty", 200, ""),
    ("/teapot", 418, "short\n"),
    ("/moved", 301, "/there?x=1"),
    ("/see?x=7", 302, "http://other.example/7"),
    ("/odd", 307, "relative"),
    ("/r/cap/cat/42?z=9", 200, "/shown|word=cat&n=42&z=9\n"),
    ("/r/drop?z=9", 200, "/shown|\n"),
    ("/r/named/12?z=9", 200, "/shown/12|z=9\n"),
    ("/r/away?q=1", 302, "https://away.example/x?q=1"),
    ("/r/for-good", 301, "/elsewhere"),
    ("/r/for-good-args?b=2", 301, "/elsewhere?a=1&b=2"),
    ("/r/chain1", 200, "/shown/chain|\n"),
    ("/r/loop", 500, "-"),
    ("/r/none", 200, "kept:/r/none\n"),
    ("/r2/a.txt", 200, "file a\n"),
    ("/set?x=y", 200, "3 12y changed=yes\n"),
    ("/unset", 200, "[]\n"),
    ("/quiet", 200, "[]\n"),
    ("/if", 200, "notx nob noB empty same\n"),
    ("/if?a=0", 200, "notx nob noB \n"),
    ("/if?a=x&b=x", 200, "true x nob noB same\n"),
    ("/if?a=AA", 200, "true notx A:AA a:AA nob noB \n"),
    ("/if?a=aB", 200, "true notx nob \n"),
    ("/files-if", 200, "fdeEF\n"),
    ("/pseudo", 200, "file a\n"),
    ("/pseudo?in=1", 404, "-"),
    ("/gone", 410, "-"),
    ("/inherits", 410, "-"),
    ("/inherits?in=1", 410, "/shown/error|\n"),
    ("/map?m=one", 200, "1\n"),
    ("/map?m=ONE", 200, "1\n"),
    ("/map", 200, "empty\n"),
    ("/map?m=two", 200, "none\n"),
    ("/map?m=x-yz", 200, "x+yz\n"),
    ("/map?m=default", 200, "literal\n"),
    ("/map2?m=a&n=b", 200, "[yes]\n"),
    ("/map2?m=a", 200, "[]\n"),
    ("/split?m=a", 200, "high\n"),
    ("/split?m=abcdef", 200, "low\n"),
    ("/try/b.txt", 200, "file try/b\n"),
    ("/try/none?f=/a.txt", 200, "file a\n"),
    ("/try/none", 200, "else:/try/none\n"),
    ("/try-code", 410, "-"),
    ("/try-dir", 301, "/files/"),
    ("/try-uri?x=1", 200, "/shown/try|from=try\n"),
    ("/dir/", 500, "-"),
    ("/dir/?i=b.txt", 200, "file dir/b\n"),
    ("/dir/?i=none", 200, "file dir/a\n"),
    ("/dir-abs/?x=1", 200, "/shown/index|x=1\n"),
    ("/dir-default/", 200, "the index\n"),
];

const FILES: &[(&str, &str)] = &[
    ("files/a.txt", "file a\n"),
    ("try/b.txt", "file try/b\n"),
    ("dir/a.txt", "file dir/a\n"),
    ("dir/b.txt", "file dir/b\n"),
    ("dir-abs/x", ""),
    ("dir-default/index.html", "the index\n"),
];

fn rig() -> Rig {
    let rig = Rig::new();
    for (name, text) in FILES {
        rig.file(format!("html/{name}"), text.as_bytes(), 1);
    }
    rig
}

#[test]
fn locations_answer_as_nginx_does() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, SERVER);
        for (target, status, text) in CASES {
            let answer = get(&worker, target).await;
            let (location, body) = (answer.field("Location"), answer.text());
            assert_eq!(answer.status, *status, "{target}: {body}\n{}", rig.errors());
            if *text != "-" {
                let got = if location.is_empty() { body } else { &location };
                assert_eq!(got, *text, "{target}\n{}", rig.errors());
            }
        }
        let errors = rig.errors();
        assert!(errors.contains("using uninitialized \"never\" variable"), "{errors}");
        assert!(
            errors.contains("rewrite or internal redirection cycle while processing \"/r/loop\""),
            "{errors}"
        );
    });
}

#[test]
fn the_type_of_a_text_is_that_of_the_uri_or_the_default() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, SERVER);
        assert_eq!(get(&worker, "/text").await.field("Content-Type"), "text/x-test");
        assert_eq!(get(&worker, "/typed.html").await.field("Content-Type"), "text/html");
        let nothing = get(&worker, "/nothing").await;
        assert_eq!((nothing.status, nothing.field("Content-Type").as_str()), (204, ""));
    });
}

#[test]
fn rewrites_are_logged_where_that_is_asked_for() {
    run(async {
        let rig = rig();
        let conf = r"http { error_log error.log notice; server { rewrite_log on;
        location / { rewrite ^/nothing /x; rewrite ^/a(.*) /b$1?c=1 break; return 200; } } }";
        let worker = rig.start(MODULES, conf);
        get(&worker, "/ab?d=2").await;
        let errors = rig.errors();
        for line in [
            "\"^/nothing\" does not match \"/ab\"",
            "\"^/a(.*)\" matches \"/ab\"",
            "rewritten data: \"/bb\", args: \"c=1&d=2\"",
        ] {
            assert!(errors.contains(line), "{line} in {errors}");
        }
    });
}

#[test]
fn a_cycle_of_maps_ends() {
    run(async {
        let rig = rig();
        let conf =
            "http { map $a $b { default $a; } map $b $a { default $b; } server { return 200 \"[$a]\"; } }";
        let worker = rig.start(MODULES, conf);
        assert_eq!(get(&worker, "/").await.text(), "[]");
        assert!(rig.errors().contains("cycle while evaluating variable"), "{}", rig.errors());
    });
}

#[test]
fn errors_are_nginx_s() {
    let rig = Rig::new();
    let cases = [
        ("return x;", "invalid return code \"x\""),
        ("return 1000;", "invalid return code \"1000\""),
        ("return /x;", "invalid return code \"/x\""),
        ("rewrite ^ \"\";", "empty replacement"),
        ("rewrite ^ /x now;", "invalid parameter \"now\""),
        ("set x 1;", "invalid variable name \"x\""),
        ("set $uri 1;", "the duplicate \"uri\" variable"),
        ("return 200 $nothing;", "unknown \"nothing\" variable"),
        ("if $x { }", "invalid condition \"$x\""),
        ("if ($uri { }", "invalid condition \"$uri\""),
        ("if (x) { }", "invalid condition \"x\""),
        ("if ($uri == x) { }", "unexpected \"==\" in condition"),
        ("if ($uri =) { }", "invalid condition \"$uri\""),
        ("if (-q x) { }", "invalid condition \"-q\""),
        ("if ($uri) { if ($uri) { } }", "\"if\" directive is not allowed here"),
        ("location / { try_files x =1000; }", "invalid code \"=1000\""),
        ("location / { try_files a b; try_files c d; }", "\"try_files\" directive is duplicate"),
        ("index \"\";", "index \"\" in \"index\" directive is invalid"),
    ];
    for (directives, error) in cases {
        let shown = rig.refusal(MODULES, &format!("http {{ server {{ {directives} }} }}"));
        assert!(shown.starts_with(&format!("{error} in test.conf:1")), "{directives}: {shown}");
    }
    let maps = [
        ("map $uri x { }", "invalid variable name \"x\""),
        ("map $uri $x { default a; default b; }", "duplicate default map parameter"),
        ("map $uri $x { a 1; A 2; }", "conflicting parameter \"A\""),
        ("map $uri $x { hostnames; a.*.b 1; }", "invalid hostname or wildcard \"a.*.b\""),
        ("map $uri $x { a b c; }", "invalid number of the map parameters"),
        ("split_clients $uri $x { 60% a; 60% b; }", "percent total is greater than 100%"),
        ("split_clients $uri $x { 0% a; }", "invalid percent value \"0%\""),
    ];
    for (directives, error) in maps {
        let shown = rig.refusal(MODULES, &format!("http {{ {directives} }}"));
        assert!(shown.starts_with(&format!("{error} in test.conf:1")), "{directives}: {shown}");
    }
}
