//! The evaluator.

use std::cell::Cell;
use std::sync::Arc;

use indexmap::IndexMap;

use super::parser::{Expr, PREDICATES};
use super::{Env, Error, Value, builtins, collections, sprig};

const STEPS_MAX: u32 = 2_000_000;
const DEPTH_MAX: u32 = 500;
/// Bytes made by one evaluation, results thrown away included.
const BYTES_MAX: usize = 64 << 20;

/// Why evaluation of a sub-expression stopped.
pub(super) enum Stop {
    Error(Error),
    /// `?.` met nil: the chain is nil.
    NilChain,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub(super) struct Evaluator<'a> {
    pub(super) env: &'a Env,
    steps: Cell<u32>,
    depth: Cell<u32>,
    bytes: Cell<usize>,
    draws: Cell<u64>,
}

/// Names that are bound inside: `let` and predicates.
#[derive(Default)]
pub(super) struct Locals<'a> {
    outer: Option<&'a Locals<'a>>,
    name: &'a str,
    value: Value,
}

impl<'a> Locals<'a> {
    pub(super) fn bind(&'a self, name: &'a str, value: Value) -> Locals<'a> {
        Locals { outer: Some(self), name, value }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let mut at = self;
        loop {
            if at.outer.is_some() && at.name == name {
                return Some(&at.value);
            }
            at = at.outer?;
        }
    }
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Self {
            env,
            steps: Cell::new(0),
            depth: Cell::new(0),
            bytes: Cell::new(0),
            draws: Cell::new(env.seed),
        }
    }

    pub(super) fn run(&self, expr: &Expr) -> Result<Value, Error> {
        self.eval(expr, &Locals::default()).or_else(|stop| match stop {
            Stop::Error(error) => Err(error),
            Stop::NilChain => Ok(Value::Nil),
        })
    }

    /// Takes bytes from the budget.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Error> {
        let spent = self.bytes.get().saturating_add(bytes);
        self.bytes.set(spent);
        if spent > BYTES_MAX { Err(Error::Budget("memory")) } else { Ok(()) }
    }

    /// The next number of a fixed sequence (splitmix64).
    pub(super) fn draw(&self) -> u64 {
        let state = self.draws.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.draws.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn eval(&self, expr: &Expr, locals: &Locals<'_>) -> Result<Value, Stop> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return Err(Error::Budget("time").into());
        }
        if self.depth.get() >= DEPTH_MAX {
            return Err(Error::Budget("depth").into());
        }
        self.depth.set(self.depth.get() + 1);
        let result = self.eval_node(expr, locals);
        self.depth.set(self.depth.get() - 1);
        if let Ok(value) = &result {
            self.spend(value.weight() / 16)?;
        }
        result
    }

    fn eval_node(&self, expr: &Expr, locals: &Locals<'_>) -> Result<Value, Stop> {
        Ok(match expr {
            Expr::Const(value) => value.clone(),
            Expr::Ident(name) => self.variable(name, locals)?,
            Expr::Pointer(name) => self.pointer(name, locals)?,
            Expr::Member { of, key, optional } => {
                let of = self.eval(of, locals)?;
                if *optional && matches!(of, Value::Nil) {
                    return Err(Stop::NilChain);
                }
                let key = self.eval(key, locals)?;
                member(&of, &key)?
            }
            Expr::Slice { of, from, to } => {
                let of = self.eval(of, locals)?;
                let from = from.as_ref().map(|e| self.eval(e, locals)).transpose()?;
                let to = to.as_ref().map(|e| self.eval(e, locals)).transpose()?;
                slice(&of, from.as_ref(), to.as_ref())?
            }
            Expr::Call { callee, arguments } => self.call(callee, arguments, locals)?,
            Expr::Unary(op, of) => unary(op, &self.eval(of, locals)?)?,
            Expr::Binary(op, left, right) => self.binary(op, left, right, locals)?,
            Expr::Ternary(condition, yes, no) => match self.eval(condition, locals)? {
                Value::Bool(true) => self.eval(yes, locals)?,
                Value::Bool(false) => self.eval(no, locals)?,
                other => {
                    return Err(Error::eval(format!(
                        "non-bool expression (type {}) used as condition",
                        other.kind()
                    ))
                    .into());
                }
            },
            Expr::List(items) => {
                Value::list(items.iter().map(|e| self.eval(e, locals)).collect::<Result<_, _>>()?)
            }
            Expr::Map(entries) => self.map(entries, locals)?,
            Expr::Let(name, value, body) => {
                let value = self.eval(value, locals)?;
                self.eval(body, &locals.bind(name, value))?
            }
            Expr::Chain(of) => match self.eval(of, locals) {
                Err(Stop::NilChain) => Value::Nil,
                other => other?,
            },
            Expr::Closure(_) => {
                return Err(Error::eval("a predicate is not a value").into());
            }
        })
    }

    fn variable(&self, name: &str, locals: &Locals<'_>) -> Result<Value, Error> {
        if let Some(value) = locals.get(name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.env.variables.get(name) {
            return Ok(value.clone());
        }
        if name == "$env" {
            return Ok(Value::Map(Arc::new(self.env.variables.clone())));
        }
        Err(Error::UnknownName(name.to_owned()))
    }

    fn pointer(&self, name: &str, locals: &Locals<'_>) -> Result<Value, Error> {
        let bound = match name {
            "" => "#",
            "acc" => "#acc",
            "index" => "#index",
            field => {
                let element = locals.get("#").cloned().unwrap_or_default();
                return member(&element, &Value::str(field));
            }
        };
        locals
            .get(bound)
            .cloned()
            .ok_or_else(|| Error::eval(format!("{bound} is only known inside a predicate")))
    }

    fn map(&self, entries: &[(Expr, Expr)], locals: &Locals<'_>) -> Result<Value, Stop> {
        let mut map = IndexMap::new();
        for (key, value) in entries {
            let key = self.eval(key, locals)?.to_text();
            map.insert(key, self.eval(value, locals)?);
        }
        Ok(Value::Map(Arc::new(map)))
    }

    fn binary(
        &self,
        op: &'static str,
        left: &Expr,
        right: &Expr,
        locals: &Locals<'_>,
    ) -> Result<Value, Stop> {
        match op {
            "&&" | "||" => {
                let first = truth(&self.eval(left, locals)?)?;
                if first == (op == "||") {
                    return Ok(Value::Bool(first));
                }
                return Ok(Value::Bool(truth(&self.eval(right, locals)?)?));
            }
            "??" => {
                return match self.eval(left, locals) {
                    Ok(Value::Nil) | Err(Stop::NilChain) => self.eval(right, locals),
                    other => other,
                };
            }
            _ => {}
        }
        let left = self.eval(left, locals)?;
        let right = self.eval(right, locals)?;
        Ok(operate(self, op, &left, &right)?)
    }

    fn call(&self, callee: &Expr, arguments: &[Expr], locals: &Locals<'_>) -> Result<Value, Stop> {
        match callee {
            Expr::Ident(name) => {
                if PREDICATES.contains(&name.as_str()) {
                    return collections::predicate(self, name, arguments, locals);
                }
                let values = self.values(arguments, locals)?;
                Ok(builtins::call(self, name, &values)?)
            }
            Expr::Member { of, key, optional } => {
                let Expr::Const(Value::Str(method)) = &**key else {
                    return Err(Error::eval("a computed name cannot be called").into());
                };
                if matches!(&**of, Expr::Ident(name) if name == "sprig") {
                    let values = self.values(arguments, locals)?;
                    return Ok(sprig::call(self, method, &values)?);
                }
                let object = self.eval(of, locals)?;
                if *optional && matches!(object, Value::Nil) {
                    return Err(Stop::NilChain);
                }
                let values = self.values(arguments, locals)?;
                Ok(builtins::method(&object, method, &values)?)
            }
            _ => Err(Error::eval("this cannot be called").into()),
        }
    }

    fn values(&self, arguments: &[Expr], locals: &Locals<'_>) -> Result<Vec<Value>, Stop> {
        arguments.iter().map(|e| self.eval(e, locals)).collect()
    }
}

pub(super) fn truth(value: &Value) -> Result<bool, Error> {
    match value {
        Value::Bool(b) => Ok(*b),
        other => Err(Error::eval(format!("expected bool, but got {}", other.kind()))),
    }
}

/// A field of a map, an item of a list, a character of a string.
pub(super) fn member(of: &Value, key: &Value) -> Result<Value, Error> {
    match (of, key) {
        (Value::Map(entries), key) => {
            let found = match key {
                Value::Str(key) => entries.get(&**key),
                other => entries.get(&other.to_text()),
            };
            Ok(found.cloned().unwrap_or_default())
        }
        (Value::List(items), Value::Int(index)) => {
            let length = items.len() as i64;
            let at = if *index < 0 { length + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items.get(at)).cloned().ok_or_else(|| {
                Error::eval(format!("index out of range: {index} (array length is {length})"))
            })
        }
        (Value::Str(text), Value::Int(index)) => {
            let length = text.chars().count() as i64;
            let at = if *index < 0 { length + index } else { *index };
            usize::try_from(at)
                .ok()
                .and_then(|at| text.chars().nth(at))
                .map(|c| Value::str(c.to_string()))
                .ok_or_else(|| Error::eval(format!("index out of range: {index}")))
        }
        (of, key) => Err(Error::eval(format!("cannot fetch {} from {}", key.to_text(), of.kind()))),
    }
}

fn slice(of: &Value, from: Option<&Value>, to: Option<&Value>) -> Result<Value, Error> {
    let bounds = |length: usize| -> Result<(usize, usize), Error> {
        let place = |value: Option<&Value>, default: usize| match value {
            None => Ok(default),
            Some(Value::Int(n)) => {
                let at = if *n < 0 { length as i64 + n } else { *n };
                Ok(at.clamp(0, length as i64) as usize)
            }
            Some(other) => Err(Error::eval(format!("cannot slice by {}", other.kind()))),
        };
        let (from, to) = (place(from, 0)?, place(to, length)?);
        Ok((from.min(to), to))
    };
    match of {
        Value::List(items) => {
            let (from, to) = bounds(items.len())?;
            Ok(Value::list(items[from..to].to_vec()))
        }
        Value::Str(text) => {
            let (from, to) = bounds(text.chars().count())?;
            Ok(Value::str(text.chars().skip(from).take(to - from).collect::<String>()))
        }
        other => Err(Error::eval(format!("cannot slice {}", other.kind()))),
    }
}

fn unary(op: &str, of: &Value) -> Result<Value, Error> {
    Ok(match (op, of) {
        ("!", Value::Bool(b)) => Value::Bool(!b),
        ("-", Value::Int(n)) => Value::Int(n.wrapping_neg()),
        ("-", Value::Float(n)) => Value::Float(-n),
        ("-", Value::Duration(n)) => Value::Duration(n.wrapping_neg()),
        ("+", Value::Int(_) | Value::Float(_)) => of.clone(),
        (op, of) => {
            return Err(Error::eval(format!(
                "invalid operation: {op} (mismatched type {})",
                of.kind()
            )));
        }
    })
}

fn operate(ev: &Evaluator<'_>, op: &str, a: &Value, b: &Value) -> Result<Value, Error> {
    let mismatch = || {
        Error::eval(format!(
            "invalid operation: {op} (mismatched types {} and {})",
            a.kind(),
            b.kind()
        ))
    };
    Ok(match op {
        "==" => Value::Bool(a == b),
        "!=" => Value::Bool(a != b),
        "<" => Value::Bool(a.order(b).ok_or_else(mismatch)?.is_lt()),
        ">" => Value::Bool(a.order(b).ok_or_else(mismatch)?.is_gt()),
        "<=" => Value::Bool(a.order(b).ok_or_else(mismatch)?.is_le()),
        ">=" => Value::Bool(a.order(b).ok_or_else(mismatch)?.is_ge()),
        "in" => Value::Bool(match b {
            Value::List(items) => items.contains(a),
            Value::Map(entries) => a.as_text().is_some_and(|key| entries.contains_key(key)),
            Value::Nil => false,
            _ => return Err(mismatch()),
        }),
        "contains" | "startsWith" | "endsWith" | "matches" => {
            let (Some(text), Some(what)) = (a.as_text(), b.as_text()) else {
                if matches!(a, Value::Nil) || matches!(b, Value::Nil) {
                    return Ok(Value::Bool(false));
                }
                return Err(mismatch());
            };
            Value::Bool(match op {
                "contains" => text.contains(what),
                "startsWith" => text.starts_with(what),
                "endsWith" => text.ends_with(what),
                _ => super::builtins::regex(what)?.is_match(text),
            })
        }
        ".." => match (a, b) {
            (Value::Int(from), Value::Int(to)) => {
                let length = to.saturating_sub(*from).saturating_add(1).max(0) as usize;
                ev.spend(length.saturating_mul(32))?;
                Value::list((*from..=*to).map(Value::Int).collect())
            }
            _ => return Err(mismatch()),
        },
        _ => return arithmetic(ev, op, a, b).ok_or_else(mismatch)?,
    })
}

/// `None` when the types do not fit.
fn arithmetic(ev: &Evaluator<'_>, op: &str, a: &Value, b: &Value) -> Option<Result<Value, Error>> {
    use Value::{Duration, Float, Int, Str, Time};
    Some(Ok(match (op, a, b) {
        ("+", Str(x), Str(y)) => {
            if let Err(error) = ev.spend(x.len() + y.len()) {
                return Some(Err(error));
            }
            Value::str(format!("{x}{y}"))
        }
        ("+", Int(x), Int(y)) => Int(x.wrapping_add(*y)),
        ("-", Int(x), Int(y)) => Int(x.wrapping_sub(*y)),
        ("*", Int(x), Int(y)) => Int(x.wrapping_mul(*y)),
        ("%", Int(_), Int(0)) => return Some(Err(Error::eval("integer divide by zero"))),
        ("%", Int(x), Int(y)) => Int(x.wrapping_rem(*y)),
        ("+", Duration(x), Duration(y)) => Duration(x.wrapping_add(*y)),
        ("-", Duration(x), Duration(y)) => Duration(x.wrapping_sub(*y)),
        ("*", Duration(x), Int(y)) | ("*", Int(y), Duration(x)) => Duration(x.wrapping_mul(*y)),
        ("+", Time(t), Duration(d)) | ("+", Duration(d), Time(t)) => {
            return Some(super::go_time::shift(t, *d));
        }
        ("-", Time(t), Duration(d)) => return Some(super::go_time::shift(t, d.wrapping_neg())),
        ("-", Time(x), Time(y)) => Duration(super::go_time::between(x, y)),
        _ => {
            let (x, y) = (a.as_f64()?, b.as_f64()?);
            Float(match op {
                "+" => x + y,
                "-" => x - y,
                "*" => x * y,
                "/" => x / y,
                "**" => x.powf(y),
                _ => return None,
            })
        }
    }))
}
