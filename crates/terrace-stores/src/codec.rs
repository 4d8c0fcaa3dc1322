//! The envelope in which a value lies in L2: what it is, whether it is whole, and whether this node can read it.
//!
//! ```text
//! offset  bytes
//!      0      4  magic, "TrL2"
//!      4      1  format version, 1
//!      5      1  flags: 1 absent, 2 compressed with zstd, 4 the dictionary was used
//!      6      8  version
//!     14      8  ttl_ms
//!     22      8  dead_ms
//!     30      4  CRC-32 of the dictionary; zero without one
//!     34      4  size of the value before compression
//!     38      1  number of tags; for each: its size in two bytes, then its text
//!      …      …  the value
//!   last      4  CRC-32 (IEEE) of the key and of everything before
//! ```
//!
//! Numbers are big-endian. The checksum begins with the key, so that a value under another key than its own is foreign.
//!
//! Invariant: bytes of any origin give a value or a [`CodecError`], never a panic, and never more than [`VALUE_BYTES_MAX`] bytes.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use terrace_cache::{Stored, TAGS_MAX};
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// How large a value may be: 64 MiB before compression.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a tag may be, in bytes.
pub const TAG_BYTES_MAX: usize = 1024;

/// How large a dictionary may be: 1 MiB.
pub const DICTIONARY_BYTES_MAX: usize = 1024 * 1024;

const MAGIC: [u8; 4] = *b"TrL2";
const FORMAT: u8 = 1;
const ABSENT: u8 = 1;
const ZSTD: u8 = 2;
const DICTIONARY: u8 = 4;
const FLAGS: u8 = ABSENT | ZSTD | DICTIONARY;
/// Up to and with the number of tags.
const HEAD_BYTES: usize = 39;
const CHECKSUM_BYTES: usize = 4;
/// zstd's own default: most of the gain, at a speed that a background thread does not feel.
const LEVEL: i32 = 3;

/// Why bytes from L2 are no value. Always followed by a logged miss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Shorter than it says it is.
    #[error("it is truncated")]
    Truncated,
    /// Not written by this program.
    #[error("it is not a value of Terrace")]
    Foreign,
    /// Written by another version of this program.
    #[error("its format {0} is not known")]
    Format(u8),
    /// The checksum is wrong: damaged, or written under another key.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, but the content makes no sense.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// Compressed with a dictionary that this node does not have.
    #[error("it needs the dictionary {0:08x}")]
    Dictionary(u32),
    /// More than [`VALUE_BYTES_MAX`].
    #[error("its {0} bytes are more than {VALUE_BYTES_MAX}")]
    TooLarge(usize),
}

/// Why a dictionary cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dictionary has 1 to {DICTIONARY_BYTES_MAX} bytes, this one has {0}")]
pub struct DictionaryError(usize);

/// Writes and reads envelopes.
#[derive(Clone)]
pub struct Codec {
    /// Values of at least so many bytes are compressed.
    compress_from_bytes: Option<usize>,
    dictionary: Option<Arc<Dictionary>>,
}

struct Dictionary {
    id: u32,
    encoder: EncoderDictionary<'static>,
    decoder: DecoderDictionary<'static>,
}

impl Codec {
    /// A codec that compresses values of at least `compress_from_bytes` (none: never), with a dictionary if one is given.
    pub fn new(
        compress_from_bytes: Option<usize>,
        dictionary: Option<&[u8]>,
    ) -> Result<Self, DictionaryError> {
        let dictionary = match dictionary {
            None => None,
            Some(bytes) if bytes.is_empty() || bytes.len() > DICTIONARY_BYTES_MAX => {
                return Err(DictionaryError(bytes.len()));
            }
            Some(bytes) => Some(Arc::new(Dictionary {
                id: crc32fast::hash(bytes),
                encoder: EncoderDictionary::copy(bytes, LEVEL),
                decoder: DecoderDictionary::copy(bytes),
            })),
        };
        Ok(Self { compress_from_bytes, dictionary })
    }

    /// The envelope of a value. Fails if the value, a tag or the number of tags is too large.
    pub fn encode(&self, key: &[u8], stored: &Stored) -> Result<Vec<u8>, CodecError> {
        let value = stored.value.as_deref().unwrap_or_default();
        if value.len() > VALUE_BYTES_MAX {
            return Err(CodecError::TooLarge(value.len()));
        }
        if stored.tags.len() > TAGS_MAX || stored.tags.iter().any(|tag| tag.len() > TAG_BYTES_MAX) {
            return Err(CodecError::Malformed("too many or too long tags"));
        }
        let compressed = self.compress(value);
        let mut flags = if stored.value.is_none() { ABSENT } else { 0 };
        let mut dictionary = 0;
        if compressed.is_some() {
            flags |= ZSTD;
            if let Some(used) = &self.dictionary {
                flags |= DICTIONARY;
                dictionary = used.id;
            }
        }
        let payload = compressed.as_deref().unwrap_or(value);
        let tags_bytes: usize = stored.tags.iter().map(|tag| 2 + tag.len()).sum();
        let mut out = Vec::with_capacity(HEAD_BYTES + tags_bytes + payload.len() + CHECKSUM_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT, flags]);
        out.extend_from_slice(&stored.version.to_be_bytes());
        out.extend_from_slice(&stored.ttl_ms.to_be_bytes());
        out.extend_from_slice(&stored.dead_ms.to_be_bytes());
        out.extend_from_slice(&dictionary.to_be_bytes());
        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
        out.push(stored.tags.len() as u8);
        for tag in &stored.tags {
            out.extend_from_slice(&(tag.len() as u16).to_be_bytes());
            out.extend_from_slice(tag.as_bytes());
        }
        out.extend_from_slice(payload);
        let checksum = checksum(key, &out);
        out.extend_from_slice(&checksum.to_be_bytes());
        Ok(out)
    }

    /// The value in an envelope that was found under `key`, of the given age.
    pub fn decode(&self, key: &[u8], bytes: Bytes, age_ms: u64) -> Result<Stored, CodecError> {
        if bytes.len() >= MAGIC.len() && bytes[..MAGIC.len()] != MAGIC {
            return Err(CodecError::Foreign);
        }
        if bytes.len() < HEAD_BYTES + CHECKSUM_BYTES {
            return Err(CodecError::Truncated);
        }
        if bytes[4] != FORMAT {
            return Err(CodecError::Format(bytes[4]));
        }
        let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if checksum(key, content).to_be_bytes() != sum {
            return Err(CodecError::Checksum);
        }
        let mut reader = Reader { rest: &content[5..] };
        let flags = reader.number(1)? as u8;
        if flags & !FLAGS != 0 {
            return Err(CodecError::Malformed("unknown flags"));
        }
        let version = reader.number(8)?;
        let ttl_ms = reader.number(8)?;
        let dead_ms = reader.number(8)?;
        let dictionary = reader.number(4)? as u32;
        let size = reader.number(4)? as usize;
        let tags = reader.tags()?;
        let payload = bytes.slice_ref(reader.rest);
        let value = if flags & ABSENT != 0 {
            if !payload.is_empty() || flags != ABSENT {
                return Err(CodecError::Malformed("an absence with a value"));
            }
            None
        } else if flags & ZSTD != 0 {
            Some(self.decompress(&payload, size, (flags & DICTIONARY != 0).then_some(dictionary))?)
        } else if payload.len() == size {
            Some(payload)
        } else {
            return Err(CodecError::Malformed("the size is not the value's"));
        };
        Ok(Stored { value, version, age_ms, ttl_ms, dead_ms, tags })
    }

    /// The compressed value, if it is to be compressed and becomes smaller.
    fn compress(&self, value: &[u8]) -> Option<Vec<u8>> {
        if value.is_empty() || value.len() < self.compress_from_bytes? {
            return None;
        }
        let compressor = match &self.dictionary {
            Some(dictionary) => Compressor::with_prepared_dictionary(&dictionary.encoder),
            None => Compressor::new(LEVEL),
        };
        let compressed = compressor.and_then(|mut compressor| compressor.compress(value)).ok()?;
        (compressed.len() < value.len()).then_some(compressed)
    }

    fn decompress(&self, payload: &[u8], size: usize, dictionary: Option<u32>) -> Result<Bytes, CodecError> {
        if size > VALUE_BYTES_MAX {
            return Err(CodecError::TooLarge(size));
        }
        let decompressor: io::Result<Decompressor<'_>> = match dictionary {
            None => Decompressor::new(),
            Some(id) => match self.dictionary.as_deref().filter(|known| known.id == id) {
                Some(known) => Decompressor::with_prepared_dictionary(&known.decoder),
                None => return Err(CodecError::Dictionary(id)),
            },
        };
        let value = decompressor
            .and_then(|mut decompressor| decompressor.decompress(payload, size))
            .map_err(|_| CodecError::Malformed("zstd cannot read it"))?;
        if value.len() != size {
            return Err(CodecError::Malformed("the size is not the value's"));
        }
        Ok(value.into())
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dictionary = self.dictionary.as_ref().map(|dictionary| dictionary.id);
        f.debug_struct("Codec")
            .field("compress_from_bytes", &self.compress_from_bytes)
            .field("dictionary", &dictionary)
            .finish()
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of up to eight bytes.
    fn number(&mut self, size: usize) -> Result<u64, CodecError> {
        Ok(self.take(size)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn tags(&mut self) -> Result<Vec<Arc<str>>, CodecError> {
        let count = self.number(1)? as usize;
        if count > TAGS_MAX {
            return Err(CodecError::Malformed("too many tags"));
        }
        let mut tags = Vec::with_capacity(count);
        for _ in 0..count {
            let size = self.number(2)? as usize;
            let text = std::str::from_utf8(self.take(size)?)
                .map_err(|_| CodecError::Malformed("a tag is not UTF-8"))?;
            tags.push(Arc::from(text));
        }
        Ok(tags)
    }
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}
