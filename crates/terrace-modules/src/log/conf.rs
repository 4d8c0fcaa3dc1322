//! The directives of access logs, and what they come to for a location.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use terrace_base::OsError;
use terrace_base::log::{LogFile, Syslog};
use terrace_base::units;
use terrace_conf::{Arg, Arity, ConfError, Contexts, Directive, Node, Position};
use terrace_http::conf::table::{HSLI, simple};
use terrace_http::{Builder, LocationBuilder, Merge, MergeContext, Value};

use super::escape::Escape;
use super::format::Format;
use super::{Destination, Log};

const LOG_CONTEXTS: Contexts = HSLI.union(Contexts::LIMIT_EXCEPT);

#[rustfmt::skip]
pub(super) static DIRECTIVES: &[Directive<Builder>] = &[
    simple("log_format", Contexts::HTTP, Arity::AtLeast(2), "combined", "Names a format of access logs.", log_format),
    simple("access_log", LOG_CONTEXTS, Arity::AtLeast(1), "logs/access.log combined", "A file that gets a line for each request.", access_log),
];

/// nginx's predefined format.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";
/// Where requests are logged that no directive says anything about, under the prefix.
const DEFAULT_PATH: &str = "logs/access.log";

/// The access logs of a block; a block that says anything does not inherit.
#[derive(Debug, Default)]
pub(super) struct Conf {
    rows: Vec<Row>,
    off: bool,
}

#[derive(Debug, Clone)]
struct Row {
    path: Path,
    format: Arc<Format>,
    condition: Option<Value>,
    at: Position,
}

#[derive(Debug, Clone)]
enum Path {
    Fixed(PathBuf),
    Computed(Value),
    Server(LogFile),
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.rows.is_empty() && !self.off {
            self.rows.clone_from(&parent.rows);
            self.off = parent.off;
        }
    }
}

/// What the `http` block has defined so far.
#[derive(Default)]
struct Defined {
    formats: Vec<(Bytes, Arc<Format>)>,
    buffers: FxHashMap<PathBuf, Buffer>,
    /// Files of the buffers that locations use; the index is the number of the buffer.
    used: Vec<(PathBuf, BufferedFile)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Buffer {
    size_bytes: usize,
    flush_ms: Option<u64>,
}

/// A file with a buffer before it in each worker.
#[derive(Clone)]
pub(super) struct BufferedFile {
    pub(super) file: LogFile,
    pub(super) size_bytes: usize,
    pub(super) flush_ms: Option<u64>,
}

/// All buffered files of a generation; the index is the number of the buffer.
#[derive(Default)]
pub(super) struct BufferedFiles(pub(super) Vec<BufferedFile>);

/// Hands the buffered files to the workers.
pub(super) fn share_buffers(b: &mut Builder) {
    let used = std::mem::take(&mut b.state::<Defined>().used);
    b.share(Arc::new(BufferedFiles(used.into_iter().map(|(_, file)| file).collect())));
}

fn log_format(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.bytes(0)?.clone();
    let is_taken = b.state::<Defined>().formats.iter().any(|(n, _)| *n == name);
    if is_taken || &name[..] == b"combined" {
        return Err(node.error(format!("duplicate \"log_format\" name \"{}\"", node.arg(0)?)));
    }
    let escape = node.arg(1)?;
    let (escape, first) = match escape.value.strip_prefix(b"escape=") {
        None => (Escape::Default, 1),
        Some(b"default") => (Escape::Default, 2),
        Some(b"json") => (Escape::Json, 2),
        Some(b"none") => (Escape::None, 2),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            return Err(node.error(format!("unknown log format escaping \"{other}\"")));
        }
    };
    let format = Format::compile(b, node, escape, node.args.get(first..).unwrap_or_default())?;
    b.state::<Defined>().formats.push((name, Arc::new(format)));
    Ok(())
}

/// The format of that name, in any case as in nginx; `combined` needs no definition.
fn find_format(b: &mut Builder, node: &Node, name: &[u8]) -> Result<Arc<Format>, ConfError> {
    let formats = &b.state::<Defined>().formats;
    if let Some((_, f)) = formats.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
        return Ok(Arc::clone(f));
    }
    if !name.eq_ignore_ascii_case(b"combined") {
        let name = String::from_utf8_lossy(name);
        return Err(node.error(format!("unknown log format \"{name}\"")));
    }
    combined(b, node)
}

fn combined(b: &mut Builder, node: &Node) -> Result<Arc<Format>, ConfError> {
    let text = Arg { value: Bytes::from_static(COMBINED.as_bytes()), quoted: true, at: node.at.clone() };
    let format = Arc::new(Format::compile(b, node, Escape::Default, &[text])?);
    let name = Bytes::from_static(b"combined");
    b.state::<Defined>().formats.push((name, Arc::clone(&format)));
    Ok(format)
}

fn access_log(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let target = node.arg(0)?;
    if &target.value[..] == b"off" {
        if let Some(more) = node.args.get(1) {
            return Err(node.invalid_parameter(more));
        }
        b.conf::<Conf>().off = true;
        return Ok(());
    }
    let name = node.args.get(1).map_or(&b"combined"[..], |a| &a.value);
    let format = find_format(b, node, name)?;
    let params = parameters(b, node)?;
    let path = if target.value.starts_with(b"syslog:") {
        if params.buffer.is_some() {
            return Err(node.error("parameter \"buffer\" is not supported by syslog"));
        }
        let server = Syslog::parse(target.text()?).map_err(|e| node.error(e))?;
        Path::Server(LogFile::syslog(Arc::new(server)))
    } else if target.value.contains(&b'$') {
        if params.buffer.is_some() {
            return Err(node.error("buffered logs cannot have variables in name"));
        }
        Path::Computed(computed_path(b, target)?)
    } else {
        Path::Fixed(b.full_path(target.text()?))
    };
    if let (Path::Fixed(path), Some(buffer)) = (&path, params.buffer) {
        let known = *b.state::<Defined>().buffers.entry(path.clone()).or_insert(buffer);
        if known != buffer {
            let message = format!("access_log \"{target}\" already defined with conflicting parameters");
            return Err(node.error(message));
        }
    }
    let row = Row { path, format, condition: params.condition, at: node.at.clone() };
    b.conf::<Conf>().rows.push(row);
    Ok(())
}

/// The path with the prefix before a relative one.
fn computed_path(b: &mut Builder, target: &Arg) -> Result<Value, ConfError> {
    let mut full = target.clone();
    if !target.value.starts_with(b"/") {
        full.value = Bytes::from(b.full_path(target.text()?).into_os_string().into_encoded_bytes());
    }
    Value::compile(b, &full)
}

struct Parameters {
    buffer: Option<Buffer>,
    condition: Option<Value>,
}

fn parameters(b: &mut Builder, node: &Node) -> Result<Parameters, ConfError> {
    let (mut size, mut flush_ms, mut condition) = (None, None, None);
    for p in node.params(2) {
        let text = || String::from_utf8_lossy(p.value.unwrap_or_default()).into_owned();
        match (p.name, p.value) {
            (b"buffer", Some(v)) => {
                let bytes = units::parse_size(v).filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
                size = Some(bytes.ok_or_else(|| node.error(format!("invalid buffer size \"{}\"", text())))?);
            }
            (b"flush", Some(v)) => {
                let ms = units::parse_time_ms(v).filter(|n| *n > 0);
                flush_ms = Some(ms.ok_or_else(|| node.error(format!("invalid flush time \"{}\"", text())))?);
            }
            (b"if", Some(v)) => {
                let mut arg = p.arg.clone();
                arg.value = p.arg.value.slice_ref(v);
                condition = Some(Value::compile(b, &arg)?);
            }
            (b"gzip", _) => {
                let message = "the \"gzip\" parameter of \"access_log\" is known but not carried out yet";
                return Err(node.error(message));
            }
            _ => return Err(p.error()),
        }
    }
    if flush_ms.is_some() && size.is_none() {
        let message = format!("no buffer is defined for access_log \"{}\"", node.arg(0)?);
        return Err(node.error(message));
    }
    Ok(Parameters { buffer: size.map(|size_bytes| Buffer { size_bytes, flush_ms }), condition })
}

/// The logs of a location, opened.
pub(super) fn resolve(b: &mut Builder, location: &mut LocationBuilder) -> Result<Vec<Log>, ConfError> {
    let at = location.at.clone();
    let conf = location.settings.of::<Conf>();
    if conf.off {
        return Ok(Vec::new());
    }
    let mut rows = conf.rows.clone();
    if rows.is_empty() {
        rows.push(default_row(b, &at)?);
    }
    rows.into_iter()
        .map(|row| {
            let to = match row.path {
                Path::Computed(path) => Destination::Computed(path),
                Path::Server(server) => Destination::File(server),
                Path::Fixed(path) => open(b, path, &row.at)?,
            };
            Ok(Log { format: row.format, to, condition: row.condition })
        })
        .collect()
}

fn default_row(b: &mut Builder, at: &Position) -> Result<Row, ConfError> {
    let key = Arg { value: Bytes::from_static(b"access_log"), quoted: false, at: at.clone() };
    let node = Node {
        name: "access_log".into(),
        key,
        args: Vec::new(),
        at: at.clone(),
        end_line: at.line,
        body: terrace_conf::Body::None,
    };
    let format = find_format(b, &node, b"combined")?;
    Ok(Row { path: Path::Fixed(b.full_path(DEFAULT_PATH)), format, condition: None, at: at.clone() })
}

/// Opens a log. Its buffer may have been asked for by another `access_log` of the same path.
fn open(b: &mut Builder, path: PathBuf, at: &Position) -> Result<Destination, ConfError> {
    let defined = b.state::<Defined>();
    if let Some(number) = defined.used.iter().position(|(p, _)| *p == path) {
        return Ok(Destination::Buffered(number));
    }
    let file = LogFile::open(&path)
        .map_err(|e| ConfError::at(at, format!("open() \"{}\" failed {}", path.display(), OsError(&e))))?;
    let Some(Buffer { size_bytes, flush_ms }) = defined.buffers.get(&path).copied() else {
        return Ok(Destination::File(file));
    };
    defined.used.push((path, BufferedFile { file, size_bytes, flush_ms }));
    Ok(Destination::Buffered(defined.used.len() - 1))
}
