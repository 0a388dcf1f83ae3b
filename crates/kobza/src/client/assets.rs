//! `kobza assets`.

use clap::{Args, Subcommand};

use super::{Client, Remote, escape};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct AssetsArgs {
    #[command(subcommand)]
    command: Option<AssetsCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum AssetsCommand {
    /// List assets (as without a command)
    List {
        /// Part of the name
        #[arg(long)]
        search: Option<String>,
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show an asset
    Show { asset: String },
    /// Show what happened to an asset
    History {
        asset: String,
        #[arg(long)]
        partition: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show its partitions
    Partitions { asset: String },
}

pub(crate) fn assets(args: AssetsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let here = ("namespace", client.namespace.as_str());
    match args.command.unwrap_or(AssetsCommand::List { search: None, limit: 100 }) {
        AssetsCommand::List { search, limit } => {
            let query = [here, ("q", search.as_deref().unwrap_or_default())];
            client.show_list(
                &client.list("/assets", &query, limit)?,
                &[
                    ("ASSET", "/key"),
                    ("HEALTH", "/health"),
                    ("LAST", "/last/at"),
                    ("PRODUCERS", "/producers"),
                    ("CONSUMERS", "/consumers"),
                ],
            )
        }
        AssetsCommand::Show { asset } => {
            client.show(&client.get_here(&format!("/assets/{}", escape(&asset)))?)
        }
        AssetsCommand::History { asset, partition, limit } => {
            let mut query = vec![here];
            query.extend(partition.as_deref().map(|p| ("partition", p)));
            client.show_list(
                &client.list(&format!("/assets/{}/history", escape(&asset)), &query, limit)?,
                &[
                    ("AT", "/at"),
                    ("KIND", "/kind"),
                    ("PARTITION", "/partition"),
                    ("CHECK", "/check"),
                    ("PASSED", "/passed"),
                    ("RUN", "/run"),
                ],
            )
        }
        AssetsCommand::Partitions { asset } => {
            let answer = client.get_here(&format!("/assets/{}/partitions", escape(&asset)))?;
            let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let columns =
                [("PARTITION", "/key"), ("STATE", "/state"), ("AT", "/at"), ("RUN", "/run")];
            client.show_list(items, &columns)
        }
    }
}
