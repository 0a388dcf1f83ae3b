//! Bodies that are part of this binary. They run as processes of the shim like any other task, so
//! that a slow database or server never holds up Kobza.

mod http;
mod postgres_named;
mod postgres_sql;
mod sql;
mod sqlite;

use std::io::Read;
use std::process::ExitCode;

use kobza_model::{Cause, Json};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use http::exec_http_main;
pub use sql::exec_sql_main;

/// Bytes of a spec on the standard input.
const MAX_SPEC_BYTES: u64 = 64 << 20;

/// Where to connect, as a workflow or the namespace declares it.
#[derive(Debug, Deserialize)]
struct Connection {
    /// Declared name, for messages.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    url: Option<String>,
    /// File of a local database, already resolved against the workflow's folder.
    #[serde(default)]
    path: Option<String>,
}

impl Connection {
    fn missing(&self, what: &str) -> Failure {
        let name = self.name.as_deref().unwrap_or("(unnamed)");
        Failure::Spec(format!("connection {name:?} has no {what}"))
    }
}

/// Why a body failed. The message is its last line on standard error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it was to do did not work.
    Failed(String),
    /// Its spec is wrong.
    Spec(String),
    /// It worked, but the answer is not the expected one.
    Check(String),
    /// It never got to it: no connection, no answer.
    Unreachable(String),
}

impl Failure {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Spec(_) => 2,
            Self::Check(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }

    fn message(&self) -> &str {
        let (Self::Failed(m) | Self::Spec(m) | Self::Check(m) | Self::Unreachable(m)) = self;
        m
    }
}

/// What the exit code of a built-in body means. A runner's is its command's, except 64 and 65, which
/// are failures before and after the command.
pub(crate) const fn cause_of_exit(code: i32, runner: bool) -> Cause {
    match code {
        64 | 65 if runner => Cause::Infrastructure,
        _ if runner => Cause::Code,
        2 => Cause::Template,
        3 => Cause::Check,
        4 => Cause::Infrastructure,
        _ => Cause::Code,
    }
}

/// Reads the spec, does the work, writes the outputs. What a body puts out is written even if it
/// failed, when there is something.
fn run<S: DeserializeOwned>(
    work: impl FnOnce(S, &mut serde_json::Map<String, Json>) -> Result<(), Failure>,
) -> ExitCode {
    let mut outputs = serde_json::Map::new();
    let result = read_spec().and_then(|spec| work(spec, &mut outputs));
    let written = if outputs.is_empty() { Ok(()) } else { write_outputs(&outputs) };
    match result.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // One line, since the last line is the message.
            eprintln!("{}", failure.message().replace('\n', " ").trim_end());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn read_spec<S: DeserializeOwned>() -> Result<S, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_SPEC_BYTES)
        .read_to_string(&mut text)
        .map_err(|e| Failure::Spec(format!("cannot read the spec: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Failure::Spec(format!("spec: {e}")))
}

fn write_outputs(outputs: &serde_json::Map<String, Json>) -> Result<(), Failure> {
    let Some(path) = std::env::var_os("KOBZA_OUTPUT") else {
        println!("{}", Json::Object(outputs.clone()));
        return Ok(());
    };
    let text = Json::Object(outputs.clone()).to_string();
    std::fs::write(path, text).map_err(|e| Failure::Failed(format!("cannot write outputs: {e}")))
}

/// A URL as it may be shown: without user, password, query and fragment.
fn shown_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("postgres://u:p@h:1/db?password=x", "postgres://h:1/db"),
            ("http://u:p@x@h/a@b#f", "http://h/a@b"),
            ("sqlite:///tmp/x.db", "sqlite:///tmp/x.db"),
            ("nonsense?a", "nonsense"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }
}
