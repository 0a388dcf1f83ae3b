//! What a linter tells beyond compilation. Each finding has the path of its field and says what to
//! do about it; messages are those that Argo's users know.

mod fields;
mod references;
mod rules;

use kobza_model::Json;

use crate::document::{Diagnostic, Kind, Object};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Finds what a linter finds.
pub(crate) fn check(object: &Object) -> Result<()> {
    if !matches!(
        object.kind,
        Kind::CronWorkflow
            | Kind::Workflow
            | Kind::WorkflowTemplate
            | Kind::ClusterWorkflowTemplate
    ) {
        return Ok(());
    }
    fields::check(object)?;
    rules::check(object)?;
    references::check(object)
}

/// The spec of a workflow in an object, and its path.
fn spec_of(object: &Object) -> (&Json, &'static str) {
    match object.kind {
        Kind::CronWorkflow => (&object.json["spec"]["workflowSpec"], "spec.workflowSpec"),
        _ => (&object.json["spec"], "spec"),
    }
}

/// Calls with each step or task of a template, and its path.
fn each_call(
    template: &Json,
    path: &str,
    with: &mut dyn FnMut(&Json, &str) -> Result<()>,
) -> Result<()> {
    for (at, group) in fields::list(&template["steps"]) {
        for (number, step) in fields::list(group) {
            with(step, &format!("{path}.steps[{at}][{number}]"))?;
        }
    }
    for (at, task) in fields::list(&template["dag"]["tasks"]) {
        with(task, &format!("{path}.dag.tasks[{at}]"))?;
    }
    Ok(())
}

/// The template of the same object that a call names.
fn local<'a>(spec: &'a Json, call: &Json) -> Option<&'a Json> {
    if call["templateRef"].is_object() || call["inline"].is_object() {
        return None;
    }
    let name = call["template"].as_str()?;
    fields::list(&spec["templates"]).map(|(_, t)| t).find(|t| t["name"] == name)
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
            inputs: {parameters: [{name: a.b, value: v}]}\n    steps: [[{name: s, template: b, when: \
            '{{workflow.parameters.p}} == {{inputs.parameters.a.b}}'}]]\n  - {name: b, container: \
            {image: x, command: ['{{pod.name}}', '{{=inputs.parameters.x ?? 1}}']}}";
        assert_eq!(lint(good), Ok(()));
    }
}
