//! From a request to a command: `$memc_cmd`, `$memc_key` and their kin, checked.

use std::fs;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::body::Stored;
use terrace_http::vars::VarIndex;
use terrace_http::{Builder, Request};

use super::Settings;
use super::command::{self, Name, Parts};

/// The variables. They have no value until they are set.
pub(super) struct Variables {
    command: VarIndex,
    key: VarIndex,
    value: VarIndex,
    pub(super) flags: VarIndex,
    exptime: VarIndex,
    /// `$memcached_key`
    memcached_key: VarIndex,
}

impl Variables {
    pub(super) fn define(b: &mut Builder) -> Variables {
        let mut define = |name: &str| b.vars.define_settable(name);
        Variables {
            command: define("memc_cmd"),
            key: define("memc_key"),
            value: define("memc_value"),
            flags: define("memc_flags"),
            exptime: define("memc_exptime"),
            memcached_key: define("memcached_key"),
        }
    }
}

/// A command, but for the value that a body holds.
pub(super) struct Command {
    pub(super) name: Name,
    /// Escaped.
    pub(super) key: Vec<u8>,
    flags: Vec<u8>,
    exptime: Vec<u8>,
    /// `None`: the request's body.
    value: Option<Vec<u8>>,
}

fn variable(r: &Request, index: VarIndex) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    r.append_var(index, &mut value).then_some(value)
}

fn refuse<T>(r: &Request, status: u16, message: std::fmt::Arguments<'_>) -> Result<T, u16> {
    r.log(Level::Error, message);
    Err(status)
}

/// Reads the variables. The error is a status; the log knows why.
pub(super) fn read(s: &Settings, r: &Request) -> Result<Command, u16> {
    let v = &s.variables;
    let name = if s.only_gets { get_only(r)? } else { named(s, r)? };
    let mut command = Command { name, key: Vec::new(), flags: Vec::new(), exptime: Vec::new(), value: None };
    if name.has_key() {
        let (index, shown) =
            if s.only_gets { (v.memcached_key, "memcached_key") } else { (v.key, "memc_key") };
        match variable(r, index).filter(|key| !key.is_empty()) {
            Some(key) => command::escape_key(&key, &mut command.key),
            None => return refuse(r, 500, format_args!("the \"${shown}\" variable is not set")),
        }
    }
    if name.stores() || matches!(name, Name::FlushAll | Name::Delete) {
        command.exptime = number(r, "memc_exptime", v.exptime)?;
    }
    if name.stores() {
        command.flags = number(r, "memc_flags", v.flags)?;
        command.value = variable(r, v.value);
    }
    if matches!(name, Name::Incr | Name::Decr) {
        let shown = name.text();
        let Some(value) = variable(r, v.value).filter(|value| !value.is_empty()) else {
            let text = format_args!("the \"$memc_value\" variable is required for command \"{shown}\"");
            return refuse(r, 400, text);
        };
        if !is_number::<u64>(&value) {
            let value = String::from_utf8_lossy(&value);
            let text = format_args!("variable \"$memc_value\" is invalid for incr/decr: {value}");
            return refuse(r, 400, text);
        }
        command.value = Some(value);
    }
    Ok(command)
}

/// `memcached_pass` gets, whatever else is asked for.
fn get_only(r: &Request) -> Result<Name, u16> {
    if matches!(&r.method()[..], b"GET" | b"HEAD") { Ok(Name::Get) } else { Err(405) }
}

fn named(s: &Settings, r: &Request) -> Result<Name, u16> {
    let text = variable(r, s.variables.command).filter(|text| !text.is_empty());
    let name = match &text {
        Some(text) => Name::from_text(text),
        None => Name::from_method(&r.method()),
    };
    let Some(name) = name else {
        return match text {
            Some(text) => {
                let text = String::from_utf8_lossy(&text);
                refuse(r, 400, format_args!("ngx_memc: unknown $memc_cmd \"{text}\""))
            }
            None => {
                let method = String::from_utf8_lossy(&r.method()).into_owned();
                let text = format_args!("ngx_memc: $memc_cmd variable not found for HTTP {method} requests");
                refuse(r, 400, text)
            }
        };
    };
    let allowed = s.plain.allowed.as_deref();
    if allowed.is_some_and(|allowed| !allowed.contains(&name)) {
        let shown = name.text();
        return refuse(r, 403, format_args!("ngx_memc: memcached command \"{shown}\" not allowed"));
    }
    Ok(name)
}

/// A variable that is a number of 32 bits, or empty.
fn number(r: &Request, name: &str, index: VarIndex) -> Result<Vec<u8>, u16> {
    let text = variable(r, index).unwrap_or_default();
    if !text.is_empty() && !is_number::<u32>(&text) {
        let text = String::from_utf8_lossy(&text);
        return refuse(r, 400, format_args!("variable \"${name}\" takes invalid value: {text}"));
    }
    Ok(text)
}

fn is_number<T: std::str::FromStr>(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
}

impl Command {
    /// The bytes to send; the body has been read. The error is a status.
    pub(super) fn bytes(&self, r: &Request) -> Result<Bytes, u16> {
        let stored = r.body.stored().borrow();
        let from_file;
        let value: &[u8] = match (&self.value, &*stored) {
            (Some(value), _) => value,
            (None, Stored::Memory(body)) => body,
            (None, Stored::File(file)) if self.name.stores() => {
                from_file = fs::read(file.path());
                match &from_file {
                    Ok(body) => body,
                    Err(e) => {
                        return refuse(r, 500, format_args!("reading the request body's file failed: {e}"));
                    }
                }
            }
            (None, _) => &[],
        };
        let parts = Parts { key: &self.key, flags: &self.flags, exptime: &self.exptime, value };
        let mut out = Vec::with_capacity(64 + self.key.len() + value.len());
        command::write(self.name, &parts, &mut out);
        Ok(out.into())
    }
}
