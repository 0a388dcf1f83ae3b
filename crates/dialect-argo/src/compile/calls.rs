//! A call of a template as a node: its loop, retries, limits, time-outs and hooks.

use kobza_model::{
    Expansion, ExpansionAt, ExpansionBy, Gate, Hook, HookOn, Json, LimitUse, Node, Outcome, Retry,
    TemplateNo, ZeroLength,
};
use serde_json::json;

use super::{Compiler, Result, Scope, duration_ms};
use crate::document::Diagnostic;

impl Compiler<'_> {
    pub(super) fn limits(&self, sync: &Json, path: &str) -> Result<Vec<LimitUse>> {
        let mut limits = Vec::new();
        let namespace =
            |item: &Json| item["namespace"].as_str().unwrap_or(&self.options.namespace).to_owned();
        let use_of = |limit: String| LimitUse { limit, weight: 1, while_waiting: true };
        for mutex in sync["mutexes"].as_array().into_iter().flatten() {
            let name = mutex["name"].as_str().ok_or_else(|| {
                Diagnostic::new(format!("{path}.synchronization.mutexes"), "needs a name")
                    .hint("mutexes of one name exclude each other")
            })?;
            limits.push(use_of(format!("{}/Mutex/{}", namespace(mutex), self.constant(name))));
        }
        for semaphore in sync["semaphores"].as_array().into_iter().flatten() {
            let key = &semaphore["configMapKeyRef"];
            let database = &semaphore["database"];
            if let (Some(map), Some(key)) = (key["name"].as_str(), key["key"].as_str()) {
                let (map, key) = (self.constant(map), self.constant(key));
                limits.push(use_of(format!("{}/ConfigMap/{map}/{key}", namespace(semaphore))));
            } else if let Some(key) = database["key"].as_str() {
                let key = self.constant(key);
                limits.push(use_of(format!("{}/Database/{key}", namespace(semaphore))));
            } else {
                return Err(Diagnostic::new(
                    format!("{path}.synchronization.semaphores"),
                    "needs configMapKeyRef.name and .key, or database.key",
                )
                .hint("say where its size is: a ConfigMap's key, or a limit of this server's"));
            }
        }
        Ok(limits)
    }

    pub(super) fn hook_target(
        &mut self,
        hook: &Json,
        scope: &Scope,
        path: &str,
    ) -> Result<TemplateNo> {
        let (target, target_scope) = self.find(hook, scope, path)?;
        self.template(target, &target_scope, path, 1)
    }

    /// A step, a task or the entrypoint as a node.
    pub(super) fn call(
        &mut self,
        call: &Json,
        scope: &Scope,
        path: &str,
        nesting: u32,
    ) -> Result<Node> {
        let name = call["name"].as_str().unwrap_or_default().to_owned();
        let (written, target_scope) = self.find(call, scope, path)?;
        let target = self.template(written.clone(), &target_scope, path, nesting + 1)?;
        let template = self.with_defaults(&written);
        let mut node = plain_node(name, target);
        node.guard = true;
        let loops: Vec<&str> = ["withItems", "withParam", "withSequence"]
            .into_iter()
            .filter(|k| call.get(*k).is_some_and(|v| !v.is_null()))
            .collect();
        if loops.len() > 1 {
            return Err(Diagnostic::new(
                path,
                format!("only one of {} may be used", loops.join(", ")),
            )
            .hint("loop over one of them, and call a template that loops over the other"));
        }
        if !loops.is_empty() {
            node.expansion = Some(Expansion {
                at: ExpansionAt::Gate,
                by: ExpansionBy::Ask,
                zero: ZeroLength::Skipped,
                window: None,
                fail_fast: false,
            });
        }
        if template.get("retryStrategy").is_some_and(Json::is_object) {
            node.retry = Some(Retry {
                limit: u32::MAX - 1,
                backoff: kobza_model::Backoff::default(),
                causes: Vec::new(),
                exit_codes: Vec::new(),
                ask: true,
            });
        }
        let template_path = format!("templates.{}", template["name"].as_str().unwrap_or("inline"));
        node.limits = self.limits(&template["synchronization"], &template_path)?;
        node.attempt_timeout_ms = self.duration(&template, "activeDeadlineSeconds");
        node.timeout_ms = self.duration(&template, "timeout");
        node.daemon = template["daemon"].as_bool().unwrap_or(false)
            && template.get("steps").is_none()
            && template.get("dag").is_none();
        if node.daemon && !loops.is_empty() {
            return Err(Diagnostic::new(path, "a daemon cannot be looped over")
                .hint("call the daemon's template once for each, by steps or tasks of their own"));
        }
        let on = &call["continueOn"];
        if on["failed"].as_bool().unwrap_or(false) || on["error"].as_bool().unwrap_or(false) {
            node.continue_on = vec![Outcome::Failed, Outcome::UpstreamFailed];
        }
        for (name, hook) in call["hooks"].as_object().into_iter().flatten() {
            let path = format!("{path}.hooks.{name}");
            let target = self.hook_target(hook, scope, &path)?;
            let make = |on: HookOn| Hook {
                name: if name == "exit" { "onExit".to_owned() } else { format!("hooks.{name}") },
                on,
                call: target,
                affects: false,
                guard: true,
                skip_on_cancel: false,
                arguments: json!({ "hook": hook }),
            };
            if name == "exit" {
                node.hooks.push(make(HookOn::Exit));
            } else {
                require_expression(hook, &path)?;
                node.hooks.push(make(HookOn::Start));
                node.hooks.push(make(HookOn::Exit));
            }
        }
        let mut kept = call.clone();
        if let Some(kept) = kept.as_object_mut() {
            kept.shift_remove("inline");
        }
        node.arguments = json!({ "call": kept });
        Ok(node)
    }

    /// A duration field that is known beforehand: seconds, or a text such as `5m`.
    fn duration(&self, template: &Json, key: &str) -> Option<u64> {
        duration_ms(&self.constant(template[key].as_str()?))
    }
}

pub(super) fn require_expression(hook: &Json, path: &str) -> Result<()> {
    if hook["expression"].as_str().is_none_or(str::is_empty) {
        return Err(Diagnostic::new(path, "Expression required")
            .hint("only the hook named exit runs without an expression"));
    }
    Ok(())
}

pub(super) fn step_name(step: &Json, path: &str) -> Result<String> {
    let name = step["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(Diagnostic::new(path, "name is required")
            .hint("each step and task has a name, by which others refer to it"));
    }
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !good || name.len() > 128 {
        return Err(Diagnostic::new(path, format!("name {name:?} is invalid"))
            .hint("letters, digits, `-` and `_`, at most 128"));
    }
    Ok(name.to_owned())
}

pub(super) fn plain_node(name: String, call: TemplateNo) -> Node {
    Node {
        name,
        call,
        gate: Gate::always(),
        edges: Vec::new(),
        guard: false,
        expansion: None,
        limits: Vec::new(),
        priority: 0,
        retry: None,
        attempt_timeout_ms: None,
        timeout_ms: None,
        hooks: Vec::new(),
        continue_on: Vec::new(),
        daemon: false,
        ignorable: false,
        arguments: Json::Null,
        produces: Vec::new(),
        consumes: Vec::new(),
    }
}
