//! Luigi as the runtime sees it: one standing open run per scheduler.

use std::sync::Arc;

use kobza_engine::{
    Command, Decision, Launch, MachineCall, MachineFactory, Question, Refusal, Reply, StartRun,
};
use kobza_model::{Graph, Json, RunId, Template, TemplateBody, TemplateNo, Verdict, Workflow};
use kobza_runtime::{Dialect, ExecutorName, Facts, Handle, LaunchSpec, Submission, SubmitError};
use kobza_store::Write;
use sha2::{Digest as _, Sha256};

use crate::config::LuigiConfig;
use crate::http::{Call, HostError, MachineHost};
use crate::machine::LuigiFactory;

/// Name of the workflow that the standing run belongs to, of the dialect, and the run's key.
pub const WORKFLOW: &str = "luigi";

/// The dialect. Nothing is launched by it: workers take their tasks themselves.
#[derive(Debug, Default)]
pub struct LuigiDialect;

impl Dialect for LuigiDialect {
    fn name(&self) -> &'static str {
        WORKFLOW
    }

    fn decide(&self, _question: &Question, _facts: &dyn Facts) -> Decision {
        Decision::Fail {
            cause: kobza_model::Cause::Template,
            message: "tasks of Luigi are decided by its workers".to_owned(),
        }
    }

    fn launch(
        &self,
        _launch: &Launch,
        _facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String> {
        Err("tasks of Luigi are run by its workers".to_owned())
    }

    fn machine(&self) -> Option<Arc<dyn MachineFactory>> {
        Some(Arc::new(LuigiFactory))
    }
}

/// The workflow of the standing run.
#[must_use]
pub fn workflow() -> Workflow {
    let graph = Graph {
        nodes: Vec::new(),
        verdict: Verdict::default(),
        parallelism: None,
        outputs: false,
        spec: Json::Null,
    };
    Workflow {
        name: WORKFLOW.to_owned(),
        dialect: WORKFLOW.to_owned(),
        templates: vec![Template { name: WORKFLOW.to_owned(), body: TemplateBody::Graph(graph) }],
        entry: TemplateNo(0),
        description: Some("Tasks of Luigi workers, as they report them".to_owned()),
        tags: Vec::new(),
        params: Json::Null,
        timeout_ms: None,
        max_active_runs: None,
        hooks: Vec::new(),
        open: true,
        backfills_apart: false,
        triggers: Json::Null,
        source: Json::Null,
    }
}

/// Finds the standing run, or starts it under the id `fresh`, and gives it its settings. To be
/// called once the runtime runs.
pub async fn ensure_run(
    handle: &Handle,
    namespace: &str,
    config: &LuigiConfig,
    fresh: RunId,
) -> Result<RunId, SubmitError> {
    let settings = serde_json::to_value(config).unwrap_or_default();
    // A standing run may have been ended by hand: then there is a next one.
    for number in 1_u32.. {
        let key = if number == 1 { WORKFLOW.to_owned() } else { format!("{WORKFLOW}-{number}") };
        let run = match handle.submit(start(namespace, &key, &settings, fresh)).await {
            Ok(_) => fresh,
            Err(SubmitError::KeyTaken { run, .. }) => run,
            Err(other) => return Err(other),
        };
        let request = MachineCall { method: "$configure".to_owned(), arguments: settings.clone() };
        let configure = Command::Machine { run, request };
        let annotate =
            Command::Annotate { run, labels: None, params: None, extra: Some(settings.clone()) };
        let submission = Submission { commands: vec![configure, annotate], writes: Vec::new() };
        match handle.submit(submission).await {
            Ok(_) => return Ok(run),
            Err(SubmitError::Refused(Refusal::NotOpen(_) | Refusal::NoRun(_))) => {}
            Err(other) => return Err(other),
        }
    }
    Err(SubmitError::Stopped)
}

fn start(namespace: &str, key: &str, settings: &Json, run: RunId) -> Submission {
    let workflow = Arc::new(workflow());
    let text = serde_json::to_vec(&*workflow).unwrap_or_default();
    let version: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
    let start = StartRun {
        run,
        namespace: namespace.to_owned(),
        workflow: workflow.clone(),
        version: version.clone(),
        params: Json::Null,
        key: Some(key.to_owned()),
        trigger: "driver".to_owned(),
        interval: None,
        partition: None,
        labels: Json::Null,
        parent: None,
        priority: 0,
        extra: settings.clone(),
    };
    Submission {
        commands: vec![Command::StartRun(Box::new(start))],
        writes: vec![Write::PutWorkflow {
            namespace: namespace.to_owned(),
            version,
            workflow,
            source: None,
        }],
    }
}

/// Carries calls through the runtime: a reply comes once what it says is durable.
#[derive(Clone, Debug)]
pub struct RuntimeHost {
    pub handle: Handle,
}

impl MachineHost for RuntimeHost {
    fn call(&self, run: RunId, method: &str, arguments: Json) -> Call<'_> {
        let request = MachineCall { method: method.to_owned(), arguments };
        Box::pin(async move {
            match self.handle.submit(Command::Machine { run, request }).await {
                Ok(replies) => match replies.into_iter().next() {
                    Some(Reply::Machine(reply)) => Ok(reply),
                    _ => Err(HostError::Unavailable("the scheduler gave no reply".to_owned())),
                },
                Err(SubmitError::Refused(Refusal::Invalid(text))) => Err(HostError::Refused(text)),
                Err(SubmitError::Refused(Refusal::NotOpen(_) | Refusal::NoRun(_))) => {
                    Err(HostError::Ended)
                }
                Err(other) => Err(HostError::Unavailable(other.to_string())),
            }
        })
    }
}
