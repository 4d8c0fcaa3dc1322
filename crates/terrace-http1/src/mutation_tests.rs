//! Random input to every decoder: none may panic, a split may not change an outcome, and where httparse accepts a
//! request too, both must have read the same. The seed is fixed and printed by a failing assertion.

use crate::{
    BodyDecoder, Framing, HeadLimits, Progress, RequestHead, ResponseHead, ResponseLimits, Span, uri,
};

const ROUNDS: u32 = 20_000;

/// A small generator (xorshift64*), so that a run can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    /// `text` with a few bytes replaced, inserted, removed or doubled.
    fn mutate(&mut self, text: &[u8]) -> Vec<u8> {
        const TELLING: &[u8] = b"\r\n\0 \t:/.%?#,;0f_A\x7f\xff";
        let mut mutated = text.to_vec();
        for _ in 0..self.below(5) {
            let at = self.below(mutated.len().max(1));
            let byte = TELLING[self.below(TELLING.len())];
            match self.below(4) {
                0 if at < mutated.len() => mutated[at] = byte,
                1 if at < mutated.len() => drop(mutated.remove(at)),
                2 => {
                    let end = (at + self.below(20)).min(mutated.len());
                    mutated.extend_from_within(at.min(end)..end);
                }
                _ => mutated.insert(at.min(mutated.len()), byte),
            }
        }
        mutated
    }
}

const REQUESTS: &[&[u8]] = &[
    b"GET /a/../b%20c?d HTTP/1.1\r\nHost: example.com:80\r\nConnection: keep-alive\r\nA: b\r\n\r\n",
    b"POST http://h/x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\nX_y: z\n\n",
    b"PUT / HTTP/1.0\r\nContent-Length: 10\r\nContent-Type: a\r\n\r\n",
];

#[test]
fn requests() {
    let limits = HeadLimits { large_client_header_buffers_size: 64, ..HeadLimits::default() };
    let mut random = Random(0x5eed_0001);
    let mut compared = 0;
    for round in 0..ROUNDS {
        let text = random.mutate(REQUESTS[round as usize % REQUESTS.len()]);
        let mut at_once = RequestHead::default();
        let result = at_once.parse(&text, &limits);
        let mut split = RequestHead::default();
        let mut split_result = split.parse(&text[..random.below(text.len() + 1)], &limits);
        if split_result == Ok(Progress::Partial) {
            split_result = split.parse(&text, &limits);
        }
        assert_eq!(split_result, result, "round {round}: {}", text.escape_ascii());
        if let Ok(Progress::Complete { head_len }) = result {
            assert!(head_len <= text.len());
            assert_eq!(format!("{split:?}"), format!("{at_once:?}"), "round {round}");
            let _ = at_once.uri(&text, true, &mut Vec::new());
            compared += u32::from(compare(&text, &at_once, head_len));
        } else if let Err(error) = result {
            assert!(error.log_line(&text).starts_with("client sent"));
        }
    }
    assert!(compared > ROUNDS / 10, "only {compared} heads were accepted by both");
}

/// Compares a head with what httparse made of the same bytes; false if it does not accept them.
fn compare(text: &[u8], head: &RequestHead, head_len: usize) -> bool {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut peer = httparse::Request::new(&mut lines);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    let Ok(httparse::Status::Complete(peer_len)) = config.parse_request(&mut peer, text) else {
        return false;
    };
    assert_eq!(peer_len, head_len, "{}", text.escape_ascii());
    assert_eq!(peer.method.map(str::as_bytes), Some(head.line.method_name.of(text)));
    assert_eq!(peer.headers.len(), head.headers.lines().len() + head.ignored_lines as usize);
    for line in head.headers.lines() {
        let (name, value) = (line.name.of(text), line.value.of(text));
        let known = peer.headers.iter().any(|peer| peer.name.as_bytes() == name && peer.value == value);
        assert!(known, "{}", text.escape_ascii());
    }
    true
}

#[test]
fn responses() {
    let seed: &[u8] =
        b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nConnection: close\r\nETag: \"1\"\r\n\r\n";
    let limits = ResponseLimits { head_bytes_max: 100, ..ResponseLimits::default() };
    let mut random = Random(0x5eed_0002);
    for round in 0..ROUNDS {
        let text = random.mutate(seed);
        let mut at_once = ResponseHead::default();
        let result = at_once.parse(&text, &limits, false);
        let mut split = ResponseHead::default();
        let mut split_result = split.parse(&text[..random.below(text.len() + 1)], &limits, false);
        if split_result == Ok(Progress::Partial) {
            split_result = split.parse(&text, &limits, false);
        }
        assert_eq!(split_result, result, "round {round}: {}", text.escape_ascii());
        if let Err(error) = result {
            assert!(error.log_line(&text).starts_with("upstream sent"));
        }
    }
}

#[test]
fn bodies() {
    let seed: &[u8] = b"5;a=b\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nT: u\r\n\r\n";
    let mut random = Random(0x5eed_0003);
    for round in 0..ROUNDS {
        let text = random.mutate(seed);
        let split = random.below(text.len() + 1);
        let outcome = |pieces: [&[u8]; 2]| {
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let mut data = Vec::new();
            for piece in pieces {
                let mut at = 0;
                loop {
                    let decoded = decoder.decode(&piece[at..])?;
                    data.extend_from_slice(&piece[at..][decoded.data]);
                    at += decoded.consumed;
                    if decoded.consumed == 0 {
                        break;
                    }
                }
            }
            Ok::<_, crate::BodyError>((data, decoder.is_finished()))
        };
        let expected = outcome([&text, b""]);
        assert_eq!(outcome([&text[..split], &text[split..]]), expected, "round {round}");
    }
}

#[test]
fn targets() {
    let seed: &[u8] = b"/a/./b/../c%2Fd//e/%2e%2e/f?g=h&i#j";
    let mut random = Random(0x5eed_0004);
    let mut out = Vec::new();
    for round in 0..ROUNDS {
        let text = random.mutate(seed);
        let Ok(parts) = uri::normalize(&text, &mut out, true) else {
            continue;
        };
        let path = parts.path(&text, &out);
        assert_eq!(path.first(), Some(&b'/'), "round {round}: {}", text.escape_ascii());
        let dots = path.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..");
        assert!(!dots, "round {round}: {}", text.escape_ascii());
        assert!(parts.args.is_none_or(|args: Span| args.end() <= text.len()));
    }
}
