//! `empty_gif`: a transparent image of one pixel, from memory.

use std::rc::Rc;

use bytes::Bytes;
use terrace_conf::{Arity, ConfError, Contexts, Directive};
use terrace_http::conf::table::simple;
use terrace_http::{Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Request, Step};

use crate::not_modified::{self, Verdict};

/// The module.
pub struct EmptyGif;

/// GIF89a, one pixel, of a palette of black and white of which the second colour is transparent.
static GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff\x21\xf9\x04\x01\0\0\x01\0\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0\x3b";

/// The time of the image's last change as nginx tells it, in Unix seconds.
const MODIFIED_SECS: u64 = 23_349_600;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("empty_gif", Contexts::LOCATION, Arity::Exactly(0), "", "Answers with a transparent image of one pixel.", |b, _| { b.conf::<Conf>().0 = true; Ok(()) }),
];

impl Module for EmptyGif {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        if location.settings.of::<Conf>().0 {
            location.set_content(Image);
        }
        Ok(())
    }
}

/// Whether the block has the directive.
#[derive(Default)]
struct Conf(bool);

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        self.0 |= context.is_if && parent.0;
    }
}

struct Image;

impl Handler for Image {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            return Outcome::Status(405).into();
        }
        let h = &r.headers_out;
        h.status.set(200);
        h.content_type.replace(Some(Bytes::from_static(b"image/gif")));
        h.last_modified.set(Some(MODIFIED_SECS));
        if not_modified::check(r) == Verdict::Failed {
            return Outcome::Status(412).into();
        }
        r.respond(Bytes::from_static(GIF)).map(|_| Outcome::Done)
    }
}
