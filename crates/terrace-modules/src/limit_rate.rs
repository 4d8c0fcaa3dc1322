//! `limit_rate`, `limit_rate_after` and `$limit_rate`: how fast a response may leave.
//!
//! A location with one of the directives has a filter that gives the response its pace when it begins. What a script, a
//! `set` or a server behind has said before counts more.

use std::io::Write;
use std::rc::Rc;

use terrace_base::log::Level;
use terrace_base::units;
use terrace_conf::{Arity, ConfError, Directive};
use terrace_http::conf::table::{HSLI, simple};
use terrace_http::{Builder, HeaderFilter, LocationBuilder, Module, Request, Size, Step, settings};

/// The module.
pub struct LimitRate;

settings! {
    /// The directives.
    struct Conf {
        /// `limit_rate`.
        rate: Option<Size> = None,
        /// `limit_rate_after`.
        after: Option<Size> = None,
    }
}

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("limit_rate", HSLI, Arity::Exactly(1), "0", "How many bytes of a response leave in a second; 0 is no limit.", |b, n| { let v = Some(Size::read(b, n)?); n.set_once(&mut b.conf::<Conf>().rate, v) }),
    simple("limit_rate_after", HSLI, Arity::Exactly(1), "0", "How many bytes of a response leave before limit_rate holds.", |b, n| { let v = Some(Size::read(b, n)?); n.set_once(&mut b.conf::<Conf>().after, v) }),
];

impl Module for LimitRate {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        b.vars.define_changeable("limit_rate", get, set);
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        let (rate, after) = (conf.rate(), conf.after());
        if rate.is_some() || after.is_some() {
            location.add_header_filter(Filter { rate, after });
        }
        Ok(())
    }
}

fn get(r: &Request, out: &mut Vec<u8>) -> bool {
    // Writing to a Vec does not fail.
    let _ = write!(out, "{}", r.limit_rate().unwrap_or(0));
    true
}

fn set(r: &Request, value: &[u8]) {
    match units::parse_size(value) {
        Some(rate) => r.set_limit_rate(rate),
        None => {
            let value = String::from_utf8_lossy(value);
            r.log(Level::Error, format_args!("invalid $limit_rate \"{value}\""));
        }
    }
}

struct Filter {
    rate: Option<Size>,
    after: Option<Size>,
}

impl HeaderFilter for Filter {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        if let Some(rate) = self.rate.as_ref().filter(|_| r.limit_rate().is_none()) {
            r.set_limit_rate(rate.bytes(r));
        }
        if let Some(after) = &self.after {
            r.set_limit_rate_after(after.bytes(r));
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}
