//! Compiling and rendering.

use std::sync::{Arc, LazyLock};

use kobza_model::Json;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Output, State, UndefinedBehavior, Value};

use super::filters::{self, Raw};
use super::{References, ShellText, SqlText, TemplateError, shell, sql};

/// Work one template may do, in the engine's instructions: thousands of loop turns, milliseconds.
const FUEL: u64 = 500_000;

/// Largest text that one template may produce.
pub const MAX_RENDERED_BYTES: usize = 16 << 20;

/// Begin and end of the marks that stand for values until the quoting is known: private-use
/// characters, refused in templates.
pub(super) const MARK: char = '\u{E0F0}';
pub(super) const MARK_END: char = '\u{E0F1}';

/// What a template's output becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Text,
    Shell,
    Sql,
}

/// What templates may look at.
#[derive(Clone, Debug)]
pub struct Context(Value);

impl Context {
    /// A context whose top-level names are the map's keys.
    #[must_use]
    pub fn new(values: &serde_json::Map<String, Json>) -> Self {
        Self(Value::from(Serde(values)))
    }
}

/// Values in order of their marks; they live for one rendering.
#[derive(Default)]
struct Bound(Vec<Value>);

fn environment(mode: Mode) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(64);
    // Without it errors carry no ranges; it costs only when something fails.
    env.set_debug(true);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        env.set_syntax(syntax);
    }
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.remove_global("debug");
    filters::add_to(&mut env, mode);
    if mode != Mode::Text {
        env.set_formatter(mark_value);
    }
    env
}

static TEXT: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Mode::Text));
static SHELL: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Mode::Shell));
static SQL: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Mode::Sql));

fn of<'s>(mode: Mode) -> &'s Environment<'s> {
    match mode {
        Mode::Text => &TEXT,
        Mode::Shell => &SHELL,
        Mode::Sql => &SQL,
    }
}

/// Writes a mark for each value, so that no value is ever part of the text; `raw` alone is.
fn mark_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    let failed = |_| minijinja::Error::new(minijinja::ErrorKind::WriteFailure, "cannot write");
    if value.is_undefined() {
        return minijinja::escape_formatter(out, state, value);
    }
    if let Some(Raw(text)) = value.downcast_object_ref::<Raw>() {
        if text.contains([MARK, MARK_END]) {
            return Err(reserved());
        }
        return out.write_str(text).map_err(failed);
    }
    if value.as_str().is_some_and(|text| text.contains([MARK, MARK_END])) {
        return Err(reserved());
    }
    let bound = state.get_or_insert_extension(Bound::default());
    bound.0.push(value.clone());
    let number = bound.0.len() - 1;
    write!(out, "{MARK}{number}{MARK_END}").map_err(failed)
}

/// Text that a macro or a `set` block has captured holds marks; printing it would lose them.
fn reserved() -> minijinja::Error {
    minijinja::Error::new(
        minijinja::ErrorKind::InvalidOperation,
        "values captured by a macro or a set block, and the characters U+E0F0 and U+E0F1, cannot \
         be printed here",
    )
}

/// Compiles a template without rendering it and tells which names it looks at.
pub fn check(source: &str, mode: Mode) -> Result<References, TemplateError> {
    let template = compile(source, mode)?;
    filters_exist(source, source, mode)?;
    Ok(References::new(template.undeclared_variables(true)))
}

fn compile<'s>(source: &'s str, mode: Mode) -> Result<minijinja::Template<'s, 's>, TemplateError> {
    if mode != Mode::Text && source.contains([MARK, MARK_END]) {
        return Err(TemplateError::new("the characters U+E0F0 and U+E0F1 are reserved"));
    }
    of(mode).template_from_str(source).map_err(|e| TemplateError::from_engine(&e, source))
}

/// Compiles an expression without braces (or a template that is one `{{ … }}`).
pub fn check_expression(source: &str) -> Result<References, TemplateError> {
    let expression = bare(source);
    let compiled = TEXT
        .compile_expression(expression)
        .map_err(|e| TemplateError::from_engine(&e, expression))?;
    filters_exist(expression, &format!("{{{{{expression}"), Mode::Text)?;
    Ok(References::new(compiled.undeclared_variables(true)))
}

/// Evaluates an expression, with or without braces around it.
pub fn eval(source: &str, context: &Context) -> Result<Json, TemplateError> {
    let expression = bare(source);
    let translate = |e: minijinja::Error| TemplateError::from_engine(&e, expression);
    let compiled = TEXT.compile_expression(expression).map_err(translate)?;
    let value = compiled.eval(context.0.clone()).map_err(translate)?;
    to_json(&value, expression)
}

/// Evaluates an expression and tells whether it is true, as Jinja's `if` would.
pub fn is_true(source: &str, context: &Context) -> Result<bool, TemplateError> {
    let expression = bare(source);
    let translate = |e: minijinja::Error| TemplateError::from_engine(&e, expression);
    let compiled = TEXT.compile_expression(expression).map_err(translate)?;
    let value = compiled.eval(context.0.clone()).map_err(translate)?;
    if value.is_undefined() {
        return Err(undefined(expression));
    }
    Ok(value.is_true())
}

/// Renders to text.
pub fn render_text(source: &str, context: &Context) -> Result<String, TemplateError> {
    if !is_template(source) {
        return Ok(source.to_owned());
    }
    let text = compile(source, Mode::Text)?
        .render(context.0.clone())
        .map_err(|e| TemplateError::from_engine(&e, source))?;
    bounded(text)
}

/// Renders a value: a template that is one `{{ … }}` keeps the type of what it names, any other is
/// text.
pub fn render_value(source: &str, context: &Context) -> Result<Json, TemplateError> {
    if !is_template(source) {
        return Ok(Json::String(source.to_owned()));
    }
    let expression = bare(source);
    if expression.len() < source.trim().len() && TEXT.compile_expression(expression).is_ok() {
        return eval(expression, context);
    }
    render_text(source, context).map(Json::String)
}

/// Renders every text in a JSON value; keys are left alone.
pub fn render_json(value: &Json, context: &Context) -> Result<Json, TemplateError> {
    Ok(match value {
        Json::String(text) => render_value(text, context)?,
        Json::Array(items) => Json::Array(
            items.iter().map(|item| render_json(item, context)).collect::<Result<_, _>>()?,
        ),
        Json::Object(fields) => Json::Object(
            fields
                .iter()
                .map(|(key, value)| Ok((key.clone(), render_json(value, context)?)))
                .collect::<Result<_, TemplateError>>()?,
        ),
        other => other.clone(),
    })
}

/// Renders a shell script; values end up in environment variables beside it.
pub fn render_shell(source: &str, context: &Context) -> Result<ShellText, TemplateError> {
    let (text, values) = render_marked(source, context, Mode::Shell)?;
    shell::resolve(&text, &values)
}

/// Renders an SQL statement; values end up as numbered parameters beside it.
pub fn render_sql(source: &str, context: &Context) -> Result<SqlText, TemplateError> {
    let (text, values) = render_marked(source, context, Mode::Sql)?;
    sql::resolve(&text, &values)
}

fn render_marked(
    source: &str,
    context: &Context,
    mode: Mode,
) -> Result<(String, Vec<Json>), TemplateError> {
    let translate = |e: minijinja::Error| TemplateError::from_engine(&e, source);
    let template = compile(source, mode)?;
    let mut captured = template.render_captured(context.0.clone()).map_err(translate)?;
    let bound = captured.with_state_mut(|state| {
        std::mem::take(&mut state.get_or_insert_extension(Bound::default()).0)
    });
    let values = bound.iter().map(|v| to_json(v, source)).collect::<Result<_, _>>()?;
    Ok((bounded(captured.into_output())?, values))
}

fn bounded(text: String) -> Result<String, TemplateError> {
    if text.len() > MAX_RENDERED_BYTES {
        return Err(TemplateError::new(format!(
            "the rendered text has {} bytes; at most {MAX_RENDERED_BYTES} are allowed",
            text.len()
        )));
    }
    Ok(text)
}

fn to_json(value: &Value, source: &str) -> Result<Json, TemplateError> {
    if value.is_undefined() {
        return Err(undefined(source));
    }
    if let Some(Raw(text)) = value.downcast_object_ref::<Raw>() {
        return Ok(Json::String(text.to_string()));
    }
    serde_json::to_value(value)
        .map_err(|e| TemplateError::new(format!("the value cannot be passed on: {e}")))
}

fn undefined(expression: &str) -> TemplateError {
    let name: String = expression.trim().chars().take(80).collect();
    TemplateError { line: 1, column: 1, ..TemplateError::new(format!("`{name}` is undefined")) }
        .hint("use `| default(...)` if it may be missing")
}

/// Whether rendering could change the text at all.
fn is_template(source: &str) -> bool {
    source.contains("{{") || source.contains("{%") || source.contains("{#")
}

/// The expression within a lone pair of braces, or the text itself.
fn bare(source: &str) -> &str {
    let trimmed = source.trim();
    let inner = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    match inner {
        Some(inner) => {
            let inner = inner.strip_prefix('-').unwrap_or(inner);
            inner.strip_suffix('-').unwrap_or(inner).trim()
        }
        None => trimmed,
    }
}

/// Raw text is shared: a value is cloned whenever it is passed on.
impl Raw {
    pub(super) fn value(text: &str) -> Value {
        Value::from_object(Self(Arc::from(text)))
    }
}

/// The engine finds out about an unknown filter only when it meets it while rendering; this looks
/// for them before.
fn unknown_filter(source: &str, mode: Mode) -> Option<(usize, String)> {
    let mut rest = source;
    let mut base = 0;
    while let Some(open) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let code_at = base + open + 2;
        let after = &rest[open + 2..];
        let length = code_length(after);
        for (at, name) in filter_names(&after[..length]) {
            if !has_filter(mode, name) {
                return Some((code_at + at, name.to_owned()));
            }
        }
        base = code_at + length;
        rest = &source[base..];
    }
    None
}

/// Up to the closing braces, texts in quotes left out.
fn code_length(code: &str) -> usize {
    let mut quote = None;
    let mut last = '\0';
    for (at, c) in code.char_indices() {
        match quote {
            Some(q) if c == q && last != '\\' => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '}' && (last == '}' || last == '%') => return at,
            None => {}
        }
        last = if last == '\\' && c == '\\' { '\0' } else { c };
    }
    code.len()
}

/// Names after a `|`, with their places.
fn filter_names(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut last = '\0';
    for (at, c) in code.char_indices() {
        match quote {
            Some(q) if c == q && last != '\\' => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '|' => {
                let after = &code[at + 1..];
                let name = after.trim_start();
                let begin = at + 1 + (after.len() - name.len());
                let end =
                    name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                if end > 0 {
                    found.push((begin, &name[..end]));
                }
            }
            None => {}
        }
        last = if last == '\\' && c == '\\' { '\0' } else { c };
    }
    found
}

fn has_filter(mode: Mode, name: &str) -> bool {
    let probe = format!("0|{name}");
    match of(mode).compile_expression(&probe) {
        Ok(expression) => !matches!(
            expression.eval(Value::from(())),
            Err(error) if error.kind() == minijinja::ErrorKind::UnknownFilter
        ),
        // Something that is no filter's name: the compiler has judged it already.
        Err(_) => true,
    }
}

fn filters_exist(source: &str, code: &str, mode: Mode) -> Result<(), TemplateError> {
    let Some((at, name)) = unknown_filter(code, mode) else { return Ok(()) };
    let at = at.saturating_sub(code.len() - source.len());
    let (line, column) = super::error::position(source, at);
    Err(TemplateError {
        line,
        column,
        ..TemplateError::new(format!("there is no filter `{name}`"))
    }
    .hint("dates: date, ds, ds_nodash, ts, days(n), hours(n); text: upper, trim, replace, …"))
}
