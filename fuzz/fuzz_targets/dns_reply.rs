//! Replies of name servers: no input panics, only a reply with the query's number and question is taken, and what is taken can
//! be asked for in turn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_net::dns::{Kind, Query, Reply};

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (is_v6, completes, rest) = input;
    let kind = if is_v6 { Kind::Aaaa } else { Kind::A };
    let query = Query::new(0x1234, "www.test", kind);
    // Few inputs would find the question by themselves.
    let mut message = rest.to_vec();
    if completes && rest.len() >= 4 {
        message = query.bytes().to_vec();
        message[2..4].copy_from_slice(&rest[..2]);
        message[6..8].copy_from_slice(&rest[2..4]);
        message.extend_from_slice(&rest[4..]);
    }
    if let Ok(reply) = query.read(&message) {
        assert!(query.has_id_of(&message));
        if let Reply::Records { addresses, alias, .. } = reply {
            assert!(addresses.iter().all(|ip| ip.is_ipv6() == is_v6));
            if let Some(alias) = alias {
                let again = Query::new(1, &alias, kind);
                assert!(!alias.is_empty() && alias.len() <= 253 && again.bytes().len() == alias.len() + 18);
            }
        }
    }
});
