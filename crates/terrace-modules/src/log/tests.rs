//! Access logs, from the directive to the line in the file.

use terrace_http::Module;
use terrace_http::core::Core;

use super::AccessLog;
use crate::testing::{Rig, ask, get, run, site};
use crate::{realip, static_files};

static MODULES: &[&dyn Module] = &[&Core, &realip::RealIp, &static_files::StaticFiles, &AccessLog];

#[test]
fn combined_is_the_default() {
    run(async {
        let (rig, worker) = site(MODULES, "server { }");
        rig.file("html/a", b"0123456789", 1);
        ask(&worker, "GET /a?q=\"", &["User-Agent: a\"b", "Authorization: Basic dTpw"]).await;
        get(&worker, "/none").await;
        let log = rig.read("logs/access.log");
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[0].starts_with("127.0.0.1 - u ["), "{log}");
        assert!(lines[0].ends_with("] \"GET /a?q=\\x22 HTTP/1.1\" 200 10 \"-\" \"a\\x22b\""), "{log}");
        assert!(lines[1].contains("\"GET /none HTTP/1.1\" 404 "), "{log}");
        assert_eq!(lines.len(), 2);
    });
}

#[test]
fn formats_conditions_and_several_logs() {
    run(async {
        let (rig, worker) = site(
            MODULES,
            "log_format plain '$request_method ' '${uri}|$http_x_none|$status'; \
         log_format js escape=json '{\"ua\":\"$http_user_agent\",\"none\":\"$http_x_none\"}'; \
         log_format raw escape=none '$http_user_agent'; \
         access_log logs/plain plain; \
         server { \
             location /off/ { access_log off; } \
             location /two/ { access_log logs/js js; access_log logs/raw RAW if=$arg_log; } \
         }",
        );
        get(&worker, "/a").await;
        get(&worker, "/off/a").await;
        ask(&worker, "GET /two/a?log=0", &["User-Agent: a\"\t"]).await;
        ask(&worker, "GET /two/a?log=1", &["User-Agent: \"q\""]).await;
        assert_eq!(rig.read("logs/plain"), "GET /a|-|404\n");
        assert_eq!(
            rig.read("logs/js"),
            "{\"ua\":\"a\\\"\",\"none\":\"\"}\n{\"ua\":\"\\\"q\\\"\",\"none\":\"\"}\n"
        );
        assert_eq!(rig.read("logs/raw"), "\"q\"\n");
    });
}

#[test]
fn a_buffer_is_of_the_file_and_is_written_when_full_and_at_the_end() {
    run(async {
        let (rig, worker) = site(
            MODULES,
            "log_format uri '$uri'; access_log logs/x uri buffer=16 flush=1h; \
         server { location /b/ { access_log logs/x uri; } }",
        );
        get(&worker, "/123456").await;
        get(&worker, "/b/1").await;
        assert_eq!(rig.read("logs/x"), "");
        get(&worker, "/long").await;
        assert_eq!(rig.read("logs/x"), "/123456\n/b/1\n");
        AccessLog.worker_end(&worker);
        assert_eq!(rig.read("logs/x"), "/123456\n/b/1\n/long\n");
    });
}

#[test]
fn a_path_may_have_variables() {
    run(async {
        let (rig, worker) = site(
            MODULES,
            "log_format uri '$uri'; server { access_log logs/$arg_f.log uri; location /rootless { root none; } }",
        );
        get(&worker, "/a?f=x").await;
        get(&worker, "/b?f=y").await;
        get(&worker, "/c?f=x").await;
        get(&worker, "/rootless?f=x").await;
        get(&worker, "/d?f=no/such/directory").await;
        assert_eq!((rig.read("logs/x.log"), rig.read("logs/y.log")), ("/a\n/c\n".into(), "/b\n".into()));
        assert!(rig.errors().contains("no/such/directory.log\" failed (2: No such file"));
        for i in 0..100 {
            get(&worker, &format!("/{i}?f=many{i}")).await;
        }
        assert_eq!(rig.read("logs/many0.log"), "/0\n");
    });
}

#[test]
fn what_is_refused() {
    let rig = Rig::new();
    for (http, message) in [
        ("log_format combined a;", "duplicate \"log_format\" name \"combined\""),
        ("log_format a b; log_format a c;", "duplicate \"log_format\" name \"a\""),
        ("log_format a escape=x b;", "unknown log format escaping \"x\""),
        ("log_format a '$nonsense';", "unknown \"nonsense\" variable"),
        ("log_format a '${b';", "invalid parameter \"${b\""),
        ("access_log x none;", "unknown log format \"none\""),
        ("access_log off x;", "invalid parameter \"x\""),
        ("access_log logs/x combined buffer=0;", "invalid buffer size \"0\""),
        ("access_log logs/x combined buffer=1k flush=x;", "invalid flush time \"x\""),
        ("access_log logs/x combined flush=1s;", "no buffer is defined for access_log \"logs/x\""),
        ("access_log logs/$host combined buffer=1k;", "buffered logs cannot have variables in name"),
        ("access_log logs/x combined size=1;", "invalid parameter \"size=1\""),
        (
            "access_log logs/x combined buffer=1k; access_log logs/x combined buffer=2k;",
            "access_log \"logs/x\" already defined with conflicting parameters",
        ),
    ] {
        let shown = rig.refusal(MODULES, &format!("http {{ {http} }}"));
        assert!(shown.starts_with(message), "{http}: {shown}");
    }
}

#[test]
fn the_real_address_is_logged() {
    run(async {
        let (rig, worker) = site(
            MODULES,
            "log_format a '$remote_addr $realip_remote_addr'; access_log logs/a a; \
         set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on; \
         server { location /other/ { set_real_ip_from 10.0.0.1; } }",
        );
        ask(&worker, "GET /", &["X-Forwarded-For: 1.1.1.1, 2.2.2.2", "X-Forwarded-For: 127.0.0.9"]).await;
        ask(&worker, "GET /", &["X-Forwarded-For: nobody"]).await;
        assert_eq!(rig.read("logs/a"), "2.2.2.2 127.0.0.1\n127.0.0.1 127.0.0.1\n");
    });
}
