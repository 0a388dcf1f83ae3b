//! From a checked document to a workflow.
//!
//! The document's form has been checked against the grammar before; here names are resolved,
//! templates compiled and everything brought into the engine's general forms. As many errors as
//! possible are found in one pass.

mod edges;
mod gates;
mod graph;
mod kinds;
mod task;
mod templates;
mod triggers;

use kobza_model::{Hook, HookOn, Json, Leaf, Template, TemplateBody, TemplateNo, Workflow};
use serde_json::Map;

use crate::diagnostic::Diagnostic;
use crate::document::{Located, Tree};
use crate::quantity::parse_duration_ms;
use crate::shape::{Finding, below};
use crate::spec::{Pool, Shared};

pub(crate) use task::MAX_INSTANCES;

/// Most tasks in one graph; more belong into a `map`.
const MAX_TASKS: usize = 100_000;

pub(crate) struct Compiler<'a> {
    source: Vec<&'a str>,
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
    templates: Vec<Template>,
    root: &'a Located,
    defaults: Option<&'a Located>,
    /// Names of parameters; `None` where the workflow declares none.
    params: Vec<String>,
    pools: Vec<Pool>,
}

/// Compiles a checked document.
pub(crate) fn compile<'a>(
    file: &'a str,
    source: &'a str,
    root: &'a Located,
) -> (Option<Workflow>, Vec<Diagnostic>, Vec<Diagnostic>, Vec<Pool>) {
    let mut compiler = Compiler {
        source: source.split('\n').collect(),
        findings: Vec::new(),
        warnings: Vec::new(),
        templates: Vec::new(),
        root,
        defaults: root.get("defaults"),
        params: root.get("params").map_or_else(Vec::new, |p| {
            p.fields().iter().map(|(key, _)| key.text.clone()).collect()
        }),
        pools: Vec::new(),
    };
    let workflow = compiler.workflow();
    let failed = !compiler.findings.is_empty();
    let errors = std::mem::take(&mut compiler.findings);
    let warnings = std::mem::take(&mut compiler.warnings);
    let pools = std::mem::take(&mut compiler.pools);
    ((!failed).then_some(workflow), located_in(file, errors), located_in(file, warnings), pools)
}

/// Where nothing more exact can be said.
const GENERAL_HINT: &str = "`kobza schema` prints every field with its form and meaning";

/// Findings as diagnostics, in order of their place, each once.
pub(crate) fn located_in(file: &str, findings: Vec<Finding>) -> Vec<Diagnostic> {
    let mut all: Vec<Diagnostic> = findings
        .into_iter()
        .map(|f| Diagnostic {
            file: file.to_owned(),
            line: f.line.max(1),
            column: f.column.max(1),
            field: f.field,
            message: f.message,
            hint: f.hint.or_else(|| Some(GENERAL_HINT.to_owned())),
        })
        .collect();
    all.sort_by(|a, b| (a.line, a.column, &a.field).cmp(&(b.line, b.column, &b.field)));
    all.dedup();
    all
}

impl<'a> Compiler<'a> {
    fn error(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn workflow(&mut self) -> Workflow {
        let root = self.root;
        self.read_pools();
        let connections = self.connections();
        let params = self.params_schema();
        let triggers = self.triggers();
        // The root's graph is template 0, whatever else is made on the way.
        let entry = self.reserve("main");
        if let Some(tasks) = root.get("tasks") {
            if tasks.fields().is_empty() {
                self.error(
                    Finding::at(tasks, "tasks", "a workflow has at least one task")
                        .hint("add one, such as `hello: {shell: \"echo hello\"}`"),
                );
            }
            let graph = self.graph(tasks, "tasks", "", None);
            self.templates[entry.index()].body = TemplateBody::Graph(kobza_model::Graph {
                verdict: kobza_model::Verdict {
                    fail_fast: flag(root, "fail_fast"),
                    ..kobza_model::Verdict::default()
                },
                parallelism: count(root, "parallelism"),
                ..graph
            });
        }
        let hooks = self.hooks(root, "", None);
        let text = |key: &str| root.get(key).and_then(Located::text).map(str::to_owned);
        let partitions = self.partitions();
        let shared = Shared {
            connections,
            namespace: text("namespace"),
            pools: self.pools.clone(),
            partitions,
        };
        Workflow {
            name: text("name").unwrap_or_default(),
            dialect: crate::DIALECT.to_owned(),
            templates: std::mem::take(&mut self.templates),
            entry,
            description: text("description"),
            tags: root
                .get("tags")
                .map(|tags| tags.items().iter().filter_map(Located::scalar).collect())
                .unwrap_or_default(),
            params,
            timeout_ms: root.get("timeout").and_then(parse_duration_ms),
            max_active_runs: count(root, "max_active_runs"),
            hooks,
            open: false,
            backfills_apart: false,
            triggers,
            source: to_json(&shared),
        }
    }

    fn reserve(&mut self, name: &str) -> TemplateNo {
        let number = TemplateNo(u32::try_from(self.templates.len()).unwrap_or(u32::MAX));
        let placeholder = Leaf { kind: "noop".to_owned(), spec: Json::Null };
        self.templates
            .push(Template { name: name.to_owned(), body: TemplateBody::Leaf(placeholder) });
        number
    }

    fn read_pools(&mut self) {
        let Some(pools) = self.root.get("pools") else { return };
        for (key, value) in pools.fields() {
            let capacity = match &value.tree {
                Tree::Number(_) => value.integer(),
                _ => value.get("capacity").and_then(Located::integer),
            };
            self.pools.push(Pool {
                name: key.text.clone(),
                capacity: capacity.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                strict: flag(value, "strict"),
                description: value.get("description").and_then(Located::text).map(str::to_owned),
            });
        }
    }

    fn connections(&mut self) -> Map<String, Json> {
        let mut out = Map::new();
        let Some(connections) = self.root.get("connections") else { return out };
        for (key, value) in connections.fields() {
            let path = below("connections", &key.text);
            let mut refs = templates::Collected::default();
            let scope = templates::Scope::shared();
            self.json_template(value, &path, &scope, &mut refs);
            out.insert(key.text.clone(), value.json());
        }
        out
    }

    fn partitions(&mut self) -> Json {
        let Some(value) = self.root.get("partitions") else { return Json::Null };
        let definition = value.json();
        if let Err(error) = kobza_schedule::partition::PartitionDefinition::parse(&definition) {
            self.error(Finding::at(value, "partitions", error.to_string()));
        }
        definition
    }

    /// The parameters' JSON Schema.
    fn params_schema(&mut self) -> Json {
        let Some(params) = self.root.get("params") else { return Json::Null };
        match crate::params::schema(params) {
            Ok(schema) => schema,
            Err(findings) => {
                self.findings.extend(findings);
                Json::Null
            }
        }
    }

    /// Hooks of the workflow (`owner` none) or of a task.
    fn hooks(
        &mut self,
        holder: &'a Located,
        path: &str,
        owner: Option<&graph::Draft<'a>>,
    ) -> Vec<Hook> {
        let Some(hooks) = holder.get("hooks") else { return Vec::new() };
        let path = below(path, "hooks");
        let mut out = Vec::new();
        for (word, on) in [
            ("on_success", HookOn::Success),
            ("on_failure", HookOn::Failure),
            ("on_exit", HookOn::Exit),
        ] {
            let Some(value) = hooks.get(word) else { continue };
            let path = below(&path, word);
            let single = std::slice::from_ref(value);
            let list = if value.is_list() { value.items() } else { single };
            for (place, hook) in list.iter().enumerate() {
                let path = if value.is_list() { format!("{path}[{place}]") } else { path.clone() };
                let name = match hook.get("name").and_then(Located::text) {
                    Some(name) => name.to_owned(),
                    None if list.len() > 1 => format!("{word}.{}", place + 1),
                    None => word.to_owned(),
                };
                let scope = templates::Scope::hook(owner.is_some_and(|o| o.mapped));
                let full = owner.map_or_else(|| name.clone(), |o| format!("{}.{name}", o.name));
                let (call, spec) = self.leaf(hook, &path, &full, &scope, false);
                let guard = spec.when.is_some();
                out.push(Hook {
                    name,
                    on,
                    call,
                    affects: flag(hook, "must_succeed"),
                    guard,
                    skip_on_cancel: false,
                    arguments: if guard { to_json(&spec) } else { Json::Null },
                });
            }
        }
        out
    }
}

pub(crate) fn flag(value: &Located, key: &str) -> bool {
    value.get(key).and_then(Located::bool).unwrap_or(false)
}

pub(crate) fn count(value: &Located, key: &str) -> Option<u32> {
    value.get(key)?.integer().and_then(|n| u32::try_from(n).ok())
}

/// Own types always have a JSON form: their keys are texts.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Json {
    serde_json::to_value(value).unwrap_or(Json::Null)
}

/// A text or a list of texts.
pub(crate) fn words(value: Option<&Located>) -> Vec<(&Located, &str)> {
    let Some(value) = value else { return Vec::new() };
    let one = std::slice::from_ref(value);
    let list = if value.is_list() { value.items() } else { one };
    list.iter().filter_map(|item| Some((item, item.text()?))).collect()
}
