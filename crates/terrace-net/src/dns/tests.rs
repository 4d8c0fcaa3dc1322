//! The resolver against servers of the test's own, for what takes patience or many names; the rest is tested end to end.

use std::future::poll_fn;
use std::net::UdpSocket;
use std::task::{Poll, ready};

use terrace_event::{EventLoop, Source};

use super::*;

/// Runs a test as a worker runs its tasks, with a runtime for what blocks.
fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let background = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = background.enter();
    EventLoop::new(clock::update_at).unwrap().block_on(test());
}

/// The next datagram and who sent it.
async fn receive(socket: &Source<UdpSocket>, buf: &mut [u8]) -> (usize, SocketAddr) {
    poll_fn(|cx| {
        loop {
            ready!(socket.poll_read_ready(cx));
            if let Ok(received) = socket.try_read(|s| s.recv_from(buf)) {
                return Poll::Ready(received);
            }
        }
    })
    .await
}

/// A server that answers questions for IPv4 with 127.0.0.1, and those for IPv6 if told to; counts the questions.
fn server(answers_v6: bool) -> (SocketAddr, Rc<Cell<usize>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Rc::new(Cell::new(0));
    let counted = Rc::clone(&asked);
    let socket = Source::new(socket).unwrap();
    terrace_event::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (bytes, peer) = receive(&socket, &mut buffer).await;
            counted.set(counted.get() + 1);
            let mut reply = buffer[..bytes].to_vec();
            let is_v6 = reply[bytes - 3] == 28;
            reply[2..4].copy_from_slice(&[0x81, 0x80]);
            if !is_v6 {
                reply[7] = 1;
                reply.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\x7f\x00\x00\x01");
            }
            if !is_v6 || answers_v6 {
                socket.io().send_to(&reply, peer).unwrap();
            }
        }
    });
    (address, asked)
}

/// One that says nothing.
fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn resolver(servers: Vec<SocketAddr>) -> Rc<Resolver> {
    let conf = ResolverConf { patience_ms: 200, ..ResolverConf::new(servers) };
    Resolver::new(Some(Arc::new(conf)), Arc::new(ErrorLog::new(Vec::new())))
}

fn only(addresses: &Addresses) -> String {
    addresses.by_turns().map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
}

const LONG_MS: u64 = 60_000;

#[test]
fn the_next_server_is_asked_when_one_is_silent_which_then_rests() {
    run(|| async {
        let (held, silent) = silent();
        let (good, asked) = server(true);
        let resolver = resolver(vec![silent, good]);
        for name in ["a.test", "b.test", "c.test", "d.test"] {
            assert_eq!(only(&resolver.resolve(name, LONG_MS).await.unwrap()), "127.0.0.1");
        }
        assert_eq!(asked.get(), 8);
        held.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let heard = std::iter::from_fn(|| held.recv(&mut buffer).ok()).count();
        assert_eq!(heard, 2, "the first name's questions alone");
    });
}

#[test]
fn a_server_that_is_silent_about_one_family_is_taken_by_its_word_about_the_other() {
    run(|| async {
        let (good, _) = server(false);
        let found = resolver(vec![good]).resolve("a.test", LONG_MS).await.unwrap();
        assert_eq!(only(&found), "127.0.0.1");
    });
}

#[test]
fn a_name_nobody_waits_for_any_more_is_no_longer_asked_for() {
    run(|| async {
        let (_held, silent) = silent();
        let resolver = resolver(vec![silent]);
        assert_eq!(resolver.resolve("a.test", 1).await.unwrap_err(), ResolveError::Timeout);
        while !resolver.flights.borrow().is_empty() {
            terrace_event::yield_now().await;
        }
        assert!(resolver.known("a.test").is_none());
    });
}

#[test]
fn names_beyond_the_bounds_push_others_out_or_fail() {
    run(|| async {
        let (good, _) = server(true);
        let resolver = resolver(vec![good]);
        for n in 0..NAMES_MAX + 10 {
            resolver.resolve(&format!("n{n}.test"), LONG_MS).await.unwrap();
            assert!(resolver.known(&format!("N{n}.test.")).is_some());
            assert!(resolver.known.borrow().len() <= NAMES_MAX);
        }
        assert!(resolver.known.borrow().len() > NAMES_MAX / 2);

        let (_held, silent) = silent();
        let resolver = self::resolver(vec![silent]);
        let flights: Vec<_> = (0..FLIGHTS_MAX).map(|n| resolver.flight(&format!("n{n}")).unwrap()).collect();
        assert_eq!(resolver.resolve("one-more", LONG_MS).await.unwrap_err(), ResolveError::Code(FAILURE));
        drop(flights);
    });
}

#[test]
fn the_system_is_asked_without_servers() {
    run(|| async {
        let resolver = Resolver::new(None, Arc::new(ErrorLog::new(Vec::new())));
        let found = resolver.resolve("localhost", LONG_MS).await.unwrap();
        assert!(only(&found).starts_with("127.0.0.1"), "{}", only(&found));
        assert!(Rc::ptr_eq(&found, &resolver.known("localhost").unwrap()));
        let missing = resolver.resolve("nobody.invalid", LONG_MS).await;
        assert!(matches!(missing, Err(ResolveError::Code(FAILURE | NOT_FOUND))), "{missing:?}");
        assert!(resolver.resolve("a\0b", LONG_MS).await.is_err());
    });
}
