//! The body of an `http` task.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use kobza_model::Json;
use serde::Deserialize;
use ureq::http::{Method, Request};

use super::{Connection, Failure, run, shown_url};

/// Bytes of an answer's body that are taken unless the spec says otherwise.
const DEFAULT_MAX_BYTES: u64 = 512 * 1024;
const DEFAULT_TIMEOUT_S: f64 = 60.0;

/// What is to be done; the JSON on the standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSpec {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Appended to the URL, encoded.
    #[serde(default)]
    query: BTreeMap<String, Json>,
    #[serde(default)]
    body: Option<String>,
    /// Sent as the body, with its content type.
    #[serde(default)]
    json: Option<Json>,
    /// Seconds for the whole exchange.
    #[serde(default)]
    timeout_s: Option<f64>,
    #[serde(default)]
    expect: Expect,
    /// Its URL goes before a `url` that begins with `/`.
    #[serde(default)]
    connection: Option<Connection>,
    #[serde(default)]
    max_bytes: Option<u64>,
}

/// What the answer must be.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "ExpectForm")]
struct Expect {
    /// None given: 200 to 299.
    status: Vec<u16>,
    /// The body, as JSON.
    json: Option<Json>,
    /// A part of the body.
    contains: Option<String>,
}

/// A status, several, or all there is to say.
#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectForm {
    Status(Statuses),
    Full(ExpectFull),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectFull {
    #[serde(default)]
    status: Option<Statuses>,
    #[serde(default)]
    json: Option<Json>,
    #[serde(default)]
    contains: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Statuses {
    One(u16),
    Many(Vec<u16>),
}

impl From<ExpectForm> for Expect {
    fn from(form: ExpectForm) -> Self {
        let (status, json, contains) = match form {
            ExpectForm::Status(status) => (Some(status), None, None),
            ExpectForm::Full(full) => (full.status, full.json, full.contains),
        };
        let status = match status {
            None => Vec::new(),
            Some(Statuses::One(status)) => vec![status],
            Some(Statuses::Many(statuses)) => statuses,
        };
        Self { status, json, contains }
    }
}

impl Expect {
    /// Why an answer is not the expected one.
    fn miss(&self, status: u16, text: &str, body: &Json) -> Option<String> {
        if self.status.is_empty() && !(200..300).contains(&status) {
            return Some(format!("status {status}, expected 2xx"));
        }
        if !self.status.is_empty() && !self.status.contains(&status) {
            return Some(format!("status {status}, expected {:?}", self.status));
        }
        if let Some(json) = self.json.as_ref().filter(|json| *json != body) {
            return Some(format!("the body is not the expected {json}"));
        }
        let part = self.contains.as_ref().filter(|part| !text.contains(part.as_str()))?;
        Some(format!("the body does not contain {part:?}"))
    }
}

/// Runs an `http` task: spec on standard input, outputs `status`, `headers`, `body` (parsed when it
/// is JSON) to the file `$KOBZA_OUTPUT`. Exit code 1: too large an answer and the like; 2: the spec
/// is wrong; 3: not an expected status; 4: no answer.
pub fn exec_http_main() -> ExitCode {
    run(execute)
}

fn execute(mut spec: HttpSpec, outputs: &mut serde_json::Map<String, Json>) -> Result<(), Failure> {
    if let Some(connection) = spec.connection.take().filter(|_| spec.url.starts_with('/')) {
        let base = connection.url.as_deref().ok_or_else(|| connection.missing("url"))?;
        spec.url = format!("{}{}", base.trim_end_matches('/'), spec.url);
    }
    let shown = shown_url(&spec.url);
    let wrong = |what: String| Failure::Spec(what);
    if !spec.url.starts_with("http://") && !spec.url.starts_with("https://") {
        return Err(wrong(format!("url {shown:?} must begin with http:// or https://")));
    }
    let has_body = spec.body.is_some() || spec.json.is_some();
    let method = spec.method.as_deref().unwrap_or(if has_body { "POST" } else { "GET" });
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| wrong(format!("method {method:?} is not an HTTP method")))?;
    let mut request = Request::builder().method(method.clone()).uri(with_query(&spec));
    for (name, value) in &spec.headers {
        request = request.header(name, value);
    }
    let body = match (&spec.json, &spec.body) {
        (Some(_), Some(_)) => return Err(wrong("give body or json, not both".into())),
        (Some(json), None) => {
            if !spec.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
                request = request.header("content-type", "application/json");
            }
            json.to_string()
        }
        (None, body) => body.clone().unwrap_or_default(),
    };
    // A header's value may be a secret: the error's own words do not quote it.
    let request = request.body(body).map_err(|e| wrong(format!("request to {shown}: {e}")))?;

    let seconds = spec.timeout_s.unwrap_or(DEFAULT_TIMEOUT_S).clamp(0.001, 86_400.0);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs_f64(seconds)))
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .user_agent("kobza")
        .build()
        .into();
    let answer = if has_body { agent.run(request) } else { agent.run(request.map(|_| ())) };
    let mut answer = answer.map_err(|e| Failure::Unreachable(format!("{method} {shown}: {e}")))?;
    let status = answer.status().as_u16();
    let limit = spec.max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
    let bytes = answer
        .body_mut()
        .with_config()
        .limit(limit.saturating_add(1))
        .read_to_vec()
        .map_err(|e| Failure::Unreachable(format!("{method} {shown}: answer: {e}")))?;
    println!("{method} {shown}: {status}, {} bytes", bytes.len());

    let mut headers = serde_json::Map::new();
    for (name, value) in answer.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.get_mut(name.as_str()) {
            Some(Json::String(known)) => *known = format!("{known}, {value}"),
            _ => drop(headers.insert(name.to_string(), value.into())),
        }
    }
    let is_json = headers.get("content-type").and_then(Json::as_str).is_some_and(|t| {
        let kind = t.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
    });
    outputs.insert("status".into(), status.into());
    outputs.insert("headers".into(), headers.into());
    if bytes.len() as u64 > limit {
        return Err(Failure::Failed(format!(
            "{method} {shown}: the answer is larger than max_bytes ({limit})"
        )));
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let parsed = if is_json { serde_json::from_str(&text).ok() } else { None };
    let body = parsed.unwrap_or_else(|| Json::String(text.clone()));
    outputs.insert("body".into(), body.clone());

    match spec.expect.miss(status, &text, &body) {
        None => Ok(()),
        Some(miss) => Err(Failure::Check(format!("{method} {shown}: {miss}"))),
    }
}

fn with_query(spec: &HttpSpec) -> String {
    let mut url = spec.url.clone();
    for (name, value) in &spec.query {
        let value = match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        url.push(if url.contains('?') { '&' } else { '?' });
        encode(name, &mut url);
        url.push('=');
        encode(&value, &mut url);
    }
    url
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers one request and gives back what was asked.
    fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let n = stream.read(&mut buffer).unwrap();
                got.extend_from_slice(&buffer[..n]);
                let text = String::from_utf8_lossy(&got).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|l| {
                    l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                });
                if body.len() >= length.unwrap_or(0) {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(got).unwrap()
        });
        (url, thread)
    }

    fn call(spec: Json) -> (Result<(), Failure>, Json) {
        let mut outputs = serde_json::Map::new();
        let result = execute(serde_json::from_value(spec).unwrap(), &mut outputs);
        (result, outputs.into())
    }

    #[test]
    fn a_json_exchange() {
        let (url, server) = serve(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nx-a: 1\r\n\
             content-length: 8\r\nconnection: close\r\n\r\n{\"a\": 1}",
        );
        let (result, outputs) = call(json!({
            "url": format!("{url}/p"), "query": {"q": "a b&c", "n": 1}, "json": [1],
            "headers": {"x-key": "k"},
        }));
        result.unwrap();
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /p?n=1&q=a%20b%26c HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("x-key: k") && asked.ends_with("\r\n\r\n[1]"), "{asked}");
        assert_eq!(outputs["status"], 201);
        assert_eq!(outputs["headers"]["x-a"], "1");
        assert_eq!(outputs["body"], json!({"a": 1}));
    }

    #[test]
    fn unexpected_statuses_and_large_answers() {
        const ANSWER: &str =
            "HTTP/1.1 500 Oops\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
        let (url, server) = serve(ANSWER);
        let (result, outputs) = call(json!({"url": url.replace("//", "//u:pw@")}));
        let Err(Failure::Check(message)) = result else { panic!("{result:?}") };
        assert!(message.contains("status 500") && !message.contains("pw"), "{message}");
        assert_eq!(outputs["body"], "body");
        server.join().unwrap();
        let (url, server) = serve(ANSWER);
        let (result, _) = call(json!({"url": url, "max_bytes": 3, "expect": [500]}));
        assert!(matches!(result, Err(Failure::Failed(_))), "{result:?}");
        server.join().unwrap();
        let (url, server) = serve(ANSWER);
        let (result, _) = call(json!({"url": url, "max_bytes": 4, "expect": [500]}));
        result.unwrap();
        server.join().unwrap();
    }

    #[test]
    fn expected_bodies() {
        let answer = "HTTP/1.1 404 No\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\
             connection: close\r\n\r\n{\"a\": 1}";
        for (expect, holds) in [
            (json!(404), true),
            (json!([200, 404]), true),
            (json!({"status": 404, "json": {"a": 1}, "contains": "\"a\": 1"}), true),
            (json!({"status": [404], "json": {"a": 2}}), false),
            (json!({"status": [404], "contains": "b"}), false),
            (json!({"json": {"a": 1}}), false),
        ] {
            let (url, server) = serve(answer);
            let spec =
                json!({"url": "/x", "connection": {"url": format!("{url}/")}, "expect": expect});
            let (result, _) = call(spec);
            assert_eq!(result.is_ok(), holds, "{expect} {result:?}");
            assert!(server.join().unwrap().starts_with("GET /x HTTP/1.1"));
        }
    }

    #[test]
    fn no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (result, _) = call(json!({"url": url, "timeout_s": 0.05}));
        assert!(matches!(result, Err(Failure::Unreachable(_))), "{result:?}");
        drop(listener);
        let (result, _) = call(json!({"url": url}));
        assert!(matches!(result, Err(Failure::Unreachable(_))), "{result:?}");
        for bad in [json!({"url": "file:///etc/passwd"}), json!({"url": "http://h", "method": " "})]
        {
            assert!(matches!(call(bad).0, Err(Failure::Spec(_))));
        }
    }
}
