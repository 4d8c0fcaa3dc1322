//! Named parameters: finds `:name` in a query and puts numbered placeholders in its place.
//!
//! Invariant: only the configured text goes through here, once, when the source is opened; no value ever does.

use super::SqlError;

/// How a database reads a query, as far as finding parameters needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    Sqlite,
    MySql,
    Postgres,
}

/// A query with the placeholders of its database and the names that they stand for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedQuery {
    pub(super) sql: String,
    /// Each name once, in the order of first use.
    pub(super) names: Vec<String>,
    /// For each placeholder that takes a value, in order, the index of its name. MySQL's placeholders have no numbers,
    /// so a name takes one wherever it stands; the others have one for each name.
    pub(super) slots: Vec<usize>,
}

impl NamedQuery {
    pub(super) fn parse(text: &str, grammar: Grammar) -> Result<Self, SqlError> {
        let mut query = Self { sql: String::with_capacity(text.len()), names: Vec::new(), slots: Vec::new() };
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            let rest = &text[at..];
            let length = match first {
                _ if let Some(length) = quoted_or_comment(rest, first, grammar, &text[..at]) => length,
                _ if rest.starts_with("::") => Some(2),
                ':' => {
                    let name = name(&rest[1..]);
                    if name.is_empty() {
                        return Err(SqlError::Query { at, reason: "a colon without a parameter's name" });
                    }
                    query.placeholder(name, grammar);
                    at += 1 + name.len();
                    continue;
                }
                // PostgreSQL has operators of these.
                '?' | '@' if grammar == Grammar::Postgres => Some(1),
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

    fn placeholder(&mut self, name: &str, grammar: Grammar) {
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        if known.is_none() || grammar == Grammar::MySql {
            self.slots.push(index);
        }
        match grammar {
            Grammar::Sqlite => self.sql.push_str(&format!("?{}", index + 1)),
            Grammar::Postgres => self.sql.push_str(&format!("${}", index + 1)),
            Grammar::MySql => self.sql.push('?'),
        }
    }
}

/// The length of the quoted part or comment that `rest` begins with: `None` if it begins with neither, `Some(None)` if
/// the part does not end.
fn quoted_or_comment(rest: &str, first: char, grammar: Grammar, before: &str) -> Option<Option<usize>> {
    let line = || Some(rest.find('\n').unwrap_or(rest.len()));
    let backslashes = match grammar {
        Grammar::MySql => matches!(first, '\'' | '"'),
        Grammar::Postgres => first == '\'' && is_escape_string(before),
        Grammar::Sqlite => false,
    };
    Some(match first {
        '\'' | '"' if backslashes => escaped(rest, first),
        '\'' | '"' => delimited(rest, 1, first.encode_utf8(&mut [0; 4])),
        '`' if grammar != Grammar::Postgres => delimited(rest, 1, "`"),
        '[' if grammar == Grammar::Sqlite => delimited(rest, 1, "]"),
        '#' if grammar == Grammar::MySql => line(),
        '/' if rest.starts_with("/*") => match grammar {
            Grammar::Postgres => nested_comment(rest),
            _ => delimited(rest, 2, "*/"),
        },
        // To MySQL, two minus signs without a space are arithmetic.
        '-' if rest.starts_with("--") => match rest[2..].chars().next() {
            Some(c) if grammar == Grammar::MySql && !c.is_whitespace() && !c.is_control() => return None,
            _ => line(),
        },
        _ => return None,
    })
}

/// Whether a quote after this text opens an escape string of PostgreSQL: `E'…'`.
fn is_escape_string(before: &str) -> bool {
    let mut last = before.chars().rev();
    matches!(last.next(), Some('e' | 'E')) && !last.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The length of a string in which a backslash takes the meaning of the character after it.
fn escaped(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

/// The length of a comment that may have others in it.
fn nested_comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    None
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

    fn parsed_by(grammar: Grammar, text: &str) -> (String, Vec<String>) {
        let query = NamedQuery::parse(text, grammar).expect("a good query");
        (query.sql, query.names)
    }

    fn parsed(text: &str) -> (String, Vec<String>) {
        parsed_by(Grammar::Sqlite, text)
    }

    fn refused_at(text: &str) -> usize {
        match NamedQuery::parse(text, Grammar::Sqlite) {
            Err(SqlError::Query { at, .. }) => at,
            other => panic!("{text}: expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn names_become_numbers_and_a_repeated_name_keeps_its_number() {
        let text = "SELECT * FROM t WHERE a=:a AND b > :b_2 OR c IN(:a)";
        let (sql, names) = parsed(text);
        assert_eq!(sql, "SELECT * FROM t WHERE a=?1 AND b > ?2 OR c IN(?1)");
        assert_eq!(names, ["a", "b_2"]);
        let (sql, names) = parsed_by(Grammar::Postgres, text);
        assert_eq!(sql, "SELECT * FROM t WHERE a=$1 AND b > $2 OR c IN($1)");
        assert_eq!(names, ["a", "b_2"]);
        let query = NamedQuery::parse(text, Grammar::MySql).expect("a good query");
        assert_eq!(query.sql, "SELECT * FROM t WHERE a=? AND b > ? OR c IN(?)");
        assert_eq!((query.names, query.slots), (vec!["a".to_owned(), "b_2".to_owned()], vec![0, 1, 0]));
    }

    #[test]
    fn quotes_comments_and_casts_hold_no_parameters() {
        let text = "SELECT ':a', 'it''s :b', \":c\", `:d`, [:e], f::text -- :g ?\n, /* :h ; $1 */ i$j, '\u{e9}:k' FROM t";
        assert_eq!(parsed(text), (text.to_owned(), vec![]));
    }

    #[test]
    fn each_database_has_quotes_and_comments_of_its_own() {
        let same = |grammar, text: &str| assert_eq!(parsed_by(grammar, text), (text.to_owned(), vec![]));
        same(Grammar::MySql, r#"SELECT 'it\'s :a', "\":b", `c:d` # :e ?"#);
        assert_eq!(parsed_by(Grammar::MySql, "SELECT 5--:a -- :b").0, "SELECT 5--? -- :b");
        assert_eq!(parsed_by(Grammar::Sqlite, r"SELECT '\', :a").0, r"SELECT '\', ?1");
        same(Grammar::Postgres, r"SELECT E'it\'s :a', e'\':b' /* /* :c */ :d */, j ? 'k', j @> '[]'");
        assert_eq!(parsed_by(Grammar::Postgres, r"SELECT '\', :a").0, r"SELECT '\', $1");
        assert_eq!(parsed_by(Grammar::Postgres, "SELECT :a::uuid, b[:i]").0, "SELECT $1::uuid, b[$2]");
        assert!(NamedQuery::parse("SELECT $1", Grammar::Postgres).is_err());
        assert!(NamedQuery::parse("SELECT @a := 1", Grammar::MySql).is_err());
        for open in ["SELECT 'a\\'", "SELECT \"a", "SELECT `a"] {
            assert!(NamedQuery::parse(open, Grammar::MySql).is_err(), "{open}");
        }
        assert!(NamedQuery::parse("SELECT /* /* */", Grammar::Postgres).is_err());
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
