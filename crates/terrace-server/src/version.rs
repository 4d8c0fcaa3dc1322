//! What the program says it is. Tools parse nginx's `-V`, so its lines keep nginx's shape and name the version of
//! nginx whose configuration and API are spoken.

/// The version of nginx whose language this is; scripts see it as `ngx.config.nginx_version`.
pub const NGINX_VERSION: &str = "1.27.1";
/// The program's own version.
pub const TERRACE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What build flags of nginx would give the same features.
const CONFIGURE_ARGUMENTS: &str = "--prefix=. --conf-path=conf/nginx.conf --error-log-path=logs/error.log \
    --pid-path=logs/nginx.pid --with-compat --with-threads --with-pcre-jit --with-http_realip_module \
    --with-http_stub_status_module --with-http_sub_module --with-http_gzip_static_module \
    --add-module=ndk_http_module --add-module=ngx_http_lua_module";

/// The line of `-v`.
pub fn line() -> String {
    format!("terrace version: terrace/{TERRACE_VERSION}\n")
}

/// The lines of `-V`.
pub fn build(rustc: &str) -> String {
    format!(
        "nginx version: nginx/{NGINX_VERSION}\n{}built by {rustc}\nconfigure arguments: {CONFIGURE_ARGUMENTS}\n",
        line()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_line_is_the_one_that_tools_look_for() {
        let text = super::build("rustc 1.95.0");
        assert!(text.starts_with("nginx version: nginx/1.27.1\n"), "{text}");
        assert!(text.contains("\nconfigure arguments: --prefix="));
    }
}
