//! The snapshot of L1: written when a process ends, read by the next one, so that it begins warm.
//!
//! ```text
//! "TRCACHE1"  format version u32  written at u64 (ms since 1970)
//! entries:    1u8  key u32+bytes  value u32+bytes (length 2^32-1: an absence)  version u64
//!             age u64  ttl u64  dead u64 (ms; lives count from the load)  tags u8 x (u16+bytes)
//! end:        0u8  number of entries u64  CRC-32 of all before u32
//! ```
//!
//! Numbers are little-endian. A file that differs from this in any way is refused as a whole. Invariant: no value is
//! younger for having been in a file: lives go on while the process is away. With an L2, what was loaded counts as after
//! a gap in the notices: it is checked before it is called fresh.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::Made;
use crate::l2::TAGS_MAX;
use crate::{Cache, ENTRY_OVERHEAD_BYTES};

/// The format that this program writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"TRCACHE1";
const HEADER_BYTES: usize = 20;
const TRAILER_BYTES: usize = 13;
const ABSENT: u32 = u32::MAX;

/// Why a snapshot was not written or not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error("the snapshot cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// It is no snapshot, is cut short, or was changed.
    #[error("the snapshot is damaged")]
    Damaged,
    /// Another version of the program wrote it.
    #[error("the snapshot has format {0}, not {SNAPSHOT_VERSION}")]
    Format(u32),
    /// It is larger than twice what L1 may hold.
    #[error("the snapshot has {0} bytes, more than L1 may hold")]
    TooLarge(u64),
    /// It was written later than now, so nobody knows how old its values are.
    #[error("the snapshot was written in the future")]
    Future,
}

impl Cache {
    /// Writes what L1 has to a file, which is replaced at once when the snapshot is whole. How many entries. `unix_ms`: the
    /// time now in milliseconds since 1970. Blocks on the file system; lookups go on meanwhile.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn write_snapshot(&self, path: &Path, now_ms: u64, unix_ms: u64) -> Result<u64, SnapshotError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let file = File::create(&beside)?;
        let mut out = Summed { out: BufWriter::new(file), crc: crc32fast::Hasher::new() };
        out.put(MAGIC)?;
        out.put(&SNAPSHOT_VERSION.to_le_bytes())?;
        out.put(&unix_ms.to_le_bytes())?;
        let mut count = 0u64;
        for (key, entry, ended_ms) in self.inner.l1.usables(now_ms) {
            let (ttl_ms, dead_ms) = entry.lives_ms(now_ms, ended_ms);
            out.put(&[1])?;
            out.put_sized(Some(&key))?;
            out.put_sized(entry.value.as_deref())?;
            for number in [entry.version, entry.age_ms(now_ms), ttl_ms, dead_ms] {
                out.put(&number.to_le_bytes())?;
            }
            out.put(&[entry.tags.len() as u8])?;
            for tag in &entry.tags {
                let text = &tag.as_bytes()[..tag.len().min(usize::from(u16::MAX))];
                out.put(&(text.len() as u16).to_le_bytes())?;
                out.put(text)?;
            }
            count += 1;
        }
        out.put(&[0])?;
        out.put(&count.to_le_bytes())?;
        let crc = out.crc.clone().finalize();
        out.put(&crc.to_le_bytes())?;
        let file = out.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        Ok(count)
    }

    /// Stores the entries of a snapshot in L1, those that are still of use and that L1 does not have. How many. Blocks on
    /// the file system.
    ///
    /// # Errors
    ///
    /// See [`SnapshotError`]; nothing was stored then.
    pub fn load_snapshot(&self, path: &Path, now_ms: u64, unix_ms: u64) -> Result<u64, SnapshotError> {
        let policy = self.inner.policy();
        let size_bytes = std::fs::metadata(path)?.len();
        if size_bytes > policy.size_bytes_max.saturating_mul(2).saturating_add(ENTRY_OVERHEAD_BYTES) {
            return Err(SnapshotError::TooLarge(size_bytes));
        }
        let file = std::fs::read(path)?;
        let (written_ms, entries) = parse(&file)?;
        let away_ms = unix_ms.checked_sub(written_ms).ok_or(SnapshotError::Future)?;
        // With an L2, entries as of the beginning are older than the gap that the restart was.
        let as_of = if self.inner.has_l2() { 0 } else { self.inner.l1.marks.current() };
        if as_of == 0 {
            self.inner.l1.marks.gap(now_ms);
        }
        let mut stored = 0;
        for (key, mut made) in entries {
            made.age_ms = made.age_ms.saturating_add(away_ms);
            if made.age_ms >= made.dead_ms {
                continue;
            }
            let entry = made.entry(as_of, now_ms, None, &policy);
            stored += u64::from(self.inner.restore(key, entry, now_ms));
        }
        Ok(stored)
    }
}

/// When it was written, and the entries; only if the whole file is as it should be.
fn parse(file: &[u8]) -> Result<(u64, Vec<(Bytes, Made)>), SnapshotError> {
    let damaged = || SnapshotError::Damaged;
    let mut rest = file.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let format = u32::from_le_bytes(array(&mut rest).ok_or_else(damaged)?);
    if format != SNAPSHOT_VERSION {
        return Err(SnapshotError::Format(format));
    }
    if file.len() < HEADER_BYTES + TRAILER_BYTES {
        return Err(damaged());
    }
    let (summed, mut crc) = file.split_at(file.len() - 4);
    let crc = u32::from_le_bytes(array(&mut crc).ok_or_else(damaged)?);
    if crc32fast::hash(summed) != crc {
        return Err(damaged());
    }
    let mut rest = &summed[MAGIC.len() + 4..];
    let written_ms = u64::from_le_bytes(array(&mut rest).ok_or_else(damaged)?);
    let mut entries = Vec::new();
    loop {
        match array(&mut rest) {
            Some([1]) => entries.push(entry(&mut rest).ok_or_else(damaged)?),
            Some([0]) => break,
            _ => return Err(damaged()),
        }
    }
    let count = array(&mut rest).map(u64::from_le_bytes);
    if count != Some(entries.len() as u64) || !rest.is_empty() {
        return Err(damaged());
    }
    Ok((written_ms, entries))
}

fn entry(rest: &mut &[u8]) -> Option<(Bytes, Made)> {
    let key = sized(rest)??;
    let value = sized(rest)?;
    let mut number = || array(rest).map(u64::from_le_bytes);
    let (version, age_ms, ttl_ms, dead_ms) = (number()?, number()?, number()?, number()?);
    let [tags] = array(rest)?;
    if usize::from(tags) > TAGS_MAX {
        return None;
    }
    let mut tag = || -> Option<Arc<str>> {
        let len = u16::from_le_bytes(array(rest)?);
        let text = rest.split_off(..usize::from(len))?;
        Some(String::from_utf8_lossy(text).into())
    };
    let tags = (0..tags).map(|_| tag()).collect::<Option<Vec<_>>>()?;
    Some((key, Made { value, version, tags, age_ms, ttl_ms, dead_ms }))
}

/// Bytes with their length before them; the inner option is the absence.
fn sized(rest: &mut &[u8]) -> Option<Option<Bytes>> {
    let len = u32::from_le_bytes(array(rest)?);
    if len == ABSENT {
        return Some(None);
    }
    rest.split_off(..len as usize).map(|bytes| Some(Bytes::copy_from_slice(bytes)))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N).and_then(|bytes| bytes.try_into().ok())
}

struct Summed {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
}

impl Summed {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes)
    }

    /// Values are far below the bound of four GiB, which L1's own bound on one value keeps them under.
    fn put_sized(&mut self, bytes: Option<&[u8]>) -> std::io::Result<()> {
        let Some(bytes) = bytes else { return self.put(&ABSENT.to_le_bytes()) };
        let len = u32::try_from(bytes.len()).ok().filter(|&len| len != ABSENT);
        let too_large = || std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        self.put(&len.ok_or_else(too_large)?.to_le_bytes())?;
        self.put(bytes)
    }
}

#[cfg(test)]
mod tests;
