//! `kobza triggers`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Client, Remote, escape};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct TriggersArgs {
    #[command(subcommand)]
    command: Option<TriggersCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum TriggersCommand {
    /// List triggers (as without a command)
    List {
        #[arg(long, default_value_t = 500)]
        limit: usize,
    },
    /// Show a trigger: its id, or WORKFLOW, or WORKFLOW/NAME
    Show { trigger: String },
    /// Let it start nothing
    Pause { trigger: String },
    /// Let it start runs again
    Resume { trigger: String },
    /// Start its run now
    Fire { trigger: String },
    /// Send an event by name to the triggers and waits of the namespace
    Send {
        name: String,
        /// What they see as `event.payload`, as JSON
        #[arg(long, value_name = "JSON")]
        payload: Option<String>,
    },
    /// Show what it decided, and why
    Decisions {
        trigger: String,
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show when it acts next
    Upcoming { trigger: String },
}

/// The path of a trigger by its id, or by the names of its workflow and its own.
fn path(client: &Client, text: &str) -> Result<String, Failure> {
    let all = client.list("/triggers", &[("namespace", &client.namespace)], 10_000)?;
    let (workflow, name) = match text.split_once('/') {
        Some((workflow, name)) => (workflow, Some(name)),
        None => (text, None),
    };
    let fits = |t: &&Value| {
        t["id"] == text || (t["workflow"] == workflow && name.is_none_or(|n| t["name"] == n))
    };
    let mut found = all.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(only), None) => {
            Ok(format!("/triggers/{}", escape(only["id"].as_str().unwrap_or_default())))
        }
        (Some(_), Some(_)) => Err(Failure::hint(
            format!("workflow {text:?} has several triggers"),
            "write WORKFLOW/NAME; `kobza triggers` lists them",
        )),
        (None, _) => Err(Failure::hint(
            format!("there is no trigger {text:?}"),
            "`kobza triggers` lists them",
        )),
    }
}

pub(crate) fn triggers(args: TriggersArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let pause = |trigger: &str, paused: bool| -> Result<(), Failure> {
        let body = json!({"paused": paused});
        let answer = client.send("PATCH", &path(&client, trigger)?, &[], Some(&body))?;
        client.done(&answer, if paused { "the trigger is paused" } else { "the trigger is active" })
    };
    match args.command.unwrap_or(TriggersCommand::List { limit: 500 }) {
        TriggersCommand::List { limit } => client.show_list(
            &client.list("/triggers", &[("namespace", &client.namespace)], limit)?,
            &[
                ("WORKFLOW", "/workflow"),
                ("NAME", "/name"),
                ("KIND", "/kind"),
                ("WHEN", "/text"),
                ("ZONE", "/timezone"),
                ("NEXT", "/next_at"),
                ("PAUSED", "/paused"),
            ],
        ),
        TriggersCommand::Show { trigger } => {
            client.show(&client.get(&path(&client, &trigger)?, &[])?)
        }
        TriggersCommand::Pause { trigger } => pause(&trigger, true),
        TriggersCommand::Resume { trigger } => pause(&trigger, false),
        TriggersCommand::Fire { trigger } => {
            let path = format!("{}/fire", path(&client, &trigger)?);
            let answer = client.send("POST", &path, &[], Some(&json!({})))?;
            client.done(&answer, answer["id"].as_str().unwrap_or_default())
        }
        TriggersCommand::Send { name, payload } => {
            let payload: Value = match payload {
                Some(text) => serde_json::from_str(&text)
                    .map_err(|e| Failure::new(format!("--payload is no JSON: {e}")))?,
                None => Value::Null,
            };
            let body = json!({"name": name, "payload": payload});
            let answer = client.send_here("POST", "/events", Some(&body))?;
            client.done(&answer, "the event was sent")
        }
        TriggersCommand::Decisions { trigger, limit } => client.show_list(
            &client.list(&format!("{}/decisions", path(&client, &trigger)?), &[], limit)?,
            &[
                ("AT", "/at"),
                ("SLOT", "/slot"),
                ("DECISION", "/decision"),
                ("REASON", "/reason"),
                ("RUN", "/run"),
            ],
        ),
        TriggersCommand::Upcoming { trigger } => client.show_list(
            &client.list(&format!("{}/upcoming", path(&client, &trigger)?), &[], 100)?,
            &[("AT", "/at"), ("FROM", "/interval_start"), ("TO", "/interval_end")],
        ),
    }
}
