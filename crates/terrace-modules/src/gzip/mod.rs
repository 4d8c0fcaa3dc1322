//! `gzip`, `gunzip`, `gzip_static`: responses compressed as they pass, decompressed for clients that cannot do that,
//! or taken from files that are compressed already.
//!
//! Only the main request's response is compressed, whole: what subrequests gave is a part of it.

mod accept;
mod compress;
mod decompress;
mod stored;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::{Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSL, HSLI, flag, simple, size};
use terrace_http::{Builder, LocationBuilder, Module, Phase, Request, setting, settings};
use terrace_http1::{KnownHeader, Version};
use terrace_regex::{Options, Regex};

use crate::charset::Types;
use accept::{Accept, Proxied};
use compress::{Begin, Pack};

/// The module that compresses; its filters come after all others that change bodies.
pub struct Gzip;

/// The module that decompresses; it stands before those that look into bodies.
pub struct Gunzip;

/// The module of files that are compressed already; it stands before that of static files.
pub struct GzipStatic;

#[rustfmt::skip]
static GZIP: &[Directive<Builder>] = &[
    simple("gzip", HSLI, Arity::Flag, "off", "Whether responses are compressed.", setting!(Conf, gzip, flag)),
    simple("gzip_types", HSL, Arity::AtLeast(1), "text/html", "The media types that are compressed besides text/html; * is all.", set_types),
    simple("gzip_min_length", HSL, Arity::Exactly(1), "20", "Shorter responses (by Content-Length) are not compressed.", setting!(Conf, gzip_min_length, size)),
    simple("gzip_comp_level", HSL, Arity::Exactly(1), "1", "How hard to compress, 1 to 9.", set_level),
    simple("gzip_http_version", HSL, Arity::Exactly(1), "1.1", "The lowest version of requests whose responses are compressed.", setting!(Conf, gzip_http_version, |n: &Node| n.one_of(0, &[("1.0", Version::Http10), ("1.1", Version::Http11)]))),
    simple("gzip_proxied", HSL, Arity::AtLeast(1), "off", "Which responses to requests of proxies are compressed.", set_proxied),
    simple("gzip_vary", HSL, Arity::Flag, "off", "Whether Vary names Accept-Encoding.", setting!(Conf, gzip_vary, flag)),
    simple("gzip_disable", HSL, Arity::AtLeast(1), "", "Regexes of the User-Agents that get nothing compressed.", set_disable),
];

#[rustfmt::skip]
static GUNZIP: &[Directive<Builder>] = &[
    simple("gunzip", HSL, Arity::Flag, "off", "Whether compressed responses are decompressed for clients that cannot do that.", setting!(Conf, gunzip, flag)),
];

#[rustfmt::skip]
static GZIP_STATIC: &[Directive<Builder>] = &[
    simple("gzip_static", HSL, Arity::Exactly(1), "off", "Whether a file's neighbour with the extension .gz is sent in its place.", setting!(Conf, gzip_static, |n: &Node| n.one_of(0, &[("off", Stored::Off), ("on", Stored::On), ("always", Stored::Always)]))),
];

impl Module for Gzip {
    fn directives(&self) -> &'static [Directive<Builder>] {
        GZIP
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        if conf.gzip() {
            let begin = Begin {
                accept: conf.accept(),
                types: conf.gzip_types(),
                length_min: conf.gzip_min_length(),
                level: conf.gzip_comp_level(),
            };
            location.add_header_filter(begin);
            location.add_body_filter(Pack);
        }
        Ok(())
    }
}

impl Module for Gunzip {
    fn directives(&self) -> &'static [Directive<Builder>] {
        GUNZIP
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        if conf.gunzip() {
            let begin = decompress::Begin(conf.accept());
            location.add_header_filter(begin);
            location.add_body_filter(decompress::Unpack);
        }
        Ok(())
    }
}

impl Module for GzipStatic {
    fn directives(&self) -> &'static [Directive<Builder>] {
        GZIP_STATIC
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        let always = match conf.gzip_static() {
            Stored::Off => return Ok(()),
            Stored::On => false,
            Stored::Always => true,
        };
        let accept = conf.accept();
        location.add(Phase::Content, stored::Serve { accept, always });
        Ok(())
    }
}

/// `gzip_static`
#[derive(Debug, Clone, Copy)]
enum Stored {
    Off,
    On,
    Always,
}

/// The regexes of `gzip_disable`.
#[derive(Default)]
struct Disabled(Vec<Arc<Regex>>);

impl std::fmt::Debug for Disabled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} regexes", self.0.len())
    }
}

settings! {
    /// What a block configures.
    struct Conf {
        /// `gzip`
        gzip: bool = false,
        /// `gzip_types`
        gzip_types: Arc<Types> = Arc::new(Types::of(&[HTML])),
        /// `gzip_min_length`, bytes.
        gzip_min_length: u64 = 20,
        /// `gzip_comp_level`
        gzip_comp_level: u32 = 1,
        /// `gzip_http_version`
        gzip_http_version: Version = Version::Http11,
        /// `gzip_proxied`
        gzip_proxied: Proxied = Proxied::default(),
        /// `gzip_vary`
        gzip_vary: bool = false,
        /// `gzip_disable`
        gzip_disable: Arc<Disabled> = Arc::default(),
        /// `gunzip`
        gunzip: bool = false,
        /// `gzip_static`
        gzip_static: Stored = Stored::Off,
    }
}

/// The type that is compressed without being named.
const HTML: &str = "text/html";

impl Conf {
    fn accept(&self) -> Accept {
        Accept {
            version: self.gzip_http_version(),
            proxied: self.gzip_proxied(),
            disabled: self.gzip_disable(),
            vary: self.gzip_vary(),
        }
    }
}

fn set_types(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let types = Types::read(b, node, HTML);
    node.set_once(&mut b.conf::<Conf>().gzip_types, Arc::new(types))
}

fn set_level(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let level = node.number(0)?;
    if !(1..=9).contains(&level) {
        return Err(node.error("value must be between 1 and 9"));
    }
    node.set_once(&mut b.conf::<Conf>().gzip_comp_level, level)
}

fn set_proxied(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut proxied = Proxied::default();
    for arg in &node.args {
        let which = Proxied::by_name(&arg.value).ok_or_else(|| node.invalid_parameter(arg))?;
        proxied = proxied.and(which);
    }
    node.set_once(&mut b.conf::<Conf>().gzip_proxied, proxied)
}

fn set_disable(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut all = Vec::with_capacity(node.args.len());
    for arg in &node.args {
        let pattern: &[u8] = match &arg.value[..] {
            // The browsers that nginx means by it.
            b"msie6" => br"MSIE [4-6]\.(?!.*SV1)",
            b"degradation" => continue,
            other => other,
        };
        let options = Options { caseless: true, ..Options::default() };
        all.push(Arc::new(Regex::new(pattern, options).map_err(|e| arg.error(e.to_string()))?));
    }
    node.set_once(&mut b.conf::<Conf>().gzip_disable, Arc::new(Disabled(all)))
}

/// The name of a known field, for the response's header.
fn name(field: KnownHeader) -> Bytes {
    Bytes::from_static(field.name().as_bytes())
}

/// Makes the header that of another encoding of the same body: its length is unknown, ranges are off, and its ETag
/// says only that the meaning is the same.
fn recode(r: &Rc<Request>) {
    let h = &r.headers_out;
    h.content_length.set(None);
    h.allow_ranges.set(false);
    h.edit(|fields| {
        fields.retain_mut(|field| match field.id {
            Some(KnownHeader::AcceptRanges) => false,
            Some(KnownHeader::ETag) if field.value.starts_with(b"W/") => true,
            Some(KnownHeader::ETag) if field.value.starts_with(b"\"") => {
                field.value = [b"W/", &field.value[..]].concat().into();
                true
            }
            // nginx drops what is no entity tag.
            Some(KnownHeader::ETag) => false,
            _ => true,
        });
    });
}

/// Whether the response has a coding already.
fn is_encoded(r: &Request) -> bool {
    r.headers_out.with(KnownHeader::ContentEncoding.name().as_bytes(), |v| !v.is_empty()) == Some(true)
}
