//! Response heads of upstreams: no input panics, pieces give what the whole gives, and every span lies inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_http1::{Progress, ResponseHead, ResponseLimits};

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (cut, head_request, text) = input;
    let limits = ResponseLimits { head_bytes_max: 1024, headers_max: 16 };
    let mut whole = ResponseHead::default();
    let result = whole.parse(text, &limits, head_request);

    let mut pieces = ResponseHead::default();
    let cut = usize::from(cut).min(text.len());
    let mut pieces_result = pieces.parse(&text[..cut], &limits, head_request);
    if pieces_result == Ok(Progress::Partial) {
        pieces_result = pieces.parse(text, &limits, head_request);
    }
    assert_eq!(pieces_result, result);

    match result {
        Ok(Progress::Complete { head_len }) => {
            assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
            assert!(head_len <= text.len() && head_len <= limits.head_bytes_max as usize);
            assert!((100..1000).contains(&whole.status));
            for line in whole.headers.lines() {
                assert!(line.name.end() <= head_len && line.value.end() <= head_len);
                let value = line.value.of(text);
                assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
        Ok(Progress::Partial) => assert!(text.len() <= limits.head_bytes_max as usize),
        Err(error) => assert!(!error.log_line(text).is_empty()),
    }
});
