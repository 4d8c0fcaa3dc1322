//! Named parameters: finds `:name` in a query and puts numbered placeholders in its place.
//!
//! Invariant: only the configured text goes through here, once, when the source is opened; no value ever does.

use super::SqlError;

/// A query with placeholders `?1`, `?2`, … and the names that they stand for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedQuery {
    pub(super) sql: String,
    /// `names[0]` is the name of `?1`.
    pub(super) names: Vec<String>,
}

impl NamedQuery {
    pub(super) fn parse(text: &str) -> Result<Self, SqlError> {
        let mut query = Self { sql: String::with_capacity(text.len()), names: Vec::new() };
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            let rest = &text[at..];
            let length = match first {
                '\'' | '"' | '`' => delimited(rest, 1, first.encode_utf8(&mut [0; 4])),
                '[' => delimited(rest, 1, "]"),
                _ if rest.starts_with("/*") => delimited(rest, 2, "*/"),
                _ if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
                _ if rest.starts_with("::") => Some(2),
                ':' => {
                    let name = name(&rest[1..]);
                    if name.is_empty() {
                        return Err(SqlError::Query { at, reason: "a colon without a parameter's name" });
                    }
                    query.placeholder(name);
                    at += 1 + name.len();
                    continue;
                }
                '?' | '$' | '@' => {
                    return Err(SqlError::Query {
                        at,
                        reason: "parameters are written :name, not otherwise,",
                    });
                }
                ';' if rest[1..].trim().is_empty() => break,
                ';' => return Err(SqlError::Query { at, reason: "a second statement" }),
                // An identifier may hold a `$`, and is copied whole.
                _ if first.is_alphanumeric() || first == '_' => {
                    rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).or(Some(rest.len()))
                }
                _ => Some(first.len_utf8()),
            };
            let Some(length) = length else {
                return Err(SqlError::Query { at, reason: "a quote or comment that does not end" });
            };
            query.sql.push_str(&rest[..length]);
            at += length;
        }
        if query.sql.trim().is_empty() {
            return Err(SqlError::Query { at: 0, reason: "no statement" });
        }
        Ok(query)
    }

    fn placeholder(&mut self, name: &str) {
        let index = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.sql.push_str(&format!("?{}", index + 1));
    }
}

/// The length of a part that opens with `skip` bytes and goes up to and including `end`. A doubled quote inside a
/// quoted part ends it and at once opens the next, which comes to the same.
fn delimited(text: &str, skip: usize, end: &str) -> Option<usize> {
    text[skip..].find(end).map(|at| skip + at + end.len())
}

/// The name that `text` begins with; empty if none.
fn name(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let length = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<String>) {
        let query = NamedQuery::parse(text).expect("a good query");
        (query.sql, query.names)
    }

    fn refused_at(text: &str) -> usize {
        match NamedQuery::parse(text) {
            Err(SqlError::Query { at, .. }) => at,
            other => panic!("{text}: expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn names_become_numbers_and_a_repeated_name_keeps_its_number() {
        let (sql, names) = parsed("SELECT * FROM t WHERE a=:a AND b > :b_2 OR c IN(:a)");
        assert_eq!(sql, "SELECT * FROM t WHERE a=?1 AND b > ?2 OR c IN(?1)");
        assert_eq!(names, ["a", "b_2"]);
    }

    #[test]
    fn quotes_comments_and_casts_hold_no_parameters() {
        let text = "SELECT ':a', 'it''s :b', \":c\", `:d`, [:e], f::text -- :g ?\n, /* :h ; $1 */ i$j, '\u{e9}:k' FROM t";
        assert_eq!(parsed(text), (text.to_owned(), vec![]));
    }

    #[test]
    fn one_statement_with_named_parameters_only() {
        assert_eq!(parsed("SELECT 1 ; \n").0, "SELECT 1 ");
        assert_eq!(refused_at("SELECT 1; DROP TABLE t"), 8);
        assert_eq!(refused_at("SELECT ?"), 7);
        assert_eq!(refused_at("SELECT $1"), 7);
        assert_eq!(refused_at("SELECT @a"), 7);
        assert_eq!(refused_at("SELECT :1"), 7);
        assert_eq!(refused_at("SELECT :"), 7);
        assert_eq!(refused_at("SELECT 'a"), 7);
        assert_eq!(refused_at("SELECT /* a"), 7);
        assert_eq!(refused_at(" ;"), 0);
    }
}
