//! `kobza runs`: listing and acting, against a server.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Client, escape};
use crate::cli::RunsArgs;
use crate::failure::Failure;

/// How often the end of a run is asked for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Show a run
    Show { run: String },
    /// Wait for a run's end; the exit code is the run's
    Wait { run: String },
    /// Cancel a run
    Cancel { run: String },
    /// Start no more of its tasks
    Pause { run: String },
    /// Go on with a run that is paused
    Resume { run: String },
    /// Start a new run with the same parameters
    Rerun { run: String },
    /// Run again what failed, in the same run
    Retry { run: String },
    /// Delete a run that has ended, with its logs
    Delete { run: String },
}

pub(crate) fn list(client: &Client, args: &RunsArgs) -> Result<(), Failure> {
    let query: Vec<(&str, &str)> = [
        ("namespace", Some(client.namespace.as_str())),
        ("workflow", args.workflow.as_deref()),
        ("state", args.state.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let items = client.list("/runs", &query, args.limit as usize)?;
    client.show_list(
        &items,
        &[
            ("ID", "/id"),
            ("STATE", "/state"),
            ("CREATED", "/created_at"),
            ("WORKFLOW", "/workflow"),
            ("TRIGGER", "/trigger"),
            ("MESSAGE", "/message"),
        ],
    )
}

/// The newest run of the namespace.
pub(crate) fn newest(client: &Client) -> Result<String, Failure> {
    let items = client.list("/runs", &[("namespace", &client.namespace)], 1)?;
    items
        .first()
        .and_then(|run| run["id"].as_str().map(str::to_owned))
        .ok_or_else(|| Failure::new("there are no runs in this namespace"))
}

pub(crate) fn act(client: &Client, command: &RunsCommand) -> Result<(), Failure> {
    let path = |run: &str| format!("/runs/{}", escape(run));
    let post = |run: &str, action: &str| -> Result<Value, Failure> {
        client.send("POST", &format!("{}/{action}", path(run)), &[], Some(&json!({})))
    };
    let state = |answer: &Value| format!("the run is {}", answer["state"].as_str().unwrap_or("?"));
    match command {
        RunsCommand::Show { run } => client.show(&client.get(&path(run), &[])?),
        RunsCommand::Wait { run } => wait(client, run),
        RunsCommand::Cancel { run } => {
            let answer = post(run, "cancel")?;
            client.done(&answer, &state(&answer))
        }
        RunsCommand::Pause { run } => {
            let answer = post(run, "pause")?;
            client.done(&answer, &state(&answer))
        }
        RunsCommand::Resume { run } => {
            let answer = post(run, "resume")?;
            client.done(&answer, &state(&answer))
        }
        RunsCommand::Rerun { run } => {
            let answer = post(run, "rerun")?;
            client.done(&answer, answer["id"].as_str().unwrap_or_default())
        }
        RunsCommand::Retry { run } => {
            let body = json!({"action": "clear_failed", "ids": [run]});
            let answer = client.send("POST", "/runs/bulk", &[], Some(&body))?;
            let item = &answer["items"][0];
            if item["ok"] != true {
                let message = item["message"].as_str().unwrap_or("there is no such run");
                return Err(Failure::new(message));
            }
            client.done(&answer, "what failed runs again")
        }
        RunsCommand::Delete { run } => {
            let answer = client.send("DELETE", &path(run), &[], None)?;
            client.done(&answer, &format!("{run} is deleted"))
        }
    }
}

/// Waits for the end; the exit code is that of the run.
pub(super) fn wait(client: &Client, run: &str) -> Result<(), Failure> {
    loop {
        let detail = client.get(&format!("/runs/{}", escape(run)), &[])?;
        let state = detail["state"].as_str().unwrap_or_default();
        if matches!(state, "succeeded" | "failed" | "cancelled") {
            let message = detail["message"].as_str().map(|m| format!(": {m}")).unwrap_or_default();
            client.done(&detail, &format!("{run} {state}{message}"))?;
            return if state == "succeeded" { Ok(()) } else { Err(Failure::Run) };
        }
        std::thread::sleep(LOOK);
    }
}
