//! The directives of OpenResty's set-misc module: variables that get what a function makes of their arguments.
//!
//! They take their places among the rewrite module's directives. Those of one argument are also callable by name, for
//! `ndk.set_var` in Lua ([`call`]).

mod base32;
mod functions;
mod pick;
mod quote;
mod time;

use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::{HS, simple};
use terrace_http::{Builder, Merge, MergeContext, Module, Request, setting};

use crate::rewrite::{REWRITE_CONTEXTS, VarFunction, push_function};
use base32::Alphabet;
use pick::{Hashed, Lists, Random, Rotate};

/// The module.
pub struct SetMisc;

const ANY: Contexts = REWRITE_CONTEXTS.union(HS);
const ONE: Arity = Arity::Between(1, 2);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("set_if_empty", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable a value where it has none.", set_if_empty),
    simple("set_quote_sql_str", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text as a MySQL string literal.", set_value),
    simple("set_quote_pgsql_str", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text as a PostgreSQL string literal.", set_value),
    simple("set_quote_json_str", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text as a JSON string.", set_value),
    simple("set_unescape_uri", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text with its URI escapes decoded.", set_value),
    simple("set_escape_uri", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text escaped as a component of a URI.", set_value),
    simple("set_hashed_upstream", REWRITE_CONTEXTS, Arity::Exactly(3), "", "Gives a variable the upstream of a list that a key hashes to.", set_hashed_upstream),
    simple("upstream_list", Contexts::HTTP, Arity::AtLeast(2), "", "Names a list of upstreams for set_hashed_upstream.", upstream_list),
    simple("set_encode_base32", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text in base32.", set_value),
    simple("set_decode_base32", REWRITE_CONTEXTS, ONE, "", "Gives a variable what a text in base32 stands for.", set_value),
    simple("set_base32_padding", ANY, Arity::Flag, "on", "Whether base32 is padded with `=`.", setting!(Conf, padding, terrace_http::conf::table::flag)),
    simple("set_misc_base32_padding", ANY, Arity::Flag, "on", "An older name of set_base32_padding.", setting!(Conf, padding, terrace_http::conf::table::flag)),
    simple("set_base32_alphabet", ANY, Arity::Exactly(1), "0123456789abcdefghijklmnopqrstuv", "The 32 characters of base32.", set_alphabet),
    simple("set_encode_base64", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text in base64.", set_value),
    simple("set_decode_base64", REWRITE_CONTEXTS, ONE, "", "Gives a variable what a text in base64 stands for.", set_value),
    simple("set_encode_base64url", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text in base64 for URLs.", set_value),
    simple("set_decode_base64url", REWRITE_CONTEXTS, ONE, "", "Gives a variable what a text in base64 for URLs stands for.", set_value),
    simple("set_encode_hex", REWRITE_CONTEXTS, ONE, "", "Gives a variable a text in hexadecimal.", set_value),
    simple("set_decode_hex", REWRITE_CONTEXTS, ONE, "", "Gives a variable what hexadecimal digits stand for.", set_value),
    simple("set_sha1", REWRITE_CONTEXTS, ONE, "", "Gives a variable the SHA-1 of a text in hexadecimal.", set_value),
    simple("set_md5", REWRITE_CONTEXTS, ONE, "", "Gives a variable the MD5 of a text in hexadecimal.", set_value),
    simple("set_hmac_sha1", REWRITE_CONTEXTS, Arity::Exactly(3), "", "Gives a variable the HMAC-SHA1 of a key and a text.", |b, n| push_function(b, n, &n.args[1..], functions::HmacSha1)),
    simple("set_hmac_sha256", REWRITE_CONTEXTS, Arity::Exactly(3), "", "Gives a variable the HMAC-SHA256 of a key and a text.", |b, n| push_function(b, n, &n.args[1..], functions::HmacSha256)),
    simple("set_random", REWRITE_CONTEXTS, Arity::Exactly(3), "", "Gives a variable a random number of a range.", |b, n| push_function(b, n, &n.args[1..], Random)),
    simple("set_secure_random_alphanum", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable random letters and digits.", set_value),
    simple("set_secure_random_lcalpha", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable random lower-case letters.", set_value),
    simple("set_rotate", REWRITE_CONTEXTS, Arity::Exactly(3), "", "Counts a variable up within a range.", |b, n| push_function(b, n, &n.args, Rotate::default())),
    simple("set_local_today", REWRITE_CONTEXTS, Arity::Exactly(1), "", "Gives a variable today's date in local time.", set_value),
    simple("set_formatted_gmt_time", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable the time in GMT in a format of strftime.", set_value),
    simple("set_formatted_local_time", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable the local time in a format of strftime.", set_value),
];

impl Module for SetMisc {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn finish(&self, b: &mut Builder) -> Result<(), ConfError> {
        b.state::<Lists>().complete();
        Ok(())
    }
}

/// What a block configures for base32.
#[derive(Default)]
struct Conf {
    padding: Option<bool>,
    alphabet: Option<Arc<Alphabet>>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        self.padding = self.padding.or(parent.padding);
        if self.alphabet.is_none() {
            self.alphabet.clone_from(&parent.alphabet);
        }
    }
}

/// Whether a directive is one of one argument, which [`call`] knows.
pub fn is_function(name: &[u8]) -> bool {
    functions::find(name).is_some()
}

/// Calls the function of a directive of one argument. `None` when there is none of this name; false when it failed,
/// the cause being logged.
pub fn call(name: &[u8], r: &Request, text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    Some(functions::find(name)?(r, text, out))
}

/// A function of one argument.
struct One(functions::Function);

impl VarFunction for One {
    fn call(&self, r: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        self.0(r, args.first().map_or(&[][..], Vec::as_slice), out)
    }
}

/// With one word, the variable's own value is the argument.
fn set_value(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let function = functions::find(node.name.as_bytes()).ok_or_else(|| node.error("no such function"))?;
    let argument = node.args.last().map_or(&[][..], std::slice::from_ref);
    push_function(b, node, argument, One(function))
}

fn set_if_empty(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    struct IfEmpty;
    impl VarFunction for IfEmpty {
        fn call(&self, _: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
            let chosen = args.iter().find(|text| !text.is_empty());
            out.extend_from_slice(chosen.map_or(&[], Vec::as_slice));
            true
        }
    }
    push_function(b, node, &node.args, IfEmpty)
}

fn set_alphabet(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let alphabet = Alphabet::new(node.bytes(0)?)
        .ok_or_else(|| node.directive_error("takes an alphabet of 32 different characters"))?;
    node.set_once(&mut b.conf::<Conf>().alphabet, Arc::new(alphabet))
}

fn upstream_list(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let names = node.args[1..].iter().map(|arg| arg.value.clone()).collect();
    if b.state::<Lists>().add(node.bytes(0)?.clone(), names) { Ok(()) } else { Err(node.duplicate()) }
}

fn set_hashed_upstream(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.arg(1)?;
    let lists = b.state::<Lists>();
    if !name.value.contains(&b'$') && !lists.has(&name.value) {
        return Err(node.error(format!("set_hashed_upstream: upstream list \"{name}\" not defined yet")));
    }
    let lists = lists.shared();
    push_function(b, node, &node.args[1..], Hashed(lists))
}
