//! The expression language of `{{=...}}` tags and of `expression` fields, with the functions that
//! Argo's users have: the language's own, `asInt`, `asFloat`, `jsonpath`, `toJson` and `sprig.*`.
//!
//! Evaluation is bounded in steps, depth and bytes, reads no clock (the time is given) and draws no
//! random number (the seed is given).

mod builtins;
mod collections;
mod eval;
mod go_time;
mod jsonpath;
mod lexer;
mod parser;
mod sprig;
mod sprig_dates;
mod sprig_dicts;
mod sprig_lists;
mod sprig_strings;
mod value;

use indexmap::IndexMap;

pub use go_time::parse_duration;
pub use jsonpath::query as jsonpath;
pub use value::{Value, float_text};

/// Longest expression, in bytes. Larger texts are data that were meant to be parameters.
pub const EXPRESSION_BYTES_MAX: usize = 128 * 1024;

/// Why an expression could not be read or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} (at byte {at})")]
    Syntax { what: String, at: usize },
    #[error("unknown name {0}")]
    UnknownName(String),
    #[error("{0}")]
    Evaluation(String),
    #[error("the expression needs too much {0}")]
    Budget(&'static str),
}

impl Error {
    fn at(what: impl Into<String>, at: usize) -> Self {
        Self::Syntax { what: what.into(), at }
    }

    fn eval(what: impl Into<String>) -> Self {
        Self::Evaluation(what.into())
    }
}

/// What an expression may see.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub variables: IndexMap<String, Value>,
    /// What `now()` says; none: the function fails.
    pub now: Option<jiff::Timestamp>,
    /// Seed of the functions that Go draws at random.
    pub seed: u64,
}

impl Env {
    /// Variables with dotted names become nested maps: `a.b = 1` is `a = {b: 1}`. A name that is
    /// both a value and a prefix is the map.
    #[must_use]
    pub fn from_dotted<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let mut root: IndexMap<String, Branch> = IndexMap::new();
        for (name, value) in entries {
            let mut branches = &mut root;
            let mut parts = name.split('.').peekable();
            while let Some(part) = parts.next() {
                let branch = branches.entry(part.to_owned()).or_default();
                if parts.peek().is_none() {
                    branch.value = Some(value);
                    break;
                }
                branches = &mut branch.below;
            }
        }
        let variables = root.into_iter().map(|(name, branch)| (name, branch.value())).collect();
        Self { variables, now: None, seed: 0 }
    }
}

#[derive(Default)]
struct Branch {
    value: Option<Value>,
    below: IndexMap<String, Branch>,
}

impl Branch {
    fn value(self) -> Value {
        if self.below.is_empty() {
            return self.value.unwrap_or_default();
        }
        let mut entries: IndexMap<String, Value> = match self.value {
            // Fields set one by one are laid over the whole.
            Some(Value::Map(whole)) => (*whole).clone(),
            _ => IndexMap::new(),
        };
        entries.extend(self.below.into_iter().map(|(name, branch)| (name, branch.value())));
        Value::map(entries)
    }
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Program {
    expr: parser::Expr,
}

impl Program {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(Error::at("the expression is too long", EXPRESSION_BYTES_MAX));
        }
        parser::parse(text).map(|expr| Self { expr })
    }

    pub fn eval(&self, env: &Env) -> Result<Value, Error> {
        eval::Evaluator::new(env).run(&self.expr)
    }

    /// The dotted paths of the variables that it reads, each up to the first computed key.
    #[must_use]
    pub fn variables(&self) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        parser::paths(&self.expr, &mut out);
        out
    }

    /// Whether the whole expression is one reference such as `tasks.a.outputs.parameters.x` or
    /// `tasks['a'].outputs.result`; its path.
    #[must_use]
    pub fn reference(&self) -> Option<Vec<String>> {
        fn path(expr: &parser::Expr) -> Option<Vec<String>> {
            match expr {
                parser::Expr::Ident(name) => Some(vec![name.clone()]),
                parser::Expr::Member { of, key, .. } => {
                    let mut path = path(of)?;
                    let parser::Expr::Const(Value::Str(key)) = &**key else { return None };
                    path.push(key.to_string());
                    Some(path)
                }
                _ => None,
            }
        }
        path(&self.expr)
    }
}

/// Parses and evaluates.
pub fn eval(text: &str, env: &Env) -> Result<Value, Error> {
    Program::parse(text)?.eval(env)
}

#[cfg(test)]
mod tests;
