//! Data-block cases: a configuration, requests, the responses they must get, and an error log that must be clean.
//!
//! A file holds cases, each begun by `=== name`. Sections begin with `--- section`:
//!
//! - `config`: goes into the `server` block; `http`: into the `http` block; `main`: outside of both.
//! - `file NAME`: a file below the server's folder.
//! - `request` / `response`: in pairs, on one connection. A request is its request line, fields, an empty line and a
//!   body; HTTP/1.1, `Host` and `Content-Length` are added where they are missing; `request raw` sends `\r`, `\n`
//!   and `\0` escapes as they are and adds nothing. A response is a status, fields that must be there (`!Name` must not),
//!   an empty line, and the body; a body line or a field's value that begins with `~ ` holds text that it must contain,
//!   a body of only such a line text that must stand somewhere in it. After a response that closes, the next request has
//!   a new connection.
//! - `log`: lines, each of which must stand in the error log; without it the log may have nothing at `error` or worse.
//! - `log NAME`: lines, each of which must stand in that file below the server's folder.
//! - `fails`: the server must not start, and say these lines.
//!
//! `PORT` stands for the server's port and `PORT1` to `PORT4` for four that are free, in all sections.

use std::path::Path;

use crate::http::Response;
use crate::server::{Ports, Server, folder, run};

/// One case.
#[derive(Debug, Default)]
pub struct Case {
    /// File and name.
    pub name: String,
    sections: Vec<(String, String)>,
}

/// Reads the cases of a file.
pub fn read(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut cases: Vec<Case> = Vec::new();
    // An empty line ahead of a case is not part of the one before it.
    for line in text.replace("\n\n=== ", "\n=== ").lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case { name: format!("{stem}: {name}"), sections: Vec::new() });
        } else if let (Some(section), Some(case)) = (line.strip_prefix("--- "), cases.last_mut()) {
            case.sections.push((section.to_string(), String::new()));
        } else if let Some((_, body)) = cases.last_mut().and_then(|c| c.sections.last_mut()) {
            body.push_str(line);
            body.push('\n');
        }
    }
    assert!(!cases.is_empty(), "{} has no case", path.display());
    cases
}

impl Case {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.sections.iter().filter(move |(n, _)| n == name).map(|(_, b)| b.as_str())
    }

    fn configuration(&self) -> String {
        let part = |name| self.all(name).collect::<String>();
        format!(
            "{}\nerror_log logs/error.log info;\npid logs/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
             default_type text/plain;\n{}\nserver {{\nlisten 127.0.0.1:PORT;\nserver_name localhost;\n{}\n}}\n}}\n",
            part("main"),
            part("http"),
            part("config")
        )
    }

    /// Runs the case. The error says what was wrong.
    pub fn run(&self) -> Result<(), String> {
        let files: Vec<_> =
            self.sections.iter().filter_map(|(n, b)| Some((n.strip_prefix("file ")?, b.as_str()))).collect();
        if let Some(want) = self.all("fails").next() {
            return self.run_failing(want, &files);
        }
        let server = Server::start(&self.configuration(), &files);
        let mut client = server.connect();
        let mut requests = self.sections.iter().filter(|(n, _)| n.starts_with("request"));
        for want in self.all("response") {
            let (kind, request) = requests.next().ok_or("a response without a request")?;
            let request = server.ports.fill(request);
            let bytes = if kind == "request raw" { unescape(&request) } else { complete(&request) };
            client.send(&bytes).map_err(|e| format!("sending: {e}"))?;
            let got = client
                .read_response(bytes.starts_with(b"HEAD "))
                .map_err(|e| format!("reading the response to {request:?}: {e}\n{}", server.error_log()))?;
            compare(&server.ports.fill(want), &got).map_err(|e| format!("{request:?}: {e}"))?;
            if got.header("Connection") == Some("close") {
                client = server.connect();
            }
        }
        self.check_log(&server)
    }

    fn run_failing(&self, want: &str, files: &[(&str, &str)]) -> Result<(), String> {
        let ports = Ports::free();
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, ports.fill(t))).collect();
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        let dir = folder(&ports.fill(&self.configuration()), &files);
        let (status, said) = run(dir.path(), &["-t", "-c", "conf/nginx.conf"]);
        if status.success() {
            return Err(format!("the configuration was accepted: {said}"));
        }
        match ports.fill(want).lines().find(|l| !said.contains(l.trim())) {
            Some(line) => Err(format!("{line:?} was not said, but:\n{said}")),
            None => Ok(()),
        }
    }

    fn check_log(&self, server: &Server) -> Result<(), String> {
        for (name, lines) in self.sections.iter().filter_map(|(n, b)| Some((n.strip_prefix("log ")?, b))) {
            server.ports.fill(lines).lines().for_each(|l| server.wait_for_line(name, l));
        }
        let mut wanted = self.all("log").flat_map(str::lines).peekable();
        if wanted.peek().is_some() {
            wanted.for_each(|line| server.wait_for_line("logs/error.log", &server.ports.fill(line)));
            return Ok(());
        }
        let bad = ["[error]", "[crit]", "[alert]", "[emerg]"];
        match server.error_log().lines().find(|l| bad.iter().any(|b| l.contains(b))) {
            Some(line) => Err(format!("the error log is not clean: {line}")),
            None => Ok(()),
        }
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let text = text.replace('\n', "").replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
    text.into_bytes()
}

fn complete(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let mut line = lines.next().unwrap_or_default().to_string();
    if !line.ends_with("HTTP/1.0") && !line.ends_with("HTTP/1.1") {
        line.push_str(" HTTP/1.1");
    }
    let fields: Vec<_> = lines.map(str::to_string).collect();
    let has = |name: &str| fields.iter().any(|f| f.to_ascii_lowercase().starts_with(name));
    let mut all = vec![line];
    if !has("host:") {
        all.push("Host: localhost".into());
    }
    // The newline that ends the section is not part of the body.
    let body = body.strip_suffix('\n').unwrap_or(body);
    if !body.is_empty() && !has("content-length:") && !has("transfer-encoding:") {
        all.push(format!("Content-Length: {}", body.len()));
    }
    all.extend(fields);
    format!("{}\r\n\r\n{body}", all.join("\r\n")).into_bytes()
}

fn compare(want: &str, got: &Response) -> Result<(), String> {
    let (head, body) = want.split_once("\n\n").unwrap_or((want.trim_end(), ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().trim();
    let shown = || format!("got {} {:?}\n{}", got.line, got.headers, got.text());
    if got.status.to_string() != status {
        return Err(format!("wanted status {status}, {}", shown()));
    }
    for field in lines {
        if let Some(name) = field.strip_prefix('!') {
            if got.header(name).is_some() {
                return Err(format!("wanted no {name}, {}", shown()));
            }
        } else {
            let (name, value) = field.split_once(": ").unwrap_or((field, ""));
            let is = |v: &str| value.strip_prefix("~ ").map_or(v == value, |part| v.contains(part));
            let found = got.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && is(v));
            if !found {
                return Err(format!("wanted {field:?}, {}", shown()));
            }
        }
    }
    if body.is_empty() {
        return Ok(());
    }
    let text = got.text();
    let same = if body.lines().any(|l| l.starts_with("~ ")) {
        let (wants, gots): (Vec<_>, Vec<_>) = (body.lines().collect(), text.lines().collect());
        let is_somewhere = |part: &str| gots.iter().any(|got| got.contains(part));
        wants.len() == 1 && wants[0].strip_prefix("~ ").is_some_and(is_somewhere)
            || wants.len() == gots.len()
                && wants
                    .iter()
                    .zip(&gots)
                    .all(|(w, g)| w.strip_prefix("~ ").map_or(w == g, |w| g.contains(w)))
    } else {
        text == body || text == body.strip_suffix('\n').unwrap_or(body)
    };
    if same { Ok(()) } else { Err(format!("wanted body {body:?}, {}", shown())) }
}
