//! `memc_pass` (OpenResty's memc module) and `memcached_pass`: requests answered by memcached.
//!
//! Both speak through one client (`serve`); the second one only gets values.

mod command;
mod request;
mod serve;

use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Position};
use terrace_http::conf::table::{HSL, HSLI, simple};
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Request, Step, Value, settings,
};

use crate::bind::Bind;
use crate::proxy::next::NextUpstream;
use crate::upstream::{Upstream, Upstreams, of_url};
use crate::url::{Host, Url};
use command::Name;
use request::Variables;

/// `memc_pass`.
pub struct Memc;

/// `memcached_pass`.
pub struct Memcached;

/// Where memcached listens unless it is told otherwise.
const PORT: u16 = 11211;

settings! {
    /// The settings that both families have.
    struct Plain {
        /// `memc_bind`.
        bind: Bind = Bind::Off,
        /// `memc_connect_timeout`, ms.
        connect_timeout_ms: u64 = 60_000,
        /// `memc_send_timeout`, ms.
        send_timeout_ms: u64 = 60_000,
        /// `memc_read_timeout`, ms.
        read_timeout_ms: u64 = 60_000,
        /// `memc_buffer_size`, bytes.
        buffer_bytes: u64 = 4096,
        /// `memc_next_upstream`.
        next_upstream: NextUpstream = NextUpstream::ERROR.union(NextUpstream::TIMEOUT),
        /// `memcached_next_upstream_tries`; 0 is no bound.
        tries_max: usize = 0,
        /// `memcached_next_upstream_timeout`, ms; 0 is no bound.
        tries_timeout_ms: u64 = 0,
        /// `memc_ignore_client_abort`.
        ignores_client_abort: bool = false,
        /// `memc_cmds_allowed`; none: all.
        allowed: Arc<Vec<Name>> = Arc::default(),
        /// `memc_flags_to_last_modified`.
        flags_to_last_modified: bool = false,
        /// `memcached_gzip_flag`; 0 is none.
        gzip_flag: u32 = 0,
    }
}

/// One family's settings of a block.
#[derive(Default)]
struct Family<const ONLY_GETS: bool> {
    plain: Plain,
    pass: Option<Arc<Pass>>,
    is_inherited: bool,
}

type MemcConf = Family<false>;
type MemcachedConf = Family<true>;

impl<const ONLY_GETS: bool> Merge for Family<ONLY_GETS> {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        self.plain.merge(&parent.plain, context);
        if self.pass.is_none() && context.is_if {
            self.pass.clone_from(&parent.pass);
            self.is_inherited = true;
        }
    }
}

/// Where to, as read.
struct Pass {
    value: Value,
    url: Option<Url>,
    at: Position,
}

/// Where to, ready for requests.
enum Target {
    Fixed(Arc<Upstream>),
    Computed { value: Value, named: FxHashMap<String, Arc<Upstream>> },
}

/// What a location does.
struct Settings {
    target: Target,
    only_gets: bool,
    variables: Arc<Variables>,
    plain: Plain,
}

const PASS: Contexts = Contexts::LOCATION.union(Contexts::LOCATION_IF);
const ONE: Arity = Arity::Exactly(1);

/// The cases that send a request to the next server.
const CASES: &[(&str, NextUpstream)] = &[
    ("error", NextUpstream::ERROR),
    ("timeout", NextUpstream::TIMEOUT),
    ("invalid_response", NextUpstream::INVALID_HEADER),
    ("not_found", NextUpstream::HTTP_404),
    ("off", NextUpstream::OFF),
];

fn cases(node: &Node) -> Result<NextUpstream, ConfError> {
    let mut all = NextUpstream::empty();
    for i in 0..node.args.len() {
        all |= node.one_of(i, CASES)?;
    }
    Ok(if all.contains(NextUpstream::OFF) { NextUpstream::OFF } else { all })
}

/// A row that sets a field of a family's plain settings.
macro_rules! row {
    ($conf:ty, $name:expr, $contexts:expr, $arity:expr, $default:literal, $doc:literal, $field:ident, $read:expr) => {
        simple($name, $contexts, $arity, $default, $doc, |b, node| {
            let value = $read(node)?;
            node.set_once(&mut b.conf::<$conf>().plain.$field, value)
        })
    };
}

/// The rows that both families have, and more.
macro_rules! rows {
    ($conf:ty, $prefix:literal, $($more:expr,)*) => {
        &[
            simple(concat!($prefix, "_pass"), PASS, ONE, "", "The memcached server that answers requests.", set_pass::<$conf>),
            simple(concat!($prefix, "_bind"), HSL, Arity::Between(1, 2), "off", "The local address that connections to the server come from.", |b, n| { let v = Bind::read(b, n)?; n.set_once(&mut b.conf::<$conf>().plain.bind, v) }),
            row!($conf, concat!($prefix, "_connect_timeout"), HSL, ONE, "60s", "How long connecting may take.", connect_timeout_ms, |n: &Node| n.time_ms(0)),
            row!($conf, concat!($prefix, "_send_timeout"), HSL, ONE, "60s", "How long a write to the server may take.", send_timeout_ms, |n: &Node| n.time_ms(0)),
            row!($conf, concat!($prefix, "_read_timeout"), HSL, ONE, "60s", "How long a read from the server may take.", read_timeout_ms, |n: &Node| n.time_ms(0)),
            row!($conf, concat!($prefix, "_buffer_size"), HSL, ONE, "4k", "The longest reply, but for a value.", buffer_bytes, |n: &Node| n.size(0)),
            row!($conf, concat!($prefix, "_next_upstream"), HSL, Arity::AtLeast(1), "error timeout", "In which cases the next server is tried.", next_upstream, cases),
            row!($conf, concat!($prefix, "_next_upstream_tries"), HSL, ONE, "0", "How many servers are tried; 0 is no limit.", tries_max, |n: &Node| n.number(0)),
            row!($conf, concat!($prefix, "_next_upstream_timeout"), HSL, ONE, "0", "How long servers are tried; 0 is no limit.", tries_timeout_ms, |n: &Node| n.time_ms(0)),
            $($more,)*
        ]
    };
}

#[rustfmt::skip]
static MEMC: &[Directive<Builder>] = rows! { MemcConf, "memc",
    row!(MemcConf, "memc_cmds_allowed", HSLI, Arity::AtLeast(1), "", "The memcached commands that requests may use; without it all.", allowed, commands),
    row!(MemcConf, "memc_flags_to_last_modified", HSLI, Arity::Flag, "off", "Whether a value's flags are the time of its last change.", flags_to_last_modified, |n: &Node| n.flag(0)),
    row!(MemcConf, "memc_ignore_client_abort", HSL, Arity::Flag, "off", "Whether the exchange goes on when the client leaves.", ignores_client_abort, |n: &Node| n.flag(0)),
    simple("memc_upstream_max_fails", HSL, ONE, "", "Accepted; servers of an upstream block have max_fails.", |b, n| deprecated(b, n, "max_fails")),
    simple("memc_upstream_fail_timeout", HSL, ONE, "", "Accepted; servers of an upstream block have fail_timeout.", |b, n| deprecated(b, n, "fail_timeout")),
};

#[rustfmt::skip]
static MEMCACHED: &[Directive<Builder>] = rows! { MemcachedConf, "memcached",
    row!(MemcachedConf, "memcached_gzip_flag", HSL, ONE, "", "The bit of a value's flags that says that it is compressed.", gzip_flag, |n: &Node| n.number(0)),
};

fn commands(node: &Node) -> Result<Arc<Vec<Name>>, ConfError> {
    let name = |arg: &terrace_conf::Arg| {
        Name::from_text(&arg.value)
            .ok_or_else(|| node.error(format!("invalid command \"{arg}\" in \"memc_cmds_allowed\"")))
    };
    node.args.iter().map(name).collect::<Result<Vec<_>, _>>().map(Arc::new)
}

fn deprecated(b: &mut Builder, node: &Node, instead: &str) -> Result<(), ConfError> {
    b.warn(&node.at, &format!("\"{}\" is ignored: use {instead} of an upstream's server", node.name));
    Ok(())
}

/// What a family is to its directives.
trait HasPass: Merge {
    fn pass(&mut self) -> &mut Option<Arc<Pass>>;
}

impl<const ONLY_GETS: bool> HasPass for Family<ONLY_GETS> {
    fn pass(&mut self) -> &mut Option<Arc<Pass>> {
        &mut self.pass
    }
}

fn set_pass<C: HasPass>(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let arg = node.arg(0)?;
    let value = Value::compile(b, arg)?;
    let parse = |text: &[u8]| {
        let url = Url::parse(text).map_err(|e| node.error(format!("{e} in upstream \"{arg}\"")))?;
        if url.uri.is_empty() {
            Ok(url)
        } else {
            Err(node.error(format!("invalid host in upstream \"{arg}\"")))
        }
    };
    let url = value.as_literal().map(parse).transpose()?;
    let pass = Pass { value, url, at: node.at.clone() };
    node.set_once(b.conf::<C>().pass(), Arc::new(pass))
}

impl Module for Memc {
    fn directives(&self) -> &'static [Directive<Builder>] {
        MEMC
    }

    fn variables(&self, b: &mut Builder) {
        let variables = Variables::define(b);
        *b.state::<Option<Arc<Variables>>>() = Some(Arc::new(variables));
    }

    fn location(&self, b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
        add::<false>(b, l)
    }
}

impl Module for Memcached {
    fn directives(&self) -> &'static [Directive<Builder>] {
        MEMCACHED
    }

    fn location(&self, b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
        add::<true>(b, l)
    }
}

fn add<const ONLY_GETS: bool>(b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
    let conf = l.settings.of::<Family<ONLY_GETS>>();
    let Some(pass) = conf.pass.clone() else { return Ok(()) };
    let is_inherited = conf.is_inherited;
    // Settings of a location are only read from here on.
    let plain = std::mem::take(&mut conf.plain);
    let Some(variables) = b.state::<Option<Arc<Variables>>>().clone() else { return Ok(()) };
    let settings = Settings { target: resolve(b, &pass)?, only_gets: ONLY_GETS, variables, plain };
    l.core.auto_redirect = l.name.last() == Some(&b'/');
    let handler = MemcHandler(Arc::new(settings));
    if is_inherited {
        l.set_content(handler);
    } else {
        l.set_own_content(handler);
    }
    Ok(())
}

/// Finds or makes the upstream; all blocks have been read.
fn resolve(b: &mut Builder, pass: &Pass) -> Result<Target, ConfError> {
    let Some(url) = &pass.url else {
        let named = b.state::<Upstreams>().named.clone();
        return Ok(Target::Computed { value: pass.value.clone(), named });
    };
    let is_block = match &url.host {
        Host::Name(name) => b.state::<Upstreams>().named.contains_key(name),
        Host::Unix(_) => false,
    };
    let port = url.port.or((!is_block).then_some(PORT));
    of_url(b, &Url { port, ..url.clone() }, &pass.at).map(Target::Fixed)
}

struct MemcHandler(Arc<Settings>);

impl Handler for MemcHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        match request::read(&self.0, r) {
            Ok(command) => Step::wait(serve::serve(Arc::clone(&self.0), Rc::clone(r), command)),
            Err(status) => Step::Ready(terrace_http::Outcome::Status(status)),
        }
    }
}
