//! The scripts, and how they are called: by their hash, and whole when the server does not know them.
//!
//! Each touches exactly one key, so that it runs in a cluster, and is one atomic step. The `#!lua` line makes a server that is no
//! master refuse a script before it begins, also where it would have found nothing to write.

use std::sync::LazyLock;

use ::redis::Cmd;
use sha1::{Digest, Sha1};

use super::names::wide;

/// A script and its hash.
pub(super) struct Script {
    body: &'static str,
    hash: String,
}

/// An argument of a script.
pub(super) enum Arg<'a> {
    /// Text or binary.
    Bytes(&'a [u8]),
    /// A version or token, in 20 digits.
    Wide(u64),
    /// A time or a count.
    Number(u64),
}

macro_rules! script {
    ($doc:literal, $name:ident, $($part:expr),+) => {
        #[doc = $doc]
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(concat!($($part),+)));
    };
}

script!("A lookup.", GET, "#!lua\n", include_str!("scripts/state.lua"), include_str!("scripts/get.lua"));
script!(
    "A fill under a lease.",
    FILL,
    "#!lua\n",
    include_str!("scripts/state.lua"),
    include_str!("scripts/fill.lua")
);
script!(
    "A fill without a lease.",
    SET,
    "#!lua\n",
    include_str!("scripts/state.lua"),
    include_str!("scripts/set.lua")
);
// Giving back and dropping work when memory is full.
script!(
    "A lease given back.",
    RELEASE,
    "#!lua flags=allow-oom\n",
    include_str!("scripts/state.lua"),
    include_str!("scripts/release.lua")
);
script!(
    "An invalidation of one key.",
    INVALIDATE,
    "#!lua flags=allow-oom\n",
    include_str!("scripts/state.lua"),
    include_str!("scripts/invalidate.lua")
);
script!("A key put under a tag.", TAG, "#!lua\n", include_str!("scripts/tag.lua"));
script!(
    "An invalidation of a tag remembered.",
    VOID_TAG,
    "#!lua flags=allow-oom\n",
    include_str!("scripts/void_tag.lua")
);

impl Script {
    fn new(body: &'static str) -> Self {
        let hash = Sha1::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { body, hash }
    }

    /// The call on one key; `whole` sends the script itself.
    pub(super) fn call(&self, whole: bool, key: &[u8], args: &[Arg<'_>]) -> Cmd {
        let mut command = if whole { ::redis::cmd("EVAL") } else { ::redis::cmd("EVALSHA") };
        command.arg(if whole { self.body } else { &self.hash }).arg(1).arg(key);
        for arg in args {
            match arg {
                Arg::Bytes(bytes) => command.arg(*bytes),
                Arg::Wide(number) => command.arg(&wide(*number)[..]),
                Arg::Number(number) => command.arg(*number),
            };
        }
        command
    }
}
