//! `kobza workflows`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Client, Remote, escape};
use crate::check;
use crate::failure::Failure;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct WorkflowsArgs {
    #[command(subcommand)]
    command: Option<WorkflowsCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum WorkflowsCommand {
    /// List workflows (as without a command)
    List {
        /// Part of the name
        #[arg(long)]
        search: Option<String>,
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show a workflow
    Show { name: String },
    /// Store the definitions of files as new versions
    Put {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only check, as the server does
        #[arg(long)]
        dry_run: bool,
    },
    /// Start a run
    Start {
        name: String,
        /// A parameter, `name=value`; the value is JSON, or else a text
        #[arg(short, long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        #[arg(long)]
        partition: Option<String>,
        /// A second run of this key is refused
        #[arg(long)]
        key: Option<String>,
        /// Wait for its end; the exit code is the run's
        #[arg(long)]
        wait: bool,
    },
    /// Let its triggers start nothing
    Pause { name: String },
    /// Let its triggers start runs again
    Resume { name: String },
    /// Show its versions
    Versions { name: String },
    /// Delete a workflow; its runs stay
    Delete { name: String },
}

pub(crate) fn workflows(args: WorkflowsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let list = WorkflowsCommand::List { search: None, limit: 100 };
    let path = |name: &str| format!("/workflows/{}", escape(name));
    match args.command.unwrap_or(list) {
        WorkflowsCommand::List { search, limit } => {
            let query = [
                ("namespace", client.namespace.as_str()),
                ("q", search.as_deref().unwrap_or_default()),
            ];
            let items = client.list("/workflows", &query, limit)?;
            client.show_list(
                &items,
                &[
                    ("NAME", "/name"),
                    ("DIALECT", "/dialect"),
                    ("SCHEDULE", "/schedule"),
                    ("NEXT", "/next_run_at"),
                    ("PAUSED", "/paused"),
                    ("ERROR", "/error/message"),
                ],
            )
        }
        WorkflowsCommand::Show { name } => client.show(&client.get_here(&path(&name))?),
        WorkflowsCommand::Put { files, dry_run } => put(&client, &files, dry_run),
        WorkflowsCommand::Start { name, params, partition, key, wait } => {
            let mut body = json!({"params": crate::run::pairs(&params)?});
            for (field, value) in [("partition", partition), ("key", key)] {
                if let Some(value) = value {
                    body[field] = value.into();
                }
            }
            let run = client.send_here("POST", &format!("{}/runs", path(&name)), Some(&body))?;
            let id = run["id"].as_str().unwrap_or_default().to_owned();
            if wait {
                return super::runs::wait(&client, &id);
            }
            client.done(&run, &id)
        }
        WorkflowsCommand::Pause { name } => pause(&client, &path(&name), true),
        WorkflowsCommand::Resume { name } => pause(&client, &path(&name), false),
        WorkflowsCommand::Versions { name } => {
            let at = format!("{}/versions", path(&name));
            let items = client.list(&at, &[("namespace", &client.namespace)], 100)?;
            client.show_list(
                &items,
                &[("VERSION", "/version"), ("CREATED", "/created_at"), ("CURRENT", "/current")],
            )
        }
        WorkflowsCommand::Delete { name } => {
            let answer = client.send_here("DELETE", &path(&name), None)?;
            client.done(&answer, &format!("{name} is deleted"))
        }
    }
}

fn pause(client: &Client, path: &str, paused: bool) -> Result<(), Failure> {
    let answer = client.send_here("PATCH", path, Some(&json!({"paused": paused})))?;
    let name = answer["name"].as_str().unwrap_or_default();
    client.done(&answer, &format!("{name} is {}", if paused { "paused" } else { "active" }))
}

fn put(client: &Client, files: &[PathBuf], dry_run: bool) -> Result<(), Failure> {
    let mut answers: Vec<Value> = Vec::new();
    for file in files {
        let definitions = check::read_all(file).map_err(|problems| {
            check::print(&problems);
            Failure::Input
        })?;
        for (definition, source) in definitions {
            let namespace = definition.namespace.as_deref().unwrap_or(&client.namespace);
            let dry = dry_run.to_string();
            let query = [("namespace", namespace), ("dry_run", dry.as_str())];
            // A definition of Python's is JSON by now.
            let json = serde_json::from_str::<serde::de::IgnoredAny>(&source).is_ok();
            let kind = if json { "application/json" } else { "application/yaml" };
            let body = Some((kind, source.into_bytes()));
            answers.push(Client::value(client.request("POST", "/workflows", &query, body)?)?);
        }
    }
    client.show_list(&answers, &[("NAME", "/name"), ("VERSION", "/version"), ("NEW", "/created")])
}
