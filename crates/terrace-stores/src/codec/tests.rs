//! Envelopes: what was written is read, and anything else is an error value.

use super::*;

const KEY: &[u8] = b"product:1";

fn codec() -> Codec {
    Codec::new(Some(64), None).unwrap()
}

fn stored(value: Option<&[u8]>) -> Stored {
    Stored {
        value: value.map(Bytes::copy_from_slice),
        version: u64::MAX - 7,
        age_ms: 0,
        ttl_ms: 60_000,
        dead_ms: 3_660_000,
        tags: vec!["shop:1".into(), "ä".into()],
    }
}

/// A text with repetitions, as JSON has.
fn json(size: usize) -> Vec<u8> {
    (0..)
        .flat_map(|at: u32| format!("{{\"id\":{at},\"name\":\"product {at}\"}},").into_bytes())
        .take(size)
        .collect()
}

/// A small generator, so that a failing test can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

#[test]
fn what_is_written_is_read() {
    let binary: Vec<u8> = (0..=255).collect();
    let large = json(1024 * 1024);
    for value in [None, Some(&b""[..]), Some(b"x"), Some(&binary), Some(&large)] {
        let stored = stored(value);
        let bytes = codec().encode(KEY, &stored).unwrap();
        let read = codec().decode(KEY, bytes.into(), 17).unwrap();
        assert_eq!(read, Stored { age_ms: 17, ..stored });
    }
}

#[test]
fn large_values_are_compressed_and_small_ones_are_not() {
    let large = json(10_000);
    let bytes = codec().encode(KEY, &stored(Some(&large))).unwrap();
    assert!(bytes.len() < large.len() / 2, "{} bytes", bytes.len());
    let plain = Codec::new(None, None).unwrap().encode(KEY, &stored(Some(&large))).unwrap();
    assert!(plain.len() > large.len());
    // Either reads both.
    assert!(codec().decode(KEY, plain.into(), 0).is_ok());
    assert!(Codec::new(None, None).unwrap().decode(KEY, bytes.into(), 0).is_ok());
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..4096).map(|_| random.below(256) as u8).collect();
    let bytes = codec().encode(KEY, &stored(Some(&noise))).unwrap();
    assert_eq!(bytes[5] & ZSTD, 0);
}

#[test]
fn a_dictionary_helps_and_its_absence_is_told() {
    let dictionary = json(2_000);
    let with = Codec::new(Some(1), Some(&dictionary)).unwrap();
    let value = json(300);
    let bytes = with.encode(KEY, &stored(Some(&value))).unwrap();
    assert!(bytes.len() < codec().encode(KEY, &stored(Some(&value))).unwrap().len());
    assert_eq!(with.decode(KEY, bytes.clone().into(), 0).unwrap().value.as_deref(), Some(&value[..]));
    let id = crc32fast::hash(&dictionary);
    assert_eq!(codec().decode(KEY, bytes.clone().into(), 0), Err(CodecError::Dictionary(id)));
    let other = Codec::new(Some(1), Some(b"another dictionary")).unwrap();
    assert_eq!(other.decode(KEY, bytes.into(), 0), Err(CodecError::Dictionary(id)));
    // A value without the dictionary is read by a node that has one.
    let plain = codec().encode(KEY, &stored(Some(&value))).unwrap();
    assert!(with.decode(KEY, plain.into(), 0).is_ok());
    assert!(Codec::new(None, Some(b"")).is_err());
}

#[test]
fn every_flipped_bit_and_every_truncation_is_noticed() {
    for value in [None, Some(&b"short"[..]), Some(&json(500))] {
        let bytes = codec().encode(KEY, &stored(value)).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(codec().decode(KEY, damaged.into(), 0).is_err(), "byte {at}, bit {bit}");
            }
            assert!(codec().decode(KEY, bytes[..at].to_vec().into(), 0).is_err(), "{at} bytes");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(codec().decode(KEY, longer.into(), 0).is_err());
    }
}

#[test]
fn a_value_under_another_key_is_foreign() {
    let bytes = codec().encode(KEY, &stored(Some(b"x"))).unwrap();
    assert_eq!(codec().decode(b"product:2", bytes.into(), 0), Err(CodecError::Checksum));
    assert_eq!(codec().decode(KEY, Bytes::from_static(b"{\"id\":1}"), 0), Err(CodecError::Foreign));
    assert_eq!(codec().decode(KEY, Bytes::new(), 0), Err(CodecError::Truncated));
}

/// Content that makes no sense, but whose checksum is right, is refused as well.
#[test]
fn mutations_with_a_right_checksum_never_panic() {
    let seed = 7;
    let mut random = Random(seed);
    let original = codec().encode(KEY, &stored(Some(&json(400)))).unwrap();
    for round in 0..20_000 {
        let mut content = original[..original.len() - CHECKSUM_BYTES].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(content.len());
            match random.below(3) {
                0 => content[at] = random.below(256) as u8,
                1 => content.truncate(at.max(HEAD_BYTES)),
                _ => content.insert(at, random.below(256) as u8),
            }
        }
        let sum = checksum(KEY, &content);
        content.extend_from_slice(&sum.to_be_bytes());
        if let Ok(read) = codec().decode(KEY, content.into(), 0) {
            let size = read.value.map_or(0, |value| value.len());
            assert!(size <= VALUE_BYTES_MAX, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn a_size_that_lies_is_refused_before_memory_is_taken() {
    let bytes = codec().encode(KEY, &stored(Some(&json(400)))).unwrap();
    let mut content = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
    content[34..38].copy_from_slice(&u32::MAX.to_be_bytes());
    let sum = checksum(KEY, &content);
    content.extend_from_slice(&sum.to_be_bytes());
    assert_eq!(codec().decode(KEY, content.into(), 0), Err(CodecError::TooLarge(u32::MAX as usize)));
}

#[test]
fn what_is_too_large_is_not_written() {
    let mut much = stored(Some(b"x"));
    much.tags = vec!["t".repeat(TAG_BYTES_MAX + 1).into()];
    assert!(codec().encode(KEY, &much).is_err());
    much.tags = (0..=TAGS_MAX).map(|tag| tag.to_string().into()).collect();
    assert!(codec().encode(KEY, &much).is_err());
}
