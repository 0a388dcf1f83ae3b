//! `kobza connections` and `kobza variables`. What is secret is read from the standard input, a file
//! or the environment: a command line can be read by others.

use std::io::Read as _;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Client, Remote, escape};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    #[command(subcommand)]
    command: Option<ConnectionsCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum ConnectionsCommand {
    /// List connections, without what is secret (as without a command)
    List,
    /// Set a connection
    Set {
        name: String,
        /// Such as `postgres`, `sqlite`, `http`
        #[arg(long)]
        kind: String,
        #[arg(long)]
        description: Option<String>,
        /// A field, `name=value`; the value is JSON, or else a text
        #[arg(long = "field", value_name = "NAME=VALUE")]
        fields: Vec<String>,
        /// A secret field, `name=SOURCE`: `-` (a line of the standard input), `@FILE` or
        /// `$VARIABLE`; or where the server finds it: `env:VARIABLE` or `file:PATH`
        #[arg(long = "secret", value_name = "NAME=SOURCE")]
        secrets: Vec<String>,
    },
    /// Remove a connection
    Delete { name: String },
}

#[derive(Debug, Args)]
pub(crate) struct VariablesArgs {
    #[command(subcommand)]
    command: Option<VariablesCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum VariablesCommand {
    /// List variables, without what is secret (as without a command)
    List,
    /// Print a variable's value
    Get { name: String },
    /// Set a variable
    Set {
        name: String,
        /// JSON, or else a text
        #[arg(required_unless_present = "secret")]
        value: Option<String>,
        /// Keep it secret; from `-` (the standard input), `@FILE` or `$VARIABLE`; or where the
        /// server finds it: `env:VARIABLE` or `file:PATH`
        #[arg(long, value_name = "SOURCE", conflicts_with = "value")]
        secret: Option<String>,
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove a variable
    Delete { name: String },
}

/// Where the server finds a secret, if the source says that.
fn reference(source: &str) -> Option<Value> {
    match source.split_once(':') {
        Some((kind @ ("env" | "file"), place)) => Some(json!({kind: place})),
        _ => None,
    }
}

/// A secret from where it is kept.
pub(super) fn secret(source: &str, lines: bool) -> Result<String, Failure> {
    if source == "-" {
        let mut text = String::new();
        if lines {
            std::io::stdin().read_line(&mut text)?;
        } else {
            std::io::stdin().read_to_string(&mut text)?;
        }
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if let Some(path) = source.strip_prefix('@') {
        let text =
            std::fs::read_to_string(path).map_err(|e| Failure::new(format!("{path}: {e}")))?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if let Some(name) = source.strip_prefix('$') {
        return std::env::var(name)
            .map_err(|_| Failure::new(format!("there is no variable {name}")));
    }
    Err(Failure::hint(
        "a secret is not written on the command line, which others can read",
        "write - for the standard input, @FILE, '$VARIABLE', or env:NAME or file:PATH of the server",
    ))
}

pub(crate) fn connections(args: ConnectionsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let path = |name: &str| format!("/connections/{}", escape(name));
    match args.command.unwrap_or(ConnectionsCommand::List) {
        ConnectionsCommand::List => client.show_list(
            &client.list("/connections", &[("namespace", &client.namespace)], 10_000)?,
            &[
                ("NAME", "/name"),
                ("KIND", "/kind"),
                ("FIELDS", "/fields"),
                ("SECRETS", "/secrets"),
                ("FROM", "/from"),
                ("UPDATED", "/updated_at"),
            ],
        ),
        ConnectionsCommand::Set { name, kind, description, fields, secrets } => {
            let (mut sealed, mut from) = (Map::new(), Map::new());
            for pair in &secrets {
                let (field, source) = pair.split_once('=').ok_or_else(|| {
                    Failure::hint("a secret field has no source", "write it as name=-")
                })?;
                if let Some(place) = reference(source) {
                    from.insert(field.to_owned(), place);
                } else {
                    sealed.insert(field.to_owned(), secret(source, true)?.into());
                }
            }
            let body = json!({
                "kind": kind, "description": description, "fields": crate::run::pairs(&fields)?,
                "secrets": sealed, "from": from,
            });
            let answer = client.send_here("PUT", &path(&name), Some(&body))?;
            client.done(&answer, &format!("{name} is set"))
        }
        ConnectionsCommand::Delete { name } => {
            let answer = client.send_here("DELETE", &path(&name), None)?;
            client.done(&answer, &format!("{name} is removed"))
        }
    }
}

pub(crate) fn variables(args: VariablesArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    let path = |name: &str| format!("/variables/{}", escape(name));
    let all = || client.list("/variables", &[("namespace", &client.namespace)], 10_000);
    match args.command.unwrap_or(VariablesCommand::List) {
        VariablesCommand::List => client.show_list(
            &all()?,
            &[
                ("NAME", "/key"),
                ("VALUE", "/value"),
                ("SECRET", "/secret"),
                ("FROM", "/from"),
                ("DESCRIPTION", "/description"),
                ("UPDATED", "/updated_at"),
            ],
        ),
        VariablesCommand::Get { name } => {
            let found = all()?.into_iter().find(|v| v["key"] == name.as_str());
            let found =
                found.ok_or_else(|| Failure::new(format!("there is no variable {name:?}")))?;
            if found["secret"] == true {
                return Err(Failure::new(format!("{name} is secret, and is shown to tasks only")));
            }
            client.show(&found["value"])
        }
        VariablesCommand::Set { name, value, secret: source, description } => {
            if let Some(place) = source.as_deref().and_then(reference) {
                let body = json!({"from": place, "description": description});
                let answer = client.send_here("PUT", &path(&name), Some(&body))?;
                return client.done(&answer, &format!("{name} is set"));
            }
            let (value, hidden) = match (&value, &source) {
                (_, Some(source)) => (Value::String(secret(source, false)?), true),
                (Some(text), None) => {
                    (serde_json::from_str(text).unwrap_or_else(|_| Value::from(&**text)), false)
                }
                (None, None) => return Err(Failure::new("a value is missing")),
            };
            let body = json!({"value": value, "secret": hidden, "description": description});
            let answer = client.send_here("PUT", &path(&name), Some(&body))?;
            client.done(&answer, &format!("{name} is set"))
        }
        VariablesCommand::Delete { name } => {
            let answer = client.send_here("DELETE", &path(&name), None)?;
            client.done(&answer, &format!("{name} is removed"))
        }
    }
}
