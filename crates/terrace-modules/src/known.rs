//! Directives of nginx's modules that Terrace knows by name only.
//!
//! Those that merely tune nginx's own machinery are accepted with a warning, so that a file need not be changed. A
//! feature that is missing is an error: a server that left it out in silence would not do what its file says.

use terrace_conf::{Known, KnownKind};

macro_rules! known {
    ($($kind:ident $doc:literal: $($name:literal)*;)*) => {
        &[$($(Known { name: $name, kind: KnownKind::$kind, doc: $doc },)*)*]
    };
}

/// All of them, for [`terrace_conf::Registry::new`].
#[rustfmt::skip]
pub static KNOWN: &[Known] = known! {
    Tuning "Tunes nginx's processes; Terrace's workers are threads of one process.":
        "timer_resolution" "lock_file" "debug_points" "worker_priority" "worker_cpu_affinity" "worker_rlimit_core"
        "worker_aio_requests" "pcre_jit" "google_perftools_profiles" "quic_bpf";
    Tuning "What the module does is built in, or its directives are reported on their own.":
        "load_module";
    Tuning "Tunes nginx's event loop; each worker has a listener of its own here.":
        "use" "multi_accept" "accept_mutex" "accept_mutex_delay" "debug_connection" "epoll_events" "devpoll_changes"
        "devpoll_events" "kqueue_changes" "kqueue_events" "eventport_events" "iocp_threads" "post_acceptex"
        "acceptex_read";
    Tuning "Sizes a hash table of nginx; tables grow as needed here.":
        "variables_hash_max_size" "variables_hash_bucket_size" "server_names_hash_max_size"
        "server_names_hash_bucket_size" "types_hash_max_size" "types_hash_bucket_size" "map_hash_max_size"
        "map_hash_bucket_size" "referer_hash_max_size" "referer_hash_bucket_size";
    Tuning "Tunes how nginx reads and sends files.":
        "sendfile" "sendfile_max_chunk" "aio" "aio_write" "directio" "directio_alignment" "read_ahead"
        "output_buffers" "open_file_cache" "open_file_cache_valid" "open_file_cache_min_uses"
        "open_file_cache_errors" "open_file_cache_events" "open_log_file_cache";
    Tuning "Tunes how nginx uses its connections and memory.":
        "tcp_nopush" "tcp_nodelay" "postpone_output" "send_lowat" "connection_pool_size" "request_pool_size"
        "reset_timedout_connection" "lingering_close" "keepalive_disable" "keepalive_min_timeout"
        "client_body_in_single_buffer" "client_body_early_read" "subrequest_output_buffer_size"
        "chunked_transfer_encoding";
    Tuning "Works around browsers that are gone.":
        "msie_padding" "msie_refresh";
    Tuning "Tunes a compression that is configured by other directives.":
        "gzip_buffers" "gzip_hash" "gzip_no_buffer" "gzip_window" "postpone_gzipping" "gunzip_buffers";
    Tuning "Tunes TLS, which is configured by other directives.":
        "ssl_certificate_cache" "ssl_object_cache_inheritable" "ssl_ocsp_cache" "ssl_handshake_timeout" "ssl_dhparam";
    Tuning "Early data is not taken: clients send it again after the handshake.":
        "ssl_early_data";
    Tuning "Proofs by OCSP come from ssl_stapling_file or scripts: authorities are not asked for them.":
        "ssl_stapling_responder" "ssl_stapling_verify";
    Tuning "Tunes HTTP/2 or HTTP/3, which are configured by other directives.":
        "http2_recv_buffer_size" "http2_pool_size" "http2_max_concurrent_streams" "http2_max_concurrent_pushes"
        "http2_max_requests" "http2_max_field_size" "http2_max_header_size" "http2_body_preread_size"
        "http2_streams_index_size" "http2_recv_timeout" "http2_idle_timeout" "http2_chunk_size" "http2_push"
        "http2_push_preload" "http3_max_concurrent_streams" "http3_stream_buffer_size" "quic_gso"
        "quic_active_connection_id_limit";
    Tuning "Where nginx would keep temporary files of a protocol that is configured by other directives.":
        "fastcgi_temp_path" "uwsgi_temp_path" "scgi_temp_path";

    NotCarriedOut "Core: not carried out yet.":
        "max_headers" "auth_delay" "early_hints" "post_action"
        "disable_symlinks" "ssl_engine";
    NotCarriedOut "This part of TLS is not carried out.":
        "ssl" "ssl_certificate_compression" "ssl_ech_file" "ssl_ocsp" "ssl_ocsp_responder" "ssl_conf_command" "ssl_alpn" "ssl_preread";
    NotCarriedOut "This part of Lua's TLS is not carried out.":
        "lua_ssl_conf_command";
    NotCarriedOut "HTTP/2 and HTTP/3 are not carried out yet.":
        "http2" "http3" "http3_hq" "quic_retry" "quic_host_key";
    NotCarriedOut "Limits by key are not carried out yet.":
        "limit_req" "limit_req_zone" "limit_req_log_level" "limit_req_status" "limit_req_dry_run" "limit_conn"
        "limit_conn_zone" "limit_conn_log_level" "limit_conn_status" "limit_conn_dry_run";
    NotCarriedOut "This check of access is not carried out yet.":
        "auth_basic" "auth_basic_user_file" "secure_link"
        "secure_link_md5" "secure_link_secret";
    NotCarriedOut "This change of responses is not carried out yet.":
        "add_trailer" "add_before_body" "add_after_body" "addition_types" "sub_filter" "sub_filter_types" "sub_filter_once"
        "sub_filter_last_modified" "ssi" "ssi_silent_errors"
        "ssi_ignore_recycled_buffers" "ssi_min_file_chunk" "ssi_value_length" "ssi_types" "ssi_last_modified"
        "slice" "userid" "userid_service" "userid_name" "userid_domain" "userid_path" "userid_expires"
        "userid_flags" "userid_p3p" "userid_mark";
    NotCarriedOut "This kind of content is not carried out yet.":
        "autoindex" "autoindex_format" "autoindex_localtime" "autoindex_exact_size" "random_index"
        "stub_status" "mirror" "mirror_request_body";
    NotCarriedOut "Variables about the client are not carried out yet.": "modern_browser"
        "ancient_browser" "modern_browser_value" "ancient_browser_value";
    NotCarriedOut "FastCGI is not carried out yet.":
        "fastcgi_pass" "fastcgi_index" "fastcgi_split_path_info" "fastcgi_param" "fastcgi_catch_stderr"
        "fastcgi_keep_conn" "fastcgi_store" "fastcgi_store_access" "fastcgi_buffering" "fastcgi_request_buffering"
        "fastcgi_ignore_client_abort" "fastcgi_bind" "fastcgi_socket_keepalive" "fastcgi_socket_rcvbuf"
        "fastcgi_socket_sndbuf" "fastcgi_connect_timeout" "fastcgi_send_timeout" "fastcgi_send_lowat"
        "fastcgi_buffer_size" "fastcgi_pass_request_headers" "fastcgi_pass_request_body"
        "fastcgi_intercept_errors" "fastcgi_read_timeout" "fastcgi_buffers" "fastcgi_busy_buffers_size"
        "fastcgi_force_ranges" "fastcgi_limit_rate" "fastcgi_cache" "fastcgi_cache_key" "fastcgi_cache_path"
        "fastcgi_cache_bypass" "fastcgi_no_cache" "fastcgi_cache_valid" "fastcgi_cache_min_uses"
        "fastcgi_cache_max_range_offset" "fastcgi_cache_use_stale" "fastcgi_cache_methods" "fastcgi_cache_lock"
        "fastcgi_cache_lock_timeout" "fastcgi_cache_lock_age" "fastcgi_cache_revalidate"
        "fastcgi_cache_background_update" "fastcgi_max_temp_file_size" "fastcgi_temp_file_write_size"
        "fastcgi_next_upstream" "fastcgi_next_upstream_tries" "fastcgi_next_upstream_timeout"
        "fastcgi_pass_header" "fastcgi_hide_header" "fastcgi_ignore_headers";
    NotCarriedOut "uwsgi is not carried out yet.":
        "uwsgi_pass" "uwsgi_modifier1" "uwsgi_modifier2" "uwsgi_param" "uwsgi_string" "uwsgi_store"
        "uwsgi_store_access" "uwsgi_buffering" "uwsgi_request_buffering" "uwsgi_ignore_client_abort" "uwsgi_bind"
        "uwsgi_socket_keepalive" "uwsgi_socket_rcvbuf" "uwsgi_socket_sndbuf" "uwsgi_connect_timeout"
        "uwsgi_send_timeout" "uwsgi_buffer_size" "uwsgi_pass_request_headers" "uwsgi_pass_request_body"
        "uwsgi_intercept_errors" "uwsgi_read_timeout" "uwsgi_buffers" "uwsgi_busy_buffers_size"
        "uwsgi_force_ranges" "uwsgi_limit_rate" "uwsgi_cache" "uwsgi_cache_key" "uwsgi_cache_path"
        "uwsgi_cache_bypass" "uwsgi_no_cache" "uwsgi_cache_valid" "uwsgi_cache_min_uses"
        "uwsgi_cache_max_range_offset" "uwsgi_cache_use_stale" "uwsgi_cache_methods" "uwsgi_cache_lock"
        "uwsgi_cache_lock_timeout" "uwsgi_cache_lock_age" "uwsgi_cache_revalidate"
        "uwsgi_cache_background_update" "uwsgi_max_temp_file_size" "uwsgi_temp_file_write_size"
        "uwsgi_next_upstream" "uwsgi_next_upstream_tries" "uwsgi_next_upstream_timeout" "uwsgi_pass_header"
        "uwsgi_hide_header" "uwsgi_ignore_headers" "uwsgi_ssl_session_reuse" "uwsgi_ssl_protocols"
        "uwsgi_ssl_ciphers" "uwsgi_ssl_name" "uwsgi_ssl_server_name" "uwsgi_ssl_verify" "uwsgi_ssl_verify_depth"
        "uwsgi_ssl_trusted_certificate" "uwsgi_ssl_crl" "uwsgi_ssl_certificate" "uwsgi_ssl_certificate_key"
        "uwsgi_ssl_certificate_cache" "uwsgi_ssl_password_file" "uwsgi_ssl_conf_command";
    NotCarriedOut "SCGI is not carried out yet.":
        "scgi_pass" "scgi_param" "scgi_store" "scgi_store_access" "scgi_buffering" "scgi_request_buffering"
        "scgi_ignore_client_abort" "scgi_bind" "scgi_socket_keepalive" "scgi_socket_rcvbuf" "scgi_socket_sndbuf"
        "scgi_connect_timeout" "scgi_send_timeout" "scgi_buffer_size" "scgi_pass_request_headers"
        "scgi_pass_request_body" "scgi_intercept_errors" "scgi_read_timeout" "scgi_buffers"
        "scgi_busy_buffers_size" "scgi_force_ranges" "scgi_limit_rate" "scgi_cache" "scgi_cache_key"
        "scgi_cache_path" "scgi_cache_bypass" "scgi_no_cache" "scgi_cache_valid" "scgi_cache_min_uses"
        "scgi_cache_max_range_offset" "scgi_cache_use_stale" "scgi_cache_methods" "scgi_cache_lock"
        "scgi_cache_lock_timeout" "scgi_cache_lock_age" "scgi_cache_revalidate" "scgi_cache_background_update"
        "scgi_max_temp_file_size" "scgi_temp_file_write_size" "scgi_next_upstream" "scgi_next_upstream_tries"
        "scgi_next_upstream_timeout" "scgi_pass_header" "scgi_hide_header" "scgi_ignore_headers";
    NotCarriedOut "gRPC is not carried out yet.":
        "grpc_pass" "grpc_bind" "grpc_socket_keepalive" "grpc_socket_rcvbuf" "grpc_socket_sndbuf"
        "grpc_connect_timeout" "grpc_send_timeout" "grpc_intercept_errors" "grpc_buffer_size" "grpc_read_timeout"
        "grpc_next_upstream" "grpc_next_upstream_tries" "grpc_next_upstream_timeout" "grpc_set_header"
        "grpc_pass_header" "grpc_hide_header" "grpc_ignore_headers" "grpc_ssl_session_reuse" "grpc_ssl_protocols"
        "grpc_ssl_ciphers" "grpc_ssl_name" "grpc_ssl_server_name" "grpc_ssl_verify" "grpc_ssl_verify_depth"
        "grpc_ssl_trusted_certificate" "grpc_ssl_crl" "grpc_ssl_certificate" "grpc_ssl_certificate_key"
        "grpc_ssl_certificate_cache" "grpc_ssl_password_file" "grpc_ssl_conf_command";
    NotCarriedOut "memcached is not carried out yet.":
        "memcached_socket_keepalive";
    NotCarriedOut "Tunnels are not carried out yet.":
        "tunnel_pass" "tunnel_bind" "tunnel_socket_keepalive" "tunnel_socket_rcvbuf" "tunnel_socket_sndbuf"
        "tunnel_connect_timeout" "tunnel_send_timeout" "tunnel_send_lowat" "tunnel_buffer_size"
        "tunnel_read_timeout" "tunnel_next_upstream" "tunnel_next_upstream_tries" "tunnel_next_upstream_timeout";
    NotCarriedOut "Proxying of TCP, UDP and mail is not carried out.":
        "stream" "mail" "pass" "proxy" "proxy_timeout" "proxy_protocol" "proxy_protocol_timeout" "preread_timeout"
        "preread_buffer_size" "proxy_half_close" "proxy_requests" "proxy_responses" "proxy_upload_rate"
        "proxy_download_rate" "proxy_downstream_buffer" "proxy_upstream_buffer" "proxy_ssl" "proxy_ssl_alpn"
        "auth_http" "auth_http_timeout" "auth_http_header" "auth_http_pass_client_cert" "protocol"
        "max_errors" "imap_client_buffer" "imap_capabilities" "imap_auth" "pop3_capabilities" "pop3_auth"
        "proxy_buffer" "proxy_pass_error_message" "xclient" "proxy_smtp_auth" "smtp_client_buffer"
        "smtp_greeting_delay" "smtp_capabilities" "smtp_auth" "starttls";
    NotCarriedOut "Reading the error log from Lua is not carried out yet.":
        "lua_capture_error_log";
    Foreign "belongs to a module that nginx is built without unless asked for, and that Terrace does not have":
        "image_filter" "image_filter_jpeg_quality" "image_filter_webp_quality" "image_filter_sharpen"
        "image_filter_transparency" "image_filter_interlace" "image_filter_buffer" "xml_entities"
        "xml_external_entities" "xslt_stylesheet" "xslt_param" "xslt_string_param" "xslt_types"
        "xslt_last_modified" "perl" "perl_modules" "perl_require" "perl_set" "geoip_country" "geoip_org"
        "geoip_city" "geoip_proxy" "geoip_proxy_recursive" "flv" "mp4" "mp4_buffer_size" "mp4_max_buffer_size"
        "mp4_start_key_frame" "mp4_limit_rate" "mp4_limit_rate_after" "degradation" "degrade";
    Foreign "belongs to nginx's commercial version":
        "auth_jwt" "auth_jwt_key_file" "least_time" "sticky" "sticky_cookie_insert" "queue" "ntlm";
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_listed_once_and_belong_to_no_module() {
        let modules = crate::ALL.iter().chain(crate::LATE);
        let carried_out: BTreeSet<_> = modules.flat_map(|m| m.directives()).map(|d| d.name).collect();
        let mut seen = BTreeSet::new();
        for known in KNOWN {
            assert!(seen.insert(known.name), "\"{}\" stands twice", known.name);
            assert!(!carried_out.contains(known.name), "\"{}\" is carried out", known.name);
        }
    }
}
