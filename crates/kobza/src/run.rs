//! `kobza run`: a whole Kobza for one run, in a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kobza_api::Catalog as _;
use kobza_engine::{Command, StartRun, StopMode};
use kobza_model::{
    EventKind, Json, RunId, RunRow, RunState, TaskId, TaskRow, TaskState, Timestamp,
};
use kobza_runtime::{Committed, Submission};
use kobza_store::{RunFilter, TaskFilter, Write};
use serde_json::json;

use crate::check;
use crate::cli::{Output, RunArgs};
use crate::compose::{Database, Dialects, Host, HostOptions, open_folder};
use crate::failure::Failure;
use crate::progress::Progress;

const NAMESPACE: &str = "default";

/// `name=value` pairs over a JSON object.
fn params(args: &RunArgs) -> Result<Json, Failure> {
    let mut all = match &args.params_json {
        None => serde_json::Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Json::Object(map)) => map,
            Ok(_) => return Err(Failure::new("--params-json is not a JSON object")),
            Err(error) => return Err(Failure::new(format!("--params-json: {error}"))),
        },
    };
    all.extend(pairs(&args.params)?);
    Ok(Json::Object(all))
}

/// `name=value` pairs; a value is JSON, or else a text.
pub(crate) fn pairs(texts: &[String]) -> Result<serde_json::Map<String, Json>, Failure> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Failure::hint(format!("{text:?} has no value"), "write it as name=value")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
        Ok((name.to_owned(), value))
    };
    texts.iter().map(pair).collect()
}

fn time(text: Option<&String>) -> Result<Option<Timestamp>, Failure> {
    Ok(text.map(|t| t.parse()).transpose()?)
}

fn base_folder(file: &Path) -> Result<PathBuf, Failure> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(std::fs::canonicalize(folder)?)
}

pub(crate) fn run(args: RunArgs) -> Result<(), Failure> {
    let (definition, source) =
        check::read(&args.file, args.workflow.as_deref()).map_err(|problems| {
            check::print(&problems);
            Failure::Input
        })?;
    check::print(&definition.warnings);
    let params =
        Dialects::default().params(&definition.workflow, params(&args)?).map_err(|problems| {
            check::print(&problems);
            Failure::Input
        })?;
    let interval = time(args.interval_start.as_ref())?.zip(time(args.interval_end.as_ref())?);
    if let Some((start, end)) = interval
        && end < start
    {
        return Err(Failure::new("the interval ends before it starts"));
    }
    if let Some(address) = &args.artifacts {
        crate::artifacts::keep_in(&args.place.data()?, address)?;
    }
    let version = definition.workflow.content_hash()?;
    let workflow = Arc::new(definition.workflow);
    let asked = Asked { params, interval, partition: args.partition };
    let data = args.place.data()?;
    let store = open_folder(&data)?;
    // Before the loop takes it up: it may have ended a moment later, and would be run anew.
    let interrupted = if args.new {
        None
    } else {
        interrupted(store.as_ref(), &workflow.name, &version, &asked)?
    };
    let host = Host::start(
        store,
        HostOptions {
            data,
            slots: args.jobs,
            base_folder: Some(base_folder(&args.file)?),
            api_url: None,
            images: BTreeMap::new(),
            values_from_environment: true,
        },
    )?;
    let events = host.handle.follow();
    let commands = definition
        .limits
        .into_iter()
        .map(|l| Command::SetLimit {
            name: l.name,
            capacity: l.capacity,
            strict: l.strict,
            description: l.description,
        })
        .collect();
    let mut writes =
        crate::argo::writes(&source, NAMESPACE, crate::argo::sealing(host.vault.clone()).as_ref())
            .map_err(Failure::new)?;
    writes.push(Write::PutWorkflow {
        namespace: NAMESPACE.to_owned(),
        version: version.clone(),
        workflow: workflow.clone(),
        source: Some(source),
    });
    host.handle.submit_blocking(Submission { commands, writes })?;
    let text = args.place.output == Output::Text;
    let run = match interrupted {
        Some(run) => {
            say(&format!("taking up the interrupted run {run} (--new starts another)"));
            run
        }
        None => {
            let run = RunId(uuid::Uuid::now_v7());
            host.handle.submit_blocking(Command::StartRun(Box::new(StartRun {
                run,
                namespace: NAMESPACE.to_owned(),
                workflow: workflow.clone(),
                version,
                params: asked.params,
                key: None,
                trigger: "manual".to_owned(),
                interval: asked.interval,
                partition: asked.partition,
                labels: Json::Null,
                parent: None,
                priority: 0,
                extra: Json::Null,
            })))?;
            run
        }
    };
    if text {
        say(&format!("run {run} of {}", workflow.name));
    }
    watch_signals(&host, run)?;
    let ended = follow(&host, run, events, text)?;
    let result = report(&host, &ended, args.place.output);
    host.stop()?;
    result
}

fn say(text: &str) {
    crate::out::tell!("{text}");
}

/// What a run is asked to be, beside its workflow.
struct Asked {
    params: Json,
    interval: Option<(Timestamp, Timestamp)>,
    partition: Option<String>,
}

impl Asked {
    fn is(&self, run: &RunRow) -> bool {
        run.params == self.params
            && run.interval_start.zip(run.interval_end) == self.interval
            && run.partition == self.partition
    }
}

/// A run of the same version, asked for in the same words, that was cut off.
fn interrupted(
    store: &dyn Database,
    workflow: &str,
    version: &str,
    asked: &Asked,
) -> Result<Option<RunId>, Failure> {
    let filter = RunFilter {
        namespaces: vec![NAMESPACE.to_owned()],
        workflow: Some(workflow.to_owned()),
        states: vec![RunState::Queued, RunState::Running, RunState::Paused, RunState::Cancelling],
        ..RunFilter::default()
    };
    let page = store.list_runs(&filter, None, 100)?;
    Ok(page.items.into_iter().find(|r| r.version == version && asked.is(r)).map(|r| r.run))
}

/// The first Ctrl-C cancels the run and waits for its tasks; the second leaves them to the shim.
fn watch_signals(host: &Host, run: RunId) -> Result<(), Failure> {
    let handle = host.handle.clone();
    let waiter = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let pressed = AtomicU32::new(0);
        waiter.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if pressed.fetch_add(1, Ordering::Relaxed) > 0 {
                    std::process::exit(130);
                }
                say("stopping the run; press Ctrl-C again to leave at once");
                let command = Command::StopRun {
                    run,
                    mode: StopMode::Cancel,
                    reason: "interrupted from the keyboard".to_owned(),
                };
                // A run that has just ended cannot be stopped, and need not be.
                let _ended = handle.submit(command).await;
            }
        });
    })?;
    Ok(())
}

/// Follows a run to its end; tells what happens.
fn follow(
    host: &Host,
    run: RunId,
    mut events: tokio::sync::broadcast::Receiver<Committed>,
    text: bool,
) -> Result<RunRow, Failure> {
    let mut progress = Progress::new(text);
    let waiter = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    loop {
        // The store is asked at the start and after lost events; events say when to look again.
        let row = host.store.get_run(run)?.ok_or_else(|| Failure::new("the run is gone"))?;
        if row.state.is_finished() {
            progress.end();
            return Ok(row);
        }
        loop {
            let received = match progress.redraw_in() {
                Some(pause) => {
                    waiter.block_on(async { tokio::time::timeout(pause, events.recv()).await })
                }
                None => Ok(waiter.block_on(events.recv())),
            };
            let Ok(received) = received else {
                progress.draw();
                continue;
            };
            match received {
                Ok(committed) => {
                    let mut ended = false;
                    for event in committed.events.iter().filter(|e| e.run == Some(run)) {
                        match &event.kind {
                            EventKind::Task { state, .. } => {
                                if let Some(task) = event.task {
                                    progress.task(host, TaskId { run, task }, *state)?;
                                }
                            }
                            EventKind::Run { state, .. } => ended |= state.is_finished(),
                            _ => {}
                        }
                    }
                    progress.draw();
                    if ended {
                        break;
                    }
                }
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                    return Err(Failure::new("the loop has stopped; the store cannot be written"));
                }
            }
            if host.has_ended() {
                return Err(Failure::new("the loop has stopped; the store cannot be written"));
            }
        }
    }
}

/// `extract[3] succeeded in 1.2 s`, with the reason when it did not.
pub(crate) fn describe(task: &TaskRow) -> String {
    let index = task.index.map_or(String::new(), |i| format!("[{i}]"));
    let mut text = format!("{}{index} {}", task.name, task.state);
    if let (Some(start), Some(end)) = (task.started_at, task.ended_at) {
        text.push_str(&format!(" in {:.2} s", (end.0 - start.0).max(0) as f64 / 1e6));
    }
    if task.attempt > 1 {
        text.push_str(&format!(", attempt {}", task.attempt));
    }
    if task.state != TaskState::Succeeded
        && let Some(message) = &task.message
    {
        text.push_str(&format!(": {message}"));
    }
    text
}

fn report(host: &Host, run: &RunRow, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => {
            let mut tasks = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let filter = TaskFilter { hide_summaries: true, ..TaskFilter::default() };
                let page = host.store.list_tasks(run.run, &filter, cursor.as_deref(), 1000)?;
                for task in &page.items {
                    let outputs: serde_json::Map<String, Json> = host
                        .store
                        .task_outputs(TaskId { run: run.run, task: task.task })?
                        .into_iter()
                        .collect();
                    tasks.push(json!({
                        "id": TaskId { run: run.run, task: task.task }.to_string(), "name": task.name, "map_index": task.index,
                        "state": task.state, "attempt": task.attempt, "message": task.message, "outputs": outputs,
                    }));
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            crate::out::show!(
                "{}",
                serde_json::to_string_pretty(&json!({
                    "id": run.run, "workflow": run.workflow, "state": run.state, "message": run.message,
                    "created_at": run.created_at, "started_at": run.started_at, "ended_at": run.ended_at, "tasks": tasks,
                }))?
            );
        }
        Output::Text => {
            let took = run
                .started_at
                .zip(run.ended_at)
                .map_or(0.0, |(a, b)| (b.0 - a.0).max(0) as f64 / 1e6);
            let why = run.message.as_ref().map_or(String::new(), |m| format!(": {m}"));
            crate::out::show!("run {} {} in {took:.2} s{why}", run.run, run.state);
        }
    }
    if run.state == RunState::Succeeded { Ok(()) } else { Err(Failure::Run) }
}
