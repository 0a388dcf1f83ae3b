//! Which server, who asks, and how answers look.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Output;
use crate::config::Settings;
use crate::failure::Failure;

/// Names the token of the environment.
const TOKEN_VARIABLE: &str = "KOBZA_TOKEN";

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Remote {
    /// The server's address [`client.server` of the file; KOBZA_SERVER; default:
    /// http://127.0.0.1:8470]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) server: Option<String>,
    /// A token. Others of this machine can read a command line: better KOBZA_TOKEN or --token-file
    #[arg(long, value_name = "TOKEN", global = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file with a token [`client.token_file` of the file; KOBZA_TOKEN_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// The namespace; `default` if absent
    #[arg(short, long, global = true)]
    pub(crate) namespace: Option<String>,
    /// The file of settings [KOBZA_CONFIG; default: kobza.toml, then /etc/kobza/kobza.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Output,
}

impl Remote {
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let file = self.token_file.as_ref().map(|path| path.display().to_string());
        let given = [("client.server", self.server.clone()), ("client.token_file", file)];
        let given = given.into_iter().filter_map(|(key, text)| Some((key, text?)));
        Settings::load(self.config.as_deref(), &given.collect())
    }

    /// A flag stands above the environment, and that above the file of settings.
    pub(super) fn token(&self, settings: &Settings) -> Result<Option<String>, Failure> {
        if let Some(token) = &self.token {
            return Ok(Some(token.trim().to_owned()));
        }
        let variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        if self.token_file.is_none() && variable.is_some() {
            return Ok(variable);
        }
        let Some(path) = settings.path("client.token_file") else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        Ok(Some(text.trim().to_owned()))
    }
}
