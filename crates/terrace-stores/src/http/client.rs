//! GET over kept connections, HTTP/1.1, with every step bounded in time and size.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use terrace_cache::LoadError;
use terrace_http1::encode::{CRLF, write_header, write_request_line};
use terrace_http1::{BodyDecoder, Progress, ResponseHead, ResponseLimits, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::template::{Address, Template};
use super::{HttpError, HttpOptions};
use crate::pool::Pool;
use crate::sql::millis;

/// The longest head of an answer.
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// How many interim answers (1xx) may come before the answer.
const INTERIM_MAX: usize = 8;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The header; names as they came, values that are no text left out.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The values of the fields of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let same = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str())
    }

    /// The value of the first field of this name.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections to one server.
pub(super) struct Client {
    address: Address,
    /// For messages.
    name: String,
    /// The header of each request, with the empty line that ends it.
    header: Vec<u8>,
    body_bytes_max: usize,
    acquire_timeout: Duration,
    request_timeout: Duration,
    pool: Pool<Box<dyn Stream>>,
}

/// Why an exchange gave no answer.
enum Failure {
    /// The connection ended before an answer began.
    NoAnswer(String),
    /// It ended, or failed, in the middle of one.
    Broken(String),
    /// The answer cannot be used.
    Invalid(String),
}

impl Client {
    pub(super) fn new(template: &Template, options: &HttpOptions) -> Result<Self, HttpError> {
        let mut header = Vec::new();
        let has_host = options.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = [("Host".to_owned(), template.authority.clone())];
        for (name, value) in host.iter().filter(|_| !has_host).chain(&options.headers) {
            // These say how this connection is used, or that a body follows.
            let is_own = ["connection", "content-length", "transfer-encoding", "expect", "upgrade"];
            if is_own.iter().any(|it| name.eq_ignore_ascii_case(it)) {
                return Err(HttpError::Header(name.clone()));
            }
            write_header(&mut header, name.as_bytes(), value.as_bytes())
                .map_err(|_| HttpError::Header(name.clone()))?;
        }
        header.extend_from_slice(CRLF);
        let name = match &template.address {
            Address::Tcp(..) => format!("http://{}", template.authority),
            Address::Unix(path) => format!("http://unix:{}", path.display()),
        };
        Ok(Self {
            address: template.address.clone(),
            name,
            header,
            body_bytes_max: options.body_bytes_max,
            acquire_timeout: Duration::from_millis(options.acquire_timeout_ms),
            request_timeout: Duration::from_millis(options.query_timeout_ms),
            pool: Pool::new(options.connections_max.max(1)),
        })
    }

    /// Asks for a target.
    pub(super) async fn get(&self, target: &str) -> Result<Answer, LoadError> {
        let unavailable = |text: String| LoadError::Unavailable(format!("{}: {text}", self.name).into());
        let time_max = self.acquire_timeout;
        let Ok(_permit) = timeout(time_max, self.pool.permit()).await else {
            return Err(unavailable(format!("no connection came free within {} ms", millis(time_max))));
        };
        let mut request = Vec::with_capacity(target.len() + self.header.len() + 16);
        write_request_line(&mut request, b"GET", target.as_bytes(), Version::Http11)
            .map_err(|error| LoadError::Request(error.to_string().into()))?;
        request.extend_from_slice(&self.header);
        if let Some(kept) = self.pool.take().and_then(silent) {
            match self.exchange(kept, &request).await? {
                Ok(answer) => return Ok(answer),
                Err(Failure::NoAnswer(_)) => self.pool.clear(),
                Err(failure) => return Err(self.error(failure)),
            }
        }
        let new = match timeout(time_max, self.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Err(_) => return Err(unavailable(format!("no connection within {} ms", millis(time_max)))),
        };
        self.exchange(new, &request).await?.map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> LoadError {
        match failure {
            Failure::NoAnswer(text) | Failure::Broken(text) => {
                LoadError::Unavailable(format!("{}: {text}", self.name).into())
            }
            Failure::Invalid(text) => LoadError::Invalid(format!("{}: {text}", self.name).into()),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    /// Sends a request, and keeps the connection if the answer leaves it fit for another.
    async fn exchange(
        &self,
        mut stream: Box<dyn Stream>,
        request: &[u8],
    ) -> Result<Result<Answer, Failure>, LoadError> {
        let time_max = self.request_timeout;
        let talking = talk(&mut *stream, request, self.body_bytes_max);
        let Ok(talked) = timeout(time_max, talking).await else {
            return Err(LoadError::Timeout(millis(time_max)));
        };
        Ok(talked.map(|(answer, is_clean)| {
            if is_clean {
                self.pool.put(stream);
            }
            answer
        }))
    }
}

/// The connection, if it is open and nothing has come on it since the last answer: what a server says unasked is no answer.
fn silent(mut stream: Box<dyn Stream>) -> Option<Box<dyn Stream>> {
    let has_come = stream.read_u8().now_or_never().is_some();
    (!has_come).then_some(stream)
}

/// The answer, and whether the connection may be used again.
async fn talk(
    stream: &mut dyn Stream,
    request: &[u8],
    body_bytes_max: usize,
) -> Result<(Answer, bool), Failure> {
    let no_answer = |error: io::Error| Failure::NoAnswer(error.to_string());
    stream.write_all(request).await.map_err(no_answer)?;
    let limits = ResponseLimits { head_bytes_max: HEAD_BYTES_MAX, ..ResponseLimits::default() };
    let (mut buffer, mut head, mut interim) = (Vec::with_capacity(READ_BYTES), ResponseHead::default(), 0);
    loop {
        match head.parse(&buffer, &limits, false).map_err(|error| Failure::Invalid(error.to_string()))? {
            Progress::Complete { head_len } if (100..200).contains(&head.status) => {
                interim += 1;
                if head.status == 101 || interim > INTERIM_MAX {
                    return Err(Failure::Invalid(format!("an interim answer of status {}", head.status)));
                }
                buffer.drain(..head_len);
                head.clear();
            }
            Progress::Complete { head_len } => {
                let fields = head.headers.lines().iter().filter_map(|line| {
                    let (name, value) = (line.name.of(&buffer), line.value.of(&buffer));
                    Some((String::from_utf8(name.to_vec()).ok()?, String::from_utf8(value.to_vec()).ok()?))
                });
                let mut answer = Answer { status: head.status, fields: fields.collect(), body: Vec::new() };
                buffer.drain(..head_len);
                let is_clean = read_body(stream, &head, buffer, body_bytes_max, &mut answer.body).await?;
                return Ok((answer, is_clean && head.keep_alive));
            }
            Progress::Partial => match stream.read_buf(&mut buffer).await {
                Ok(0) if buffer.is_empty() && interim == 0 => {
                    return Err(Failure::NoAnswer("the connection was closed".to_owned()));
                }
                Ok(0) => return Err(Failure::Broken("the answer's head is cut off".to_owned())),
                Ok(_) => {}
                Err(error) if buffer.is_empty() && interim == 0 => return Err(no_answer(error)),
                Err(error) => return Err(Failure::Broken(error.to_string())),
            },
        }
    }
}

/// Reads the body that begins in `input`; whether nothing follows it.
async fn read_body(
    stream: &mut dyn Stream,
    head: &ResponseHead,
    mut input: Vec<u8>,
    body_bytes_max: usize,
    body: &mut Vec<u8>,
) -> Result<bool, Failure> {
    let mut decoder = BodyDecoder::new(head.framing);
    loop {
        let mut at = 0;
        loop {
            let decoded = decoder.decode(&input[at..]).map_err(|error| Failure::Broken(error.to_string()))?;
            let data = &input[at..][decoded.data];
            if body.len() + data.len() > body_bytes_max {
                return Err(Failure::Invalid(format!("the answer is larger than {body_bytes_max} bytes")));
            }
            body.extend_from_slice(data);
            at += decoded.consumed;
            if decoded.finished {
                return Ok(at == input.len());
            }
            if decoded.consumed == 0 || at == input.len() {
                break;
            }
        }
        input.drain(..at);
        input.reserve(READ_BYTES);
        match stream.read_buf(&mut input).await {
            Ok(0) => {
                decoder.finish().map_err(|error| Failure::Broken(error.to_string()))?;
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) => return Err(Failure::Broken(error.to_string())),
        }
    }
}
