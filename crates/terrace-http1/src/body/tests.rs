//! Tests of body decoding: each rule, at once and split anywhere.

use super::*;

/// What came of a body: its data and how many bytes it took, or the error.
type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

fn feed(decoder: &mut BodyDecoder, input: &[u8], data: &mut Vec<u8>) -> Result<usize, BodyError> {
    let mut at = 0;
    loop {
        let decoded = decoder.decode(&input[at..])?;
        data.extend_from_slice(&input[at..][decoded.data]);
        at += decoded.consumed;
        if decoded.consumed == 0 || decoded.finished {
            return Ok(at);
        }
    }
}

fn decode(framing: Framing, pieces: &[&[u8]]) -> Outcome {
    let mut decoder = BodyDecoder::new(framing);
    let mut data = Vec::new();
    let mut consumed = 0;
    for piece in pieces {
        consumed += feed(&mut decoder, piece, &mut data)?;
    }
    assert_eq!(decoder.total_bytes(), data.len() as u64);
    Ok((data, consumed, decoder.is_finished()))
}

/// Decodes at once, in two pieces split anywhere, and byte by byte; the outcome must be the same.
fn outcome(framing: Framing, input: &[u8]) -> Outcome {
    let at_once = decode(framing, &[input]);
    for split in 0..=input.len() {
        let (head, tail) = input.split_at(split);
        assert_eq!(decode(framing, &[head, tail]), at_once, "split at {split}: {}", input.escape_ascii());
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(framing, &bytes), at_once, "{}", input.escape_ascii());
    at_once
}

#[test]
fn plain_framings() {
    assert_eq!(outcome(Framing::None, b"next"), Ok((vec![], 0, true)));
    assert_eq!(outcome(Framing::Length(0), b"next"), Ok((vec![], 0, true)));
    assert_eq!(outcome(Framing::Length(4), b"datanext"), Ok((b"data".to_vec(), 4, true)));
    assert_eq!(outcome(Framing::Length(9), b"data"), Ok((b"data".to_vec(), 4, false)));
    assert_eq!(outcome(Framing::UntilClose, b"data"), Ok((b"data".to_vec(), 4, false)));
}

#[test]
fn chunked_bodies() {
    let cases: &[(&str, &str, &str)] = &[
        ("0\r\n\r\n", "", ""),
        ("4\r\ndata\r\n0\r\n\r\n", "data", "GET /"),
        ("4\r\ndata\r\nA\r\n0123456789\r\n0\r\n\r\n", "data0123456789", "x"),
        ("004;a=b;c=\"d\"\r\ndata\r\n000;x\r\n\r\n", "data", ""),
        ("4 \t;a\r\ndata\r\n0 \r\n\r\n", "data", ""),
        ("2\r\n\r\n\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "\r\n", "\r\n"),
    ];
    for &(body, data, next) in cases {
        let input = format!("{body}{next}");
        let expected = Ok((data.as_bytes().to_vec(), body.len(), true));
        assert_eq!(outcome(Framing::Chunked, input.as_bytes()), expected, "{body:?}");
    }
}

#[test]
fn a_small_chunked_body_takes_one_call() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let decoded = decoder.decode(b"4\r\ndata\r\n0\r\n\r\nGET").expect("valid");
    assert_eq!(decoded, Decoded { consumed: 14, data: 3..7, finished: true });
}

#[test]
fn malformed_chunks_are_refused() {
    let cases: &[(&str, BodyError)] = &[
        ("\r\n", BodyError::InvalidChunkSize),
        ("x\r\n", BodyError::InvalidChunkSize),
        ("+4\r\n", BodyError::InvalidChunkSize),
        ("-1\r\n", BodyError::InvalidChunkSize),
        ("0x4\r\n", BodyError::InvalidChunkSize),
        (" 4\r\n", BodyError::InvalidChunkSize),
        ("4\n", BodyError::InvalidChunkSize),
        ("4\rx", BodyError::InvalidChunkSize),
        ("4 4\r\n", BodyError::InvalidChunkSize),
        ("4;a\nb\r\n", BodyError::InvalidChunkSize),
        ("4;a\rb\r\n", BodyError::InvalidChunkSize),
        ("4;\u{0}\r\n", BodyError::InvalidChunkSize),
        ("8000000000000000\r\n", BodyError::ChunkSizeTooLarge),
        ("10000000000000000\r\n", BodyError::ChunkSizeTooLarge),
        ("4\r\ndatax", BodyError::InvalidChunkEnd),
        ("4\r\ndata\n", BodyError::InvalidChunkEnd),
        ("4\r\ndata\rx", BodyError::InvalidChunkEnd),
        ("0\r\n\n", BodyError::InvalidTrailer),
        ("0\r\n\rx", BodyError::InvalidTrailer),
        ("0\r\na: b\n", BodyError::InvalidTrailer),
        ("0\r\na: b\rc", BodyError::InvalidTrailer),
        ("0\r\na: \u{0}", BodyError::InvalidTrailer),
    ];
    for &(body, error) in cases {
        assert_eq!(outcome(Framing::Chunked, body.as_bytes()), Err(error), "{body:?}");
    }
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert!(decoder.decode(b"x").is_err());
    assert!(decoder.decode(b"0\r\n\r\n").is_err(), "an error is final");
}

#[test]
fn sizes_and_their_sum_are_bounded() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let decoded = decoder.decode(b"7fffffffffffffff\r\nx").expect("largest size");
    assert_eq!((decoded.data.len(), decoder.remaining_bytes()), (1, i64::MAX as u64 - 1));
}

#[test]
fn all_that_is_not_data_is_bounded() {
    let pieces = |text: &str| decode(Framing::Chunked, &[text.as_bytes()]);
    let zeros = "0".repeat(CHUNK_LINE_BYTES_MAX as usize + 1);
    assert_eq!(pieces(&zeros), Err(BodyError::ChunkExtensionTooLarge));
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(1023));
    let fits = (CHUNK_EXTENSION_BYTES_MAX / 1024) as usize;
    assert!(pieces(&chunk.repeat(fits)).is_ok());
    assert_eq!(pieces(&chunk.repeat(fits + 1)), Err(BodyError::ChunkExtensionTooLarge));
    let trailer = format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX as usize / 6 + 1));
    assert_eq!(pieces(&trailer), Err(BodyError::TrailersTooLarge));
}

#[test]
fn a_close_ends_only_a_body_until_close() {
    let mut until_close = BodyDecoder::new(Framing::UntilClose);
    assert_eq!(until_close.finish(), Ok(()));
    assert!(until_close.is_finished());
    assert_eq!(BodyDecoder::new(Framing::None).finish(), Ok(()));
    assert_eq!(BodyDecoder::new(Framing::Length(1)).finish(), Err(BodyError::PrematureEnd));
    assert_eq!(BodyDecoder::new(Framing::Chunked).finish(), Err(BodyError::PrematureEnd));
}
