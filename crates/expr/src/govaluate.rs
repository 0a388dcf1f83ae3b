//! The condition language of Argo's `when`: comparisons of numbers and words. A bare word is a
//! string, so that `{{steps.a.outputs.result}} == heads` reads as one expects.

use regex::RegexBuilder;

/// Longest condition, in bytes.
pub const CONDITION_BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 100;

/// Why a condition has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn fail<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error(what.into()))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    /// A bare word, or one in brackets.
    Word(String),
    Bool(bool),
    Op(&'static str),
    End,
}

/// Longer ones first.
const OPERATORS: &[&str] = &[
    "==", "!=", ">=", "<=", "=~", "!~", "&&", "||", "??", "**", ">>", "<<", ">", "<", "!", "+",
    "-", "*", "/", "%", "&", "|", "^", "~", "?", ":", "(", ")", ",",
];

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    fn show(&self) -> String {
        match self {
            Self::Nil => "<nil>".to_owned(),
            Self::Bool(b) => b.to_string(),
            Self::Number(n) => crate::argo_expr::float_text(*n),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                format!("[{}]", items.iter().map(Self::show).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// Evaluates a condition. Anything but true or false is an error, as are words that run into
/// numbers and operators on the wrong types.
pub fn evaluate(text: &str) -> Result<bool, Error> {
    if text.len() > CONDITION_BYTES_MAX {
        return fail("the condition is too long");
    }
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0 };
    let value = parser.separated()?;
    match parser.peek() {
        Token::End => {}
        other => return fail(format!("Cannot transition to token {}", name(other))),
    }
    match value {
        Value::Bool(answer) => Ok(answer),
        other => fail(format!("Expected boolean evaluation for '{text}'. Got {}", other.show())),
    }
}

fn name(token: &Token) -> String {
    match token {
        Token::Number(n) => format!("NUMERIC [{n}]"),
        Token::Text(text) => format!("STRING [{text}]"),
        Token::Word(word) => format!("VARIABLE [{word}]"),
        Token::Bool(b) => format!("BOOLEAN [{b}]"),
        Token::Op(op) => format!("[{op}]"),
        Token::End => "END".to_owned(),
    }
}

fn lex(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if c.is_ascii_digit() {
            let (token, length) = number(rest)?;
            tokens.push(token);
            rest = &rest[length..];
        } else if c == '\'' || c == '"' {
            let mut value = String::new();
            let mut chars = rest.char_indices().skip(1);
            let end = loop {
                match chars.next() {
                    None => return fail("Unclosed string literal"),
                    Some((at, end)) if end == c => break at + 1,
                    Some((_, '\\')) => match chars.next() {
                        Some((_, escaped)) => value.push(escaped),
                        None => return fail("Unclosed string literal"),
                    },
                    Some((_, other)) => value.push(other),
                }
            };
            tokens.push(Token::Text(value));
            rest = &rest[end..];
        } else if c == '[' {
            let Some(end) = rest.find(']') else { return fail("Unclosed parameter bracket") };
            tokens.push(Token::Word(rest[1..end].to_owned()));
            rest = &rest[end + 1..];
        } else if c.is_alphabetic() || c == '_' {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(rest.len());
            tokens.push(match &rest[..end] {
                "true" => Token::Bool(true),
                "false" => Token::Bool(false),
                "in" | "IN" => Token::Op("in"),
                word if word.contains('.') => {
                    return fail(format!("Unable to access field of '{word}'"));
                }
                word => Token::Word(word.to_owned()),
            });
            rest = &rest[end..];
        } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            tokens.push(Token::Op(op));
            rest = &rest[op.len()..];
        } else {
            return fail(format!("Invalid token: '{c}'"));
        }
    }
    tokens.push(Token::End);
    Ok(tokens)
}

fn number(text: &str) -> Result<(Token, usize), Error> {
    if let Some(hex) = text.strip_prefix("0x") {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        return match u64::from_str_radix(&hex[..end], 16) {
            Ok(n) => Ok((Token::Number(n as f64), 2 + end)),
            Err(_) => fail(format!("Unable to parse hex value '{}'", &text[..2 + end])),
        };
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    match text[..end].parse() {
        Ok(n) => Ok((Token::Number(n), end)),
        Err(_) => fail(format!("Unable to parse numeric value '{}' to float64", &text[..end])),
    }
}

/// Parses and evaluates at once.
struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

/// From loosest to tightest, below the ternary.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["==", "!=", ">", ">=", "<", "<=", "=~", "!~", "in"],
    &["&", "|", "^"],
    &[">>", "<<"],
    &["+", "-"],
    &["*", "/", "%"],
    &["**"],
];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    fn accept(&mut self, ops: &[&'static str]) -> Option<&'static str> {
        let Token::Op(found) = *self.peek() else { return None };
        if ops.contains(&found) {
            self.at += 1;
            return Some(found);
        }
        None
    }

    /// Several values with commas between are a list.
    fn separated(&mut self) -> Result<Value, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return fail("the condition is nested too deeply");
        }
        let first = self.ternary()?;
        let mut items = vec![first];
        while self.accept(&[","]).is_some() {
            items.push(self.ternary()?);
        }
        self.depth -= 1;
        Ok(if items.len() == 1 { items.remove(0) } else { Value::List(items) })
    }

    fn ternary(&mut self) -> Result<Value, Error> {
        let mut left = self.level(0)?;
        loop {
            if self.accept(&["??"]).is_some() {
                let right = self.level(0)?;
                if left == Value::Nil {
                    left = right;
                }
            } else if self.accept(&["?"]).is_some() {
                let yes = self.level(0)?;
                let no = if self.accept(&[":"]).is_some() { self.level(0)? } else { Value::Nil };
                left = match left {
                    Value::Bool(true) => yes,
                    Value::Bool(false) => no,
                    other => {
                        return fail(format!(
                            "Value '{}' cannot be used with the ternary operator '?', it is not a \
                             bool",
                            other.show()
                        ));
                    }
                };
            } else {
                return Ok(left);
            }
        }
    }

    fn level(&mut self, level: usize) -> Result<Value, Error> {
        let Some(ops) = LEVELS.get(level) else { return self.prefix() };
        let mut left = self.level(level + 1)?;
        while let Some(op) = self.accept(ops) {
            // The right side is evaluated even when the left one decides; its error then does not
            // matter, but a syntax error does.
            let before = (self.at, self.depth);
            let right = self.level(level + 1);
            left = match (op, &left, right) {
                ("||", Value::Bool(true), Err(_)) | ("&&", Value::Bool(false), Err(_)) => {
                    (self.at, self.depth) = before;
                    self.skip_operand(op)?;
                    left
                }
                (_, _, right) => operate(op, left, right?)?,
            };
        }
        Ok(left)
    }

    /// Goes past the operand that a decided left side of `op` makes idle.
    fn skip_operand(&mut self, op: &str) -> Result<(), Error> {
        let mut depth = 0;
        loop {
            match self.peek() {
                Token::Op("(") => depth += 1,
                Token::Op(")") if depth == 0 => return Ok(()),
                Token::Op(")") => depth -= 1,
                Token::Op("||" | "," | "?" | ":" | "??") if depth == 0 => return Ok(()),
                Token::Op("&&") if depth == 0 && op == "&&" => return Ok(()),
                Token::End if depth == 0 => return Ok(()),
                Token::End => return fail("Unbalanced parenthesis"),
                _ => {}
            }
            self.at += 1;
        }
    }

    fn prefix(&mut self) -> Result<Value, Error> {
        let Some(op) = self.accept(&["!", "-", "~"]) else { return self.value() };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return fail("the condition is nested too deeply");
        }
        let of = self.prefix()?;
        self.depth -= 1;
        match (op, of) {
            ("!", Value::Bool(b)) => Ok(Value::Bool(!b)),
            ("-", Value::Number(n)) => Ok(Value::Number(-n)),
            ("~", Value::Number(n)) => Ok(Value::Number(!(n as i64) as f64)),
            (op, other) => {
                fail(format!("Value '{}' cannot be used with the prefix '{op}'", other.show()))
            }
        }
    }

    fn value(&mut self) -> Result<Value, Error> {
        let token = self.peek().clone();
        if token == Token::End {
            return fail("Unexpected end of expression");
        }
        self.at += 1;
        let value = match token {
            Token::Number(n) => Value::Number(n),
            Token::Text(text) | Token::Word(text) => Value::Text(text),
            Token::Bool(b) => Value::Bool(b),
            Token::Op("(") => {
                let inner = self.separated()?;
                if self.accept(&[")"]).is_none() {
                    return fail("Unbalanced parenthesis");
                }
                inner
            }
            other => return fail(format!("Unexpected token {}", name(&other))),
        };
        if let next @ (Token::Number(_) | Token::Text(_) | Token::Word(_) | Token::Bool(_)) =
            self.peek()
        {
            return fail(format!(
                "Cannot transition token types from [{}] to {}",
                value.show(),
                name(next)
            ));
        }
        Ok(value)
    }
}

fn operate(op: &'static str, left: Value, right: Value) -> Result<Value, Error> {
    use Value::{Bool, List, Number, Text};
    let wrong = |value: &Value, kind: &str, wanted: &str| {
        fail(format!(
            "Value '{}' cannot be used with the {kind} '{op}', it is not a {wanted}",
            value.show()
        ))
    };
    Ok(match (op, &left, &right) {
        ("&&", Bool(a), Bool(b)) => Bool(*a && *b),
        ("||", Bool(a), Bool(b)) => Bool(*a || *b),
        ("&&", Bool(false), _) => Bool(false),
        ("||", Bool(true), _) => Bool(true),
        ("&&" | "||", Bool(_), other) | ("&&" | "||", other, _) => {
            return wrong(other, "logical operator", "bool");
        }
        ("==", a, b) => Bool(a == b),
        ("!=", a, b) => Bool(a != b),
        ("in", a, List(items)) => Bool(items.contains(a)),
        ("in", _, other) => return wrong(other, "comparator", "array"),
        ("=~" | "!~", Text(text), Text(pattern)) => {
            let regex = RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
                .map_err(|error| Error(format!("bad regular expression: {error}")))?;
            Bool(regex.is_match(text) == (op == "=~"))
        }
        ("=~" | "!~", Text(_), other) | ("=~" | "!~", other, _) => {
            return wrong(other, "comparator", "string");
        }
        ("<", Number(a), Number(b)) => Bool(a < b),
        ("<=", Number(a), Number(b)) => Bool(a <= b),
        (">", Number(a), Number(b)) => Bool(a > b),
        (">=", Number(a), Number(b)) => Bool(a >= b),
        ("<", Text(a), Text(b)) => Bool(a < b),
        ("<=", Text(a), Text(b)) => Bool(a <= b),
        (">", Text(a), Text(b)) => Bool(a > b),
        (">=", Text(a), Text(b)) => Bool(a >= b),
        ("<" | "<=" | ">" | ">=", a, b) => {
            let odd = if matches!(a, Number(_)) { b } else { a };
            return wrong(odd, "comparator", "number");
        }
        ("+", Text(_), _) | ("+", _, Text(_)) => Text(format!("{}{}", left.show(), right.show())),
        (_, Number(a), Number(b)) => Number(match op {
            "+" => a + b,
            "-" => a - b,
            "*" => a * b,
            "/" => a / b,
            "%" => a % b,
            "**" => a.powf(*b),
            "&" => (*a as i64 & *b as i64) as f64,
            "|" => (*a as i64 | *b as i64) as f64,
            "^" => (*a as i64 ^ *b as i64) as f64,
            "<<" => (*a as i64).checked_shl(*b as u32).unwrap_or(0) as f64,
            _ => (*a as i64).checked_shr(*b as u32).unwrap_or(0) as f64,
        }),
        (_, Number(_), other) | (_, other, _) => return wrong(other, "modifier", "number"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden() {
        for (condition, wanted) in [
            ("foo == foo", true),
            ("foo != bar", true),
            ("1 == 1", true),
            ("1 != 2", true),
            ("1 < 2", true),
            ("1 <= 1", true),
            ("a < b", true),
            ("(foo == bar) || (foo == foo)", true),
            ("(1 > 0) && (1 < 2)", true),
            ("Error in (Failed, Error)", true),
            ("!(Succeeded in (Failed, Error))", true),
            ("true == true", true),
            ("1/2 == 0.5", true),
            ("heads =~ hea", true),
            ("\"SUCCESS\" == \"FAILED\"", false),
            ("foo != foo", false),
            ("foo == bar", false),
            ("1 != 1", false),
            ("1 == 2", false),
            ("1 > 2", false),
            ("1 <= 0", false),
            ("a > b", false),
            ("(foo == bar) || (bar == foo)", false),
            ("(1 > 0) && (11 < 2)", false),
            ("Succeeded in (Failed, Error)", false),
            ("!(Error in (Failed, Error))", false),
            ("false == true", false),
            ("true == 'true'", false),
            ("1 == '1'", false),
            ("tails !~ '^tai'", false),
            ("0x10 == 16 && 2 ** 3 == 8 && 7 % 4 == 3", true),
            ("'a' + 'b' == ab", true),
            ("-1 < 0 && ~0 == -1", true),
            ("1 + 2 * 3 == 7", true),
            ("\n\"always\"\nin\n(\"always\",\"test\",\"\")", true),
            ("(1 < 2 ? a : b) == a", true),
            ("[a b-c] == 'a b-c'", true),
            ("5 & 4 == 4", true),
            ("true || 1 < a", true),
            ("false && (1 < a || nonsense) || true", true),
        ] {
            let answer = evaluate(condition);
            assert_eq!(answer, Ok(wanted), "{condition}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (condition, part) in [
            ("1 == 1 == ", "Unexpected end"),
            ("foo", "Expected boolean evaluation for 'foo'. Got foo"),
            ("a-b == a-b", "'a' cannot be used with the modifier '-', it is not a number"),
            ("1a == 1", "Cannot transition token types"),
            ("1 < a", "'a' cannot be used with the comparator '<', it is not a number"),
            ("a in (a)", "it is not a array"),
            ("1.2.3 == 1", "Unable to parse numeric value '1.2.3'"),
            ("foo.bar == 1", "Unable to access field"),
            ("{{a}} == b", "Invalid token"),
            ("'a == b", "Unclosed string literal"),
            ("(a == b", "Unbalanced parenthesis"),
            ("", "Unexpected end"),
            ("a && true", "it is not a bool"),
            ("a =~ '('", "bad regular expression"),
        ] {
            let error = evaluate(condition).expect_err(condition).to_string();
            assert!(error.contains(part), "{condition}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9 ()!&|=<>~?:,.'\"+*/%^\\-\\[\\]]{0,60}") {
            let _ = evaluate(&text);
        }

        #[test]
        fn nesting_is_bounded(depth in 0usize..20_000) {
            let text = format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
            prop_assert_eq!(evaluate(&text).is_ok(), depth < DEPTH_MAX);
        }
    }
}
