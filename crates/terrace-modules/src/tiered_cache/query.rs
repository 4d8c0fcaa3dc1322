//! The arguments of a request, decoded: what an operator asks the cache for by `key=…&version=…`.
//!
//! Escapes `%xx` are decoded and `+` is a blank, as in forms; an escape that is broken stands for itself.

/// The arguments in their order, names and values decoded. One without `=` has an empty value.
pub(super) fn arguments(query: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split(|b| *b == b'&').filter(|it| !it.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        let mut next = || decoded(parts.next().unwrap_or_default());
        (next(), next())
    })
}

/// Whether the value of a switch says yes.
pub(super) fn is_on(value: &[u8]) -> bool {
    !matches!(value, b"" | b"0" | b"off")
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_decoded() {
        let text = |(name, value): (Vec<u8>, Vec<u8>)| {
            format!("{}={}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value))
        };
        let all: Vec<_> = arguments(b"key=a%2Fb+c&&all&x=1=2&bad=%4&%41=%zz").map(text).collect();
        assert_eq!(all, ["key=a/b c", "all=", "x=1=2", "bad=%4", "A=%zz"]);
        assert_eq!(arguments(b"").count(), 0);
    }
}
