//! A small HTTP/1.1 client over a raw socket: sends exactly the bytes it is given, reads responses strictly.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::PATIENCE;

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The status line.
    pub line: String,
    /// Fields in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl Response {
    /// The first field of this name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to a server.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends a GET that keeps the connection and reads the response.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        self.read_response(false)
    }

    /// Reads one response; `head` says that it answers a HEAD. Interim 1xx responses (but 101) are passed over.
    pub fn read_response(&mut self, head: bool) -> io::Result<Response> {
        loop {
            let mut response = self.read_head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                continue;
            }
            if !head && !matches!(response.status, 101 | 204 | 304) {
                response.body = self.read_body(&response)?;
            }
            return Ok(response);
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        match text.strip_suffix("\r\n") {
            Some(t) => Ok(t.to_string()),
            None => Err(io::Error::other(format!("line without CRLF: {text:?}"))),
        }
    }

    fn read_head(&mut self) -> io::Result<Response> {
        let line = self.read_line()?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let field = self.read_line()?;
            if field.is_empty() {
                return Ok(Response { status, line, headers, body: Vec::new() });
            }
            let (name, value) = field.split_once(": ").unwrap_or((field.trim_end_matches(':'), ""));
            headers.push((name.to_string(), value.to_string()));
        }
    }

    fn read_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if response.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let size = self.read_line()?;
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                let start = body.len();
                body.resize(start + size, 0);
                self.reader.read_exact(&mut body[start..])?;
                if !self.read_line()?.is_empty() {
                    return Err(io::Error::other("a chunk does not end with CRLF"));
                }
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        if let Some(len) = response.header("Content-Length") {
            body.resize(len.parse().map_err(io::Error::other)?, 0);
            self.reader.read_exact(&mut body)?;
            return Ok(body);
        }
        self.reader.read_to_end(&mut body)?;
        Ok(body)
    }

    /// Reads exactly as many bytes: of a tunnel, or what is no whole response.
    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    /// Whether the server has closed: nothing comes but the end.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.reader.read(&mut byte) {
            Ok(0) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
            Ok(_) => false,
        }
    }
}

/// One GET on a connection of its own.
pub fn get(port: u16, path: &str) -> io::Result<Response> {
    let mut client = Client::connect(port)?;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    client.read_response(false)
}
