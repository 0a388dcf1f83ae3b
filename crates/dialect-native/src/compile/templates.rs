//! Compiling templates and finding out what they look at.

use kobza_expr::native::{self, Mode, References, TaskReferences, TemplateError};

use super::Compiler;
use super::graph::Names;
use crate::diagnostic::{shown, suggest};
use crate::document::{Located, Tree};
use crate::shape::{Finding, below};
use crate::spec::{Reads, TaskRead};

/// Names that every task's templates may use.
const TASK_NAMES: &[&str] = &[
    "params",
    "run",
    "interval",
    "partition",
    "task",
    "tasks",
    "var",
    "secret",
    "workflow",
    "env",
];
const HOOK_NAMES: &[&str] =
    &["params", "run", "interval", "partition", "task", "var", "secret", "workflow", "owner"];

/// What templates at a place may look at.
pub(super) struct Scope<'s, 'a> {
    names: Vec<&'static str>,
    /// The graph around a task, and the task's place in it.
    tasks: Option<(&'s Names<'s, 'a>, usize)>,
}

/// What templates look at, collected over all of a task's templates.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) reads: Reads,
}

impl<'s, 'a> Scope<'s, 'a> {
    /// Connections: nothing that differs between tasks.
    pub(super) fn shared() -> Self {
        Self { names: vec!["var", "secret", "params"], tasks: None }
    }

    pub(super) fn event() -> Self {
        Self {
            names: vec!["event", "events", "slot", "interval", "partition", "trigger"],
            tasks: None,
        }
    }

    pub(super) fn hook(mapped: bool) -> Self {
        let mut names = HOOK_NAMES.to_vec();
        if mapped {
            names.extend(["item", "index"]);
        }
        Self { names, tasks: None }
    }

    pub(super) fn task(names: &'s Names<'s, 'a>, place: usize, mapped: bool) -> Self {
        let mut allowed: Vec<&str> =
            TASK_NAMES.iter().copied().filter(|name| *name != "env").collect();
        if mapped {
            allowed.extend(["item", "index"]);
        }
        Self { names: allowed, tasks: Some((names, place)) }
    }
}

impl Compiler<'_> {
    /// Compiles a text template.
    pub(super) fn template(
        &mut self,
        value: &Located,
        path: &str,
        mode: Mode,
        scope: &Scope<'_, '_>,
        out: &mut Collected,
    ) {
        let Some(text) = value.text() else { return };
        match native::check(text, mode) {
            Ok(references) => self.references(value, path, &references, scope, out),
            Err(error) => self.template_error(value, path, &error),
        }
    }

    /// Compiles an expression.
    pub(super) fn expression(
        &mut self,
        value: &Located,
        path: &str,
        scope: &Scope<'_, '_>,
        out: &mut Collected,
    ) {
        let Some(text) = value.text() else { return };
        match native::check_expression(text) {
            Ok(references) => self.references(value, path, &references, scope, out),
            Err(error) => self.template_error(value, path, &error),
        }
    }

    /// Compiles every text in a value.
    pub(super) fn json_template(
        &mut self,
        value: &Located,
        path: &str,
        scope: &Scope<'_, '_>,
        out: &mut Collected,
    ) {
        match &value.tree {
            Tree::Text(_) => self.template(value, path, Mode::Text, scope, out),
            Tree::List(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.json_template(item, &format!("{path}[{place}]"), scope, out);
                }
            }
            Tree::Map(fields) => {
                for (key, item) in fields {
                    self.json_template(item, &below(path, &key.text), scope, out);
                }
            }
            _ => {}
        }
    }

    fn template_error(&mut self, value: &Located, path: &str, error: &TemplateError) {
        let (line, column) = self.place_in(value, error.line, error.column);
        let hint = error.hint.clone().or_else(|| {
            Some("templates are Jinja: `{{ value | filter }}`, `{% if … %}…{% endif %}`".to_owned())
        });
        self.error(Finding {
            line,
            column,
            field: path.to_owned(),
            message: format!("the template does not compile: {}", error.message),
            hint,
        });
    }

    /// The place in the file of a place within a text value.
    fn place_in(&self, value: &Located, line: usize, column: usize) -> (u32, u32) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if line == 0 {
            return (value.line, value.column);
        }
        let first = (value.line as usize).saturating_sub(1);
        let begin = self.source.get(first).map_or("", |l| l);
        let at: String = begin.chars().skip((value.column as usize).saturating_sub(1)).collect();
        if at.starts_with(['|', '>']) {
            // A block: its lines follow, indented by as much as the first of them.
            let body = &self.source[(first + 1).min(self.source.len())..];
            let indent = body
                .iter()
                .find(|l| !l.trim().is_empty())
                .map_or(0, |l| l.chars().take_while(|c| *c == ' ').count());
            return (number(first + 1 + line), number(indent + column.max(1)));
        }
        if line > 1 {
            return (number(first + line), number(column.max(1)));
        }
        let quote = usize::from(at.starts_with(['"', '\'']));
        (value.line, number(value.column as usize + quote + column.max(1) - 1))
    }

    fn references(
        &mut self,
        value: &Located,
        path: &str,
        references: &References,
        scope: &Scope<'_, '_>,
        out: &mut Collected,
    ) {
        for root in references.roots() {
            if !scope.names.contains(&root) {
                let message = format!("`{}` is not known in this template", shown(root));
                let hint = match root {
                    "item" | "index" => Some("only tasks with `map` have it".to_owned()),
                    _ => suggest(root, scope.names.iter().copied()),
                };
                let finding = self.at_text(value, path, root, message).maybe_hint(hint);
                self.error(finding);
            }
        }
        if references.uses("item") || references.uses("index") {
            out.reads.item = true;
        }
        for (root, list) in [("var", &mut out.reads.variables), ("secret", &mut out.reads.secrets)]
        {
            if references.names().any(|name| name == root) {
                let message = format!("`{root}` needs the name to stand after it");
                self.findings
                    .push(Finding::at(value, path, message).hint(format!("write `{root}.name`")));
            }
            for name in references.below(root) {
                let name = name.split('.').next().unwrap_or("").to_owned();
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        }
        if !self.params.is_empty() || references.below("params").next().is_some() {
            self.param_references(value, path, references);
        }
        if references.uses("tasks")
            && let Some((names, place)) = scope.tasks
        {
            self.task_references(value, path, references, names, place, out);
        }
    }

    fn param_references(&mut self, value: &Located, path: &str, references: &References) {
        for name in references.below("params") {
            let name = name.split('.').next().unwrap_or("");
            // Methods of the mapping itself, not parameters.
            if self.params.iter().any(|p| p == name) || matches!(name, "get" | "items" | "keys") {
                continue;
            }
            let hint = suggest(name, self.params.iter().map(String::as_str))
                .unwrap_or_else(|| format!("declare it: `params: {{{name}: {{type: string}}}}`"));
            let message = format!("the workflow has no parameter `{}`", shown(name));
            let finding = self.at_text(value, path, &format!("params.{name}"), message).hint(hint);
            self.error(finding);
        }
    }

    fn task_references(
        &mut self,
        value: &Located,
        path: &str,
        references: &References,
        names: &Names<'_, '_>,
        place: usize,
        out: &mut Collected,
    ) {
        let mut add = |read: TaskRead| {
            if !out.reads.tasks.contains(&read) {
                out.reads.tasks.push(read);
            }
        };
        let paths = match references.tasks() {
            TaskReferences::Any => {
                for read in names.every_ancestor(place) {
                    add(read);
                }
                return;
            }
            TaskReferences::Paths(paths) => paths,
        };
        for reference in paths {
            match names.read(place, reference) {
                Ok(reads) => reads.into_iter().for_each(&mut add),
                Err((message, hint)) => {
                    let written = format!("tasks.{reference}");
                    let finding = self.at_text(value, path, &written, message).maybe_hint(hint);
                    self.findings.push(finding);
                }
            }
        }
    }

    /// A finding about a name in a text: at the name, where it stands literally.
    fn at_text(&self, value: &Located, path: &str, name: &str, message: String) -> Finding {
        let mut finding = Finding::at(value, path, message);
        if let Some(text) = value.text()
            && let Some(offset) = text.find(name)
        {
            let line = text[..offset].matches('\n').count() + 1;
            let column = text[..offset].rsplit('\n').next().unwrap_or("").chars().count() + 1;
            (finding.line, finding.column) = self.place_in(value, line, column);
        }
        finding
    }
}
