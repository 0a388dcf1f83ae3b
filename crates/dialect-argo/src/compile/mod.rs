//! A workflow's spec to the engine's general forms.
//!
//! The root graph has one node, which calls the entrypoint: so the entrypoint's inputs, retries and
//! hooks are those of any other call. A `steps` template is a graph of groups in order, each group a
//! graph of its steps; a `dag` template is one graph with logical gates. What only the dialect needs
//! (arguments, conditions, the template as written) stays in the opaque parts.

mod calls;
mod graphs;
mod library;

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_expr::argo_expr::parse_duration;
use kobza_model::{
    Gate, Graph, Hook, HookOn, Json, Leaf, Template, TemplateBody, TemplateNo, Verdict, VerdictSet,
    Workflow,
};
use serde_json::json;

use crate::document::{Diagnostic, Kind, Object};
use crate::normal::merge;
use calls::require_expression;
use library::reference_of;
pub use library::{Library, effective_spec};

/// What compilation needs besides the object.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Limits are named within it.
    pub namespace: String,
    /// Values of workflow parameters for the few fields that must be known before the run (targets,
    /// names of mutexes); others are substituted while it runs.
    pub parameters: BTreeMap<String, String>,
}

/// Bodies that a template may have; exactly one.
pub(crate) const BODIES: &[&str] = &[
    "container",
    "script",
    "steps",
    "dag",
    "suspend",
    "http",
    "containerSet",
    "resource",
    "data",
    "plugin",
];

type Result<T> = std::result::Result<T, Diagnostic>;

/// Compiles an object that has a spec to run.
pub fn compile(
    object: &Object,
    library: &dyn Library,
    options: &CompileOptions,
) -> std::result::Result<Workflow, Diagnostic> {
    let spec = effective_spec(object, library)?;
    let metadata = &object.json["metadata"];
    let name = metadata["name"]
        .as_str()
        .or_else(|| metadata["generateName"].as_str().map(|n| n.trim_end_matches('-')))
        .filter(|n| !n.is_empty())
        .ok_or_else(|| {
            Diagnostic::new("metadata.name", "or generateName is required")
                .hint("generateName makes a new name for each")
        })?
        .to_owned();
    let scope = match (&spec["workflowTemplateRef"], object.kind) {
        (Json::Object(_), _) => {
            let (name, cluster) = reference_of(&spec["workflowTemplateRef"]);
            Scope { kind: if cluster { "cluster" } else { "namespaced" }, name }
        }
        (_, Kind::WorkflowTemplate) => Scope { kind: "namespaced", name: name.clone() },
        (_, Kind::ClusterWorkflowTemplate) => Scope { kind: "cluster", name: name.clone() },
        _ => Scope { kind: "local", name: String::new() },
    };
    let mut compiler = Compiler {
        library,
        options,
        spec: &spec,
        templates: Vec::new(),
        known: BTreeMap::new(),
        specs: BTreeMap::new(),
        inlines: 0,
    };
    compiler.specs.insert(scope.clone(), Arc::new(spec.clone()));
    let workflow = compiler.workflow(&name, &scope)?;
    let mut source = spec.clone();
    if let Some(source) = source.as_object_mut() {
        source.shift_remove("templates");
    }
    let timeout_ms = match spec["activeDeadlineSeconds"].as_str() {
        None => None,
        Some(text) => {
            let seconds: i64 = text.parse().map_err(|_| {
                Diagnostic::new("spec.activeDeadlineSeconds", "must be a number of seconds")
                    .hint("such as 3600; a template's timeout takes units, such as 1h")
            })?;
            Some(u64::try_from(seconds.max(0)).unwrap_or(0).saturating_mul(1000))
        }
    };
    let (name, triggers) = match object.kind {
        Kind::CronWorkflow => {
            (crate::cron::definition_name(&name), crate::cron::triggers(&object.json["spec"])?)
        }
        _ => (name, Json::Null),
    };
    Ok(Workflow {
        name,
        triggers,
        dialect: "argo".to_owned(),
        timeout_ms,
        description: metadata["annotations"]["workflows.argoproj.io/description"]
            .as_str()
            .map(str::to_owned),
        params: parameters_schema(&spec),
        source: json!({ "spec": source, "metadata": metadata, "kind": object.kind.as_str() }),
        ..workflow
    })
}

/// Compiles without anything being run: the object is good, or why not. A template without an
/// entrypoint is a shelf of templates, each of which must be good.
pub fn lint(
    object: &Object,
    library: &dyn Library,
    options: &CompileOptions,
) -> std::result::Result<(), Diagnostic> {
    if matches!(object.kind, Kind::WorkflowEventBinding | Kind::ConfigMap | Kind::Secret) {
        return Ok(());
    }
    crate::lint::check(object)?;
    let spec = effective_spec(object, library)?;
    let template = matches!(object.kind, Kind::WorkflowTemplate | Kind::ClusterWorkflowTemplate);
    if template && spec["entrypoint"].as_str().is_none() {
        for template in spec["templates"].as_array().into_iter().flatten() {
            let mut one = object.clone();
            one.json["spec"]["entrypoint"] = template["name"].clone();
            compile(&one, library, options)?;
        }
        return Ok(());
    }
    compile(object, library, options).map(|_| ())
}

/// JSON Schema of the workflow's parameters: strings, with defaults and choices.
fn parameters_schema(spec: &Json) -> Json {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for parameter in spec["arguments"]["parameters"].as_array().into_iter().flatten() {
        let Some(name) = parameter["name"].as_str() else { continue };
        let mut schema = json!({ "type": "string" });
        if let Some(value) = parameter.get("value").or_else(|| parameter.get("default")) {
            schema["default"] = value.clone();
        } else if parameter.get("valueFrom").is_none() {
            required.push(Json::from(name));
        }
        if let Some(choices) = parameter.get("enum") {
            schema["enum"] = choices.clone();
        }
        if let Some(text) = parameter.get("description") {
            schema["description"] = text.clone();
        }
        properties.insert(name.to_owned(), schema);
    }
    // Callers may add parameters that only expressions and templates of others mention.
    json!({ "type": "object", "properties": properties, "required": required,
            "additionalProperties": { "type": "string" } })
}

/// Whose templates a name means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Scope {
    kind: &'static str,
    name: String,
}

impl Scope {
    fn text(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

struct Compiler<'a> {
    library: &'a dyn Library,
    options: &'a CompileOptions,
    spec: &'a Json,
    templates: Vec<Template>,
    known: BTreeMap<(Scope, String), TemplateNo>,
    specs: BTreeMap<Scope, Arc<Json>>,
    inlines: u32,
}

/// Longest chain of templates that call each other before anything is called again: far beyond
/// anything written by hand, and what the recursion of this compiler may use of the stack.
const NESTING_MAX: u32 = 200;

impl Compiler<'_> {
    fn workflow(&mut self, name: &str, scope: &Scope) -> Result<Workflow> {
        let entrypoint =
            self.spec["entrypoint"].as_str().filter(|e| !e.is_empty()).ok_or_else(|| {
                Diagnostic::new("spec.entrypoint", "is required")
                    .hint("the name of the template to begin with")
            })?;
        let placeholder = Graph {
            nodes: Vec::new(),
            verdict: Verdict::default(),
            parallelism: None,
            outputs: false,
            spec: Json::Null,
        };
        self.templates
            .push(Template { name: "$root".to_owned(), body: TemplateBody::Graph(placeholder) });
        let call = json!({ "name": entrypoint, "template": entrypoint });
        let mut entry = self.call(&call, scope, "spec.entrypoint", 0)?;
        entry.gate = Gate::always();
        // The run's own limits are held by its one root node.
        entry.limits.extend(self.limits(&self.spec["synchronization"], "spec")?);
        // `spec.arguments` are the values of the entrypoint's inputs of the same names.
        entry.arguments["entry"] = Json::Bool(true);
        let mut hooks = Vec::new();
        let on_exit = self.spec["onExit"].as_str().map(|template| json!({ "template": template }));
        let mut declared: Vec<(String, Json)> = self.spec["hooks"]
            .as_object()
            .map(|hooks| hooks.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
            .unwrap_or_default();
        if let Some(on_exit) = on_exit
            && !declared.iter().any(|(name, _)| name == "exit")
        {
            declared.push(("exit".to_owned(), on_exit));
        }
        for (name, hook) in &declared {
            let path = if name == "exit" { "spec.onExit" } else { "spec.hooks" };
            let path = format!("{path}.{name}");
            let call = self.hook_target(hook, scope, &path)?;
            let make = |on: HookOn| Hook {
                name: if name == "exit" { "onExit".to_owned() } else { format!("hooks.{name}") },
                on,
                call,
                affects: name == "exit",
                guard: true,
                skip_on_cancel: false,
                arguments: json!({ "hook": hook, "level": "workflow" }),
            };
            hooks.push(make(HookOn::Exit));
            if name != "exit" {
                require_expression(hook, &path)?;
                // Hooks of a run are called at its end; its start is the start of its root node.
                entry.hooks.push(make(HookOn::Start));
            }
        }
        let parallelism = self.count(self.spec.get("parallelism"), "spec.parallelism")?;
        self.templates[0].body = TemplateBody::Graph(Graph {
            nodes: vec![entry],
            verdict: Verdict { set: VerdictSet::All, ..Verdict::default() },
            parallelism,
            outputs: false,
            spec: json!({ "role": "root" }),
        });
        Ok(Workflow {
            name: name.to_owned(),
            dialect: "argo".to_owned(),
            templates: std::mem::take(&mut self.templates),
            entry: TemplateNo(0),
            description: None,
            tags: Vec::new(),
            params: Json::Null,
            timeout_ms: None,
            max_active_runs: None,
            hooks,
            open: false,
            backfills_apart: false,
            triggers: Json::Null,
            source: Json::Null,
        })
    }

    fn count(&self, value: Option<&Json>, path: &str) -> Result<Option<u32>> {
        let number = match value {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(text)) => self.constant(text).parse().ok(),
            Some(other) => other.as_i64(),
        };
        let number = number.ok_or_else(|| {
            Diagnostic::new(path, "must be a number").hint("how many may run at once")
        })?;
        Ok(u32::try_from(number).ok().filter(|n| *n > 0))
    }

    /// A text whose workflow parameters are replaced, for fields that must be known beforehand.
    fn constant(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (name, value) in &self.options.parameters {
            out = out.replace(&format!("{{{{workflow.parameters.{name}}}}}"), value);
        }
        out
    }

    /// The template that a call names, and whose it is.
    fn find(&mut self, call: &Json, scope: &Scope, path: &str) -> Result<(Arc<Json>, Scope)> {
        if let Some(inline) = call.get("inline").filter(|i| i.is_object()) {
            let mut inline = inline.clone();
            self.inlines += 1;
            inline["$inline"] = Json::from(self.inlines);
            return Ok((Arc::new(inline), scope.clone()));
        }
        let (name, scope) = match call.get("templateRef").filter(|r| r.is_object()) {
            Some(reference) => {
                let (object, cluster) = reference_of(reference);
                let template = reference["template"].as_str().unwrap_or_default().to_owned();
                let kind = if cluster { "cluster" } else { "namespaced" };
                (template, Scope { kind, name: object })
            }
            None => (call["template"].as_str().unwrap_or_default().to_owned(), scope.clone()),
        };
        if name.is_empty() {
            return Err(Diagnostic::new(path, "must specify a template, a templateRef or inline")
                .hint("template names one of this object, templateRef one of another"));
        }
        if !self.specs.contains_key(&scope) {
            let found = if scope.kind == "cluster" {
                self.library.cluster_workflow_template(&scope.name)
            } else {
                self.library.workflow_template(&scope.name)
            };
            let found = found.ok_or_else(|| {
                Diagnostic::new(
                    path,
                    format!("templateRef {:?}: workflow template not found", scope.name),
                )
                .hint("create it first; one of the cluster needs clusterScope: true")
            })?;
            self.specs.insert(scope.clone(), Arc::new(found["spec"].clone()));
        }
        let spec = &self.specs[&scope];
        let found = spec["templates"]
            .as_array()
            .and_then(|all| all.iter().find(|t| t["name"].as_str() == Some(&name)))
            .ok_or_else(|| {
                Diagnostic::new(path, format!("template name '{name}' undefined"))
                    .hint("names of templates are exact; check `spec.templates`")
            })?;
        Ok((Arc::new(found.clone()), scope))
    }

    /// With `templateDefaults` and the workflow's default retries.
    fn with_defaults(&self, template: &Json) -> Json {
        let mut out = match self.spec.get("templateDefaults").filter(|d| d.is_object()) {
            Some(defaults) => merge(defaults, template),
            None => template.clone(),
        };
        let has_body = BODIES.iter().any(|body| template.get(*body).is_some());
        if let Some(fields) = out.as_object_mut() {
            fields.retain(|key, _| {
                // A default of another kind must not give the template a second body.
                !BODIES.contains(&key.as_str()) || template.get(key).is_some() || !has_body
            });
        }
        if out.get("retryStrategy").is_none()
            && let Some(retry) = self.spec.get("retryStrategy").filter(|r| r.is_object())
        {
            out["retryStrategy"] = retry.clone();
        }
        out
    }

    fn template(
        &mut self,
        written: Arc<Json>,
        scope: &Scope,
        path: &str,
        nesting: u32,
    ) -> Result<TemplateNo> {
        if nesting > NESTING_MAX {
            return Err(Diagnostic::new(path, "templates are nested too deeply")
                .hint(format!("at most {NESTING_MAX} templates call each other in a row")));
        }
        let name = match written.get("$inline") {
            Some(number) => format!("$inline-{number}"),
            None => written["name"].as_str().unwrap_or_default().to_owned(),
        };
        let key = (scope.clone(), name.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let number = TemplateNo(u32::try_from(self.templates.len()).unwrap_or(u32::MAX));
        self.known.insert(key, number);
        let template = self.with_defaults(&written);
        let path = format!("templates.{name}");
        let bodies: Vec<&str> =
            BODIES.iter().copied().filter(|b| template.get(*b).is_some()).collect();
        let body = match bodies[..] {
            [body] => body,
            [] => {
                return Err(Diagnostic::new(path, "template type is unspecified")
                    .hint(format!("give it one of: {}", BODIES.join(", "))));
            }
            _ => {
                return Err(Diagnostic::new(
                    path,
                    format!("multiple template types specified: {}", bodies.join(", ")),
                )
                .hint("make a template of each"));
            }
        };
        // Its place is taken before its children are compiled: templates may call themselves.
        self.templates.push(Template {
            name,
            body: TemplateBody::Leaf(Leaf { kind: "argo".to_owned(), spec: Json::Null }),
        });
        let mut head = template.clone();
        if let Some(head) = head.as_object_mut() {
            head.shift_remove("$inline");
            if matches!(body, "steps" | "dag") {
                head.shift_remove("steps");
                if let Some(dag) = head.get_mut("dag").and_then(Json::as_object_mut) {
                    dag.shift_remove("tasks");
                }
            }
        }
        let compiled = match body {
            "steps" => self.steps(&template, head, scope, &path, nesting)?,
            "dag" => self.dag(&template, head, scope, &path, nesting)?,
            _ => TemplateBody::Leaf(Leaf {
                kind: if body == "suspend" { "suspend" } else { "argo" }.to_owned(),
                spec: json!({ "template": head, "scope": scope.text(), "body": body }),
            }),
        };
        self.templates[number.index()].body = compiled;
        Ok(number)
    }
}

/// Milliseconds of `30`, `30s`, `1h`.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let nanos = match text.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1_000_000_000)?,
        Err(_) => parse_duration(text)?,
    };
    u64::try_from(nanos / 1_000_000).ok()
}
