//! References to what is not declared, or not there yet.

use std::collections::{BTreeMap, BTreeSet};

use kobza_expr::argo_template::tags;
use kobza_model::Json;

use super::fields::list;
use super::{Result, each_call, local, spec_of};
use crate::document::{Diagnostic, Kind, Object};

/// Tasks of a graph for which it is checked whether what they refer to has ended before.
const ORDERED_MAX: usize = 2000;

pub(super) fn check(object: &Object) -> Result<()> {
    let (spec, path) = spec_of(object);
    // Whose arguments come from elsewhere is known when it runs.
    let closed = object.kind != Kind::WorkflowTemplate
        && object.kind != Kind::ClusterWorkflowTemplate
        && spec.get("workflowTemplateRef").is_none();
    let of_hooks = reachable_from_hooks(spec);
    for (at, template) in list(&spec["templates"]) {
        let of_hook = template["name"].as_str().is_some_and(|name| of_hooks.contains(name));
        let place = Place { spec, template, closed, of_hook };
        place.check(&format!("{path}.templates[{at}]"))?;
    }
    Ok(())
}

/// Names of the templates that hooks call, and that these call: to them the end is known.
fn reachable_from_hooks(spec: &Json) -> BTreeSet<&str> {
    let mut open: Vec<&str> = spec["onExit"].as_str().into_iter().collect();
    let hooks = |json: &'_ Json| -> Vec<String> {
        let hooks = json["hooks"].as_object().into_iter().flatten();
        hooks.filter_map(|(_, hook)| hook["template"].as_str().map(str::to_owned)).collect()
    };
    let templates: BTreeMap<&str, &Json> =
        list(&spec["templates"]).filter_map(|(_, t)| Some((t["name"].as_str()?, t))).collect();
    let mut named = hooks(spec);
    for template in templates.values() {
        let _all = each_call(template, "", &mut |call, _| {
            named.extend(hooks(call));
            Ok(())
        });
    }
    open.extend(
        named.iter().filter_map(|name| templates.get_key_value(name.as_str()).map(|(k, _)| *k)),
    );
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some((name, template)) = templates.get_key_value(name) else { continue };
        if !seen.insert(name) {
            continue;
        }
        let mut called = Vec::new();
        let _all = each_call(template, "", &mut |call, _| {
            called.extend(call["template"].as_str().map(str::to_owned));
            Ok(())
        });
        open.extend(
            called.iter().filter_map(|n| templates.get_key_value(n.as_str()).map(|(k, _)| *k)),
        );
    }
    seen
}

/// A template, and what its texts may refer to.
struct Place<'a> {
    spec: &'a Json,
    template: &'a Json,
    closed: bool,
    of_hook: bool,
}

impl Place<'_> {
    fn check(&self, path: &str) -> Result<()> {
        let mut calls: BTreeMap<&str, &Json> = BTreeMap::new();
        for (_, group) in list(&self.template["steps"]) {
            calls.extend(list(group).filter_map(|(_, c)| Some((c["name"].as_str()?, c))));
        }
        calls.extend(
            list(&self.template["dag"]["tasks"])
                .filter_map(|(_, c)| Some((c["name"].as_str()?, c))),
        );
        let mut head = self.template.clone();
        if let Some(head) = head.as_object_mut() {
            head.shift_remove("steps");
            head.shift_remove("dag");
        }
        // Outputs of the template may refer to all of its calls.
        self.texts(&head, path, &calls, None)?;
        let mut before: BTreeSet<&str> = BTreeSet::new();
        for (at, group) in list(&self.template["steps"]) {
            for (number, step) in list(group) {
                self.texts(step, &format!("{path}.steps[{at}][{number}]"), &calls, Some(&before))?;
            }
            before.extend(list(group).filter_map(|(_, step)| step["name"].as_str()));
        }
        for (at, task) in list(&self.template["dag"]["tasks"]) {
            // The ancestors of each of many tasks are too many to look at.
            let before = (calls.len() <= ORDERED_MAX).then(|| ancestors(task, &calls));
            self.texts(task, &format!("{path}.dag.tasks[{at}]"), &calls, before.as_ref())?;
        }
        Ok(())
    }

    fn texts(
        &self,
        json: &Json,
        path: &str,
        calls: &BTreeMap<&str, &Json>,
        before: Option<&BTreeSet<&str>>,
    ) -> Result<()> {
        let mut found = Ok(());
        let own = json["name"].as_str();
        walk(json, path, &mut |text, at| {
            for tag in tags(text) {
                let tag = tag.trim();
                if tag.starts_with('=') || tag.contains("{{") || found.is_err() {
                    continue;
                }
                // Hooks see what they hang on.
                let of_hook = at.get(path.len()..).is_some_and(|rest| rest.starts_with(".hooks"));
                let seen = |name: &str| {
                    before.is_none_or(|before| before.contains(name))
                        || of_hook && own == Some(name)
                };
                if let Err(hint) = self.known(tag, calls, &seen, of_hook) {
                    found =
                        Err(Diagnostic::new(at, format!("failed to resolve {{{{{tag}}}}}"))
                            .hint(hint));
                }
            }
        });
        found
    }

    /// Whether a plain tag names something; else what to do about it.
    fn known(
        &self,
        tag: &str,
        calls: &BTreeMap<&str, &Json>,
        seen: &dyn Fn(&str) -> bool,
        of_hook: bool,
    ) -> std::result::Result<(), String> {
        let declared = |side: &str, name: &str| {
            list(&self.template["inputs"][side]).any(|(_, item)| item["name"] == name)
        };
        let ok = |good: bool, hint: &str| if good { Ok(()) } else { Err(hint.to_owned()) };
        let parts: Vec<&str> = tag.splitn(4, '.').collect();
        match parts[..] {
            ["inputs", side @ ("parameters" | "artifacts"), name, ..] => {
                // A name may have dots: what follows it is then part of it.
                let whole = tag.split_once('.').and_then(|(_, r)| r.split_once('.'));
                let good = declared(side, name)
                    || whole.is_some_and(|(_, whole)| declared(side, whole))
                    || name == "json";
                ok(
                    good,
                    &format!("declare it in the template's inputs.{side}, or check its spelling"),
                )
            }
            ["steps" | "tasks", name, ..] if !calls.is_empty() && tag.split('.').count() > 2 => {
                let Some(call) = calls.get(name) else {
                    return Err(
                        "no step or task of this template has that name; check its spelling"
                            .to_owned(),
                    );
                };
                if !seen(name) {
                    return Err(format!(
                        "{name:?} has not run by then: refer to earlier steps, or add it to depends"
                    ));
                }
                let rest = &tag[parts[0].len() + 1 + name.len() + 1..];
                match (rest.strip_prefix("outputs."), local(self.spec, call)) {
                    (Some(output), Some(target)) => ok(
                        has_output(target, output),
                        &format!(
                            "declare it in the outputs of template {:?}",
                            target["name"].as_str().unwrap_or_default()
                        ),
                    ),
                    _ => Ok(()),
                }
            }
            ["workflow", "parameters", name, ..] if self.closed && name != "json" => {
                let whole = tag.trim_start_matches("workflow.parameters.");
                let good = list(&self.spec["arguments"]["parameters"])
                    .any(|(_, p)| p["name"] == name || p["name"] == whole);
                ok(good, "declare it in spec.arguments.parameters, or check its spelling")
            }
            ["workflow", "status" | "failures"] => ok(
                self.of_hook || of_hook || !self.closed,
                "it is known at the end only: use it in an exit handler or a hook",
            ),
            _ => Ok(()),
        }
    }
}

/// Whether a template puts out what follows `outputs.` in a reference.
fn has_output(template: &Json, output: &str) -> bool {
    let (side, name) = output.split_once('.').unwrap_or((output, ""));
    match side {
        "parameters" | "artifacts" if !name.is_empty() => {
            let name = name.trim_end_matches(".path");
            list(&template["outputs"][side]).any(|(_, item)| {
                let own = item["name"].as_str().unwrap_or_default();
                own == name || name.starts_with(&format!("{own}."))
            })
        }
        _ => true,
    }
}

/// The tasks that have ended when this one starts.
fn ancestors<'a>(task: &'a Json, calls: &BTreeMap<&'a str, &'a Json>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![task];
    while let Some(task) = open.pop() {
        for name in upstream(task) {
            if let Some((name, next)) = calls.get_key_value(name)
                && seen.insert(*name)
            {
                open.push(next);
            }
        }
    }
    seen
}

/// The tasks that a task's `dependencies` or `depends` name.
pub(super) fn upstream(task: &Json) -> Vec<&str> {
    let listed = list(&task["dependencies"]).filter_map(|(_, name)| name.as_str());
    let text = task["depends"].as_str().unwrap_or_default();
    let words = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .filter(|word| !word.is_empty())
        .map(|word| word.split('.').next().unwrap_or(word));
    listed.chain(words).collect()
}

/// Calls `with` for each text and its path; not inside of inline templates, which have inputs of
/// their own.
fn walk(json: &Json, path: &str, with: &mut dyn FnMut(&str, &str)) {
    match json {
        Json::String(text) => with(text, path),
        Json::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(item, &format!("{path}[{at}]"), with);
            }
        }
        Json::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| *key != "inline") {
                walk(value, &format!("{path}.{key}"), with);
            }
        }
        _ => {}
    }
}
