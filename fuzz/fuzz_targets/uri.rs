//! Request targets: no input panics, and what is accepted is a normal path below the root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_http1::{host, uri};

fuzz_target!(|input: (bool, &[u8])| {
    let (merge_slashes, text) = input;
    if let Some(host) = host::parse(text) {
        assert!(host.name_len > 0 && host.name_len <= text.len());
    }
    let mut out = Vec::new();
    if !matches!(text.first(), Some(b'/' | b'?')) {
        // Only the parser of the request line may pass others on; they must not panic all the same.
        let _ = uri::normalize(text, &mut out, merge_slashes);
        return;
    }
    let Ok(parts) = uri::normalize(text, &mut out, merge_slashes) else { return };
    assert!(parts.args.is_none_or(|args| args.end() <= text.len()));
    let path = parts.path(text, &out);
    if text[0] == b'/' {
        assert_eq!(path.first(), Some(&b'/'));
    }
    assert!(!path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
    assert!(!path.contains(&0));
    if merge_slashes {
        assert!(!path.windows(2).any(|pair| pair == b"//"));
    }
});
