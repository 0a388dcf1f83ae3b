//! What a linter tells beyond compilation: fields that there are not, and references to what is not
//! declared.

use kobza_expr::argo_template::tags;
use kobza_model::Json;

use crate::document::{Diagnostic, Kind, Object};

const SPEC: &str = "affinity activeDeadlineSeconds archiveLogs arguments artifactGC \
    artifactRepositoryRef automountServiceAccountToken dnsConfig dnsPolicy entrypoint executor hooks \
    hostAliases hostNetwork imagePullSecrets metrics nodeSelector onExit parallelism \
    podDisruptionBudget podGC podMetadata podPriority podPriorityClassName podResources podSpecPatch \
    priority resourceClaims retryStrategy schedulerName securityContext serviceAccountName shutdown \
    suspend synchronization templateDefaults templates tolerations ttlSecondsAfterFinished \
    ttlStrategy volumeClaimGC volumeClaimTemplates volumes workflowMetadata workflowTemplateRef";
const CRON: &str = "workflowSpec schedules concurrencyPolicy suspend startingDeadlineSeconds \
    successfulJobsHistoryLimit failedJobsHistoryLimit timezone workflowMetadata stopStrategy when";
const TEMPLATE: &str = "activeDeadlineSeconds affinity annotations archiveLocation \
    automountServiceAccountToken container containerSet daemon dag data executor failFast \
    hostAliases http initContainers inputs memoize metadata metrics name nodeSelector outputs \
    parallelism pendingTimeout plugin podResources podSpecPatch priority priorityClassName resource \
    resourceClaims retryStrategy schedulerName script securityContext serviceAccountName sidecars \
    steps suspend synchronization timeout tolerations volumes";
const CALL: &str = "arguments continueOn hooks inline name template templateRef when withItems \
    withParam withSequence";
const TASK: &str = "dependencies depends";
const PARAMETER: &str = "name default value valueFrom globalName enum description";
const VALUE_FROM: &str = "path jsonPath jqFilter event parameter supplied configMapKeyRef default \
    expression";
const ARTIFACT: &str = "name path mode from fromExpression s3 git http artifactory hdfs raw oss gcs \
    azure plugin globalName archive archiveLogs optional subPath recurseMode artifactGC deleted";
const CONTAINER: &str = "args command env envFrom image imagePullPolicy lifecycle livenessProbe name \
    ports readinessProbe resizePolicy resources restartPolicy restartPolicyRules securityContext \
    startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices \
    volumeMounts workingDir mirrorVolumeMounts dependencies source";
const RETRY: &str = "limit retryPolicy backoff affinity expression";
const BACKOFF: &str = "duration factor maxDuration cap";
const HOOK: &str = "template arguments templateRef expression";
const HTTP: &str = "method url headers timeoutSeconds successCondition body bodyFrom \
    insecureSkipVerify";

type Result<T> = std::result::Result<T, Diagnostic>;

/// Finds what a linter finds.
pub(crate) fn check(object: &Object) -> Result<()> {
    let json = &object.json;
    only(json, "apiVersion kind metadata spec status", "")?;
    let (spec, path) = match object.kind {
        Kind::CronWorkflow => {
            only(&json["spec"], CRON, "spec")?;
            (&json["spec"]["workflowSpec"], "spec.workflowSpec")
        }
        Kind::Workflow | Kind::WorkflowTemplate | Kind::ClusterWorkflowTemplate => {
            (&json["spec"], "spec")
        }
        _ => return Ok(()),
    };
    only(spec, SPEC, path)?;
    values(&spec["arguments"], &format!("{path}.arguments"))?;
    retry(&spec["retryStrategy"], &format!("{path}.retryStrategy"))?;
    hooks(&spec["hooks"], &format!("{path}.hooks"))?;
    for (at, written) in list(&spec["templates"]) {
        template(written, &format!("{path}.templates[{at}]"))?;
    }
    // Whose arguments come from elsewhere is known when it runs.
    let closed = object.kind != Kind::WorkflowTemplate
        && object.kind != Kind::ClusterWorkflowTemplate
        && spec.get("workflowTemplateRef").is_none();
    for (at, written) in list(&spec["templates"]) {
        references(spec, written, &format!("{path}.templates[{at}]"), closed)?;
    }
    Ok(())
}

fn list(json: &Json) -> impl Iterator<Item = (usize, &Json)> {
    json.as_array().into_iter().flatten().enumerate()
}

/// No field but these.
fn only(json: &Json, known: &str, path: &str) -> Result<()> {
    for field in json.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if known.split_whitespace().any(|k| k == field) {
            continue;
        }
        let at = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
        let near = known.split_whitespace().min_by_key(|k| distance(k, field));
        let mut wrong = Diagnostic::new(at, format!("unknown field {field:?}"));
        wrong.hint = match near.filter(|near| distance(near, field) <= 3) {
            Some(near) => Some(format!("did you mean {near:?}?")),
            None => {
                let mut all: Vec<&str> = known.split_whitespace().collect();
                all.sort_unstable();
                Some(format!("there are {}", all.join(", ")))
            }
        };
        return Err(wrong);
    }
    Ok(())
}

/// Letters to add, drop or change, upper and lower case alike.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().take(100).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn values(json: &Json, path: &str) -> Result<()> {
    only(json, "parameters artifacts result exitCode", path)?;
    for (at, parameter) in list(&json["parameters"]) {
        let path = format!("{path}.parameters[{at}]");
        only(parameter, PARAMETER, &path)?;
        only(&parameter["valueFrom"], VALUE_FROM, &format!("{path}.valueFrom"))?;
        named(parameter, &path)?;
    }
    for (at, artifact) in list(&json["artifacts"]) {
        let path = format!("{path}.artifacts[{at}]");
        only(artifact, ARTIFACT, &path)?;
        named(artifact, &path)?;
    }
    Ok(())
}

fn named(json: &Json, path: &str) -> Result<()> {
    match json["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(Diagnostic::new(format!("{path}.name"), "name is required")),
    }
}

fn retry(json: &Json, path: &str) -> Result<()> {
    only(json, RETRY, path)?;
    only(&json["backoff"], BACKOFF, &format!("{path}.backoff"))?;
    match json["retryPolicy"].as_str() {
        None | Some("" | "Always" | "OnFailure" | "OnError" | "OnTransientError") => Ok(()),
        Some(other) => Err(Diagnostic::new(
            format!("{path}.retryPolicy"),
            format!("'{other}' is not a valid RetryPolicy"),
        )
        .hint("Always, OnFailure, OnError or OnTransientError")),
    }
}

fn hooks(json: &Json, path: &str) -> Result<()> {
    for (name, hook) in json.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        only(hook, HOOK, &path)?;
        values(&hook["arguments"], &format!("{path}.arguments"))?;
    }
    Ok(())
}

fn template(json: &Json, path: &str) -> Result<()> {
    only(json, TEMPLATE, path)?;
    for side in ["inputs", "outputs"] {
        values(&json[side], &format!("{path}.{side}"))?;
    }
    retry(&json["retryStrategy"], &format!("{path}.retryStrategy"))?;
    for body in ["container", "script"] {
        only(&json[body], CONTAINER, &format!("{path}.{body}"))?;
    }
    for many in ["sidecars", "initContainers"] {
        for (at, container) in list(&json[many]) {
            only(container, CONTAINER, &format!("{path}.{many}[{at}]"))?;
        }
    }
    only(
        &json["containerSet"],
        "containers volumeMounts retryStrategy",
        &format!("{path}.containerSet"),
    )?;
    for (at, container) in list(&json["containerSet"]["containers"]) {
        only(container, CONTAINER, &format!("{path}.containerSet.containers[{at}]"))?;
    }
    only(&json["suspend"], "duration", &format!("{path}.suspend"))?;
    only(&json["http"], HTTP, &format!("{path}.http"))?;
    only(&json["memoize"], "key cache maxAge", &format!("{path}.memoize"))?;
    only(&json["dag"], "failFast target tasks", &format!("{path}.dag"))?;
    for (at, group) in list(&json["steps"]) {
        for (number, step) in list(group) {
            call(step, &format!("{path}.steps[{at}][{number}]"), CALL)?;
        }
    }
    let known = format!("{CALL} {TASK}");
    for (at, task) in list(&json["dag"]["tasks"]) {
        call(task, &format!("{path}.dag.tasks[{at}]"), &known)?;
    }
    Ok(())
}

fn call(json: &Json, path: &str, known: &str) -> Result<()> {
    only(json, known, path)?;
    values(&json["arguments"], &format!("{path}.arguments"))?;
    only(&json["continueOn"], "error failed", &format!("{path}.continueOn"))?;
    only(&json["templateRef"], "name template clusterScope", &format!("{path}.templateRef"))?;
    only(&json["withSequence"], "count start end format", &format!("{path}.withSequence"))?;
    hooks(&json["hooks"], &format!("{path}.hooks"))?;
    if json["inline"].is_object() {
        template(&json["inline"], &format!("{path}.inline"))?;
    }
    Ok(())
}

/// Every plain tag of a template names something that is declared.
fn references(spec: &Json, template: &Json, path: &str, closed: bool) -> Result<()> {
    let declared = |side: &str, name: &str| {
        list(&template["inputs"][side]).any(|(_, item)| item["name"] == name)
    };
    let siblings: Vec<&str> = list(&template["steps"])
        .flat_map(|(_, group)| list(group))
        .chain(list(&template["dag"]["tasks"]))
        .filter_map(|(_, call)| call["name"].as_str())
        .collect();
    let composite = !siblings.is_empty();
    let mut found = Ok(());
    walk(template, path, &mut |text, at| {
        for tag in tags(text) {
            let tag = tag.trim();
            if tag.starts_with('=') || tag.contains("{{") {
                continue;
            }
            let parts: Vec<&str> = tag.splitn(4, '.').collect();
            let good = match parts[..] {
                ["inputs", side @ ("parameters" | "artifacts"), name, ..] => {
                    // A name may have dots: what follows it is then part of it.
                    let whole = tag.split_once('.').and_then(|(_, r)| r.split_once('.'));
                    declared(side, name) || whole.is_some_and(|(_, whole)| declared(side, whole))
                }
                ["steps" | "tasks", name, ..] if composite => siblings.contains(&name),
                ["workflow", "parameters", name, ..] if closed && name != "json" => {
                    let whole = tag.trim_start_matches("workflow.parameters.");
                    list(&spec["arguments"]["parameters"])
                        .any(|(_, p)| p["name"] == name || p["name"] == whole)
                }
                _ => true,
            };
            if !good && found.is_ok() {
                found = Err(Diagnostic::new(at, format!("failed to resolve {{{{{tag}}}}}"))
                    .hint("declare it, or check its spelling"));
            }
        }
    });
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(spec: &str) -> std::result::Result<(), Diagnostic> {
        let text = format!("kind: Workflow\nmetadata: {{name: w}}\nspec:\n  entrypoint: a\n{spec}");
        let objects = crate::parse(&text).expect("an object");
        crate::lint(&objects[0], &(), &crate::CompileOptions::default())
    }

    #[test]
    fn mistakes_have_a_path_and_a_hint() {
        let body = "container: {image: x, command: [x]}";
        for (spec, path, message, hint) in [
            (format!("  entryPoint: b\n  templates: [{{name: a, {body}}}]"),
                "spec.entryPoint", "unknown field", "did you mean \"entrypoint\"?"),
            (format!("  templates: [{{name: a, retryStragety: {{limit: 1}}, {body}}}]"),
                "spec.templates[0].retryStragety", "unknown field", "retryStrategy"),
            ("  templates: [{name: a, container: {image: x, cmd: [x]}}]".to_owned(),
                "spec.templates[0].container.cmd", "unknown field", ""),
            (format!("  templates: [{{name: a, retryStrategy: {{retryPolicy: Sometimes}}, {body}}}]"),
                "spec.templates[0].retryStrategy.retryPolicy", "RetryPolicy", "OnError"),
            ("  templates: [{name: a, container: {image: x, args: ['{{inputs.parameters.p}}']}}]".to_owned(),
                "spec.templates[0].container.args[0]", "failed to resolve {{inputs.parameters.p}}", "declare"),
            ("  templates: [{name: a, container: {image: x, args: ['{{workflow.parameters.p}}']}}]".to_owned(),
                "spec.templates[0].container.args[0]", "failed to resolve", "declare"),
            (format!("  templates:\n  - {{name: a, steps: [[{{name: s, template: b, when: '{{{{steps.t.status}}}} == x'}}]]}}\n  - {{name: b, {body}}}"),
                "spec.templates[0].steps[0][0].when", "failed to resolve {{steps.t.status}}", ""),
            (format!("  templates: [{{name: a, inputs: {{parameters: [{{value: x}}]}}, {body}}}]"),
                "spec.templates[0].inputs.parameters[0].name", "name is required", ""),
        ] {
            let wrong = lint(&spec).expect_err(&spec);
            assert_eq!(wrong.path, path, "{wrong}");
            assert!(wrong.message.contains(message), "{wrong}");
            assert!(wrong.hint.unwrap_or_default().contains(hint), "{spec}");
        }
        let good = "  arguments: {parameters: [{name: p, value: v}]}\n  templates:\n  - name: a\n    \
            inputs: {parameters: [{name: a.b}]}\n    steps: [[{name: s, template: b, when: \
            '{{workflow.parameters.p}} == {{inputs.parameters.a.b}}'}]]\n  - {name: b, container: \
            {image: x, command: ['{{pod.name}}', '{{=inputs.parameters.x ?? 1}}']}}";
        assert_eq!(lint(good), Ok(()));
    }
}
