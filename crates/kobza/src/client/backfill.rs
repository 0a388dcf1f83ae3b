//! `kobza backfill`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::table::{self, Column};
use super::{Client, Remote, escape};
use crate::cli::Output;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct BackfillArgs {
    #[command(subcommand)]
    command: Option<BackfillCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Only {
    #[default]
    All,
    /// What has not succeeded and does not run
    Missing,
    /// What has failed
    Failed,
    /// What has no run at all
    New,
    /// Everything that does not run now
    Ended,
}

#[derive(Debug, Args)]
struct What {
    workflow: String,
    /// First day or moment, as the workflow's schedule has them
    #[arg(long, required_unless_present = "partition")]
    from: Option<String>,
    /// Last day or moment
    #[arg(long, required_unless_present = "partition")]
    to: Option<String>,
    /// A partition instead of a time; several times for several
    #[arg(long, conflicts_with_all = ["from", "to"])]
    partition: Vec<String>,
    #[arg(long, value_enum, default_value_t)]
    only: Only,
    /// Runs at once
    #[arg(long)]
    parallelism: Option<u32>,
    /// The newest first
    #[arg(long)]
    newest_first: bool,
    /// A parameter, `name=value`; the value is JSON, or else a text
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum BackfillCommand {
    /// List backfills (as without a command)
    List {
        #[arg(long)]
        workflow: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Say what a backfill would do
    Preview(What),
    /// Begin a backfill
    Start(What),
    /// Show a backfill with its progress
    Show { id: String },
    /// Show its runs
    Slots {
        id: String,
        #[arg(long)]
        state: Option<String>,
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Start no more of its runs
    Pause { id: String },
    /// Go on
    Resume { id: String },
    /// Cancel it with its runs
    Cancel { id: String },
    /// Run again what failed
    RetryFailed { id: String },
}

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("WORKFLOW", "/workflow"),
    ("STATE", "/state"),
    ("TOTAL", "/total"),
    ("COUNTS", "/counts"),
    ("CREATED", "/created_at"),
];

fn body(what: &What, dry_run: bool) -> Result<Value, Failure> {
    let only = match what.only {
        Only::All => "all",
        Only::Missing => "missing",
        Only::Failed => "failed",
        Only::New => "new",
        Only::Ended => "ended",
    };
    let mut body = json!({
        "workflow": what.workflow, "only": only, "dry_run": dry_run,
        "order": if what.newest_first { "descending" } else { "ascending" },
        "params": crate::run::pairs(&what.params)?,
    });
    if what.partition.is_empty() {
        body["from"] = json!(what.from);
        body["to"] = json!(what.to);
    } else {
        body["partitions"] = json!(what.partition);
    }
    if let Some(parallelism) = what.parallelism {
        body["parallelism"] = parallelism.into();
    }
    Ok(body)
}

pub(crate) fn backfill(args: BackfillArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let act = |id: &str, action: &str| -> Result<(), Failure> {
        let path = format!("/backfills/{}/{action}", escape(id));
        let answer = client.send("POST", &path, &[], Some(&json!({})))?;
        let state = answer["state"].as_str().unwrap_or("?");
        client.done(&answer, &format!("the backfill is {state}"))
    };
    match args.command.unwrap_or(BackfillCommand::List { workflow: None, limit: 50 }) {
        BackfillCommand::List { workflow, limit } => {
            let mut query = vec![("namespace", client.namespace.as_str())];
            query.extend(workflow.as_deref().map(|w| ("workflow", w)));
            client.show_list(&client.list("/backfills", &query, limit)?, COLUMNS)
        }
        BackfillCommand::Preview(what) => {
            let answer = client.send_here("POST", "/backfills", Some(&body(&what, true)?))?;
            if client.output == Output::Json {
                return client.show(&answer);
            }
            let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            table::print(
                items,
                &[
                    ("FROM", "/interval_start"),
                    ("TO", "/interval_end"),
                    ("PARTITION", "/partition"),
                    ("ACTION", "/action"),
                    ("NOW", "/existing/state"),
                ],
            );
            for warning in answer["warnings"].as_array().into_iter().flatten() {
                crate::out::tell!("warning: {}", table::cell(warning));
            }
            crate::out::show!("{} slots: {}", answer["count"], table::cell(&answer["counts"]));
            Ok(())
        }
        BackfillCommand::Start(what) => {
            let answer = client.send_here("POST", "/backfills", Some(&body(&what, false)?))?;
            client.done(&answer, answer["id"].as_str().unwrap_or_default())
        }
        BackfillCommand::Show { id } => {
            client.show(&client.get(&format!("/backfills/{}", escape(&id)), &[])?)
        }
        BackfillCommand::Slots { id, state, limit } => {
            let query: Vec<_> = state.as_deref().map(|s| ("state", s)).into_iter().collect();
            let path = format!("/backfills/{}/slots", escape(&id));
            client.show_list(
                &client.list(&path, &query, limit)?,
                &[
                    ("FROM", "/interval_start"),
                    ("TO", "/interval_end"),
                    ("PARTITION", "/partition"),
                    ("STATE", "/state"),
                    ("RUN", "/run"),
                    ("REASON", "/reason"),
                ],
            )
        }
        BackfillCommand::Pause { id } => act(&id, "pause"),
        BackfillCommand::Resume { id } => act(&id, "resume"),
        BackfillCommand::Cancel { id } => act(&id, "cancel"),
        BackfillCommand::RetryFailed { id } => act(&id, "retry_failed"),
    }
}
