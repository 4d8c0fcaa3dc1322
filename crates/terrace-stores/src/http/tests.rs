//! Tests of the HTTP source with a scripted server.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use terrace_cache::Param;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What the server does with a request.
#[derive(Clone)]
enum Act {
    /// Sends this.
    Say(Vec<u8>),
    /// Sends this and closes.
    SayAndClose(Vec<u8>),
    /// Sends nothing, and waits.
    Hang,
}

/// A server that treats the n-th request with the n-th act, on however many connections.
struct Peer {
    url: String,
    /// The requests, and the number of the connection that each came on.
    seen: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Peer {
    async fn start(acts: Vec<Act>) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = seen.clone();
        let acts = Arc::new(Mutex::new(acts.into_iter()));
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let (requests, acts) = (requests.clone(), acts.clone());
                tokio::spawn(async move {
                    loop {
                        let mut request = Vec::new();
                        while !request.ends_with(b"\r\n\r\n") {
                            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                                return;
                            }
                        }
                        let text = String::from_utf8(request).expect("a request is text");
                        requests.lock().expect("no panic").push((connection, text));
                        let act = acts.lock().expect("no panic").next().expect("an act for each request");
                        match act {
                            Act::Say(text) => stream.write_all(&text).await.expect("written"),
                            Act::SayAndClose(text) => {
                                stream.write_all(&text).await.expect("written");
                                return;
                            }
                            Act::Hang => std::future::pending().await,
                        }
                    }
                });
                connection += 1;
            }
        });
        Peer { url, seen }
    }

    fn source(&self, path: &str, change: impl FnOnce(&mut HttpOptions)) -> HttpSource {
        let mut options = HttpOptions::new(format!("{}{path}", self.url));
        (options.acquire_timeout_ms, options.query_timeout_ms) = (60_000, 60_000);
        change(&mut options);
        HttpSource::open(options).expect("good options")
    }

    fn seen(&self) -> Vec<(usize, String)> {
        self.seen.lock().expect("no panic").clone()
    }
}

fn say(text: &str) -> Act {
    Act::Say(text.as_bytes().to_vec())
}

fn answer(status: &str, fields: &str, body: &str) -> Act {
    say(&format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

async fn load(source: &HttpSource, params: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let params = params.iter().map(|(name, value)| Param::new(*name, value.to_string())).collect();
    source.load(LoadRequest { key: Bytes::new(), params }).await
}

#[tokio::test]
async fn a_value_an_absence_and_one_connection() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
    let acts = vec![
        answer("200 OK", "Content-Type: text/plain\r\n", "{\"id\":7}"),
        say(chunked),
        answer("404 Not Found", "", "no such thing"),
        answer("410 Gone", "", ""),
        say("HTTP/1.1 204 No Content\r\n\r\n"),
        say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    let peer = Peer::start(acts).await;
    let source = peer.source("/product?id=:id", |options| {
        options.headers = vec![("X-Shop".to_owned(), "1".to_owned())];
    });
    assert_eq!(source.parameters().collect::<Vec<_>>(), ["id"]);
    let id = &[("id", "a b&c")][..];
    assert_eq!(load(&source, id).await, Ok(Loaded::found("{\"id\":7}")));
    assert_eq!(load(&source, id).await, Ok(Loaded::found("{\"a\":1}")));
    for _ in 0..3 {
        assert_eq!(load(&source, id).await, Ok(Loaded::not_found()));
    }
    assert_eq!(load(&source, id).await, Ok(Loaded::found("")));
    let host = peer.url.strip_prefix("http://").expect("a URL");
    let request = format!("GET /product?id=a%20b%26c HTTP/1.1\r\nHost: {host}\r\nX-Shop: 1\r\n\r\n");
    assert_eq!(peer.seen(), vec![(0, request); 6]);
}

#[tokio::test]
async fn other_answers_are_errors() {
    let big = "x".repeat(65);
    let acts = vec![
        answer("503 Service Unavailable", "", "later"),
        answer("429 Too Many Requests", "", ""),
        answer("302 Found", "Location: /\r\n", ""),
        answer("403 Forbidden", "", ""),
        answer("200 OK", "Content-Encoding: gzip\r\n", "zip"),
        answer("200 OK", "", &big),
        say("SSH-2.0-OpenSSH\r\n"),
        Act::SayAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec()),
        Act::SayAndClose(b"HTTP/1.1 200 OK\r\nConte".to_vec()),
    ];
    let peer = Peer::start(acts).await;
    let source = peer.source("/", |options| options.body_bytes_max = 64);
    let mut kinds = String::new();
    for _ in 0..9 {
        kinds.push(match load(&source, &[]).await {
            Err(LoadError::Unavailable(_)) => 'u',
            Err(LoadError::Invalid(_)) => 'i',
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(kinds, "uuiiiiiuu");
}

#[tokio::test]
async fn life_and_version_come_from_the_header() {
    let fields = "Cache-Control: max-age=60\r\nAge: 10\r\nETag: W/\"42\"\r\n";
    let acts = vec![
        answer("200 OK", fields, "1"),
        answer("404 Not Found", fields, ""),
        answer("200 OK", "ETag: \"abc\"\r\n", "1"),
        answer("200 OK", fields, "1"),
    ];
    let peer = Peer::start(acts).await;
    let source = peer.source("/", |options| {
        options.honor_cache_control = true;
        options.version_header = Some("ETag".to_owned());
    });
    assert_eq!(load(&source, &[]).await, Ok(Loaded::versioned("1", Some(50_000), 42)));
    assert_eq!(load(&source, &[]).await, Ok(Loaded::NotFound { ttl_ms: Some(50_000) }));
    assert!(matches!(load(&source, &[]).await, Err(LoadError::Invalid(_))));
    assert_eq!(load(&peer.source("/", |_| ()), &[]).await, Ok(Loaded::found("1")));
}

#[tokio::test]
async fn a_connection_that_ended_meanwhile_costs_no_load() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1";
    let acts = vec![
        Act::SayAndClose(good.into()),
        say(good),
        say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"),
        say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1 and more"),
        Act::SayAndClose(b"HTTP/1.0 200 OK\r\n\r\n1".to_vec()),
        // A new connection that ends without an answer is an error.
        Act::SayAndClose(Vec::new()),
    ];
    let peer = Peer::start(acts).await;
    let source = peer.source("/", |_| ());
    for _ in 0..5 {
        assert_eq!(load(&source, &[]).await, Ok(Loaded::found("1")));
    }
    assert!(matches!(load(&source, &[]).await, Err(LoadError::Unavailable(_))));
    let connections: Vec<_> = peer.seen().into_iter().map(|(connection, _)| connection).collect();
    assert_eq!(connections, [0, 1, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_server_that_hangs_and_one_that_is_away() {
    let peer = Peer::start(vec![Act::Hang]).await;
    let source = peer.source("/", |options| options.query_timeout_ms = 20);
    assert_eq!(load(&source, &[]).await, Err(LoadError::Timeout(20)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let source = HttpSource::open(HttpOptions::new(url)).expect("good options");
    match load(&source, &[]).await {
        Err(LoadError::Unavailable(text)) => assert!(text.contains("http://127.0.0.1:"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn strict_integers_and_bad_parameters_ask_nobody() {
    let peer = Peer::start(vec![answer("200 OK", "", "1")]).await;
    let source = peer.source("/:id", |options| options.integers = vec!["id".to_owned()]);
    for text in ["x", "07", "1 ", ""] {
        assert_eq!(load(&source, &[("id", text)]).await, Ok(Loaded::not_found()));
    }
    assert!(matches!(load(&source, &[]).await, Err(LoadError::Request(_))));
    assert!(matches!(load(&peer.source("/:id", |_| ()), &[("id", "..")]).await, Err(LoadError::Request(_))));
    assert_eq!(load(&source, &[("id", "7")]).await, Ok(Loaded::found("1")));
    assert_eq!(peer.seen().len(), 1);
}

#[test]
fn options_are_checked_when_the_source_is_opened() {
    let open = |change: &dyn Fn(&mut HttpOptions)| {
        let mut options = HttpOptions::new("http://127.0.0.1/:id");
        change(&mut options);
        HttpSource::open(options).map(|_| ())
    };
    assert_eq!(open(&|_| ()), Ok(()));
    let integers = open(&|options| options.integers = vec!["no".to_owned()]);
    assert_eq!(integers, Err(HttpError::NoSuchParameter("no".to_owned())));
    for (name, value) in [("a b", "1"), ("a", "1\r\nb: 2"), ("Connection", "close"), ("content-length", "1")]
    {
        let refused = open(&|options| options.headers = vec![(name.to_owned(), value.to_owned())]);
        assert_eq!(refused, Err(HttpError::Header(name.to_owned())));
    }
}
