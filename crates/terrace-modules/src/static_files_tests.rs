//! Static files with everything that looks at them: conditions, ranges, added fields.

use std::rc::Rc;

use bytes::Bytes;
use terrace_conf::ConfError;
use terrace_http::core::Core;
use terrace_http::{Builder, Chunk, LocationBuilder, Module, Outcome, Request, Step, Worker};

use crate::testing::{Rig, ask, get, run, site};
use crate::{headers, not_modified, range, static_files};

static MODULES: &[&dyn Module] = &[
    &Core,
    &not_modified::NotModified,
    &range::RangeBody,
    &static_files::StaticFiles,
    &Streamed,
    &headers::Headers,
    &range::Range,
];

/// Answers below `/stream` with a body in pieces, as a source that cannot seek.
struct Streamed;

const STREAMED: &[u8] = b"0123456789abcdefghij";

impl Module for Streamed {
    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        if location.name == b"/stream" {
            location.set_content(|r: &Rc<Request>| {
                let r = Rc::clone(r);
                Step::wait(async move {
                    r.headers_out.content_length.set(Some(STREAMED.len() as u64));
                    r.headers_out.allow_ranges.set(true);
                    for piece in STREAMED.chunks(3) {
                        let data = Bytes::from_static(piece);
                        r.send(Chunk { data, ..Chunk::default() }).get().await;
                    }
                    Outcome::Done
                })
            });
        }
        Ok(())
    }
}

/// Sun, 06 Nov 1994 08:49:37 GMT
const MODIFIED: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const ETAG: &str = "\"2ebc98a1-a\"";

fn files(server: &str) -> (Rig, Rc<Worker>) {
    let http = format!("types {{ text/html html; }} server {{ {server} location /stream {{ }} }}");
    let (rig, worker) = site(MODULES, &http);
    rig.file("html/a.html", b"0123456789", MODIFIED);
    (rig, worker)
}

#[test]
fn a_file() {
    run(async {
        let (_rig, worker) = files("");
        let a = get(&worker, "/a.html").await;
        assert_eq!((a.status, a.text()), (200, "0123456789"));
        assert_eq!(a.field("Content-Type"), "text/html");
        assert_eq!(a.field("Content-Length"), "10");
        assert_eq!(a.field("Last-Modified"), DATE);
        assert_eq!(a.field("ETag"), ETAG);
        assert_eq!(a.field("Accept-Ranges"), "bytes");
        let head = ask(&worker, "HEAD /a.html", &[]).await;
        assert_eq!((head.status, head.text(), head.field("Content-Length").as_str()), (200, "", "10"));
        assert_eq!(get(&worker, "/a.html?x=%00").await.status, 200);
    });
}

#[test]
fn what_is_no_file() {
    run(async {
        let (rig, worker) = files("location /alias/ { alias html/; }");
        std::fs::create_dir(rig.path("html/dir")).unwrap();
        nix::unistd::mkfifo(&rig.path("html/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(get(&worker, "/none").await.status, 404);
        assert_eq!(get(&worker, "/a.html/x").await.status, 404);
        assert_eq!(get(&worker, &format!("/{}", "n".repeat(300))).await.status, 404);
        assert_eq!(get(&worker, "/fifo").await.status, 404);
        assert_eq!(ask(&worker, "POST /a.html", &["Content-Length: 1", "", "x"]).await.status, 405);
        assert_eq!(ask(&worker, "DELETE /a.html", &[]).await.status, 405);
        assert_eq!(ask(&worker, "POST /none", &[]).await.status, 404);
        let to = get(&worker, "/dir?q=1").await;
        assert_eq!((to.status, to.field("Location").as_str()), (301, "http://site.test/dir/?q=1"));
        std::fs::create_dir(rig.path("html/a \"b")).unwrap();
        let to = get(&worker, "/a%20%22b").await;
        assert_eq!((to.status, to.field("Location").as_str()), (301, "http://site.test/a%20%22b/"));
        let to = get(&worker, "/alias/dir").await;
        assert_eq!((to.status, to.field("Location").as_str()), (301, "http://site.test/alias/dir/"));
        let log = rig.errors();
        let none = rig.path("html/none").display().to_string();
        assert!(log.contains(&format!(
            "open() \"{none}\" failed (2: No such file or directory), client: 127.0.0.1"
        )));
        assert!(log.contains("html/fifo\" is not a regular file"), "{log}");
    });
}

#[test]
fn log_not_found_off() {
    run(async {
        let (rig, worker) = files("log_not_found off;");
        assert_eq!(get(&worker, "/none").await.status, 404);
        assert_eq!(rig.errors(), "");
    });
}

#[test]
fn a_large_file_arrives_whole() {
    run(async {
        let (rig, worker) = files("");
        let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        rig.file("html/large", &content, MODIFIED);
        let a = get(&worker, "/large").await;
        assert!(a.body == content, "got {} bytes", a.body.len());
        let a = ask(&worker, "GET /large", &["Range: bytes=100000-2900000"]).await;
        assert!(a.status == 206 && a.body == content[100_000..=2_900_000]);
    });
}

#[test]
fn conditions() {
    run(async {
        let (_rig, worker) = files("location /before/ { alias html/; if_modified_since before; }");
        for (path, field, status) in [
            ("/a.html", format!("If-Modified-Since: {DATE}"), 304),
            ("/a.html", format!("If-Modified-Since: {LATER}"), 200),
            ("/before/a.html", format!("If-Modified-Since: {LATER}"), 304),
            ("/a.html", "If-Modified-Since: nonsense".into(), 200),
            ("/a.html", format!("If-None-Match: {ETAG}"), 304),
            ("/a.html", format!("If-None-Match: \"x\", W/{ETAG}"), 304),
            ("/a.html", "If-None-Match: *".into(), 304),
            ("/a.html", "If-None-Match: \"x\"".into(), 200),
            ("/a.html", format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {DATE}"), 200),
            ("/a.html", format!("If-None-Match: {ETAG}\r\nIf-Modified-Since: {LATER}"), 200),
            ("/a.html", format!("If-Unmodified-Since: {DATE}"), 200),
            ("/a.html", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT".into(), 412),
            ("/a.html", "If-Unmodified-Since: nonsense".into(), 412),
            ("/a.html", format!("If-Match: {ETAG}"), 200),
            ("/a.html", format!("If-Match: W/{ETAG}"), 412),
        ] {
            let a = ask(&worker, &format!("GET {path}"), &[&field]).await;
            assert_eq!(a.status, status, "{path} {field}");
        }
        let a = ask(&worker, "GET /a.html", &[&format!("If-None-Match: {ETAG}"), "Range: bytes=0-1"]).await;
        assert_eq!((a.status, a.text()), (304, ""));
        assert_eq!((a.field("ETag").as_str(), a.field("Last-Modified").as_str()), (ETAG, DATE));
        assert_eq!((a.field("Content-Type"), a.field("Content-Length")), (String::new(), String::new()));
        assert!(
            ask(&worker, "GET /a.html", &["If-Match: \"x\""])
                .await
                .text()
                .contains("412 Precondition Failed")
        );
    });
}

#[test]
fn an_error_page_is_not_what_conditions_and_ranges_are_about() {
    run(async {
        let (rig, worker) = files("error_page 412 416 /page.html;");
        rig.file("html/page.html", b"page", MODIFIED);
        let a = ask(&worker, "GET /a.html", &["If-Match: \"x\""]).await;
        assert_eq!((a.status, a.text()), (412, "page"));
        let a = ask(&worker, "GET /a.html", &["Range: bytes=10-"]).await;
        assert_eq!((a.status, a.text()), (416, "page"));
    });
}

#[test]
fn ranges_of_files() {
    run(async {
        let (_rig, worker) = files(
            "location /one/ { alias html/; max_ranges 1; } location /no/ { alias html/; max_ranges 0; }",
        );
        for (path, range, status, content_range, body) in [
            ("/a.html", "bytes=0-0", 206, "bytes 0-0/10", "0"),
            ("/a.html", "bytes=7-", 206, "bytes 7-9/10", "789"),
            ("/a.html", "bytes=-3", 206, "bytes 7-9/10", "789"),
            ("/a.html", "BYTES=5-100", 206, "bytes 5-9/10", "56789"),
            ("/a.html", "lines=0-0", 200, "", "0123456789"),
            ("/one/a.html", "bytes=0-0,2-2", 200, "", "0123456789"),
            ("/no/a.html", "bytes=0-0", 200, "", "0123456789"),
            ("/no/a.html", "bytes=10-", 200, "", "0123456789"),
        ] {
            let a = ask(&worker, &format!("GET {path}"), &[&format!("Range: {range}")]).await;
            assert_eq!((a.status, a.text()), (status, body), "{path} {range}");
            assert_eq!(a.field("Content-Range"), content_range, "{path} {range}");
            assert_eq!(a.field("Content-Length"), body.len().to_string());
        }
        assert_eq!(get(&worker, "/no/a.html").await.field("Accept-Ranges"), "");
        let a = ask(&worker, "GET /a.html", &["Range: bytes=10-"]).await;
        assert_eq!((a.status, a.field("Content-Range").as_str()), (416, "bytes */10"));
        assert!(a.text().contains("416 Requested Range Not Satisfiable"));
        let a = ask(&worker, "HEAD /a.html", &["Range: bytes=1-2"]).await;
        assert_eq!((a.status, a.field("Content-Length").as_str(), a.text()), (206, "2", ""));
    });
}

#[test]
fn several_ranges() {
    run(async {
        let (_rig, worker) = files("");
        let a = ask(&worker, "GET /a.html", &["Range: bytes=5-6,0-1"]).await;
        assert_eq!(a.status, 206);
        let whole = a.field("Content-Type");
        let boundary = whole.strip_prefix("multipart/byteranges; boundary=").expect(&whole);
        let part = |range: &str, body: &str| {
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/html\r\nContent-Range: bytes {range}/10\r\n\r\n{body}"
            )
        };
        let expected = part("5-6", "56") + &part("0-1", "01") + &format!("\r\n--{boundary}--\r\n");
        assert_eq!(a.text(), expected);
        assert_eq!(a.field("Content-Length"), expected.len().to_string());
    });
}

#[test]
fn if_range() {
    run(async {
        let (_rig, worker) = files("");
        for (condition, status) in [
            (format!("If-Range: {ETAG}"), 206),
            ("If-Range: \"x\"".into(), 200),
            (format!("If-Range: {DATE}"), 206),
            (format!("If-Range: {LATER}"), 200),
        ] {
            let a = ask(&worker, "GET /a.html", &["Range: bytes=0-0", &condition]).await;
            assert_eq!(a.status, status, "{condition}");
        }
    });
}

#[test]
fn ranges_of_streams() {
    run(async {
        let (_rig, worker) = files("");
        let a = ask(&worker, "GET /stream", &["Range: bytes=4-9"]).await;
        assert_eq!((a.status, a.text(), a.field("Content-Length").as_str()), (206, "456789", "6"));
        let a = ask(&worker, "GET /stream", &["Range: bytes=1-2,18-"]).await;
        assert_eq!(a.status, 206);
        assert!(a.text().contains("bytes 1-2/20\r\n\r\n12\r\n--"), "{}", a.text());
        assert!(a.text().contains("bytes 18-19/20\r\n\r\nij\r\n--"), "{}", a.text());
        assert_eq!(a.field("Content-Length"), a.body.len().to_string());
        assert_eq!(ask(&worker, "GET /stream", &["Range: bytes=18-,1-2"]).await.status, 200);
        let a = ask(&worker, "GET /stream", &["Range: bytes=20-"]).await;
        assert_eq!((a.status, a.text(), a.field("Content-Range").as_str()), (416, "", "bytes */20"));
        assert_eq!(get(&worker, "/stream").await.body, STREAMED);
    });
}

#[test]
fn added_fields() {
    run(async {
        let (_rig, worker) = files(
            "add_header X-Level server; \
         location /own/ { alias html/; add_header X-Own $uri; add_header X-Always a always; add_header X-Empty $arg_x; } \
         location /tags/ { alias html/; add_header ETag '\"mine\"'; add_header Last-Modified ''; \
             add_header Cache-Control a; add_header Cache-Control b; }",
        );
        assert_eq!(get(&worker, "/a.html").await.field("X-Level"), "server");
        assert_eq!(get(&worker, "/none").await.field("X-Level"), "");
        let a = get(&worker, "/own/a.html").await;
        assert_eq!((a.field("X-Own").as_str(), a.field("X-Level").as_str()), ("/own/a.html", ""));
        assert!(!a.head.contains("X-Empty"));
        let a = get(&worker, "/own/none").await;
        assert_eq!((a.field("X-Own").as_str(), a.field("X-Always").as_str()), ("", "a"));
        let a = get(&worker, "/tags/a.html").await;
        assert_eq!((a.field("ETag").as_str(), a.field("Last-Modified").as_str()), ("\"mine\"", ""));
        assert_eq!(a.field("Cache-Control"), "a | b");
        let a = ask(&worker, "GET /own/a.html", &["Range: bytes=0-0"]).await;
        assert_eq!((a.status, a.field("X-Own").as_str()), (206, "/own/a.html"));
    });
}

#[test]
fn expires() {
    run(async {
        let (_rig, worker) = files(
            "expires epoch; location /max/ { alias html/; expires max; } location /off/ { alias html/; expires off; } \
         location /hour/ { alias html/; expires 1h; } location /past/ { alias html/; expires -1; } \
         location /modified/ { alias html/; expires modified 1d; } \
         location /var/ { alias html/; expires $arg_e; }",
        );
        for (path, cache_control, expires) in [
            ("/a.html", "no-cache", "Thu, 01 Jan 1970 00:00:01 GMT"),
            ("/max/a.html", "max-age=315360000", "Thu, 31 Dec 2037 23:55:55 GMT"),
            ("/off/a.html", "", ""),
            ("/modified/a.html", "no-cache", "Mon, 07 Nov 1994 08:49:37 GMT"),
            ("/var/a.html?e=max", "max-age=315360000", "Thu, 31 Dec 2037 23:55:55 GMT"),
            ("/var/a.html?e=nonsense", "", ""),
        ] {
            let a = get(&worker, path).await;
            assert_eq!(
                (a.field("Cache-Control").as_str(), a.field("Expires").as_str()),
                (cache_control, expires)
            );
        }
        assert_eq!(get(&worker, "/hour/a.html").await.field("Cache-Control"), "max-age=3600");
        assert_eq!(get(&worker, "/past/a.html").await.field("Cache-Control"), "no-cache");
        assert_eq!(get(&worker, "/none").await.field("Expires"), "");
    });
}
