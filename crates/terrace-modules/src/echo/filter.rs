//! `echo_before_body` and `echo_after_body`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Directive};
use terrace_http::conf::table::simple;
use terrace_http::{
    BodyFilter, Builder, Chunk, HeaderFilter, LocationBuilder, Merge, MergeContext, Module, Request, Step,
};

use super::{LI, Line};

/// The filters, which run behind Lua's.
pub struct EchoBody;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("echo_before_body", LI, Arity::AtLeast(0), "", "Sends its arguments and a line end (-n: without) ahead of a response's body.", |b, n| { let line = Line::compile(b, n)?; add(&mut b.conf::<Lines>().before, line) }),
    simple("echo_after_body", LI, Arity::AtLeast(0), "", "Sends its arguments and a line end (-n: without) behind a response's body.", |b, n| { let line = Line::compile(b, n)?; add(&mut b.conf::<Lines>().after, line) }),
];

impl Module for EchoBody {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let lines = location.settings.of::<Lines>().clone();
        if !lines.before.is_empty() || !lines.after.is_empty() {
            location.add_header_filter(Lengthless);
            location.add_body_filter(Around(lines));
        }
        Ok(())
    }
}

/// A block without lines of a kind has those of the enclosing one.
#[derive(Default, Clone)]
struct Lines {
    before: Arc<Vec<Line>>,
    after: Arc<Vec<Line>>,
}

impl Merge for Lines {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        for (own, outer) in [(&mut self.before, &parent.before), (&mut self.after, &parent.after)] {
            if own.is_empty() {
                *own = Arc::clone(outer);
            }
        }
    }
}

fn add(lines: &mut Arc<Vec<Line>>, line: Line) -> Result<(), ConfError> {
    // Nothing else holds the lines of a block that is being read.
    if let Some(lines) = Arc::get_mut(lines) {
        lines.push(line);
    }
    Ok(())
}

/// The body gets longer than was said.
struct Lengthless;

impl HeaderFilter for Lengthless {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        r.headers_out.content_length.set(None);
        r.headers_out.allow_ranges.set(false);
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

struct Around(Lines);

/// Whether the lines ahead of the body are out.
#[derive(Default)]
struct Begun(Cell<bool>);

impl BodyFilter for Around {
    fn filter(&self, r: &Rc<Request>, mut chunk: Chunk) -> Step<Chunk> {
        let begun = r.state::<Begun>().unwrap_or_else(|| {
            let begun = Rc::new(Begun::default());
            r.put_state(Rc::clone(&begun));
            begun
        });
        let is_first = !begun.0.replace(true);
        if !is_first && !chunk.last {
            return Step::Ready(chunk);
        }
        let mut data = Vec::with_capacity(chunk.data.len() + 64);
        if is_first {
            self.0.before.iter().for_each(|line| line.append(r, &mut data));
        }
        data.extend_from_slice(&chunk.data);
        if chunk.last {
            self.0.after.iter().for_each(|line| line.append(r, &mut data));
        }
        chunk.data = data.into();
        Step::Ready(chunk)
    }

    fn applies(&self, r: &Request) -> bool {
        !r.header_only.get()
    }
}
