//! `kobza runs`, `tasks`, `logs` and `why`: of a server when one is named, else from a local store,
//! also while a server has it.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use kobza_model::{LaunchId, RunId, RunState, TaskId, TaskRow, TaskState};
use kobza_store::{RunFilter, SqliteOptions, SqliteStore, TaskFilter, Views};
use serde_json::json;

use crate::cli::{LogsArgs, Output, RunsArgs, TasksArgs, WhyArgs};
use crate::client;
use crate::compose::log_store;
use crate::failure::Failure;
use crate::run::describe;

/// Lines read at once.
const PAGE: usize = 5000;
/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

fn open(data: &Path) -> Result<SqliteStore, Failure> {
    SqliteStore::open_read_only(data, SqliteOptions::default())
        .map_err(|e| Failure::hint(e.to_string(), "--data names the folder of the store"))
}

pub(crate) fn runs(args: RunsArgs) -> Result<(), Failure> {
    if let Some(command) = &args.command {
        return client::act_on_run(&client::Client::new(&args.look.remote)?, command);
    }
    if let Some(client) = args.look.client()? {
        return client::list_runs(&client, &args);
    }
    let store = open(&args.look.folder()?)?;
    let states = match &args.state {
        None => Vec::new(),
        Some(word) => {
            vec![RunState::from_word(word).ok_or_else(|| unknown(word, "run", RunState::ALL))?]
        }
    };
    let filter = RunFilter { workflow: args.workflow, states, ..RunFilter::default() };
    let page = store.list_runs(&filter, None, args.limit)?;
    if args.look.remote.output == Output::Json {
        let items: Vec<_> = page
            .items
            .iter()
            .map(|r| json!({"id": r.run, "workflow": r.workflow, "state": r.state, "message": r.message, "created_at": r.created_at, "started_at": r.started_at, "ended_at": r.ended_at}))
            .collect();
        crate::out::show!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(());
    }
    for run in &page.items {
        crate::out::show!(
            "{}  {:<10} {}  {}",
            run.run,
            run.state.as_str(),
            run.created_at,
            run.workflow
        );
    }
    Ok(())
}

fn unknown<T: std::fmt::Display>(word: &str, what: &str, all: &[T]) -> Failure {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    Failure::hint(
        format!("{word:?} is not the state of a {what}"),
        format!("use one of {}", words.join(", ")),
    )
}

fn newest(store: &SqliteStore) -> Result<RunId, Failure> {
    let page = store.list_runs(&RunFilter::default(), None, 1)?;
    page.items.first().map(|r| r.run).ok_or_else(|| Failure::new("there are no runs in this store"))
}

pub(crate) fn tasks(args: TasksArgs) -> Result<(), Failure> {
    if let Some(client) = args.look.client()? {
        return client::list_tasks(&client, &args);
    }
    let store = open(&args.look.folder()?)?;
    let run = match &args.run {
        Some(text) => text.parse()?,
        None => newest(&store)?,
    };
    if store.get_run(run)?.is_none() {
        return Err(Failure::hint(format!("there is no run {run}"), "`kobza runs` lists them"));
    }
    let states = match &args.state {
        None => Vec::new(),
        Some(word) => {
            vec![TaskState::from_word(word).ok_or_else(|| unknown(word, "task", TaskState::ALL))?]
        }
    };
    let filter = TaskFilter { states, hide_summaries: true, ..TaskFilter::default() };
    let mut cursor: Option<String> = None;
    let mut items = Vec::new();
    loop {
        let page = store.list_tasks(run, &filter, cursor.as_deref(), 1000)?;
        for task in page.items {
            if args.look.remote.output == Output::Json {
                items.push(json!({"id": TaskId { run, task: task.task }.to_string(), "name": task.name, "map_index": task.index, "state": task.state, "attempt": task.attempt, "message": task.message, "started_at": task.started_at, "ended_at": task.ended_at}));
            } else {
                crate::out::show!("{:<6} {}", task.task.0, describe(&task));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if args.look.remote.output == Output::Json {
        crate::out::show!("{}", serde_json::to_string_pretty(&items)?);
    }
    Ok(())
}

/// A task by id, or by name in the newest run.
fn find(store: &SqliteStore, text: &str, index: Option<u32>) -> Result<TaskRow, Failure> {
    if let Ok(id) = text.parse::<TaskId>() {
        return store.get_task(id)?.ok_or_else(|| Failure::new(format!("there is no task {id}")));
    }
    let run = newest(store)?;
    let filter = TaskFilter {
        name: Some(text.to_owned()),
        index_from: index,
        index_until: index.map(|i| i + 1),
        ..TaskFilter::default()
    };
    let page = store.list_tasks(run, &filter, None, 10)?;
    let found =
        page.items.into_iter().find(|t| index.is_some() || t.index.is_none() || t.index == Some(0));
    found.ok_or_else(|| {
        Failure::hint(format!("run {run} has no task {text:?}"), "`kobza tasks` lists them")
    })
}

/// Whether nothing more comes from the launch that this row shows.
fn has_ended(store: &SqliteStore, task: &TaskRow) -> Result<bool, Failure> {
    let now = store.get_task(TaskId { run: task.run, task: task.task })?;
    Ok(now.is_none_or(|now| now.launch != task.launch || now.state.is_finished()))
}

pub(crate) fn logs(args: LogsArgs) -> Result<(), Failure> {
    if let Some(client) = args.look.client()? {
        return client::log(&client, &args);
    }
    let store = open(&args.look.folder()?)?;
    let task = find(&store, &args.task, args.index)?;
    let id = TaskId { run: task.run, task: task.task };
    let launch = match args.attempt {
        None => task.launch,
        Some(attempt) if attempt == task.attempt => task.launch,
        Some(attempt) => store
            .list_attempts(id)?
            .into_iter()
            .rfind(|r| r.attempt == attempt)
            .map(|r| r.launch)
            .ok_or_else(|| Failure::new(format!("task {id} has no attempt {attempt}")))?,
    };
    let mut reader =
        log_store(&args.look.folder()?).reader(LaunchId { run: task.run, task: task.task, launch });
    let mut out = std::io::stdout().lock();
    let mut from = 0;
    loop {
        // Whether it has ended is asked first: what was written before is then surely read.
        let ended = !args.follow || has_ended(&store, &task)?;
        let page = match reader.lines(from, PAGE) {
            Ok(page) => page,
            // It has not said anything yet.
            Err(error) if !ended && error.kind() == std::io::ErrorKind::NotFound => {
                std::thread::sleep(LOOK);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if page.lines.is_empty() {
            if ended {
                return Ok(());
            }
            std::thread::sleep(LOOK);
            continue;
        }
        from += page.lines.len() as u64;
        for line in page.lines {
            let written = if args.look.remote.output == Output::Json {
                writeln!(out, "{}", json!({"at": line.time, "text": line.text()}))
            } else {
                out.write_all(&line.bytes)
                    .and_then(|()| if line.partial { Ok(()) } else { out.write_all(b"\n") })
            };
            match written {
                // `kobza logs … | head` is no error.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
        }
    }
}

pub(crate) fn why(args: WhyArgs) -> Result<(), Failure> {
    if let Some(client) = args.look.client()? {
        return client::why(&client, &args);
    }
    let store = open(&args.look.folder()?)?;
    let task = find(&store, &args.task, args.index)?;
    let id = TaskId { run: task.run, task: task.task };
    let mut reasons = Vec::new();
    if task.state.is_finished() {
        let cause = match task.cause {
            kobza_model::Cause::None => String::new(),
            cause => format!(" ({cause})"),
        };
        let message = task.message.as_ref().map_or(String::new(), |m| format!(": {m}"));
        reasons.push(format!("{}{cause}{message}", task.state));
    }
    reasons.extend(waiting(&store, id)?);
    if args.look.remote.output == Output::Json {
        crate::out::show!(
            "{}",
            serde_json::to_string_pretty(
                &json!({"id": id.to_string(), "name": task.name, "state": task.state, "reasons": reasons})
            )?
        );
    } else {
        crate::out::show!("{} is {}", task.name, task.state);
        for reason in reasons {
            crate::out::show!("  {reason}");
        }
    }
    Ok(())
}

/// The engine's own answer, over its run and all live ones as the store has them.
fn waiting(store: &SqliteStore, id: TaskId) -> Result<Vec<String>, Failure> {
    use kobza_store::Store as _;
    let mut engine = kobza_engine::Engine::new(kobza_engine::EngineOptions::default());
    engine.restore_limits(store.limits()?);
    let now =
        kobza_model::Now { wall: kobza_runtime::wall_now(), engine: store.fence()?.engine_time };
    let mut images = store.active_runs()?;
    if images.iter().all(|image| image.run.run != id.run) {
        images.extend(store.run_image(id.run)?);
    }
    for image in images {
        let version = image.run.version.clone();
        if let Some(stored) =
            store.workflow(&image.run.namespace, &image.run.workflow, Some(&version))?
        {
            engine
                .restore_run(image, stored.workflow, now)
                .map_err(|e| Failure::new(e.to_string()))?;
        }
    }
    engine.take_up(now);
    Ok(engine.why(id)?)
}
