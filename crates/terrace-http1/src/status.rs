//! The reason phrases and status lines that nginx sends.

macro_rules! statuses {
    ($($status:literal $reason:literal)*) => {
        /// The reason phrase nginx sends with a status; `None` where it sends the bare number.
        pub fn reason(status: u16) -> Option<&'static str> {
            match status {
                $($status => Some($reason),)*
                _ => None,
            }
        }

        /// The whole HTTP/1.1 status line without its line end, for the statuses that have a reason phrase.
        #[inline]
        pub fn status_line(status: u16) -> Option<&'static [u8]> {
            match status {
                $($status => Some(concat!("HTTP/1.1 ", $status, " ", $reason).as_bytes()),)*
                _ => None,
            }
        }
    };
}

statuses! {
    100 "Continue"
    101 "Switching Protocols"
    103 "Early Hints"
    200 "OK"
    201 "Created"
    202 "Accepted"
    204 "No Content"
    206 "Partial Content"
    301 "Moved Permanently"
    302 "Moved Temporarily"
    303 "See Other"
    304 "Not Modified"
    307 "Temporary Redirect"
    308 "Permanent Redirect"
    400 "Bad Request"
    401 "Unauthorized"
    402 "Payment Required"
    403 "Forbidden"
    404 "Not Found"
    405 "Not Allowed"
    406 "Not Acceptable"
    407 "Proxy Authentication Required"
    408 "Request Time-out"
    409 "Conflict"
    410 "Gone"
    411 "Length Required"
    412 "Precondition Failed"
    413 "Request Entity Too Large"
    414 "Request-URI Too Large"
    415 "Unsupported Media Type"
    416 "Requested Range Not Satisfiable"
    421 "Misdirected Request"
    429 "Too Many Requests"
    500 "Internal Server Error"
    501 "Not Implemented"
    502 "Bad Gateway"
    503 "Service Temporarily Unavailable"
    504 "Gateway Time-out"
    505 "HTTP Version Not Supported"
    507 "Insufficient Storage"
}
