//! The arguments of directives about TLS, of servers and of connections to others alike.

use terrace_conf::{ConfError, Node, Position};
use terrace_net::tls::{Protocols, unknown_ciphers};

use crate::Builder;

/// A file's name and where it is named.
pub type Pem = (String, Position);

/// A file named by a directive's only argument.
///
/// # Errors
/// A name with variables.
pub fn file(n: &Node) -> Result<Pem, ConfError> {
    let text = n.text(0)?;
    if text.contains('$') && !text.starts_with("data:-----") {
        return Err(n.error(format!("variables in \"{}\" are known but not carried out", n.name)));
    }
    Ok((text.to_owned(), n.at.clone()))
}

/// `ssl_ciphers` and its like, with a warning for what is left out.
///
/// # Errors
/// None of its own.
pub fn ciphers(b: &mut Builder, n: &Node) -> Result<String, ConfError> {
    let list = n.text(0)?;
    let unknown = unknown_ciphers(list);
    if !unknown.is_empty() {
        let unknown = unknown.join(":");
        b.warn(&n.at, &format!("\"{unknown}\" in \"{}\" is not supported and left out", n.name));
    }
    Ok(list.to_owned())
}

/// `ssl_protocols` and its like. Versions that nobody should speak any more are left out with a warning.
///
/// # Errors
/// A word that is no version, or none left.
pub fn protocols(b: &mut Builder, n: &Node) -> Result<Protocols, ConfError> {
    let mut wanted = Protocols { tls12: false, tls13: false };
    for arg in &n.args {
        let word = arg.text()?;
        match word.to_ascii_lowercase().as_str() {
            "tlsv1.2" => wanted.tls12 = true,
            "tlsv1.3" => wanted.tls13 = true,
            "sslv2" | "sslv3" | "tlsv1" | "tlsv1.1" => {
                b.warn(&n.at, &format!("\"{word}\" in \"{}\" is not supported and left out", n.name));
            }
            _ => return Err(n.invalid_parameter(arg)),
        }
    }
    if wanted.is_empty() {
        return Err(n.error(format!("\"{}\" leaves neither TLSv1.2 nor TLSv1.3", n.name)));
    }
    Ok(wanted)
}
