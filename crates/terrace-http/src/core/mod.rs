//! nginx's core HTTP module: the directives that carry the mechanism itself.

pub mod error_log;
pub mod error_page;
pub mod listen;
pub mod location_conf;
mod location_directive;
mod resolver;
pub mod server_conf;
pub mod types;

use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};

use crate::conf::DraftKind;
use crate::conf::table::{HS, HSL, HSLI, block, flag, simple, size, time_ms};
use crate::module::Module;
use crate::{Builder, Value, setting};
use Arity::{Between, Exactly, Flag};
use location_conf::{Alias, CoreLocationConf, IfModifiedSince, InFileOnly, OwnConf, Root};
use server_conf::CoreServerConf;

/// The module.
pub struct Core;

impl Module for Core {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }
}

const LOG_CONTEXTS: Contexts = HSL.union(Contexts::MAIN);
const ROOT_CONTEXTS: Contexts = HSLI;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("http", Contexts::MAIN, Exactly(0), "Holds the HTTP servers.", set_http),
    block("server", Contexts::HTTP, Exactly(0), "A virtual server.", set_server),
    block("location", Contexts::SERVER.union(Contexts::LOCATION), Between(1, 2), "Settings for the URIs that match.", location_directive::set_location),
    block("types", HSL, Exactly(0), "Maps file extensions to media types.", types::set),
    simple("listen", Contexts::SERVER, Arity::AtLeast(1), "*:80 | *:8000", "An address the server answers on.", listen::set),
    simple("server_name", Contexts::SERVER, Arity::AtLeast(1), "\"\"", "Names the server answers to: exact, wildcard, or ~regex.", server_conf::set_server_name),
    simple("error_log", LOG_CONTEXTS, Between(1, 2), "logs/error.log error", "Where errors are logged, and from which level on.", error_log::set),
    simple("error_page", HSLI, Arity::AtLeast(2), "", "The URI, URL or named location that answers an error.", error_page::set),
    simple("root", ROOT_CONTEXTS, Exactly(1), "html", "The directory below which files are found.", set_root),
    simple("alias", Contexts::LOCATION, Exactly(1), "", "The path that replaces the location's.", set_alias),
    simple("internal", Contexts::LOCATION, Exactly(0), "", "The location answers only requests made within the server.", |b, _| { b.conf::<OwnConf>().internal = true; Ok(()) }),
    simple("default_type", HSL, Exactly(1), "text/plain", "The media type of what no other rule gives one.", setting!(CoreLocationConf, default_type, |n: &Node| n.bytes(0).cloned())),
    simple("client_max_body_size", HSL, Exactly(1), "1m", "The largest request body; 0 is no limit.", setting!(CoreLocationConf, client_max_body_size, size)),
    simple("client_body_buffer_size", HSL, Exactly(1), "16k", "A larger request body goes to a temporary file.", setting!(CoreLocationConf, client_body_buffer_size, size)),
    simple("client_body_in_file_only", HSL, Exactly(1), "off", "Whether every request body goes to a file.", set_in_file_only),
    simple("client_body_temp_path", HSL, Between(1, 4), "client_body_temp", "The directory of temporary files of request bodies.", set_temp_path),
    simple("client_body_timeout", HSL, Exactly(1), "60s", "How long a read of the request body may take.", setting!(CoreLocationConf, client_body_timeout, time_ms)),
    simple("client_header_timeout", HS, Exactly(1), "60s", "How long a request's head may take.", setting!(CoreServerConf, client_header_timeout, time_ms)),
    simple("client_header_buffer_size", HS, Exactly(1), "1k", "The size of the first buffer of a request's head.", setting!(CoreServerConf, client_header_buffer_size, size)),
    simple("large_client_header_buffers", HS, Exactly(2), "4 8k", "Number and size of further buffers of a request's head.", set_large_buffers),
    simple("send_timeout", HSL, Exactly(1), "60s", "How long a write to the client may take.", setting!(CoreLocationConf, send_timeout, time_ms)),
    simple("keepalive_timeout", HSL, Between(1, 2), "75s", "How long an idle connection stays open.", set_keepalive_timeout),
    simple("keepalive_requests", HSL, Exactly(1), "1000", "How many requests a connection may carry.", setting!(CoreLocationConf, keepalive_requests, |n: &Node| n.number(0))),
    simple("lingering_time", HSL, Exactly(1), "30s", "How long the server reads on after its last response.", setting!(CoreLocationConf, lingering_time, time_ms)),
    simple("lingering_timeout", HSL, Exactly(1), "5s", "How long one read may take then.", setting!(CoreLocationConf, lingering_timeout, time_ms)),
    simple("satisfy", HSL, Exactly(1), "all", "Whether all access modules must let the client in, or any.", setting!(CoreLocationConf, satisfy_any, |n: &Node| n.one_of(0, &[("all", false), ("any", true)]))),
    simple("recursive_error_pages", HSL, Flag, "off", "Whether an error page may lead to another.", setting!(CoreLocationConf, recursive_error_pages, flag)),
    simple("server_tokens", HSL, Exactly(1), "on", "Whether the version is shown.", setting!(CoreLocationConf, server_tokens, |n: &Node| n.one_of(0, &[("on", true), ("off", false), ("build", true)]))),
    simple("absolute_redirect", HSL, Flag, "on", "Whether redirects name scheme and host.", setting!(CoreLocationConf, absolute_redirect, flag)),
    simple("server_name_in_redirect", HSL, Flag, "off", "Whether redirects use the server's first name.", setting!(CoreLocationConf, server_name_in_redirect, flag)),
    simple("port_in_redirect", HSL, Flag, "on", "Whether redirects name the port.", setting!(CoreLocationConf, port_in_redirect, flag)),
    simple("log_not_found", HSL, Flag, "on", "Whether missing files are logged as errors.", setting!(CoreLocationConf, log_not_found, flag)),
    simple("log_subrequest", HSL, Flag, "off", "Whether subrequests are logged.", setting!(CoreLocationConf, log_subrequest, flag)),
    simple("etag", HSL, Flag, "on", "Whether files get an ETag.", setting!(CoreLocationConf, etag, flag)),
    simple("if_modified_since", HSL, Exactly(1), "exact", "How If-Modified-Since is compared.", setting!(CoreLocationConf, if_modified_since, |n: &Node| n.one_of(0, &[("off", IfModifiedSince::Off), ("exact", IfModifiedSince::Exact), ("before", IfModifiedSince::Before)]))),
    simple("max_ranges", HSL, Exactly(1), "", "How many ranges a request may ask for; 0 turns ranges off.", setting!(CoreLocationConf, max_ranges, |n: &Node| n.number(0))),
    simple("resolver", HSL, Arity::AtLeast(1), "", "The name servers that names are asked from at run time, with valid=, ipv4=, ipv6= and local=; without it the system is asked.", resolver::set),
    simple("resolver_timeout", HSL, Exactly(1), "30s", "How long resolving a name may take.", setting!(CoreLocationConf, resolver_timeout, time_ms)),
    simple("merge_slashes", HS, Flag, "on", "Whether several slashes count as one.", setting!(CoreServerConf, merge_slashes, flag)),
    simple("underscores_in_headers", HS, Flag, "off", "Whether header names may have underscores.", setting!(CoreServerConf, underscores_in_headers, flag)),
    simple("ignore_invalid_headers", HS, Flag, "on", "Whether header fields with odd names are dropped.", setting!(CoreServerConf, ignore_invalid_headers, flag)),
];

fn set_http(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    if std::mem::replace(&mut b.state::<HttpSeen>().0, true) {
        return Err(node.duplicate());
    }
    b.block(DraftKind::Http, Contexts::HTTP, b"", node).map(|_| ())
}

#[derive(Default)]
struct HttpSeen(bool);

fn set_server(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    b.block(DraftKind::Server, Contexts::SERVER, b"", node).map(|_| ())
}

fn set_root(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = Value::compile(b, node.arg(0)?)?;
    let root = Root { path, alias: None, prefix: Default::default() };
    set_root_or_alias(b, node, root)
}

fn set_alias(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = Value::compile(b, node.arg(0)?)?;
    let alias = match b.location_name() {
        Some((name, _)) if name.first() == Some(&b'@') => {
            return Err(node.directive_error("cannot be used inside the named location"));
        }
        Some((_, true)) => Alias::Whole,
        Some((name, false)) => Alias::Prefix(name.len()),
        None => Alias::Whole,
    };
    set_root_or_alias(b, node, Root { path, alias: Some(alias), prefix: Default::default() })
}

fn set_root_or_alias(b: &mut Builder, node: &Node, root: Root) -> Result<(), ConfError> {
    let slot = &mut b.conf::<CoreLocationConf>().root;
    if let Some(old) = slot {
        let was = if old.alias.is_some() { "alias" } else { "root" };
        return Err(if was == node.name {
            node.duplicate()
        } else {
            node.error(format!(
                "\"{}\" directive is duplicate, \"{was}\" directive was specified earlier",
                node.name
            ))
        });
    }
    *slot = Some(root);
    Ok(())
}

fn set_in_file_only(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let on =
        node.one_of(0, &[("on", InFileOnly::Keep), ("clean", InFileOnly::Clean), ("off", InFileOnly::Off)])?;
    node.set_once(&mut b.conf::<CoreLocationConf>().client_body_in_file_only, on)
}

fn set_temp_path(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = node.text(0)?.into();
    node.set_once(&mut b.conf::<CoreLocationConf>().client_body_temp_path, path)
}

fn set_large_buffers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let value = (node.number(0)?, node.size(1)?);
    node.set_once(&mut b.conf::<CoreServerConf>().large_client_header_buffers, value)
}

fn set_keepalive_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let header = if node.args.len() > 1 { Some(node.time_secs(1)?) } else { None };
    let value = (node.time_ms(0)?, header);
    node.set_once(&mut b.conf::<CoreLocationConf>().keepalive_timeout, value)
}
