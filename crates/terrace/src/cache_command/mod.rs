//! `terrace cache`: asks and changes the tiered caches of a running server through its `tiered_cache_api`.
//!
//! What was asked for goes to the standard output, everything else to the standard error. The exit status is 0; 1 when there
//! is no value or keys could not be loaded; 2 when the server did not do what it was asked.

mod args;
mod client;
mod warm;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use args::{Args, Command, USAGE};
use client::{Client, Reply, escaped};

/// The environment's name for `-u`.
const URL: &str = "TERRACE_CACHE_URL";

/// There is no value, or not for all.
const NOTHING: ExitCode = ExitCode::FAILURE;

/// Runs the command. `words` are those behind `cache`.
pub fn run(words: impl IntoIterator<Item = String>) -> ExitCode {
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("terrace cache: {error:#}; --help says more");
            return ExitCode::from(2);
        }
    };
    match carry_out(&args) {
        Ok(code) => code,
        // Whoever reads the output has seen enough.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("terrace cache: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(args: &Args) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if args.command == Command::Help {
        out.write_all(USAGE.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let url = args.url.clone().or_else(|| std::env::var(URL).ok());
    let url = url.with_context(|| format!("no URL: give -u or set {URL}"))?;
    let client = Client::new(&url, args.timeout)?;
    match &args.command {
        Command::Help => Ok(ExitCode::SUCCESS),
        Command::Get { cache, key, load, params } => {
            let mut path = format!("/{}?key={}", escaped(cache), escaped(key));
            if *load {
                path.push_str("&load=1");
            }
            for (name, value) in params {
                path.push_str(&format!("&param.{}={}", escaped(name), escaped(value)));
            }
            get(&mut out, &client.call("GET", &path, "")?, args.json)
        }
        Command::Purge { cache, scopes, version, refresh } => {
            let mut more = String::new();
            if let Some(version) = version {
                more = format!("&version={}", escaped(version));
            }
            more.push_str(if *refresh { "&refresh=1" } else { "" });
            let path = format!("/{}/purge", escaped(cache));
            purge(&mut out, &client, &path, scopes, &more, args.json)
        }
        Command::Stats { cache } => {
            let path = cache.as_ref().map_or_else(|| "/".to_owned(), |it| format!("/{}", escaped(it)));
            let stats = done(client.call("GET", &path, "")?)?;
            print_stats(&mut out, cache.as_deref(), &stats, args.json)
        }
        Command::Warm { cache, file, concurrency, param } => {
            let path = format!("/{}/warm?concurrency={concurrency}", escaped(cache));
            let keys = warm::open(file.as_deref())?;
            let total = warm::run(&client, &path, keys, param.as_deref())?;
            total.print(&mut out, args.json)?;
            Ok(if total.failed == 0 { ExitCode::SUCCESS } else { NOTHING })
        }
    }
}

/// The body of an answer that says yes.
fn done(reply: Reply) -> Result<Json> {
    match (reply.status, reply.body["error"].as_str()) {
        (200, _) => Ok(reply.body),
        (_, Some(error)) => bail!("{error}"),
        (status, None) => bail!("the server answers {status}"),
    }
}

/// The value goes out as it is; how it came about is told beside.
fn get(out: &mut impl Write, reply: &Reply, json: bool) -> Result<ExitCode> {
    let body = &reply.body;
    let Some(state) = body["state"].as_str() else {
        bail!("{}", body["error"].as_str().unwrap_or("the answer is not understood"));
    };
    if json {
        writeln!(out, "{body}")?;
    } else if let Some(value) = body["value"].as_str() {
        writeln!(out, "{value}")?;
    } else if let Some(value) = body["value_base64"].as_str() {
        writeln!(out, "{value}")?;
        eprintln!("the value is no text; this is its Base64");
    }
    if !json {
        eprintln!("{}", told(state, body));
    }
    Ok(if state == "value" { ExitCode::SUCCESS } else { NOTHING })
}

fn told(state: &str, body: &Json) -> String {
    let seconds = |name: &str| body[name].as_u64().unwrap_or(0) as f64 / 1000.0;
    let level = body["level"].as_str().unwrap_or_default();
    let life = match body["ttl_ms"].as_u64() {
        Some(0) | None => "no longer fresh".to_owned(),
        Some(_) => format!("fresh for {:.1} s", seconds("ttl_ms")),
    };
    match state {
        "none" => "no level has it".to_owned(),
        "absent" => format!("known to be absent: {level}, {:.1} s old, {life}", seconds("age_ms")),
        _ => format!("{level}, {:.1} s old, {life}", seconds("age_ms")),
    }
}

fn purge(
    out: &mut impl Write,
    client: &Client,
    path: &str,
    scopes: &[(&'static str, String)],
    more: &str,
    json: bool,
) -> Result<ExitCode> {
    let mut purged = Some(0);
    for (name, value) in scopes {
        let reply = client.call("POST", &format!("{path}?{name}={}{more}", escaped(value)), "")?;
        let here = reply.body["purged_here"].as_bool() == Some(true);
        let body = done(reply).with_context(|| {
            format!("{name}={value}: {}", if here { "done in that process only" } else { "not done" })
        })?;
        purged = purged.and_then(|sum| Some(sum + body["purged"].as_u64()?));
    }
    match purged {
        _ if json => writeln!(out, "{}", serde_json::json!({ "purged": purged }))?,
        Some(count) => writeln!(out, "{count} purged")?,
        None => writeln!(out, "purged")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each level of each cache.
fn print_stats(out: &mut impl Write, cache: Option<&str>, stats: &Json, json: bool) -> Result<ExitCode> {
    if json {
        writeln!(out, "{stats}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let all: Vec<(&str, &Json)> = match cache {
        Some(name) => vec![(name, stats)],
        None => stats.as_object().into_iter().flatten().map(|(name, it)| (&**name, it)).collect(),
    };
    for (name, levels) in all {
        writeln!(out, "{name}")?;
        for (level, counters) in levels.as_object().into_iter().flatten() {
            let Some(counters) = counters.as_object() else { continue };
            let words: Vec<String> = counters.iter().map(|(name, value)| word(name, value)).collect();
            writeln!(out, "  {level:7} {}", words.join(" "))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `hits=3`; of latencies, the mean.
fn word(name: &str, value: &Json) -> String {
    match (value, value["count"].as_u64(), value["sum_us"].as_u64()) {
        (_, Some(count), Some(sum_us)) => format!("{name}={}us", sum_us.checked_div(count).unwrap_or(0)),
        (Json::String(text), ..) => format!("{name}={text}"),
        _ => format!("{name}={value}"),
    }
}
