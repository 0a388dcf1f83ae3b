//! PostgreSQL knows parameters by number only; tasks name them. And it runs one statement at a
//! time when parameters are bound. So texts are cut into statements, and `:name` and `?3` become
//! `$n`, numbered anew in each.

/// One statement, with the names of its parameters in order of their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub sql: String,
    pub names: Vec<String>,
}

/// Cuts and numbers. Quoted texts, quoted names, comments, dollar-quoted bodies and `::` casts are
/// left alone; a parameter that was written as `$1` stays, and must not be mixed with names.
pub(super) fn split(text: &str) -> Vec<Numbered> {
    let mut statements = Vec::new();
    let mut current = Numbered { sql: String::new(), names: Vec::new() };
    let mut filled = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let opaque = opaque_length(rest, current.sql.chars().next_back());
        if opaque > 0 {
            filled |= !rest.starts_with("--") && !rest.starts_with("/*");
            current.sql.push_str(&rest[..opaque]);
            rest = &rest[opaque..];
            continue;
        }
        if c == ';' {
            let done =
                std::mem::replace(&mut current, Numbered { sql: String::new(), names: Vec::new() });
            if std::mem::take(&mut filled) {
                statements.push(done);
            }
            rest = &rest[1..];
            continue;
        }
        let name = &rest[c.len_utf8()..];
        let length = if c == '?' { digits_length(name) } else { name_length(name) };
        if matches!(c, ':' | '?') && length > 0 && !current.sql.ends_with(':') {
            let name = name[..length].to_owned();
            let number = current.names.iter().position(|n| *n == name).unwrap_or_else(|| {
                current.names.push(name);
                current.names.len() - 1
            });
            current.sql.push_str(&format!("${}", number + 1));
            rest = &rest[1 + length..];
        } else {
            current.sql.push(c);
            rest = &rest[c.len_utf8()..];
        }
        filled |= !c.is_whitespace();
    }
    if filled {
        statements.push(current);
    }
    statements
}

fn digits_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())
}

fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Length of what begins here and is not looked into; 0 if nothing such begins.
fn opaque_length(text: &str, before: Option<char>) -> usize {
    let through = |from: usize, end: &str| {
        text[from..].find(end).map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with("--") {
        return through(2, "\n");
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with('"') {
        return through(1, "\"");
    }
    if text.starts_with('\'') {
        let escapes = matches!(before, Some('e' | 'E'));
        return quoted_length(text, escapes);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
    if let Some(tag) = text.strip_prefix('$').filter(|_| !in_word) {
        let length = name_length(tag);
        if tag[length..].starts_with('$') {
            let tag = &text[..length + 2];
            return through(tag.len(), tag);
        }
    }
    0
}

fn quoted_length(text: &str, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == '\'' {
            return at + 1;
        }
    }
    text.len()
}

/// They nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        for (text, sql, names) in [
            ("select :a, :b, :a", "select $1, $2, $1", vec!["a", "b"]),
            ("select ':a' || :a::text", "select ':a' || $1::text", vec!["a"]),
            ("select 'it''s :x', \":y\"", "select 'it''s :x', \":y\"", vec![]),
            ("select e'\\':x', x[1:2]", "select e'\\':x', x[1:2]", vec![]),
            ("select $1, a -- :x;\n, :b", "select $1, a -- :x;\n, $1", vec!["b"]),
            (
                "/* ; /* :a */ */ select $f$ ; :a $f$",
                "/* ; /* :a */ */ select $f$ ; :a $f$",
                vec![],
            ),
            ("select :имя", "select $1", vec!["имя"]),
            ("select '", "select '", vec![]),
            (
                "select ?3 || '?1', a ? 'b', ?1, ?3",
                "select $1 || '?1', a ? 'b', $2, $1",
                vec!["3", "1"],
            ),
        ] {
            let got = split(text);
            assert_eq!(got.len(), 1, "{text}");
            assert_eq!(
                (got[0].sql.as_str(), &got[0].names),
                (sql, &names.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn statements_are_cut() {
        let sql: Vec<String> =
            split("a; b ';' ;; -- c;\n ; d").into_iter().map(|n| n.sql.trim().to_owned()).collect();
        assert_eq!(sql, ["a", "b ';'", "d"]);
        assert!(split(" ; \n--x").is_empty());
    }
}
