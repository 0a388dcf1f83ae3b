//! Bodies of tasks, kind by kind.

use kobza_expr::native::Mode;
use kobza_model::Json;
use serde_json::json;

use super::Compiler;
use super::templates::{Collected, Scope};
use crate::document::Located;
use crate::quantity::parse_duration_ms;
use crate::shape::{Finding, below};
use crate::spec::{Body, Wait};

/// How often a file is looked for, unless told otherwise.
const POLL_MS: u64 = 5_000;
/// How often a request or a statement is repeated, unless told otherwise: each is a process.
const PROBE_MS: u64 = 30_000;

fn text(value: &Located, key: &str) -> Option<String> {
    value.get(key).and_then(Located::text).map(str::to_owned)
}

fn pairs(value: Option<&Located>) -> Vec<(String, String)> {
    value
        .map(|v| {
            v.fields()
                .iter()
                .filter_map(|(key, item)| Some((key.text.clone(), item.scalar()?)))
                .collect()
        })
        .unwrap_or_default()
}

impl<'a> Compiler<'a> {
    /// A field of the task, else of the workflow's defaults.
    pub(super) fn setting(&self, value: &'a Located, key: &str) -> Option<&'a Located> {
        value.get(key).or_else(|| self.defaults?.get(key))
    }

    /// The body of a task and its leaf kind. `check` bodies judge data.
    pub(super) fn body(
        &mut self,
        value: &'a Located,
        kind: &str,
        path: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
        check: bool,
    ) -> (&'static str, Body) {
        let Some(spec) = value.get(kind) else { return ("noop", Body::Noop) };
        let at = below(path, kind);
        match kind {
            "shell" => ("shell", self.shell(spec, &at, scope, out)),
            "python" => ("python", self.python(value, spec, (path, &at), scope, out, check)),
            "sql" => ("sql", self.sql(value, spec, (path, &at), scope, out, check)),
            "http" => ("http", self.http(spec, &at, scope, out)),
            "approval" | "suspend" => {
                ("suspend", self.suspend(spec, &at, kind == "approval", scope, out))
            }
            "wait" => ("wait", Body::Wait(self.wait(spec, &at, scope, out))),
            "workflow" => ("workflow", self.workflow_call(value, spec, (path, &at), scope, out)),
            _ => {
                if spec.bool() == Some(false) {
                    self.error(
                        Finding::at(spec, &at, "a `noop` is always one").hint("write `true`"),
                    );
                }
                ("noop", Body::Noop)
            }
        }
    }

    fn shell(
        &mut self,
        spec: &'a Located,
        at: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> Body {
        let command = spec.get("command").unwrap_or(spec);
        let path = if spec.is_map() { below(at, "command") } else { at.to_owned() };
        self.template(command, &path, Mode::Shell, scope, out);
        let shell = text(spec, "shell")
            .or_else(|| self.defaults.and_then(|d| text(d, "shell")))
            .unwrap_or_else(|| "/bin/sh".to_owned());
        Body::Shell { command: command.text().unwrap_or_default().to_owned(), shell }
    }

    fn python(
        &mut self,
        value: &'a Located,
        spec: &'a Located,
        (path, at): (&str, &str),
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
        check: bool,
    ) -> Body {
        let function = spec.text().map(str::to_owned).or_else(|| text(spec, "function"));
        let (file, code) = (text(spec, "file"), text(spec, "code"));
        if let Some(name) = &function {
            let found = spec.get("function").unwrap_or(spec);
            let last = name.rsplit(['.', ':']).next().unwrap_or("");
            let whole = file.is_some() || name.len() > last.len() + 1;
            let plain = name.chars().all(|c| c.is_alphanumeric() || "_.:".contains(c));
            if !whole || !plain || last.is_empty() || last.starts_with(|c: char| c.is_numeric()) {
                let message = format!("`{}` names no function", crate::diagnostic::shown(name));
                self.error(
                    Finding::at(found, at, message).hint("write `module.function`, as `etl.load`"),
                );
            }
        }
        let given = [function.is_some(), file.is_some(), code.is_some()];
        if given == [false; 3] {
            self.error(
                Finding::at(spec, at, "does not say what to run")
                    .hint("give `function`, `file` or `code`"),
            );
        }
        if code.is_some() && (function.is_some() || file.is_some()) {
            self.error(
                Finding::at(spec, at, "`code` stands for itself")
                    .hint("remove `function` and `file`, or `code`"),
            );
        }
        if let Some(with) = value.get("with") {
            self.json_template(with, &below(path, "with"), scope, out);
            if file.is_some() && function.is_none() {
                self.error(
                    Finding::at(with, &below(path, "with"), "a script takes no arguments")
                        .hint("add `function`, or pass values by `env`"),
                );
            }
        }
        let defaults = self.defaults.and_then(|d| d.get("python"));
        let setting = |key: &str| text(spec, key).or_else(|| defaults.and_then(|d| text(d, key)));
        let folders = spec.get("path").or_else(|| defaults?.get("path"));
        let mut venv = setting("venv");
        let mut interpreter = setting("interpreter");
        if spec.get("venv").is_some() && spec.get("interpreter").is_some() {
            self.error(
                Finding::at(spec, at, "has both `venv` and `interpreter`").hint("give one of them"),
            );
        }
        // The nearer one wins over the defaults' other one.
        if spec.get("venv").is_some() {
            interpreter = None;
        } else if interpreter.is_some() && spec.get("interpreter").is_some() {
            venv = None;
        }
        Body::Python {
            function,
            file,
            code,
            interpreter,
            venv,
            path: folders
                .map(|f| f.items().iter().filter_map(Located::scalar).collect())
                .unwrap_or_default(),
            requirements: spec
                .get("requirements")
                .or_else(|| defaults?.get("requirements"))
                .map(Located::json),
            mode: setting("mode"),
            with: value.get("with").map_or_else(|| json!({}), Located::json),
            check,
        }
    }

    fn connection(&mut self, value: &'a Located, spec: &'a Located, path: &str) -> Option<String> {
        let named = spec.get("connection").or_else(|| self.setting(value, "connection"));
        let name = named.and_then(Located::text)?;
        let declared = self.root.get("connections");
        if declared.is_none_or(|d| d.get(name).is_none())
            && let Some(at) = named
        {
            let hint = declared.and_then(|d| {
                crate::diagnostic::nearest(name, d.fields().iter().map(|(k, _)| k.text.as_str()))
            });
            let hint = match hint {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it under `connections`, unless the server has it".to_owned(),
            };
            let message = format!("this file declares no connection `{name}`");
            self.warnings.push(Finding::at(at, &below(path, "connection"), message).hint(hint));
        }
        Some(name.to_owned())
    }

    fn sql(
        &mut self,
        value: &'a Located,
        spec: &'a Located,
        (path, at): (&str, &str),
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
        check: bool,
    ) -> Body {
        let statement = spec.get("statement").unwrap_or(spec);
        let field = if spec.is_map() { below(at, "statement") } else { at.to_owned() };
        self.template(statement, &field, Mode::Sql, scope, out);
        let connection = self.connection(value, spec, path);
        if connection.is_none() {
            self.error(Finding::at(spec, at, "does not say in which database").hint(
                "add `connection: name`, with `connections: {name: {url: \"sqlite:file.db\"}}`",
            ));
        }
        let expect = spec.get("expect").or_else(|| value.get("expect"));
        if let Some(expect) = expect {
            self.json_template(expect, &below(path, "expect"), scope, out);
        }
        Body::Sql {
            statement: statement.text().unwrap_or_default().to_owned(),
            connection: connection.unwrap_or_default(),
            expect: expect.map(Located::json).or_else(|| check.then_some(Json::Bool(true))),
            max_rows: spec.get("max_rows").and_then(Located::integer).map(i64::unsigned_abs),
        }
    }

    fn http(
        &mut self,
        spec: &'a Located,
        at: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> Body {
        let url = spec.get("url").unwrap_or(spec);
        self.template(url, &below(at, "url"), Mode::Text, scope, out);
        for key in ["headers", "query", "json", "body"] {
            if let Some(part) = spec.get(key) {
                self.json_template(part, &below(at, key), scope, out);
            }
        }
        if let (Some(_), Some(body)) = (spec.get("json"), spec.get("body")) {
            self.error(
                Finding::at(body, &below(at, "body"), "has both `json` and `body`")
                    .hint("give one of them"),
            );
        }
        let has_body = spec.get("json").is_some() || spec.get("body").is_some();
        let expect = spec.get("expect");
        let one = expect.map_or(&[][..], std::slice::from_ref);
        let statuses = if one.iter().any(Located::is_list) { one[0].items() } else { one };
        Body::Http {
            url: url.text().unwrap_or_default().to_owned(),
            method: text(spec, "method")
                .unwrap_or_else(|| if has_body { "POST" } else { "GET" }.to_owned()),
            headers: pairs(spec.get("headers")),
            query: pairs(spec.get("query")),
            json: spec.get("json").map(Located::json),
            body: text(spec, "body"),
            expect: statuses
                .iter()
                .filter_map(|status| u16::try_from(status.integer()?).ok())
                .collect(),
            timeout_ms: spec.get("timeout").and_then(parse_duration_ms),
        }
    }

    fn suspend(
        &mut self,
        spec: &'a Located,
        at: &str,
        approval: bool,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> Body {
        let message = if spec.text().is_some() { Some(spec) } else { spec.get("message") };
        if let Some(message) = message {
            self.template(message, at, Mode::Text, scope, out);
        }
        Body::Suspend {
            message: message.and_then(Located::text).map(str::to_owned),
            approvers: spec
                .get("approvers")
                .map(|a| a.items().iter().filter_map(Located::scalar).collect())
                .unwrap_or_default(),
            inputs: spec.get("inputs").map_or(Json::Null, Located::json),
            approval,
        }
    }

    fn wait(
        &mut self,
        spec: &'a Located,
        at: &str,
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> Wait {
        if let Some(until) = spec.get("until") {
            self.template(until, &below(at, "until"), Mode::Text, scope, out);
            return Wait::Until { time: until.text().unwrap_or_default().to_owned() };
        }
        if let Some(file) = spec.get("file") {
            self.template(file, &below(at, "file"), Mode::Text, scope, out);
            return Wait::File {
                path: file.text().unwrap_or_default().to_owned(),
                every_ms: spec.get("every").and_then(parse_duration_ms).unwrap_or(POLL_MS),
            };
        }
        if let Some(event) = spec.get("event") {
            if let Some(filter) = spec.get("filter") {
                self.expression(filter, &below(at, "filter"), &Scope::event(), out);
            }
            return Wait::Event {
                name: event.text().unwrap_or_default().to_owned(),
                filter: text(spec, "filter"),
            };
        }
        if let Some(asset) = spec.get("asset") {
            for key in ["asset", "partition", "since"] {
                if let Some(part) = spec.get(key) {
                    self.template(part, &below(at, key), Mode::Text, scope, out);
                }
            }
            return Wait::Asset {
                name: asset.text().unwrap_or_default().to_owned(),
                partition: text(spec, "partition"),
                since: text(spec, "since"),
            };
        }
        let body = match (spec.get("http"), spec.get("sql")) {
            (Some(request), _) => Some(self.http(request, &below(at, "http"), scope, out)),
            // The wait's own fields stand where a task has them.
            (None, Some(statement)) => {
                Some(self.sql(spec, statement, (at, &below(at, "sql")), scope, out, true))
            }
            (None, None) => None,
        };
        if let Some(body) = body {
            return Wait::Poll {
                body: Box::new(body),
                every_ms: spec.get("every").and_then(parse_duration_ms).unwrap_or(PROBE_MS),
            };
        }
        Wait::For { ms: parse_duration_ms(spec.get("for").unwrap_or(spec)).unwrap_or(0) }
    }

    fn workflow_call(
        &mut self,
        value: &'a Located,
        spec: &'a Located,
        (path, _): (&str, &str),
        scope: &Scope<'_, 'a>,
        out: &mut Collected,
    ) -> Body {
        if let Some(with) = value.get("with") {
            self.json_template(with, &below(path, "with"), scope, out);
        }
        Body::Workflow {
            name: spec.text().map(str::to_owned).or_else(|| text(spec, "name")).unwrap_or_default(),
            namespace: text(spec, "namespace"),
            wait: spec.get("wait").and_then(Located::bool).unwrap_or(true),
            with: value.get("with").map_or_else(|| json!({}), Located::json),
        }
    }
}
