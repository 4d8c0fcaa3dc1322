//! Where Lua code runs: the phases as scripts see them, as bits so that an API can name those it allows.

/// A phase of Lua code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LuaPhase {
    /// `init_by_lua*`
    Init = 1,
    /// `init_worker_by_lua*`
    InitWorker = 1 << 1,
    /// `set_by_lua*`
    Set = 1 << 2,
    /// `rewrite_by_lua*`
    Rewrite = 1 << 3,
    /// `access_by_lua*`
    Access = 1 << 4,
    /// `content_by_lua*`
    Content = 1 << 5,
    /// `header_filter_by_lua*`
    HeaderFilter = 1 << 6,
    /// `body_filter_by_lua*`
    BodyFilter = 1 << 7,
    /// `log_by_lua*`
    Log = 1 << 8,
    /// `ngx.timer.*`
    Timer = 1 << 9,
    /// `balancer_by_lua*`
    Balancer = 1 << 10,
    /// `server_rewrite_by_lua*`
    ServerRewrite = 1 << 11,
    /// `exit_worker_by_lua*`
    ExitWorker = 1 << 12,
    /// `precontent_by_lua*`
    Precontent = 1 << 13,
    /// `ssl_client_hello_by_lua*`
    SslClientHello = 1 << 14,
    /// `ssl_certificate_by_lua*`
    SslCertificate = 1 << 15,
    /// `ssl_session_fetch_by_lua*`
    SslSessionFetch = 1 << 16,
    /// `ssl_session_store_by_lua*`
    SslSessionStore = 1 << 17,
    /// `proxy_ssl_certificate_by_lua*`
    ProxySslCertificate = 1 << 18,
    /// `proxy_ssl_verify_by_lua*`
    ProxySslVerify = 1 << 19,
}

/// The phases in which a response may be made.
pub const RESPONDING: u32 = LuaPhase::Rewrite as u32
    | LuaPhase::ServerRewrite as u32
    | LuaPhase::Access as u32
    | LuaPhase::Precontent as u32
    | LuaPhase::Content as u32;

/// The phases of handshakes, with a client before any request, or with a server.
pub const HANDSHAKE: u32 = LuaPhase::SslClientHello as u32
    | LuaPhase::SslCertificate as u32
    | LuaPhase::SslSessionFetch as u32
    | LuaPhase::SslSessionStore as u32
    | LuaPhase::ProxySslCertificate as u32
    | LuaPhase::ProxySslVerify as u32;

/// The phases that belong to a client's request.
pub const REQUEST: u32 = RESPONDING
    | LuaPhase::Set as u32
    | LuaPhase::HeaderFilter as u32
    | LuaPhase::BodyFilter as u32
    | LuaPhase::Log as u32
    | LuaPhase::Balancer as u32
    | LuaPhase::ProxySslCertificate as u32
    | LuaPhase::ProxySslVerify as u32;
