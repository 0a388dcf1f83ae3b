//! Commands that ask a server: its address and the token come from flags, the environment or the
//! file of settings.

mod accounts;
mod args;
mod assets;
mod backfill;
mod limits;
mod runs;
mod table;
mod tasks;
mod triggers;
mod values;
mod workflows;

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::cli::Output;
use crate::config::Settings;
use crate::failure::Failure;

pub(crate) use accounts::{TokensArgs, UsersArgs, tokens, users};
pub(crate) use args::Remote;
pub(crate) use assets::{AssetsArgs, assets};
pub(crate) use backfill::{BackfillArgs, backfill};
pub(crate) use limits::{LimitsArgs, limits};
pub(crate) use runs::{RunsCommand, act as act_on_run, list as list_runs, newest};
use table::Column;
pub(crate) use tasks::{list as list_tasks, log, why};
pub(crate) use triggers::{TriggersArgs, triggers};
pub(crate) use values::{ConnectionsArgs, VariablesArgs, connections, variables};
pub(crate) use workflows::{WorkflowsArgs, workflows};

/// Below it are all routes.
const BASE: &str = "/api/v1";
/// Where a server is that nobody named.
const USUAL: &str = "http://127.0.0.1:8470";
/// Items of one request.
const PAGE: usize = 500;

/// A server, as it is asked.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    /// Never printed, and sent to this server only.
    token: Option<String>,
    namespace: String,
    pub(crate) output: Output,
}

/// What goes with a request beside its path.
type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// The server that is meant, or the usual one.
    pub(crate) fn new(remote: &Remote) -> Result<Self, Failure> {
        let settings = remote.settings()?;
        let url = settings.text("client.server").unwrap_or(USUAL).trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::hint(
                "the server's address is no URL",
                "write it such as http://127.0.0.1:8470",
            ));
        }
        if url.contains('@') {
            return Err(Failure::hint(
                "the server's address holds credentials",
                "give a token: KOBZA_TOKEN, or --token-file",
            ));
        }
        // A redirect would carry the token to wherever it leads.
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        Ok(Self {
            agent,
            url,
            token: remote.token(&settings)?,
            namespace: remote.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            output: remote.output,
        })
    }

    fn address(&self, path: &str, query: Query<'_>) -> String {
        let mut url = format!("{}{BASE}{path}", self.url);
        for (number, (name, value)) in query.iter().enumerate() {
            url.push(if number == 0 { '?' } else { '&' });
            url += &format!("{name}={}", escape(value));
        }
        url
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        query: Query<'_>,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(self.address(path, query));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((kind, _)) = &body {
            request = request.header("content-type", *kind);
        }
        let wrong = |_| Failure::new("the token or a name has characters that cannot be sent");
        let sent = match body {
            Some((_, bytes)) => self.agent.run(request.body(bytes).map_err(wrong)?),
            None => self.agent.run(request.body(()).map_err(wrong)?),
        };
        let response = sent.map_err(|error| {
            Failure::hint(
                format!("{}: {error}", self.url),
                "is the server there? --server or KOBZA_SERVER names another",
            )
        })?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response)) }
    }

    fn value(response: ureq::http::Response<ureq::Body>) -> Result<Value, Failure> {
        let mut text = String::new();
        response.into_body().into_reader().read_to_string(&mut text)?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|_| Failure::hint("the answer is not JSON", "is this address a Kobza server?"))
    }

    pub(crate) fn get(&self, path: &str, query: Query<'_>) -> Result<Value, Failure> {
        Self::value(self.request("GET", path, query, None)?)
    }

    /// As [`Self::get`], in this client's namespace.
    fn get_here(&self, path: &str) -> Result<Value, Failure> {
        self.get(path, &[("namespace", &self.namespace)])
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        query: Query<'_>,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        Self::value(self.request(method, path, query, body)?)
    }

    fn send_here(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.send(method, path, &[("namespace", &self.namespace)], body)
    }

    /// Writes an answer's bytes into a new file, whole or not at all; how many there were.
    pub(crate) fn download(&self, method: &str, path: &str, file: &Path) -> Result<u64, Failure> {
        if file.exists() {
            return Err(Failure::new(format!("{} exists already", file.display())));
        }
        let response = self.request(method, path, &[], None)?;
        let expected = response.headers().get("content-length").and_then(|v| v.to_str().ok());
        let expected: Option<u64> = expected.and_then(|v| v.parse().ok());
        let mut target =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        let copied = std::io::copy(&mut response.into_body().into_reader(), &mut target)
            .and_then(|bytes| target.sync_all().map(|()| bytes));
        match copied {
            Ok(bytes) if expected.is_none_or(|expected| expected == bytes) => Ok(bytes),
            other => {
                // Half a copy must not be taken for a whole one.
                std::fs::remove_file(file)?;
                Err(match other {
                    Ok(_) => Failure::new("the answer ended too early"),
                    Err(error) => error.into(),
                })
            }
        }
    }

    /// Items of a list, up to `limit` of them.
    fn list(&self, path: &str, query: Query<'_>, limit: usize) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let size = (limit - items.len()).min(PAGE).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &size));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &query)?;
            let more = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let none = more.is_empty();
            items.extend(more);
            items.truncate(limit);
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() || none || items.len() >= limit {
                break;
            }
        }
        if cursor.is_some() && self.output == Output::Text {
            crate::out::tell!("there are more: --limit shows them");
        }
        Ok(items)
    }

    /// Prints a list: as JSON whole, as text the columns.
    fn show_list(&self, items: &[Value], columns: &[Column]) -> Result<(), Failure> {
        match self.output {
            Output::Json => crate::out::show!("{}", serde_json::to_string_pretty(items)?),
            Output::Text => table::print(items, columns),
        }
        Ok(())
    }

    /// Prints one thing: as JSON whole, as text field by field.
    fn show(&self, value: &Value) -> Result<(), Failure> {
        match self.output {
            Output::Json => crate::out::show!("{}", serde_json::to_string_pretty(value)?),
            Output::Text => table::print_one(value),
        }
        Ok(())
    }

    /// Prints what was done; as JSON the answer.
    fn done(&self, answer: &Value, message: &str) -> Result<(), Failure> {
        match self.output {
            Output::Json => crate::out::show!("{}", serde_json::to_string_pretty(answer)?),
            Output::Text => crate::out::show!("{message}"),
        }
        Ok(())
    }
}

/// What a server said no with, as a message.
fn refused(response: ureq::http::Response<ureq::Body>) -> Failure {
    let status = response.status();
    let mut text = String::new();
    // Without a body the status is all there is to say.
    let _unreadable = response.into_body().into_reader().take(64 * 1024).read_to_string(&mut text);
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let error = &body["error"];
    let mut message = match error["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the server answered {status}"),
    };
    for field in error["fields"].as_array().into_iter().flatten() {
        let text = |name: &str| field[name].as_str().unwrap_or_default();
        let place = match field["line"].as_u64() {
            Some(line) => format!("line {line}: "),
            None => String::new(),
        };
        let path =
            if text("path").is_empty() { String::new() } else { format!("{}: ", text("path")) };
        message += &format!("\n  {place}{path}{}", text("message"));
    }
    let hint = error["hint"].as_str().map(str::to_owned).or_else(|| {
        (status == 401).then(|| "give a token: KOBZA_TOKEN, or --token-file".to_owned())
    });
    Failure::Message(message, hint)
}

/// For a part of a path or a query.
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

/// Whether a server is named: the commands that can look into a local store do so otherwise.
pub(crate) fn is_named(settings: &Settings) -> bool {
    settings.text("client.server").is_some()
}
