//! `kobza limits`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Client, Remote, escape};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    #[command(subcommand)]
    command: Option<LimitsCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum LimitsCommand {
    /// List limits (as without a command)
    List,
    /// Set a limit's capacity
    Set {
        name: String,
        capacity: u32,
        /// Hold tasks back even where one alone needs more than there is
        #[arg(long)]
        strict: bool,
        #[arg(long)]
        description: Option<String>,
    },
    /// Who holds it
    Holders { name: String },
    /// Who waits for it
    Waiters { name: String },
    /// Remove a limit
    Delete { name: String },
}

pub(crate) fn limits(args: LimitsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let path = |name: &str| format!("/limits/{}", escape(name));
    let users = |name: &str, which: &str| -> Result<(), Failure> {
        let items = client.list(&format!("{}/{which}", path(name)), &[], 500)?;
        client.show_list(
            &items,
            &[
                ("TASK", "/id"),
                ("NAME", "/name"),
                ("WORKFLOW", "/workflow"),
                ("UNITS", "/units"),
                ("SINCE", "/since"),
            ],
        )
    };
    match args.command.unwrap_or(LimitsCommand::List) {
        LimitsCommand::List => client.show_list(
            &client.list("/limits", &[], 10_000)?,
            &[
                ("NAME", "/name"),
                ("CAPACITY", "/capacity"),
                ("USED", "/used"),
                ("WAITING", "/waiting"),
                ("STRICT", "/strict"),
                ("DESCRIPTION", "/description"),
            ],
        ),
        LimitsCommand::Set { name, capacity, strict, description } => {
            let body = json!({"capacity": capacity, "strict": strict, "description": description});
            let answer = client.send("PUT", &path(&name), &[], Some(&body))?;
            client.done(&answer, &format!("{name} is {capacity}"))
        }
        LimitsCommand::Holders { name } => users(&name, "holders"),
        LimitsCommand::Waiters { name } => users(&name, "waiters"),
        LimitsCommand::Delete { name } => {
            let answer = client.send("DELETE", &path(&name), &[], None)?;
            client.done(&answer, &format!("{name} is removed"))
        }
    }
}
