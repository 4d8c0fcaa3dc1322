//! The words behind `terrace cache`, as what is to be done.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// What is to be done, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// The URL of the API; none if neither the words nor the environment have it.
    pub url: Option<String>,
    /// JSON instead of text.
    pub json: bool,
    /// How long the server may be silent.
    pub timeout: Duration,
    /// What is to be done.
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Say how to use it.
    Help,
    /// Print one value.
    Get {
        /// The cache.
        cache: String,
        /// The key.
        key: String,
        /// Load it if no level has it.
        load: bool,
        /// The parameters of the load.
        params: Vec<(String, String)>,
    },
    /// Drop values.
    Purge {
        /// The cache.
        cache: String,
        /// The arguments of the API's calls, one call each.
        scopes: Vec<(&'static str, String)>,
        /// Values of this version and newer stay.
        version: Option<String>,
        /// Renew instead of drop.
        refresh: bool,
    },
    /// Print the counters, of one cache or all.
    Stats {
        /// The cache.
        cache: Option<String>,
    },
    /// Look keys up, so that the levels have them.
    Warm {
        /// The cache.
        cache: String,
        /// The file with the keys; none for the standard input.
        file: Option<String>,
        /// How many at once.
        concurrency: u32,
        /// The parameter that each key is the value of.
        param: Option<String>,
    },
}

/// The values of flags, and the words that are no flags.
#[derive(Default)]
struct Words {
    plain: Vec<String>,
    flags: Vec<(String, String)>,
    switches: Vec<String>,
}

/// Flags with a value.
const WITH_VALUE: &[&str] =
    &["-u", "--url", "--timeout", "--prefix", "--tag", "--version", "--concurrency", "--param"];
/// Flags without.
const SWITCHES: &[&str] = &["-h", "--help", "--json", "--load", "--all", "--refresh"];

const CONCURRENCY: u32 = 16;
const TIMEOUT: Duration = Duration::from_secs(60);

impl Args {
    /// Reads the words behind `cache`.
    ///
    /// # Errors
    /// Words that make no sense, with what is wrong.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args> {
        let mut words = Words::read(words.into_iter())?;
        let url = words.value("-u")?.or(words.value("--url")?);
        let timeout = match words.value("--timeout")? {
            None => TIMEOUT,
            Some(text) => {
                let seconds: u64 =
                    text.parse().ok().filter(|it| *it > 0).context("--timeout needs seconds")?;
                Duration::from_secs(seconds)
            }
        };
        let (json, help) = (words.switch("--json"), words.switch("-h") | words.switch("--help"));
        if help || words.plain.is_empty() {
            return Ok(Args { url, json, timeout, command: Command::Help });
        }
        let command = match words.plain.remove(0).as_str() {
            "help" => return Ok(Args { url, json, timeout, command: Command::Help }),
            "get" => words.get()?,
            "purge" => words.purge()?,
            "stats" => words.stats()?,
            "warm" => words.warm()?,
            other => bail!("unknown command \"{other}\""),
        };
        words.finish()?;
        Ok(Args { url, json, timeout, command })
    }
}

impl Words {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Words> {
        let mut read = Words::default();
        let mut only_plain = false;
        while let Some(word) = words.next() {
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (word.clone(), None),
            };
            if only_plain || !word.starts_with('-') || word == "-" {
                read.plain.push(word);
            } else if word == "--" {
                only_plain = true;
            } else if WITH_VALUE.contains(&&*name) {
                let value = attached.or_else(|| words.next());
                read.flags.push((name.clone(), value.with_context(|| format!("{name} needs a value"))?));
            } else if SWITCHES.contains(&&*word) {
                read.switches.push(word);
            } else {
                bail!("unknown option \"{word}\"");
            }
        }
        Ok(read)
    }

    fn switch(&mut self, name: &str) -> bool {
        let before = self.switches.len();
        self.switches.retain(|it| it != name);
        self.switches.len() < before
    }

    fn value(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.flags.iter().position(|(it, _)| it == name) else { return Ok(None) };
        let (_, value) = self.flags.remove(at);
        if self.flags.iter().any(|(it, _)| it == name) {
            bail!("{name} is given twice");
        }
        Ok(Some(value))
    }

    fn next(&mut self, what: &str) -> Result<String> {
        if self.plain.is_empty() {
            bail!("no {what}");
        }
        Ok(self.plain.remove(0))
    }

    fn get(&mut self) -> Result<Command> {
        let (cache, key) = (self.next("NAME")?, self.next("KEY")?);
        let pair = |word: String| {
            let (name, value) =
                word.split_once('=').with_context(|| format!("\"{word}\" is no NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        let params = std::mem::take(&mut self.plain).into_iter().map(pair).collect::<Result<Vec<_>>>()?;
        let load = self.switch("--load");
        if !load && !params.is_empty() {
            bail!("parameters are for --load");
        }
        Ok(Command::Get { cache, key, load, params })
    }

    fn purge(&mut self) -> Result<Command> {
        let cache = self.next("NAME")?;
        let mut scopes: Vec<(&str, String)> =
            std::mem::take(&mut self.plain).into_iter().map(|key| ("key", key)).collect();
        let others = [("prefix", self.value("--prefix")?), ("tag", self.value("--tag")?)];
        let given = others.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let all = self.switch("--all").then(|| ("all", "1".to_owned()));
        let more: Vec<_> = given.chain(all).collect();
        if more.len() + usize::from(!scopes.is_empty()) != 1 {
            bail!("purge needs keys, --prefix, --tag or --all, one of them");
        }
        scopes.extend(more);
        let (version, refresh) = (self.value("--version")?, self.switch("--refresh"));
        Ok(Command::Purge { cache, scopes, version, refresh })
    }

    fn stats(&mut self) -> Result<Command> {
        let cache = if self.plain.is_empty() { None } else { Some(self.next("NAME")?) };
        Ok(Command::Stats { cache })
    }

    fn warm(&mut self) -> Result<Command> {
        let cache = self.next("NAME")?;
        let file = if self.plain.is_empty() { None } else { Some(self.next("FILE")?) };
        let concurrency = match self.value("--concurrency")? {
            None => CONCURRENCY,
            Some(text) => text.parse().ok().filter(|it| *it > 0).context("--concurrency needs a number")?,
        };
        let param = self.value("--param")?;
        Ok(Command::Warm { cache, file: file.filter(|it| it != "-"), concurrency, param })
    }

    /// Nothing may be left over.
    fn finish(self) -> Result<()> {
        let flags = self.flags.into_iter().map(|(name, _)| name);
        match self.plain.into_iter().chain(self.switches).chain(flags).next() {
            None => Ok(()),
            Some(word) => bail!("\"{word}\" is not for this command"),
        }
    }
}

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: terrace cache [-u URL] [--json] [--timeout SECONDS] COMMAND

Asks the tiered caches of a running server, at a location with tiered_cache_api.

Commands:
  get NAME KEY                  print the value that memory holds, else the level that the fleet shares
      --load [PARAM=VALUE]...   if neither has it, load it from the source with these parameters
  purge NAME KEY...             drop values by their keys
  purge NAME --prefix TEXT      ... of all keys that begin with a text
  purge NAME --tag TAG          ... of all values with a tag
  purge NAME --all              ... of all keys
      --version VERSION         values of this version (a number or a time) and newer stay
      --refresh                 serve the values as past their life and renew them, in place of dropping them
  stats [NAME]                  print the counters of one cache or of all
  warm NAME [FILE]              look up the keys of a file (or of the standard input), one a line; a tab and a
                                JSON object behind the key are the parameters of its load
      --param NAME              each key is also the value of this parameter
      --concurrency N           how many keys are looked up at once (default: 16)

Options:
  -u, --url URL                 where the API is, such as http://127.0.0.1:8090/cache; without it the
                                environment's TERRACE_CACHE_URL
  --json                        print what the server answered
  --timeout SECONDS             how long the server may be silent (default: 60)
  -h, --help                    print this

Exit status: 0; 1 if there is no value, or if keys could not be loaded; 2 if the server did not do it.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split(' ').map(str::to_owned))
    }

    fn command(line: &str) -> Command {
        parse(line).unwrap().command
    }

    #[test]
    fn commands() {
        let args = parse("-u http://a/ get c 7 --json --load id=7 x=a=b").unwrap();
        assert_eq!((args.url.as_deref(), args.json), (Some("http://a/"), true));
        let params = vec![("id".to_owned(), "7".to_owned()), ("x".to_owned(), "a=b".to_owned())];
        assert_eq!(args.command, Command::Get { cache: "c".into(), key: "7".into(), load: true, params });
        let scopes = vec![("key", "1".to_owned()), ("key", "-2".to_owned())];
        let (cache, version) = ("c".to_owned(), Some("5".to_owned()));
        assert_eq!(
            command("purge c --version=5 1 -- -2"),
            Command::Purge { cache, scopes, version, refresh: false }
        );
        assert_eq!(command("stats"), Command::Stats { cache: None });
        let warm = Command::Warm { cache: "c".into(), file: None, concurrency: 4, param: Some("id".into()) };
        assert_eq!(command("warm c - --concurrency 4 --param id"), warm);
        assert_eq!(command("--help get"), Command::Help);
    }

    #[test]
    fn nonsense() {
        for line in [
            "frobnicate",
            "get c",
            "get c 7 id=7",
            "get c 7 --load id",
            "get c 7 --all",
            "purge c",
            "purge c 1 --all",
            "purge c --tag a --prefix b",
            "purge c --tag",
            "stats a b",
            "warm c f --concurrency 0",
            "--timeout x stats",
            "--frob stats",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
