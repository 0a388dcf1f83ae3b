//! Answers to the engine's questions: lengths of maps, retries, what came before.

use kobza_engine::{Decision, Question, QuestionKind};
use kobza_model::{Cause, Json, NodeNo, ScopeNo, TemplateBody, Timestamp, Workflow};
use kobza_runtime::Facts;
use serde::Deserialize as _;

use crate::dag::{ExpandInput, Operator};
use crate::{past, retry};

pub(crate) fn decide(question: &Question, facts: &dyn Facts) -> Decision {
    match question.kind {
        QuestionKind::Guard => past::decide(question, facts),
        QuestionKind::Expansion => expansion(question, facts),
        QuestionKind::ScopeOutputs { .. } => Decision::Outputs(Vec::new()),
        QuestionKind::Retry => retries(question, facts),
    }
}

/// The node of the DAG, and its operator.
pub(crate) fn operator(workflow: &Workflow, node: NodeNo) -> Result<Operator, String> {
    let Some(TemplateBody::Graph(graph)) =
        workflow.templates.get(workflow.entry.index()).map(|t| &t.body)
    else {
        return Err("the workflow has no graph".to_owned());
    };
    let node = graph.nodes.get(node.index()).ok_or("the task is not in the DAG")?;
    let task = serde_json::json!({"__type": "operator", "__var": node.arguments["task"]});
    Operator::read_one(&task).map_err(|e| e.to_string())
}

/// The run's logical date: none for runs that assets started.
pub(crate) fn logical_date(extra: &Json) -> Option<Timestamp> {
    extra["airflow"]["logical_date"].as_str()?.parse().ok()
}

fn broken(message: String) -> Decision {
    Decision::Fail { cause: Cause::Template, message }
}

fn expansion(question: &Question, facts: &dyn Facts) -> Decision {
    let workflow = facts.workflow();
    let Some(TemplateBody::Graph(graph)) =
        workflow.templates.get(workflow.entry.index()).map(|t| &t.body)
    else {
        return broken("the workflow has no graph".to_owned());
    };
    let node = question.node.and_then(|node| graph.nodes.get(node.index()));
    let inputs = node.map(|node| Vec::<ExpandInput>::deserialize(&node.arguments["expand"]));
    let inputs = match inputs {
        Some(Ok(inputs)) => inputs,
        Some(Err(error)) => return broken(format!("what it is mapped over: {error}")),
        None => return broken("the task is not in the DAG".to_owned()),
    };
    let mut length = |task: &str, key: &str| length_of(facts, question.scope, task, key);
    let total = inputs.iter().try_fold(1u64, |product, input| {
        Ok::<_, Unknown>(product.saturating_mul(input.length(&mut length)?))
    });
    match total.map(u32::try_from) {
        Ok(Ok(length)) => Decision::Expand { length, items: None, inputs: Json::Null },
        Ok(Err(_)) => broken("it is mapped over more than 4,294,967,295 items".to_owned()),
        Err(Unknown::Yet(task)) => {
            Decision::Wait { reason: format!("the length of what {task} returns") }
        }
        // Airflow: upstream_failed, since there will never be a length.
        Err(Unknown::Ever(task)) => Decision::Fail {
            cause: Cause::Gate,
            message: format!("it is mapped over what {task} returns, which has no length"),
        },
    }
}

enum Unknown {
    Yet(String),
    Ever(String),
}

/// How many instances the XCom of one task makes: of a mapped task, as many as returned something.
fn length_of(facts: &dyn Facts, scope: ScopeNo, task: &str, key: &str) -> Result<u64, Unknown> {
    let node = facts.workflow().node_named(task).ok_or_else(|| Unknown::Ever(task.to_owned()))?;
    if let Some(length) = facts.expansion(scope, node) {
        let mut returned = 0;
        for index in 0..length {
            let Some(row) = facts.task_of(scope, node, Some(index)) else {
                return Err(Unknown::Yet(task.to_owned()));
            };
            if !row.state.is_finished() {
                return Err(Unknown::Yet(task.to_owned()));
            }
            returned += u64::from(facts.output(row.task, RETURN_VALUE).is_some());
        }
        return Ok(returned);
    }
    let row = facts.task_of(scope, node, None).ok_or_else(|| Unknown::Yet(task.to_owned()))?;
    if !row.state.is_finished() {
        return Err(Unknown::Yet(task.to_owned()));
    }
    if let Some(length) = facts.output(row.task, "$mapped_length").and_then(|l| l.as_u64()) {
        return Ok(length);
    }
    match facts.output(row.task, key).as_deref() {
        Some(Json::Array(items)) => Ok(items.len() as u64),
        Some(Json::Object(fields)) => Ok(fields.len() as u64),
        _ => Err(Unknown::Ever(task.to_owned())),
    }
}

/// The key of what a task returns.
const RETURN_VALUE: &str = "return_value";

fn retries(question: &Question, facts: &dyn Facts) -> Decision {
    let Some(row) = facts.task(question.task.task) else {
        return Decision::GiveUp { message: None };
    };
    if facts.output(row.task, "$no_retry").is_some_and(|no| *no == Json::Bool(true)) {
        return Decision::GiveUp { message: None };
    }
    let seconds = match facts.output(row.task, "$retry_delay").and_then(|delay| delay.as_f64()) {
        Some(seconds) => seconds,
        None => match question.node.map(|node| operator(facts.workflow(), node)) {
            Some(Ok(task)) => {
                let tried = retry::Try {
                    dag_id: &facts.run().workflow,
                    logical_date: logical_date(&facts.run().extra),
                    number: row.attempt,
                };
                retry::delay(&task, tried)
            }
            _ => return Decision::GiveUp { message: None },
        },
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let delay_ms = (seconds.max(0.0) * 1000.0).round() as u64;
    Decision::Retry { delay_ms: Some(delay_ms), carry: Json::Null }
}
