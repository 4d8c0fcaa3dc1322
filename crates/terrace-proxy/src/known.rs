//! Directives of nginx's proxying that have no effect here, or are not carried out.

use terrace_conf::{Known, KnownKind};

const fn tuning(name: &'static str) -> Known {
    Known { name, kind: KnownKind::Tuning, doc: "Responses are streamed and never spooled to files." }
}

const fn missing(name: &'static str) -> Known {
    Known { name, kind: KnownKind::NotCarriedOut, doc: "Not carried out yet." }
}

/// All of them, for [`terrace_conf::Registry::new`].
pub static KNOWN: &[Known] = &[
    tuning("proxy_max_temp_file_size"),
    tuning("proxy_temp_file_write_size"),
    tuning("proxy_temp_path"),
    tuning("proxy_send_lowat"),
    tuning("proxy_headers_hash_max_size"),
    tuning("proxy_headers_hash_bucket_size"),
    missing("proxy_cache"),
    missing("proxy_cache_background_update"),
    missing("proxy_cache_bypass"),
    missing("proxy_cache_convert_head"),
    missing("proxy_cache_key"),
    missing("proxy_cache_lock"),
    missing("proxy_cache_lock_age"),
    missing("proxy_cache_lock_timeout"),
    missing("proxy_cache_max_range_offset"),
    missing("proxy_cache_methods"),
    missing("proxy_cache_min_uses"),
    missing("proxy_cache_path"),
    missing("proxy_cache_purge"),
    missing("proxy_cache_revalidate"),
    missing("proxy_cache_use_stale"),
    missing("proxy_cache_valid"),
    missing("proxy_no_cache"),
    missing("proxy_socket_keepalive"),
    missing("proxy_store"),
    missing("proxy_store_access"),
];
