//! The `kobza` binary: command line, local runs, server.

mod accounts;
mod airflow;
mod airflow_check;
mod airflow_desk;
mod airflow_faults;
mod airflow_host;
mod airflow_people;
mod airflow_rest;
mod airflow_setup;
mod argo;
mod artifacts;
mod check;
mod cli;
mod client;
mod compose;
mod config;
mod doctor;
mod failure;
mod look;
mod luigi;
mod out;
mod progress;
mod run;
mod server;
mod standby;
mod upkeep;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command, Exec};

// The default allocator returns freed memory slowly and fragments under many small tasks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether this is what each task of an Argo workflow starts: it must not wait for the command line
/// to be put together.
fn is_argo_task() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == "exec")
        && words.next().is_some_and(|word| word == "argo")
        && words.next().is_none()
}

fn argo_task() -> ExitCode {
    let code = kobza_dialect_argo::exec::argo_exec_main();
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn main() -> ExitCode {
    if is_argo_task() {
        return argo_task();
    }
    let cli = Cli::parse();
    match cli.command {
        Command::Shim { args } => {
            kobza_executor_process::shim_main_with(args, Some(airflow_desk::make_warm))
        }
        Command::ExecSql => kobza_executor_process::exec_sql_main(),
        Command::ExecHttp => kobza_executor_process::exec_http_main(),
        Command::Exec { what: Exec::Sql } => kobza_executor_process::exec_sql_main(),
        Command::Exec { what: Exec::Http } => kobza_executor_process::exec_http_main(),
        Command::Exec { what: Exec::Argo } => argo_task(),
        Command::Exec { what: Exec::Artifact { way, folder, digest } } => {
            failure::exit(artifacts::carry(way, &folder, &digest))
        }
        Command::Run(args) => failure::exit(run::run(args)),
        Command::Check(args) => failure::exit(check::check(args)),
        Command::Schema { what } => failure::exit(check::schema(what)),
        Command::Server(args) => failure::exit(server::server(args)),
        Command::Runs(args) => failure::exit(look::runs(args)),
        Command::Tasks(args) => failure::exit(look::tasks(args)),
        Command::Logs(args) => failure::exit(look::logs(args)),
        Command::Why(args) => failure::exit(look::why(args)),
        Command::Workflows(args) => failure::exit(client::workflows(args)),
        Command::Backfill(args) => failure::exit(client::backfill(args)),
        Command::Assets(args) => failure::exit(client::assets(args)),
        Command::Triggers(args) => failure::exit(client::triggers(args)),
        Command::Limits(args) => failure::exit(client::limits(args)),
        Command::Connections(args) => failure::exit(client::connections(args)),
        Command::Variables(args) => failure::exit(client::variables(args)),
        Command::Users(args) => failure::exit(client::users(args)),
        Command::Tokens(args) => failure::exit(client::tokens(args)),
        Command::Backup(args) => failure::exit(upkeep::backup(args)),
        Command::Restore(args) => failure::exit(upkeep::restore(args)),
        Command::Doctor(args) => failure::exit(doctor::doctor(args)),
        Command::Completion { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(shell, &mut command, "kobza", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
