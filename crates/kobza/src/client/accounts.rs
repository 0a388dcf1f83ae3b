//! `kobza users` and `kobza tokens`.

use clap::{Args, Subcommand, ValueEnum};
use kobza_model::Timestamp;
use serde_json::{Map, Value, json};

use super::{Client, Remote, escape};
use crate::failure::Failure;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Viewer,
    Operator,
    Editor,
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    #[command(subcommand)]
    command: Option<UsersCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// List people (as without a command)
    List,
    /// Add a person, or change their password and roles
    Add {
        name: String,
        /// A role, `namespace=role`; `*=admin` holds everywhere
        #[arg(long = "role", value_name = "NAMESPACE=ROLE", required = true)]
        roles: Vec<String>,
        /// Where the password is read from: `-` (the standard input), `@FILE` or `$VARIABLE`
        #[arg(long, value_name = "SOURCE", default_value = "-")]
        password: String,
    },
    /// Remove a person
    Delete { name: String },
}

#[derive(Debug, Args)]
pub(crate) struct TokensArgs {
    #[command(subcommand)]
    command: Option<TokensCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// List tokens, without their text (as without a command)
    List,
    /// Make a token and print its text, which is shown this once
    Add {
        name: String,
        #[arg(long, value_enum)]
        role: Role,
        /// Only of this namespace; everywhere if absent
        #[arg(long)]
        only: Option<String>,
        /// For how long it is good, such as 90d; for ever if absent
        #[arg(long, value_parser = crate::upkeep::duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// Revoke a token, by its id or name
    Delete { which: String },
}

pub(crate) fn users(args: UsersArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    match args.command.unwrap_or(UsersCommand::List) {
        UsersCommand::List => client.show_list(
            &client.list("/users", &[], 10_000)?,
            &[
                ("NAME", "/name"),
                ("ROLES", "/roles"),
                ("DISABLED", "/disabled"),
                ("CREATED", "/created_at"),
            ],
        ),
        UsersCommand::Add { name, roles, password } => {
            let mut all = Map::new();
            for role in &roles {
                let (namespace, word) = role.split_once('=').ok_or_else(|| {
                    Failure::hint(format!("role {role:?} names no namespace"), "write '*=viewer'")
                })?;
                let known = Role::value_variants().iter().find(|known| known.word() == word);
                let known = known.ok_or_else(|| {
                    Failure::hint(
                        format!("{word:?} is not a role"),
                        "use viewer, operator, editor or admin",
                    )
                })?;
                all.insert(namespace.to_owned(), known.word().into());
            }
            let password = super::values::secret(&password, true)?;
            let body = json!({"name": name, "password": password, "roles": all});
            let answer = client.send("POST", "/users", &[], Some(&body))?;
            client.done(&answer, &format!("{name} is added"))
        }
        UsersCommand::Delete { name } => {
            let path = format!("/users/{}", escape(&name));
            client.done(&client.send("DELETE", &path, &[], None)?, &format!("{name} is removed"))
        }
    }
}

pub(crate) fn tokens(args: TokensArgs) -> Result<(), Failure> {
    let client = Client::new(&args.remote)?;
    match args.command.unwrap_or(TokensCommand::List) {
        TokensCommand::List => client.show_list(
            &client.list("/tokens", &[], 10_000)?,
            &[
                ("ID", "/id"),
                ("NAME", "/name"),
                ("ROLE", "/role"),
                ("NAMESPACE", "/namespace"),
                ("EXPIRES", "/expires_at"),
            ],
        ),
        TokensCommand::Add { name, role, only, expires_in } => {
            let expires_at = expires_in.map(|pause| {
                let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
                Timestamp(kobza_runtime::wall_now().0.saturating_add(micros))
            });
            let body = json!({
                "name": name, "role": role.word(), "namespace": only, "expires_at": expires_at,
            });
            let answer = client.send("POST", "/tokens", &[], Some(&body))?;
            client.done(&answer, answer["token"].as_str().unwrap_or_default())
        }
        TokensCommand::Delete { which } => {
            let all = client.list("/tokens", &[], 10_000)?;
            let found: Vec<&Value> =
                all.iter().filter(|t| t["id"] == *which || t["name"] == *which).collect();
            let [only] = found.as_slice() else {
                let message = if found.is_empty() {
                    format!("there is no token {which:?}")
                } else {
                    format!("there are {} tokens {which:?}", found.len())
                };
                return Err(Failure::hint(message, "`kobza tokens` lists them with their ids"));
            };
            let path = format!("/tokens/{}", escape(only["id"].as_str().unwrap_or_default()));
            client.done(&client.send("DELETE", &path, &[], None)?, &format!("{which} is revoked"))
        }
    }
}
