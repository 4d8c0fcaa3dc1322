//! Bodies of every framing: no input panics, the decoder always moves on, and pieces give what the whole gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_http1::{BodyDecoder, BodyError, Framing};

/// The data, how many bytes of the input the body took, and whether it is complete.
type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

fn decode(framing: Framing, pieces: &[&[u8]]) -> Outcome {
    let mut decoder = BodyDecoder::new(framing);
    let (mut data, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while !decoder.is_finished() {
            let decoded = decoder.decode(&piece[at..])?;
            assert!(decoded.data.end <= decoded.consumed && decoded.consumed <= piece.len() - at);
            assert_eq!(decoded.finished, decoder.is_finished());
            data.extend_from_slice(&piece[at..][decoded.data]);
            at += decoded.consumed;
            if decoded.consumed == 0 {
                break;
            }
        }
        assert!(at == piece.len() || decoder.is_finished(), "input is left that the decoder does not take");
        taken += at;
    }
    assert_eq!(decoder.total_bytes(), data.len() as u64);
    Ok((data, taken, decoder.is_finished()))
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, number, text) = input;
    let framing = match kind % 8 {
        0 => Framing::None,
        1 => Framing::Length(u64::from(number)),
        2 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let whole = decode(framing, &[text]);
    let (first, second) = text.split_at(usize::from(number).min(text.len()));
    assert_eq!(decode(framing, &[first, second]), whole);
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(decode(framing, &bytes), whole);
});
