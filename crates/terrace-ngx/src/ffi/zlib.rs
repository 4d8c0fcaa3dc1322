//! Deflate and inflate streams and Adler-32, for the module `zlib`.

use std::ffi::c_int;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{DONE, Text, bytes, fail, functions, give};

functions! {
    "void *(*zlib_deflate)(int, int)" => deflate,
    "void *(*zlib_inflate)(int)" => inflate,
    "int (*zlib_run)(void *, const char *, size_t, int, double *, terrace_text *)" => run,
    "void (*zlib_free)(void *)" => free,
    "double (*zlib_adler32)(double, const char *, size_t)" => adler32,
    "double (*zlib_crc32)(double, const char *, size_t)" => crc32,
}

/// The stream is over.
const ENDED: c_int = 2;
/// More than this does not come out of one call: it would be beyond what Lua may hold.
const OUTPUT_BYTES_MAX: usize = 1 << 30;
/// What the output grows by.
const STEP_BYTES: usize = 32 * 1024;
/// The first byte of a gzip stream; none of a zlib stream.
const GZIP_FIRST: u8 = 0x1f;

enum Stream {
    Deflate(Compress),
    Inflate(Decompress),
    /// Whether it is gzip or zlib, the first byte tells.
    Unknown(u8),
}

fn into_pointer(stream: Option<Stream>) -> *mut Stream {
    stream.map_or(std::ptr::null_mut(), |s| Box::into_raw(Box::new(s)))
}

/// The bits of a window (zlib takes 8 for 9), where they are within zlib's range.
fn window(bits: c_int) -> Option<u8> {
    u8::try_from(bits.max(9)).ok().filter(|_| (8..=15).contains(&bits))
}

/// `window_bits` as zlib has it: 8 to 15, negative for raw data, 16 more for gzip. Null for what is out of range.
extern "C" fn deflate(level: c_int, window_bits: c_int) -> *mut Stream {
    let level = match level {
        -1 => Compression::default(),
        0..=9 => Compression::new(level.unsigned_abs()),
        _ => return std::ptr::null_mut(),
    };
    let made = match window_bits {
        ..0 => window(-window_bits).map(|w| Compress::new_with_window_bits(level, false, w)),
        0..16 => window(window_bits).map(|w| Compress::new_with_window_bits(level, true, w)),
        16.. => window(window_bits - 16).map(|w| Compress::new_gzip(level, w)),
    };
    into_pointer(made.map(Stream::Deflate))
}

/// As above; 32 more for either of gzip and zlib.
extern "C" fn inflate(window_bits: c_int) -> *mut Stream {
    let made = match window_bits {
        ..0 => window(-window_bits).map(|w| Stream::Inflate(Decompress::new_with_window_bits(false, w))),
        0..16 => window(window_bits).map(|w| Stream::Inflate(Decompress::new_with_window_bits(true, w))),
        16..32 => window(window_bits - 16).map(|w| Stream::Inflate(Decompress::new_gzip(w))),
        32.. => window(window_bits - 32).map(Stream::Unknown),
    };
    into_pointer(made)
}

/// Why a stream cannot go on, as lua-zlib's texts begin.
enum Fault {
    Data(String),
    Dictionary,
    TooMuch,
}

impl Stream {
    /// One step; answers whether the stream has ended.
    fn step(&mut self, input: &[u8], flush: c_int, out: &mut Vec<u8>) -> Result<Status, Fault> {
        match self {
            Stream::Deflate(z) => {
                let flush = match flush {
                    2 => FlushCompress::Sync,
                    3 => FlushCompress::Full,
                    4 => FlushCompress::Finish,
                    _ => FlushCompress::None,
                };
                z.compress_vec(input, out, flush).map_err(|e| Fault::Data(e.to_string()))
            }
            Stream::Inflate(z) => z.decompress_vec(input, out, FlushDecompress::Sync).map_err(|e| {
                if e.needs_dictionary().is_some() {
                    return Fault::Dictionary;
                }
                Fault::Data(e.to_string())
            }),
            Stream::Unknown(_) => Ok(Status::Ok),
        }
    }

    fn totals(&self) -> (u64, u64) {
        match self {
            Stream::Deflate(z) => (z.total_in(), z.total_out()),
            Stream::Inflate(z) => (z.total_in(), z.total_out()),
            Stream::Unknown(_) => (0, 0),
        }
    }

    /// Takes all input; answers whether the stream has ended.
    fn run(&mut self, mut input: &[u8], flush: c_int, out: &mut Vec<u8>) -> Result<bool, Fault> {
        if let (Stream::Unknown(bits), Some(first)) = (&*self, input.first()) {
            *self = Stream::Inflate(match *first {
                GZIP_FIRST => Decompress::new_gzip(*bits),
                _ => Decompress::new_with_window_bits(true, *bits),
            });
        }
        loop {
            if out.len() >= OUTPUT_BYTES_MAX {
                return Err(Fault::TooMuch);
            }
            out.reserve(STEP_BYTES.max(out.len() / 2));
            let (before, _) = self.totals();
            let status = self.step(input, flush, out)?;
            let taken = usize::try_from(self.totals().0 - before).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            let is_full = out.len() == out.capacity();
            match status {
                Status::StreamEnd => return Ok(true),
                // No room left means that there may be more to come.
                Status::Ok if is_full || (!input.is_empty() && taken > 0) => {}
                Status::Ok if flush == 4 && matches!(self, Stream::Deflate(_)) => {}
                Status::Ok | Status::BufError => return Ok(false),
            }
        }
    }
}

/// Runs a string through. `flush` is zlib's number; `totals` gets what went in and came out so far.
extern "C" fn run(
    stream: *mut Stream,
    data: *const u8,
    len: usize,
    flush: c_int,
    totals: *mut f64,
    out: *mut Text,
) -> c_int {
    // SAFETY: a pointer that `deflate` or `inflate` gave and `free` has not taken back, or null.
    let Some(stream) = (unsafe { stream.as_mut() }) else { return super::NOT_FOUND };
    // SAFETY: a Lua string, and a text of Lua's.
    let ended = unsafe { give(out, |made| stream.run(bytes(data, len), flush, made)) };
    let (taken, made) = stream.totals();
    // SAFETY: Lua passes room for two numbers.
    unsafe {
        totals.write(taken as f64);
        totals.add(1).write(made as f64);
    }
    let text = match ended {
        Ok(false) => return DONE,
        Ok(true) => return ENDED,
        Err(Fault::Data(why)) => {
            format!("InvalidInput: input string does not conform to zlib format or checksum failed ({why})")
        }
        Err(Fault::Dictionary) => {
            "RequiresDictionary: input stream requires a dictionary to be deflated".to_owned()
        }
        Err(Fault::TooMuch) => "OutOfMemory: more output than a string may have".to_owned(),
    };
    // SAFETY: as above.
    unsafe { fail(out, &text) }
}

extern "C" fn free(stream: *mut Stream) {
    if !stream.is_null() {
        // SAFETY: from `into_pointer`, given back once, by Lua's collector.
        drop(unsafe { Box::from_raw(stream) });
    }
}

/// Adler-32 (RFC 1950, section 8.2) of what came before, and these bytes.
extern "C" fn adler32(before: f64, data: *const u8, len: usize) -> f64 {
    /// The largest prime below 65536.
    const BASE: u32 = 65521;
    /// As many bytes as cannot overflow the sums.
    const CHUNK: usize = 5552;
    let before = before as u32;
    let (mut a, mut b) = (before & 0xffff, before >> 16);
    // SAFETY: a Lua string.
    for chunk in unsafe { bytes(data, len) }.chunks(CHUNK) {
        for byte in chunk {
            a += u32::from(*byte);
            b += a;
        }
        a %= BASE;
        b %= BASE;
    }
    f64::from(b << 16 | a)
}

extern "C" fn crc32(before: f64, data: *const u8, len: usize) -> f64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before as u32);
    // SAFETY: a Lua string.
    hasher.update(unsafe { bytes(data, len) });
    f64::from(hasher.finalize())
}
