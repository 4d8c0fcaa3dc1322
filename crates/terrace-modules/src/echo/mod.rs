//! The directives of OpenResty's echo module: responses written in the configuration.
//!
//! The `echo*` directives of a location are its content handler; they run in the order written (`run`).
//! `echo_before_body` and `echo_after_body` are filters of any response (`filter`).

mod body;
mod filter;
mod run;
mod subrequests;
mod variables;

use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::{Arg, Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::simple;
use terrace_http::{Builder, LocationBuilder, Merge, MergeContext, Module, Value};

pub use filter::EchoBody;

/// The module: all but the filters.
pub struct Echo;

const LI: Contexts = Contexts::LOCATION.union(Contexts::LOCATION_IF);
const NONE: Arity = Arity::Exactly(0);
const ONE_OR_TWO: Arity = Arity::Between(1, 2);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("echo", LI, Arity::AtLeast(0), "", "Sends its arguments and a line end (-n: without).", |b, n| { let line = Line::compile(b, n)?; push(b, Command::Echo(line)) }),
    simple("echo_duplicate", LI, Arity::AtLeast(2), "", "Sends a text several times.", |b, n| two(b, n, Command::Duplicate)),
    simple("echo_flush", LI, NONE, "", "Has what was sent so far reach the client now.", |b, _| push(b, Command::Flush)),
    simple("echo_sleep", LI, Arity::Exactly(1), "", "Waits for a time in seconds.", |b, n| { let secs = Value::compile(b, n.arg(0)?)?; push(b, Command::Sleep(secs)) }),
    simple("echo_blocking_sleep", LI, Arity::Exactly(1), "", "Waits for a time in seconds, and with it the worker.", |b, n| { let secs = Value::compile(b, n.arg(0)?)?; push(b, Command::BlockingSleep(secs)) }),
    simple("echo_reset_timer", LI, NONE, "", "Has $echo_timer_elapsed begin anew.", |b, _| push(b, Command::ResetTimer)),
    simple("echo_read_request_body", LI, NONE, "", "Reads the request's body.", |b, _| push(b, Command::ReadBody)),
    simple("echo_location_async", LI, ONE_OR_TWO, "", "Sends the response of a location, running beside what follows.", |b, n| location(b, n, false)),
    simple("echo_location", LI, ONE_OR_TWO, "", "Sends the response of a location.", |b, n| location(b, n, true)),
    simple("echo_subrequest_async", LI, Arity::AtLeast(2), "", "Sends the response of a subrequest with a method, query (-q) and body (-b, -f), running beside what follows.", |b, n| subrequest(b, n, false)),
    simple("echo_subrequest", LI, Arity::AtLeast(2), "", "Sends the response of a subrequest with a method, query (-q) and body (-b, -f).", |b, n| subrequest(b, n, true)),
    simple("echo_foreach_split", LI, Arity::AtLeast(2), "", "Begins a loop over the parts of a text, which $echo_it holds.", |b, n| two(b, n, Command::ForEach)),
    simple("echo_end", LI, NONE, "", "Ends a loop.", |b, _| push(b, Command::End)),
    simple("echo_request_body", LI, NONE, "", "Sends the request's body, where it was read.", |b, _| push(b, Command::RequestBody)),
    simple("echo_exec", LI, ONE_OR_TWO, "", "Goes to another location within the server.", exec),
    simple("echo_status", LI, Arity::Exactly(1), "200", "The status of a response made by echo.", status),
];

impl Module for Echo {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        variables::define(b);
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        if conf.commands.is_empty() {
            return Ok(());
        }
        let is_inherited = conf.is_inherited;
        let handler =
            run::EchoHandler { commands: Arc::clone(&conf.commands), status: conf.status.unwrap_or(200) };
        if is_inherited {
            location.set_content(handler);
        } else {
            location.set_own_content(handler);
        }
        Ok(())
    }
}

/// What a block configures. Its commands are its own, but an `if` without any has those around it.
#[derive(Default)]
struct Conf {
    commands: Arc<Vec<Command>>,
    is_inherited: bool,
    status: Option<u16>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        if self.commands.is_empty() && context.is_if {
            self.commands = Arc::clone(&parent.commands);
            self.is_inherited = true;
        }
        self.status = self.status.or(parent.status);
    }
}

/// One directive of the content handler.
enum Command {
    Echo(Line),
    /// Count and text.
    Duplicate(Value, Value),
    Flush,
    /// In seconds.
    Sleep(Value),
    BlockingSleep(Value),
    ResetTimer,
    ReadBody,
    RequestBody,
    Subrequest(Box<Spec>),
    /// Delimiter and text.
    ForEach(Value, Value),
    End,
    /// URI, query.
    Exec(Value, Option<Value>),
}

/// The words of an `echo`.
struct Line {
    words: Vec<Value>,
    has_end: bool,
}

/// A subrequest.
struct Spec {
    method: Value,
    uri: Value,
    query: Option<Value>,
    body: Option<SpecBody>,
    /// Whether the next command waits for it.
    waits: bool,
}

enum SpecBody {
    Text(Value),
    /// The path of a file.
    File(Value),
}

impl Line {
    fn compile(b: &mut Builder, node: &Node) -> Result<Line, ConfError> {
        let (options, words) = options(&node.args);
        let has_end = !options.iter().any(|option| &option.value[..] == b"-n");
        let words = words.iter().map(|word| Value::compile(b, word)).collect::<Result<_, _>>()?;
        Ok(Line { words, has_end })
    }

    /// Appends the words with spaces between them.
    fn append(&self, r: &terrace_http::Request, out: &mut Vec<u8>) {
        for (i, word) in self.words.iter().enumerate() {
            if i > 0 {
                out.push(b' ');
            }
            word.eval(r, out);
        }
        if self.has_end {
            out.push(b'\n');
        }
    }
}

/// Parts the options from the words: literal ones that begin with a dash, up to one that begins with two.
fn options(args: &[Arg]) -> (&[Arg], &[Arg]) {
    let is_option = |arg: &&Arg| {
        arg.value.len() > 1 && arg.value.starts_with(b"-") && memchr::memchr(b'$', &arg.value).is_none()
    };
    let count = args.iter().take_while(is_option).take_while(|arg| !arg.value.starts_with(b"--")).count();
    let ends = args.get(count).is_some_and(|arg| is_option(&arg) && arg.value.starts_with(b"--"));
    (&args[..count], &args[count + usize::from(ends)..])
}

fn push(b: &mut Builder, command: Command) -> Result<(), ConfError> {
    // Nothing else holds the commands of a block that is being read.
    if let Some(commands) = Arc::get_mut(&mut b.conf::<Conf>().commands) {
        commands.push(command);
    }
    Ok(())
}

fn two(b: &mut Builder, node: &Node, command: fn(Value, Value) -> Command) -> Result<(), ConfError> {
    let [first, second, ..] = options(&node.args).1 else { return Err(node.invalid_arity()) };
    let (first, second) = (Value::compile(b, first)?, Value::compile(b, second)?);
    push(b, command(first, second))
}

fn location(b: &mut Builder, node: &Node, waits: bool) -> Result<(), ConfError> {
    let uri = Value::compile(b, node.arg(0)?)?;
    let query = node.args.get(1).map(|arg| Value::compile(b, arg)).transpose()?;
    let method = Value::literal(Bytes::from_static(b"GET"));
    push(b, Command::Subrequest(Box::new(Spec { method, uri, query, body: None, waits })))
}

fn subrequest(b: &mut Builder, node: &Node, waits: bool) -> Result<(), ConfError> {
    let [method, uri, options @ ..] = options(&node.args).1 else { return Err(node.invalid_arity()) };
    let (method, uri) = (Value::compile(b, method)?, Value::compile(b, uri)?);
    let mut spec = Spec { method, uri, query: None, body: None, waits };
    let (pairs, odd) = options.as_chunks::<2>();
    if let [alone] = odd {
        return Err(node.invalid_parameter(alone));
    }
    for [option, value] in pairs {
        let value = Value::compile(b, value)?;
        match &option.value[..] {
            b"-q" => spec.query = Some(value),
            b"-b" => spec.body = Some(SpecBody::Text(value)),
            b"-f" => spec.body = Some(SpecBody::File(value)),
            _ => return Err(node.error(format!("unknown option for echo_subrequest*: {option}"))),
        }
    }
    push(b, Command::Subrequest(Box::new(spec)))
}

fn exec(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let uri = Value::compile(b, node.arg(0)?)?;
    let query = node.args.get(1).map(|arg| Value::compile(b, arg)).transpose()?;
    push(b, Command::Exec(uri, query))
}

fn status(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let status = node.number(0)?;
    node.set_once(&mut b.conf::<Conf>().status, status)
}
