//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::{self, Remote, RunsCommand};
use crate::config::{ServerFlags, Settings};
use crate::failure::Failure;

/// One control plane for data and ML pipelines.
#[derive(Debug, Parser)]
#[command(name = "kobza", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow here, without a server
    Run(RunArgs),
    /// Check workflow files: one clear error each, with its place
    Check(CheckArgs),
    /// Print a description for other programs: of workflow files (JSON Schema), or of the REST API
    Schema {
        #[arg(value_enum, default_value_t)]
        what: Described,
    },
    /// Start a server
    Server(ServerArgs),
    /// List runs, and act on them
    Runs(RunsArgs),
    /// List the tasks of a run
    Tasks(TasksArgs),
    /// Print the log of a task
    Logs(LogsArgs),
    /// Say what a task waits for, or why it ended as it did
    Why(WhyArgs),
    /// Workflows of a server: list, show, store, start, pause
    Workflows(client::WorkflowsArgs),
    /// Backfills: preview, start, follow
    Backfill(client::BackfillArgs),
    /// Assets, their history and partitions
    Assets(client::AssetsArgs),
    /// Triggers: what starts runs, when next, and why it did or did not
    Triggers(client::TriggersArgs),
    /// Limits: capacities, who holds them, who waits
    Limits(client::LimitsArgs),
    /// Connections of tasks
    Connections(client::ConnectionsArgs),
    /// Variables of tasks
    Variables(client::VariablesArgs),
    /// People who may use the server
    Users(client::UsersArgs),
    /// Tokens of programs
    Tokens(client::TokensArgs),
    /// Copy the store, also while a server works on it
    Backup(BackupArgs),
    /// Put a copy in place as the store
    Restore(RestoreArgs),
    /// Look at the installation and the store
    Doctor(DoctorArgs),
    /// Print a completion script
    Completion { shell: clap_complete::Shell },
    #[command(hide = true)]
    Shim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    #[command(hide = true)]
    ExecSql,
    #[command(hide = true)]
    ExecHttp,
    #[command(hide = true)]
    Exec {
        #[command(subcommand)]
        what: Exec,
    },
}

/// What can be described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Described {
    /// Workflow files, as JSON Schema for editors
    #[default]
    Workflow,
    /// The REST API, as OpenAPI
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Exec {
    Sql,
    Http,
    Argo,
    /// Moves an artifact between a folder and the store elsewhere that it names
    Artifact {
        way: Way,
        folder: PathBuf,
        digest: String,
    },
}

/// Where an artifact goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// To the store elsewhere
    Put,
    /// From there
    Get,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Folder of the store [`data` of the file; KOBZA_DATA; default: .kobza]
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// The file of settings [KOBZA_CONFIG; default: kobza.toml, then /etc/kobza/kobza.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

impl Place {
    /// The settings in force.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let data = self.data.as_ref().map(|data| ("data", data.display().to_string()));
        Settings::load(self.config.as_deref(), &data.into_iter().collect())
    }

    /// The data folder.
    pub(crate) fn data(&self) -> Result<PathBuf, Failure> {
        Ok(self.settings()?.data().to_owned())
    }
}

/// Where to look: a server when one is named, else the store of a folder.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// Folder of a store, to look at without a server [`data` of the file; KOBZA_DATA; default:
    /// .kobza]
    #[arg(long, global = true, conflicts_with = "server")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

impl Look {
    /// The server, if one is meant.
    pub(crate) fn client(&self) -> Result<Option<client::Client>, Failure> {
        let named = self.data.is_none() && client::is_named(&self.remote.settings()?);
        if named { client::Client::new(&self.remote).map(Some) } else { Ok(None) }
    }

    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Ok(self.remote.settings()?.data().to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The workflow file (YAML, JSON, or a Python file of the SDK)
    pub(crate) file: PathBuf,
    /// Where artifacts are kept beside the data folder, such as `s3://bucket/prefix`
    #[arg(long, value_name = "URL", env = "KOBZA_ARTIFACTS_URL")]
    pub(crate) artifacts: Option<String>,
    /// A parameter, `name=value`; the value is JSON, or else a text
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    /// Parameters as a JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) params_json: Option<String>,
    /// Which workflow, when the file holds several
    #[arg(long)]
    pub(crate) workflow: Option<String>,
    /// Start of the data interval (RFC 3339); with --interval-end
    #[arg(long, requires = "interval_end")]
    pub(crate) interval_start: Option<String>,
    #[arg(long, requires = "interval_start")]
    pub(crate) interval_end: Option<String>,
    /// Partition of the run
    #[arg(long)]
    pub(crate) partition: Option<String>,
    /// Start a new run even if an interrupted one could go on
    #[arg(long)]
    pub(crate) new: bool,
    /// Bodies at once
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) jobs: u32,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Files or folders
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The interpreter of the environment with Airflow, for DAG files [`airflow.python` of the file]
    #[arg(long, value_name = "PATH")]
    pub(crate) airflow_python: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The file of settings [KOBZA_CONFIG; default: kobza.toml, then /etc/kobza/kobza.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: ServerFlags,
    /// Take over a PostgreSQL store whose tasks ran under another machine or data folder: only
    /// when nothing of it runs there any more
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Isolated Luigi schedulers with a virtual clock, for conformance tests
    #[arg(long)]
    pub(crate) luigi_test_hooks: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RunsCommand>,
    /// Only of this workflow
    #[arg(long)]
    pub(crate) workflow: Option<String>,
    /// Only in this state
    #[arg(long)]
    pub(crate) state: Option<String>,
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Run id; the newest run if absent
    pub(crate) run: Option<String>,
    /// Only in this state
    #[arg(long)]
    pub(crate) state: Option<String>,
    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Task id, or the name of a task of the newest run
    pub(crate) task: String,
    /// Which attempt; the last if absent
    #[arg(long)]
    pub(crate) attempt: Option<u32>,
    /// Index, for an instance of a mapped task
    #[arg(long)]
    pub(crate) index: Option<u32>,
    /// Go on with what comes, until the attempt has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Task id, or the name of a task of the newest run
    pub(crate) task: String,
    #[arg(long)]
    pub(crate) index: Option<u32>,
    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The copy to make; must not exist
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) look: Look,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The copy, made by `kobza backup`
    pub(crate) file: PathBuf,
    /// Replace the store that is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The file of settings [KOBZA_CONFIG; default: kobza.toml, then /etc/kobza/kobza.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: ServerFlags,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}
