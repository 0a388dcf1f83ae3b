//! Tokens to a tree, by operator precedence.

use super::lexer::{Token, lex};
use super::{Error, Value};

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Const(Value),
    Ident(String),
    /// `#` (empty), `#acc`, `#index`.
    Pointer(String),
    Member {
        of: Box<Expr>,
        key: Box<Expr>,
        optional: bool,
    },
    Slice {
        of: Box<Expr>,
        from: Option<Box<Expr>>,
        to: Option<Box<Expr>>,
    },
    Call {
        callee: Box<Expr>,
        arguments: Vec<Expr>,
    },
    Unary(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    Ternary(Box<Expr>, Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Let(String, Box<Expr>, Box<Expr>),
    /// A member chain in which `?.` may give up.
    Chain(Box<Expr>),
    /// `{...}` as the argument of a predicate function.
    Closure(Box<Expr>),
}

/// Deeper nesting is refused: the evaluator recurses.
const DEPTH_MAX: usize = 60;

/// Functions whose last argument is evaluated once per element.
pub(super) const PREDICATES: &[&str] = &[
    "all",
    "none",
    "any",
    "one",
    "filter",
    "map",
    "count",
    "find",
    "findIndex",
    "findLast",
    "findLastIndex",
    "groupBy",
    "sortBy",
    "reduce",
    "sum",
];

pub(super) fn parse(text: &str) -> Result<Expr, Error> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0, closures: 0 };
    let expr = parser.sequence()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.error(format!("unexpected token {}", show(other)))),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    closures: usize,
}

fn show(token: &Token) -> String {
    match token {
        Token::Int(n) => format!("Number(\"{n}\")"),
        Token::Float(n) => format!("Number(\"{n}\")"),
        Token::Str(text) => format!("String({text:?})"),
        Token::Ident(name) => format!("Identifier({name:?})"),
        Token::Pointer(name) => format!("Pointer(\"#{name}\")"),
        Token::Op(op) => format!("Operator({op:?})"),
        Token::End => "EOF".to_owned(),
    }
}

/// Precedence of binary operators; greater binds tighter.
fn precedence(token: &Token) -> Option<(&'static str, u16)> {
    let name = match token {
        Token::Op(op) => op,
        Token::Ident(word) => word.as_str(),
        _ => return None,
    };
    Some(match name {
        "|" => ("|", 0),
        "||" | "or" => ("||", 10),
        "&&" | "and" => ("&&", 15),
        "==" => ("==", 20),
        "!=" => ("!=", 20),
        "<" => ("<", 20),
        ">" => (">", 20),
        "<=" => ("<=", 20),
        ">=" => (">=", 20),
        "not" => ("not", 20),
        "in" => ("in", 20),
        "matches" => ("matches", 20),
        "contains" => ("contains", 20),
        "startsWith" => ("startsWith", 20),
        "endsWith" => ("endsWith", 20),
        ".." => ("..", 25),
        "+" => ("+", 30),
        "-" => ("-", 30),
        "*" => ("*", 60),
        "/" => ("/", 60),
        "%" => ("%", 60),
        "**" | "^" => ("**", 100),
        "??" => ("??", 500),
        _ => return None,
    })
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn error(&self, what: impl Into<String>) -> Error {
        Error::at(what, self.tokens[self.at].1)
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn is(&self, op: &str) -> bool {
        match self.peek() {
            Token::Op(found) => *found == op,
            Token::Ident(word) => word == op,
            _ => false,
        }
    }

    fn accept(&mut self, op: &str) -> bool {
        let found = self.is(op);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, op: &str) -> Result<(), Error> {
        if self.accept(op) {
            return Ok(());
        }
        Err(self.error(format!("unexpected token {}, expected {op:?}", show(self.peek()))))
    }

    fn identifier(&mut self) -> Result<String, Error> {
        match self.next() {
            Token::Ident(name) => Ok(name),
            other => {
                self.at = self.at.saturating_sub(1);
                Err(self.error(format!("unexpected token {}, expected a name", show(&other))))
            }
        }
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("the expression is nested too deeply"));
        }
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// `let` bindings, then an expression.
    fn sequence(&mut self) -> Result<Expr, Error> {
        if matches!(self.peek(), Token::Ident(word) if word == "let") {
            self.next();
            let name = self.identifier()?;
            self.expect("=")?;
            let value = self.expression(0)?;
            self.expect(";")?;
            let body = self.deeper(Self::sequence)?;
            return Ok(Expr::Let(name, Box::new(value), Box::new(body)));
        }
        self.expression(0)
    }

    fn expression(&mut self, minimum: u16) -> Result<Expr, Error> {
        self.deeper(|p| p.expression_inner(minimum))
    }

    fn expression_inner(&mut self, minimum: u16) -> Result<Expr, Error> {
        if minimum == 0 && matches!(self.peek(), Token::Ident(word) if word == "if") {
            return self.conditional();
        }
        let mut left = self.unary()?;
        let mut operators = 0;
        while let Some((op, strength)) = precedence(self.peek()) {
            if strength < minimum {
                break;
            }
            // A flat chain nests to the left, and the evaluator descends it.
            operators += 1;
            if operators > 300 {
                return Err(self.error("the expression has too many operators"));
            }
            if op == "not" {
                // Only `not in`, `not contains`, ... are infix.
                let word = match &self.tokens.get(self.at + 1) {
                    Some((token, _)) => precedence(token),
                    None => None,
                };
                let Some((op, 20)) = word else { break };
                self.next();
                self.next();
                let right = self.expression(21)?;
                left =
                    Expr::Unary("!", Box::new(Expr::Binary(op, Box::new(left), Box::new(right))));
                continue;
            }
            self.next();
            if op == "|" {
                left = self.pipe(left)?;
                continue;
            }
            let right_minimum = if op == "**" { strength } else { strength + 1 };
            let right = self.expression(right_minimum)?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        if minimum == 0 {
            while self.accept("?") {
                let yes = self.expression(0)?;
                self.expect(":")?;
                let no = self.expression(0)?;
                left = Expr::Ternary(Box::new(left), Box::new(yes), Box::new(no));
            }
        }
        Ok(left)
    }

    fn conditional(&mut self) -> Result<Expr, Error> {
        self.next();
        let condition = self.expression(1)?;
        let block = |p: &mut Self| -> Result<Expr, Error> {
            p.expect("{")?;
            let body = p.sequence()?;
            p.expect("}")?;
            Ok(body)
        };
        let yes = block(self)?;
        self.expect("else")?;
        let no = if self.is("if") { self.expression(0)? } else { block(self)? };
        Ok(Expr::Ternary(Box::new(condition), Box::new(yes), Box::new(no)))
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        let (op, strength) = match self.peek() {
            Token::Op("!") => ("!", 50),
            Token::Ident(word) if word == "not" => ("!", 50),
            Token::Op("-") => ("-", 90),
            Token::Op("+") => ("+", 90),
            _ => return self.postfix(),
        };
        self.next();
        let of = self.expression(strength)?;
        Ok(Expr::Unary(op, Box::new(of)))
    }

    fn pipe(&mut self, first: Expr) -> Result<Expr, Error> {
        let name = self.identifier()?;
        let mut callee = Expr::Ident(name.clone());
        let mut plain = true;
        while self.accept(".") {
            let key = self.identifier()?;
            callee = member(callee, Expr::Const(Value::str(key)), false);
            plain = false;
        }
        self.expect("(")?;
        let mut arguments = vec![first];
        self.arguments(&mut arguments, plain && PREDICATES.contains(&name.as_str()))?;
        let call = Expr::Call { callee: Box::new(callee), arguments };
        self.postfix_of(call)
    }

    /// What follows an opening parenthesis.
    fn arguments(&mut self, into: &mut Vec<Expr>, predicate: bool) -> Result<(), Error> {
        while !self.accept(")") {
            let argument = if predicate && !into.is_empty() {
                self.closures += 1;
                let braces = self.accept("{");
                let body = self.sequence();
                self.closures -= 1;
                let body = body?;
                if braces {
                    self.expect("}")?;
                }
                Expr::Closure(Box::new(body))
            } else {
                self.expression(0)?
            };
            into.push(argument);
            if !self.accept(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(())
    }

    fn postfix(&mut self) -> Result<Expr, Error> {
        let primary = self.primary()?;
        self.postfix_of(primary)
    }

    fn postfix_of(&mut self, mut expr: Expr) -> Result<Expr, Error> {
        let mut optional_seen = false;
        let mut links = 0;
        loop {
            links += 1;
            if links > 200 {
                return Err(self.error("a chain of members is too long"));
            }
            if self.is(".") || self.is("?.") {
                let optional = self.is("?.");
                optional_seen |= optional;
                self.next();
                if optional && self.accept("[") {
                    let key = self.expression(0)?;
                    self.expect("]")?;
                    expr = member(expr, key, true);
                    continue;
                }
                let key = self.identifier()?;
                expr = member(expr, Expr::Const(Value::str(key)), optional);
            } else if self.accept("[") {
                if self.accept(":") {
                    let to = if self.is("]") { None } else { Some(Box::new(self.expression(0)?)) };
                    self.expect("]")?;
                    expr = Expr::Slice { of: Box::new(expr), from: None, to };
                    continue;
                }
                let key = self.expression(0)?;
                if self.accept(":") {
                    let to = if self.is("]") { None } else { Some(Box::new(self.expression(0)?)) };
                    expr = Expr::Slice { of: Box::new(expr), from: Some(Box::new(key)), to };
                } else {
                    expr = member(expr, key, false);
                }
                self.expect("]")?;
            } else if self.is("(") && matches!(expr, Expr::Ident(_) | Expr::Member { .. }) {
                self.next();
                let predicate = matches!(&expr, Expr::Ident(n) if PREDICATES.contains(&n.as_str()));
                let mut arguments = Vec::new();
                self.arguments(&mut arguments, predicate)?;
                expr = Expr::Call { callee: Box::new(expr), arguments };
            } else {
                break;
            }
        }
        Ok(if optional_seen { Expr::Chain(Box::new(expr)) } else { expr })
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        if self.closures > 0 && self.is(".") {
            // `.field` in a predicate is `#.field`.
            return Ok(Expr::Pointer(String::new()));
        }
        match self.next() {
            Token::Int(n) => Ok(Expr::Const(Value::Int(n))),
            Token::Float(n) => Ok(Expr::Const(Value::Float(n))),
            Token::Str(text) => Ok(Expr::Const(Value::str(text))),
            Token::Pointer(name) => Ok(Expr::Pointer(name)),
            Token::Ident(word) => Ok(match word.as_str() {
                "true" => Expr::Const(Value::Bool(true)),
                "false" => Expr::Const(Value::Bool(false)),
                "nil" => Expr::Const(Value::Nil),
                _ => Expr::Ident(word),
            }),
            Token::Op("(") => {
                let inner = self.sequence()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Op("[") => {
                let mut items = Vec::new();
                while !self.accept("]") {
                    items.push(self.expression(0)?);
                    if !self.accept(",") {
                        self.expect("]")?;
                        break;
                    }
                }
                Ok(Expr::List(items))
            }
            Token::Op("{") => self.map_literal(),
            other => {
                self.at = self.at.saturating_sub(usize::from(other != Token::End));
                Err(self.error(format!("unexpected token {}", show(&other))))
            }
        }
    }

    fn map_literal(&mut self) -> Result<Expr, Error> {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let key = match self.peek().clone() {
                Token::Ident(name) | Token::Str(name) => {
                    self.next();
                    Expr::Const(Value::str(name))
                }
                Token::Int(n) => {
                    self.next();
                    Expr::Const(Value::str(n.to_string()))
                }
                Token::Op("(") => {
                    self.next();
                    let key = self.expression(0)?;
                    self.expect(")")?;
                    key
                }
                other => {
                    return Err(self.error(format!("a map key cannot be {}", show(&other))));
                }
            };
            self.expect(":")?;
            entries.push((key, self.expression(0)?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr::Map(entries))
    }
}

fn member(of: Expr, key: Expr, optional: bool) -> Expr {
    Expr::Member { of: Box::new(of), key: Box::new(key), optional }
}

/// The dotted paths of variables that an expression reads, such as `workflow.parameters.a`. A path
/// ends where a computed key begins; with `whole` false it names a map's prefix.
pub(super) fn paths(expr: &Expr, out: &mut Vec<Vec<String>>) {
    fn path_of(expr: &Expr, out: &mut Vec<Vec<String>>) -> Option<Vec<String>> {
        match expr {
            Expr::Ident(name) => Some(vec![name.clone()]),
            Expr::Member { of, key, .. } => {
                let path = path_of(of, out);
                match (&**key, path) {
                    (Expr::Const(Value::Str(key)), Some(mut path)) => {
                        path.push(key.to_string());
                        Some(path)
                    }
                    (key, path) => {
                        out.extend(path);
                        paths(key, out);
                        None
                    }
                }
            }
            other => {
                paths(other, out);
                None
            }
        }
    }
    match expr {
        Expr::Const(_) | Expr::Pointer(_) => {}
        Expr::Ident(_) | Expr::Member { .. } => {
            let path = path_of(expr, out);
            out.extend(path);
        }
        Expr::Slice { of, from, to } => {
            paths(of, out);
            from.iter().chain(to).for_each(|e| paths(e, out));
        }
        Expr::Call { callee, arguments } => {
            // A plain callee is a function's name; a member's object may be a variable.
            if let Expr::Member { of, .. } = &**callee {
                paths(of, out);
            }
            arguments.iter().for_each(|e| paths(e, out));
        }
        Expr::Unary(_, of) | Expr::Chain(of) | Expr::Closure(of) => paths(of, out),
        Expr::Binary(_, a, b) => {
            paths(a, out);
            paths(b, out);
        }
        Expr::Ternary(a, b, c) => [a, b, c].into_iter().for_each(|e| paths(e, out)),
        Expr::List(items) => items.iter().for_each(|e| paths(e, out)),
        Expr::Map(entries) => entries.iter().for_each(|(k, v)| {
            paths(k, out);
            paths(v, out);
        }),
        Expr::Let(name, value, body) => {
            paths(value, out);
            let before = out.len();
            paths(body, out);
            let mut at = before;
            while at < out.len() {
                if out[at][0] == *name {
                    out.remove(at);
                } else {
                    at += 1;
                }
            }
        }
    }
}
