//! `terrace cache warm`: keys from a list, looked up in batches, so that the caches have them before readers ask.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json, json};

use super::client::Client;
use super::done;

/// How many keys go into one call, and how many bytes of them: less than the server's bounds on keys and bodies.
const BATCH_KEYS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// What the calls did together.
#[derive(Debug, Default)]
pub struct Total {
    keys: u64,
    values: u64,
    absent: u64,
    loaded: u64,
    /// Keys that could not be had.
    pub failed: u64,
}

/// Opens the list; the standard input without a name.
///
/// # Errors
/// The file cannot be read.
pub fn open(file: Option<&str>) -> Result<Box<dyn BufRead>> {
    Ok(match file {
        None => Box::new(BufReader::new(io::stdin())),
        Some(name) => Box::new(BufReader::new(File::open(name).with_context(|| name.to_owned())?)),
    })
}

/// Looks the keys up. Errors of keys are printed and counted.
///
/// # Errors
/// A line that makes no sense, or a server that does not answer.
pub fn run(client: &Client, path: &str, lines: impl BufRead, param: Option<&str>) -> Result<Total> {
    let mut total = Total::default();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (at, line) in lines.lines().enumerate() {
        let line = line.with_context(|| format!("line {}", at + 1))?;
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            continue;
        }
        batch.push(item(line, param).with_context(|| format!("line {}", at + 1))?);
        bytes += line.len();
        if batch.len() == BATCH_KEYS_MAX || bytes >= BATCH_BYTES_MAX {
            total.add(&call(client, path, &mut batch)?);
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        total.add(&call(client, path, &mut batch)?);
    }
    Ok(total)
}

fn call(client: &Client, path: &str, batch: &mut Vec<Json>) -> Result<Json> {
    let body = Json::from(std::mem::take(batch)).to_string();
    done(client.call("POST", path, &body)?)
}

/// A line: the key, and behind a tab the parameters of its load.
fn item(line: &str, param: Option<&str>) -> Result<Json> {
    let (key, given) = line.split_once('\t').unwrap_or((line, ""));
    let mut params: Map<String, Json> = match given {
        "" => Map::new(),
        _ => serde_json::from_str(given).context("the parameters are no JSON object")?,
    };
    if key.is_empty() {
        bail!("the key is empty");
    }
    if let Some(name) = param {
        params.entry(name).or_insert_with(|| key.into());
    }
    Ok(json!({ "key": key, "params": params }))
}

impl Total {
    fn add(&mut self, report: &Json) {
        let count = |name: &str| report[name].as_u64().unwrap_or(0);
        self.keys += count("keys");
        self.values += count("values");
        self.absent += count("absent");
        self.loaded += count("loaded");
        self.failed += count("failed");
        for error in report["errors"].as_array().into_iter().flatten() {
            eprintln!("{}", error.as_str().unwrap_or_default());
        }
    }

    /// Prints it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        let Total { keys, values, absent, loaded, failed } = self;
        if json {
            let all = json!({ "keys": keys, "values": values, "absent": absent, "loaded": loaded, "failed": failed });
            return writeln!(out, "{all}");
        }
        writeln!(
            out,
            "{keys} keys: {values} values, {absent} absent, {failed} failed; {loaded} loaded from the source"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = |line: &str, param| item(line, param).map(|it| it.to_string()).ok();
        assert_eq!(text("7", None).as_deref(), Some(r#"{"key":"7","params":{}}"#));
        assert_eq!(text("7", Some("id")).as_deref(), Some(r#"{"key":"7","params":{"id":"7"}}"#));
        assert_eq!(
            text("a b\t{\"id\":1}", Some("id")).as_deref(),
            Some(r#"{"key":"a b","params":{"id":1}}"#),
            "what the line says wins"
        );
        assert_eq!(text("\t{}", None), None);
        assert_eq!(text("7\t[1]", None), None);
    }
}
