//! Request heads: no input panics, pieces give what the whole gives, and every span lies inside the head.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_http1::{HeadLimits, Progress, RequestHead, host};

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (cut, switches, text) = input;
    let limits = HeadLimits {
        large_client_header_buffers_size: 256,
        headers_max: 16,
        ignore_invalid_headers: switches & 1 == 0,
        underscores_in_headers: switches & 2 != 0,
        ..HeadLimits::default()
    };
    let mut whole = RequestHead::default();
    let result = whole.parse(text, &limits);

    let mut pieces = RequestHead::default();
    let mut pieces_result = pieces.parse(&text[..usize::from(cut).min(text.len())], &limits);
    if pieces_result == Ok(Progress::Partial) {
        pieces_result = pieces.parse(text, &limits);
    }
    assert_eq!(pieces_result, result);

    match result {
        Ok(Progress::Complete { head_len }) => {
            assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
            assert!(head_len <= text.len() && head_len <= limits.head_bytes_max());
            for line in whole.headers.lines() {
                assert!(line.name.end() <= head_len && line.value.end() <= head_len);
                let value = line.value.of(text);
                assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
            if let Some(name) = whole.host {
                assert!(host::parse(name.of(text)).is_some());
            }
            let mut out = Vec::new();
            if let Ok(parts) = whole.uri(text, switches & 4 != 0, &mut out) {
                assert!(parts.args.is_none_or(|args| args.end() <= text.len()));
            }
        }
        Ok(Progress::Partial) => assert!(text.len() <= limits.head_bytes_max()),
        Err(error) => assert!(!error.log_line(text).is_empty()),
    }
});
