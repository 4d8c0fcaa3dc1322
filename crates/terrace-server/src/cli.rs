//! The command line: nginx's flags, bundled (`-tq`) or apart, a value attached (`-p/srv`) or the next word.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use thiserror::Error;

/// What the command line asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cli {
    /// `-h`, `-?`.
    pub help: bool,
    /// `-v`, `-V`, `-h`.
    pub version: bool,
    /// `-V`.
    pub build: bool,
    /// `-t`, `-T`.
    pub test: bool,
    /// `-T`.
    pub dump: bool,
    /// `-q`.
    pub quiet: bool,
    /// `-s`.
    pub signal: Option<SignalCommand>,
    /// `-p`.
    pub prefix: Option<PathBuf>,
    /// `-c`.
    pub conf: Option<PathBuf>,
    /// `-e`.
    pub error_log: Option<PathBuf>,
    /// `-g`.
    pub globals: Option<OsString>,
}

/// What `-s` asks a running server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalCommand {
    /// Stop at once.
    Stop,
    /// Finish what is under way, then stop.
    Quit,
    /// Open log files anew.
    Reopen,
    /// Read the configuration anew.
    Reload,
}

/// Why a command line makes no sense, in nginx's words.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CliError {
    /// No such flag, or a word that is none.
    #[error("invalid option: \"{0}\"")]
    Invalid(String),
    /// A flag's value is missing.
    #[error("option \"-{0}\" requires {1}")]
    Requires(char, &'static str),
}

impl Cli {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// An unknown flag, a word that is none, or a value that is missing.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, CliError> {
        let mut cli = Cli::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes.first() != Some(&b'-') {
                return Err(CliError::Invalid(word.to_string_lossy().into_owned()));
            }
            for (i, flag) in bytes.iter().enumerate().skip(1) {
                if cli.switch(*flag) {
                    continue;
                }
                let rest = OsStr::from_bytes(&bytes[i + 1..]);
                let value = if rest.is_empty() { words.next() } else { Some(rest.to_owned()) };
                cli.option(*flag, value)?;
                break;
            }
        }
        Ok(cli)
    }

    fn switch(&mut self, flag: u8) -> bool {
        match flag {
            b'?' | b'h' => (self.version, self.help) = (true, true),
            b'v' => self.version = true,
            b'V' => (self.version, self.build) = (true, true),
            b't' => self.test = true,
            b'T' => (self.test, self.dump) = (true, true),
            b'q' => self.quiet = true,
            _ => return false,
        }
        true
    }

    fn option(&mut self, flag: u8, value: Option<OsString>) -> Result<(), CliError> {
        let value = value.filter(|v| !v.is_empty());
        let need = |what| value.clone().ok_or(CliError::Requires(char::from(flag), what));
        match flag {
            b'p' => self.prefix = Some(need("directory name")?.into()),
            b'c' => self.conf = Some(need("file name")?.into()),
            b'e' => self.error_log = Some(need("file name")?.into()),
            b'g' => self.globals = Some(need("parameter")?),
            b's' => {
                let name = need("parameter")?;
                self.signal = Some(match name.as_bytes() {
                    b"stop" => SignalCommand::Stop,
                    b"quit" => SignalCommand::Quit,
                    b"reopen" => SignalCommand::Reopen,
                    b"reload" => SignalCommand::Reload,
                    _ => return Err(CliError::Invalid(format!("-s {}", name.to_string_lossy()))),
                });
            }
            _ => {
                let flag = OsString::from_vec(vec![flag]);
                return Err(CliError::Invalid(flag.to_string_lossy().into_owned()));
            }
        }
        Ok(())
    }
}

/// What `-h` prints behind the version.
pub const USAGE: &str = "\
Usage: terrace [-?hvVtTq] [-s signal] [-p prefix]
               [-e filename] [-c filename] [-g directives]
       terrace cache --help

Options:
  -?,-h         : show this help and exit
  -v            : show the version and exit
  -V            : show the version and how it was built, and exit
  -t            : check the configuration and exit
  -T            : check the configuration, print it and exit
  -q            : print nothing but errors while the configuration is checked
  -s signal     : tell a running server to stop, quit, reopen or reload
  -p prefix     : where relative paths start (default: the current directory)
  -e filename   : the error log of what the configuration sends nowhere (default: logs/error.log)
  -c filename   : the configuration file (default: conf/nginx.conf)
  -g directives : directives for the main level, ahead of the file's
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, CliError> {
        Cli::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn flags_bundle_and_values_attach() {
        let cli = parse(&["-tq", "-p/srv", "-c", "a.conf", "-g", "daemon off;"]).unwrap();
        assert!(cli.test && cli.quiet && !cli.dump);
        assert_eq!(cli.prefix, Some("/srv".into()));
        assert_eq!(cli.conf, Some("a.conf".into()));
        assert_eq!(cli.globals, Some("daemon off;".into()));
        assert_eq!(parse(&["-sreload"]).unwrap().signal, Some(SignalCommand::Reload));
    }

    #[test]
    fn nonsense_is_refused_in_nginx_words() {
        let text = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert_eq!(text(&["start"]), "invalid option: \"start\"");
        assert_eq!(text(&["-x"]), "invalid option: \"x\"");
        assert_eq!(text(&["-s", "halt"]), "invalid option: \"-s halt\"");
        assert_eq!(text(&["-p"]), "option \"-p\" requires directory name");
        assert_eq!(text(&["-c"]), "option \"-c\" requires file name");
    }
}
