//! HTTP templates: one request, judged by its status or by an expression.

use std::time::Duration;

use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_model::Json;
use serde_json::{Map, json};

use super::{EXIT_RUNNER, Report};
use crate::launch::ExecSpec;

/// Largest answer that becomes a result.
const BODY_BYTES_MAX: u64 = 16 << 20;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

pub(super) fn agent(timeout: Option<Duration>, insecure: bool) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().disable_verification(insecure).build();
    ureq::Agent::config_builder().timeout_global(timeout).tls_config(tls).build().into()
}

pub(super) fn run(spec: &ExecSpec) -> Report {
    request(spec).unwrap_or_else(|message| Report {
        exit_code: EXIT_RUNNER,
        message: Some(message),
        outputs: Map::new(),
    })
}

fn request(spec: &ExecSpec) -> Result<Report, String> {
    let http = &spec.template["http"];
    let url = http["url"].as_str().unwrap_or_default();
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(format!("http.url {url:?} is not an http address"));
    }
    let method = http["method"].as_str().unwrap_or("GET").to_uppercase();
    let timeout = http["timeoutSeconds"].as_u64().map_or(TIMEOUT_DEFAULT, Duration::from_secs);
    let insecure = http["insecureSkipVerify"].as_bool().unwrap_or(false);
    let body = match http["body"].as_str() {
        Some(body) => body.as_bytes().to_vec(),
        None => match http["bodyFrom"]["bytes"].as_str() {
            Some(bytes) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD
                    .decode(bytes)
                    .unwrap_or_else(|_| bytes.as_bytes().to_vec())
            }
            None => Vec::new(),
        },
    };
    let mut builder = ureq::http::Request::builder().method(method.as_str()).uri(url);
    let mut headers = Map::new();
    for header in http["headers"].as_array().into_iter().flatten() {
        let Some(name) = header["name"].as_str() else { continue };
        let reference = &header["valueFrom"]["secretKeyRef"];
        let value = match header["value"].as_str() {
            Some(value) => value.to_owned(),
            None => {
                let key = format!(
                    "{}/{}",
                    reference["name"].as_str().unwrap_or(""),
                    reference["key"].as_str().unwrap_or("")
                );
                let found = spec.credentials.get(&key).and_then(Json::as_str);
                found
                    .ok_or_else(|| format!("http.headers.{name}: secret {key} not found"))?
                    .to_owned()
            }
        };
        builder = builder.header(name, &value);
        headers.insert(name.to_owned(), json!([value]));
    }
    let request = builder.body(body.clone()).map_err(|e| format!("http: {e}"))?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .tls_config(ureq::tls::TlsConfig::builder().disable_verification(insecure).build())
        .build();
    let agent: ureq::Agent = config.into();
    let mut answer = agent.run(request).map_err(|e| format!("http: {url}: {e}"))?;
    let status = answer.status().as_u16();
    let answer_headers: Map<String, Json> = answer
        .headers()
        .keys()
        .map(|name| {
            let values = answer.headers().get_all(name).iter();
            let values: Json = values.filter_map(|v| v.to_str().ok()).collect();
            (name.as_str().to_owned(), values)
        })
        .collect();
    let text = answer
        .body_mut()
        .with_config()
        .limit(BODY_BYTES_MAX)
        .read_to_string()
        .map_err(|e| format!("http: {url}: {e}"))?;
    let good = match http["successCondition"].as_str().filter(|c| !c.is_empty()) {
        None => (200..300).contains(&status),
        Some(condition) => {
            let mut env = Env::default();
            let request = json!({
                "method": method, "url": url, "headers": headers,
                "body": String::from_utf8_lossy(&body),
            });
            let response = json!({ "statusCode": status, "body": text, "headers": answer_headers });
            env.variables.insert("request".to_owned(), Value::from(&request));
            env.variables.insert("response".to_owned(), Value::from(&response));
            match Program::parse(condition).and_then(|program| program.eval(&env)) {
                Ok(Value::Bool(good)) => good,
                Ok(other) => {
                    return Err(format!("successCondition is {}, not a bool", other.kind()));
                }
                Err(error) => return Err(format!("successCondition {condition:?}: {error}")),
            }
        }
    };
    let mut outputs = Map::new();
    outputs.insert("result".to_owned(), Json::from(text));
    if good {
        return Ok(Report { exit_code: 0, message: None, outputs });
    }
    let message = match http["successCondition"].as_str() {
        Some(condition) => format!("successCondition '{condition}' evaluated false"),
        None => format!("received non-2xx response code: {status}"),
    };
    Ok(Report { exit_code: 1, message: Some(message), outputs })
}
