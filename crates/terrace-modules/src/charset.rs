//! `charset`, `charset_types`: names the charset of textual responses. Nothing is recoded.
//!
//! The name is appended to `Content-Type` when that is one of the types and has no parameter yet, and not to
//! redirects, as nginx does. The main request alone is looked at: a subrequest's header is nobody's.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use terrace_conf::{Arity, ConfError, Directive, Known, KnownKind, Node};
use terrace_http::conf::table::{HSL, HSLI, simple};
use terrace_http::{
    Builder, HeaderFilter, LocationBuilder, Merge, MergeContext, Module, Request, Step, Value, intern,
};

/// The module.
pub struct Charset;

/// The types that get a charset without `charset_types`; the first is always one of them.
const DEFAULT_TYPES: [&str; 6] = [
    "text/html",
    "text/xml",
    "text/plain",
    "text/vnd.wap.wml",
    "application/javascript",
    "application/rss+xml",
];

/// What stands between a type and its charset.
const SEPARATOR: &[u8] = b"; charset=";
/// The longest type that is compared.
const TYPE_BYTES_MAX: usize = 128;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("charset", HSLI, Arity::Exactly(1), "off", "The charset that is named in Content-Type.", set_charset),
    simple("charset_types", HSL, Arity::AtLeast(1), "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml", "The media types that get it besides text/html; * is all.", set_types),
];

/// The directives of nginx's module that recode.
pub static KNOWN: &[Known] = &[
    Known {
        name: "source_charset",
        kind: KnownKind::NotCarriedOut,
        doc: "The charset to recode responses from.",
    },
    Known {
        name: "charset_map",
        kind: KnownKind::NotCarriedOut,
        doc: "How one charset is recoded to another.",
    },
    Known {
        name: "override_charset",
        kind: KnownKind::NotCarriedOut,
        doc: "Whether responses that name a charset are recoded.",
    },
];

impl Module for Charset {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let Some(conf) = location.settings.find::<Conf>() else { return Ok(()) };
        if let Some(Setting::Named(name)) = &conf.charset {
            let types = conf.types.clone().unwrap_or_else(|| Arc::new(Types::of(&DEFAULT_TYPES)));
            let filter = Filter { ready: types.with_charset(name), name: name.clone(), types };
            location.add_header_filter(filter);
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Setting {
    Off,
    Named(Value),
}

/// The media types that a filter is for.
#[derive(Debug)]
pub(crate) enum Types {
    /// Every type.
    All,
    /// In lower case.
    Some(FxHashSet<Box<[u8]>>),
}

impl Types {
    /// These, in lower case.
    pub(crate) fn of(names: &[&str]) -> Types {
        Types::Some(names.iter().map(|it| it.as_bytes().into()).collect())
    }

    /// Those that a directive names, and one more; `*` is every type. A type that is named twice is warned of.
    pub(crate) fn read(b: &mut Builder, node: &Node, always: &str) -> Types {
        let mut types = FxHashSet::from_iter([Box::from(always.as_bytes())]);
        for arg in &node.args {
            if !types.insert(arg.value.to_ascii_lowercase().into()) {
                b.warn(&node.at, &format!("duplicate MIME type \"{arg}\""));
            }
        }
        if types.contains(&b"*"[..]) { Types::All } else { Types::Some(types) }
    }

    /// Whether a type, without parameters, is one of them.
    pub(crate) fn has(&self, content_type: &[u8]) -> bool {
        let Types::Some(types) = self else { return true };
        let mut lower = [0; TYPE_BYTES_MAX];
        let Some(lower) = lower.get_mut(..content_type.len()) else { return false };
        lower.copy_from_slice(content_type);
        lower.make_ascii_lowercase();
        types.contains(&*lower)
    }

    /// Each type with the charset, where both are known before any request.
    fn with_charset(&self, name: &Value) -> FxHashMap<Box<[u8]>, Bytes> {
        let (Types::Some(types), Some(name @ [_, ..])) = (self, name.as_literal()) else {
            return FxHashMap::default();
        };
        types.iter().map(|it| (it.clone(), intern::text(&[it, SEPARATOR, name].concat()))).collect()
    }
}

#[derive(Default)]
struct Conf {
    charset: Option<Setting>,
    types: Option<Arc<Types>>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.charset.is_none() {
            self.charset.clone_from(&parent.charset);
        }
        if self.types.is_none() {
            self.types.clone_from(&parent.types);
        }
    }
}

fn set_charset(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let setting = match &node.bytes(0)?[..] {
        b"off" => Setting::Off,
        _ => Setting::Named(Value::compile(b, node.arg(0)?)?),
    };
    node.set_once(&mut b.conf::<Conf>().charset, setting)
}

fn set_types(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let types = Types::read(b, node, DEFAULT_TYPES[0]);
    node.set_once(&mut b.conf::<Conf>().types, Arc::new(types))
}

struct Filter {
    name: Value,
    types: Arc<Types>,
    /// What nearly all responses get.
    ready: FxHashMap<Box<[u8]>, Bytes>,
}

impl HeaderFilter for Filter {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        let named = r.headers_out.content_type.borrow().as_ref().and_then(|it| self.with_charset(r, it));
        if named.is_some() {
            r.headers_out.content_type.replace(named);
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

impl Filter {
    /// The type with the charset, if it is to get one.
    fn with_charset(&self, r: &Request, content_type: &Bytes) -> Option<Bytes> {
        if r.is_subrequest() || matches!(r.headers_out.status.get(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        if let Some(ready) = self.ready.get(&content_type[..]) {
            return Some(ready.clone());
        }
        let has_parameter = content_type.contains(&b';');
        if has_parameter || content_type.is_empty() || !self.types.has(content_type) {
            return None;
        }
        let mut text = [content_type, SEPARATOR].concat();
        let start = text.len();
        self.name.eval(r, &mut text);
        (text.len() > start).then(|| text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::Rewrite;
    use crate::testing::{get, run, site};

    static MODULES: &[&dyn Module] = &[&terrace_http::core::Core, &Rewrite, &Charset];

    /// The type that a response of `content_type` and `status` leaves with.
    async fn leaves_with(directives: &str, content_type: &str, status: u16) -> String {
        let http = format!(
            "default_type '{content_type}'; server {{ {directives} location / {{ return {status} /text; }} }}"
        );
        let (_rig, worker) = site(MODULES, &http);
        get(&worker, "/").await.field("Content-Type")
    }

    #[test]
    fn named_for_its_types_only() {
        run(async {
            let on = "charset utf-8;";
            assert_eq!(leaves_with(on, "text/html", 200).await, "text/html; charset=utf-8");
            assert_eq!(leaves_with(on, "TEXT/plain", 404).await, "TEXT/plain; charset=utf-8");
            assert_eq!(leaves_with(on, "application/json", 200).await, "application/json");
            assert_eq!(leaves_with("charset off;", "text/html", 200).await, "text/html");
        });
    }

    #[test]
    fn what_is_named_already_and_redirects_stay() {
        run(async {
            let on = "charset utf-8;";
            assert_eq!(leaves_with(on, "text/html; charset=koi8-r", 200).await, "text/html; charset=koi8-r");
            assert_eq!(leaves_with(on, "text/html", 302).await, "text/html");
        });
    }

    #[test]
    fn types_replace_the_defaults_but_for_html() {
        run(async {
            let css = "charset utf-8; charset_types text/css;";
            assert_eq!(leaves_with(css, "text/css", 200).await, "text/css; charset=utf-8");
            assert_eq!(leaves_with(css, "text/html", 200).await, "text/html; charset=utf-8");
            assert_eq!(leaves_with(css, "text/plain", 200).await, "text/plain");
            assert_eq!(
                leaves_with("charset utf-8; charset_types *;", "image/x", 200).await,
                "image/x; charset=utf-8"
            );
        });
    }

    #[test]
    fn a_variable_names_it_and_an_empty_one_does_not() {
        run(async {
            assert_eq!(
                leaves_with("charset $request_method;", "text/html", 200).await,
                "text/html; charset=GET"
            );
            assert_eq!(leaves_with("charset $arg_none;", "text/html", 200).await, "text/html");
        });
    }
}
