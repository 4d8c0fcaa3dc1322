//! What a head may cost, and how odd header names are treated.

/// How many header lines a head may have unless configured otherwise (nginx's default for `max_headers`).
pub const HEADERS_MAX_DEFAULT: u32 = 1000;

/// The limits of a request head, named after the directives that set them.
///
/// One line (request line or header line, its line end included) may take `client_header_buffer_size` or
/// `large_client_header_buffers_size` bytes, whichever is more; the head as a whole `client_header_buffer_size` plus
/// all the large buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// `client_header_buffer_size`, in bytes. Default 1 KiB.
    pub client_header_buffer_size: u32,
    /// The number in `large_client_header_buffers`. Default 4.
    pub large_client_header_buffers_number: u32,
    /// The size in `large_client_header_buffers`, in bytes. Default 8 KiB.
    pub large_client_header_buffers_size: u32,
    /// `max_headers`: how many header lines are accepted. Default [`HEADERS_MAX_DEFAULT`].
    pub headers_max: u32,
    /// `ignore_invalid_headers`: whether lines whose name has other characters than letters, digits and hyphens
    /// (and underscores, if allowed) are dropped. If not, such lines are kept. Default true.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`: whether an underscore is a usual character of a header name. Default false.
    pub underscores_in_headers: bool,
}

impl HeadLimits {
    /// The longest line, in bytes with its line end.
    #[inline]
    pub fn line_bytes_max(&self) -> usize {
        self.client_header_buffer_size.max(self.large_client_header_buffers_size) as usize
    }

    /// The longest head, in bytes with its closing empty line.
    #[inline]
    pub fn head_bytes_max(&self) -> usize {
        let large =
            self.large_client_header_buffers_number.saturating_mul(self.large_client_header_buffers_size);
        self.client_header_buffer_size.saturating_add(large) as usize
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            client_header_buffer_size: 1024,
            large_client_header_buffers_number: 4,
            large_client_header_buffers_size: 8192,
            headers_max: HEADERS_MAX_DEFAULT,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
        }
    }
}

/// The limits of a response head of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// `proxy_buffer_size`: the longest head, in bytes. Default 8 KiB.
    pub head_bytes_max: u32,
    /// How many header lines are accepted. Default [`HEADERS_MAX_DEFAULT`].
    pub headers_max: u32,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        Self { head_bytes_max: 8192, headers_max: HEADERS_MAX_DEFAULT }
    }
}
