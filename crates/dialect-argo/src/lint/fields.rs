//! Fields that there are not, and names that are missing.

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

use super::Result;

/// No fields but those that there are.
pub(super) fn check(object: &Object) -> Result<()> {
    let json = &object.json;
    only(json, "apiVersion kind metadata spec status", "")?;
    if object.kind == Kind::CronWorkflow {
        only(&json["spec"], CRON, "spec")?;
    }
    let (spec, path) = super::spec_of(object);
    only(spec, SPEC, path)?;
    values(&spec["arguments"], &format!("{path}.arguments"))?;
    retry(&spec["retryStrategy"], &format!("{path}.retryStrategy"))?;
    hooks(&spec["hooks"], &format!("{path}.hooks"))?;
    for (at, written) in list(&spec["templates"]) {
        template(written, &format!("{path}.templates[{at}]"))?;
    }
    Ok(())
}

pub(super) fn list(json: &Json) -> impl Iterator<Item = (usize, &Json)> {
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
        _ => Err(Diagnostic::new(format!("{path}.name"), "name is required")
            .hint("every parameter and artifact has a name")),
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
