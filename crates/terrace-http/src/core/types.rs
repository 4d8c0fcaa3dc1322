//! `types { text/html html htm; … }`: media types by file extension.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use terrace_conf::{ConfError, Node};

use crate::conf::slots::{Merge, MergeContext};
use crate::{Builder, intern};

/// Media types by extension, in lower case.
#[derive(Debug)]
pub struct Types(FxHashMap<Box<[u8]>, Bytes>);

/// The longest extension that is looked up.
const EXTENSION_BYTES_MAX: usize = 32;

impl Default for Types {
    /// nginx's built-in types.
    fn default() -> Self {
        let t = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
        Types(t.iter().map(|(e, t)| (e.as_bytes().into(), Bytes::from_static(t.as_bytes()))).collect())
    }
}

impl Types {
    /// The type for an extension in any case.
    pub fn find(&self, extension: &[u8]) -> Option<&Bytes> {
        let mut lower = [0; EXTENSION_BYTES_MAX];
        let lower = lower.get_mut(..extension.len())?;
        lower.copy_from_slice(extension);
        lower.make_ascii_lowercase();
        self.0.get(&*lower)
    }
}

/// The `types` of a block; a block that has any does not inherit.
#[derive(Debug, Default)]
pub struct TypesConf {
    own: Option<Arc<Types>>,
}

impl Merge for TypesConf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.own.is_none() {
            self.own.clone_from(&parent.own);
        }
    }
}

impl TypesConf {
    pub(crate) fn resolve(&self) -> Arc<Types> {
        self.own.clone().unwrap_or_default()
    }
}

/// Reads a `types` block. Its rows are not directives: each names a type and its extensions.
pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut map = FxHashMap::default();
    for row in node.children() {
        if !matches!(row.body, terrace_conf::Body::None) {
            return Err(row.error(format!("unexpected \"{{\" after \"{}\"", row.name)));
        }
        let media_type = intern::text(row.name.as_bytes());
        for extension in &row.args {
            map.insert(extension.value.to_ascii_lowercase().into(), media_type.clone());
        }
    }
    match &mut b.conf::<TypesConf>().own {
        // Several blocks at one level add up.
        Some(own) => {
            let mut all = Types(own.0.clone());
            all.0.extend(map);
            *own = Arc::new(all);
        }
        none => *none = Some(Arc::new(Types(map))),
    }
    Ok(())
}
