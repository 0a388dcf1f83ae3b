//! Artifacts by HTTP and from git.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use kobza_model::Json;

use super::archive::LIMITS;
use super::artifacts::{Missing, secret};
use crate::launch::ExecSpec;

/// Headers of a request, and who asks.
fn headers(spec: &ExecSpec, http: &Json) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for header in http["headers"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (header["name"].as_str(), header["value"].as_str()) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    let basic = &http["auth"]["basicAuth"];
    if let (Some(user), Some(password)) =
        (secret(spec, &basic["usernameSecret"]), secret(spec, &basic["passwordSecret"]))
    {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        headers.push(("Authorization".to_owned(), format!("Basic {text}")));
    }
    headers
}

/// Uploads a file by PUT.
pub(super) fn upload(spec: &ExecSpec, http: &Json, file: &Path) -> Result<(), String> {
    let url = http["url"].as_str().unwrap_or_default();
    if !file.is_file() {
        return Err(format!("{url}: a folder must be packed to be uploaded"));
    }
    let mut request = super::http::agent(None, false).put(url);
    for (name, value) in headers(spec, http) {
        request = request.header(name, value);
    }
    let file = fs::File::open(file).map_err(|e| e.to_string())?;
    request.send(file).map(|_| ()).map_err(|e| format!("{url}: {e}"))
}

/// Downloads a file.
pub(super) fn download(spec: &ExecSpec, http: &Json, file: &Path) -> Result<(), Missing> {
    let url = http["url"].as_str().unwrap_or_default();
    let mut request = super::http::agent(None, false).get(url);
    for (name, value) in headers(spec, http) {
        request = request.header(name, value);
    }
    let answer = request.call().map_err(|error| match error {
        // A server that is not there is as good as one without the file: the file is not there.
        ureq::Error::StatusCode(404)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => Missing::Absent(format!("{url}: {error}")),
        ureq::Error::Io(_) => Missing::Absent(format!("{url}: {error}")),
        error => Missing::Failed(format!("{url}: {error}")),
    })?;
    let mut body = answer.into_body().into_reader().take(LIMITS.bytes + 1);
    let mut out = fs::File::create(file)?;
    let copied = std::io::copy(&mut body, &mut out)?;
    if copied > LIMITS.bytes {
        return Err(Missing::Failed(format!("{url}: it is too large")));
    }
    Ok(out.flush()?)
}

/// Clones a repository.
pub(super) fn git(spec: &ExecSpec, git: &Json, target: &Path) -> Result<(), Missing> {
    let repo = git["repo"].as_str().unwrap_or_default();
    let revision = git["revision"].as_str().unwrap_or_default();
    // Options and exotic transports must not come in through a repository's name.
    let plain = ["https://", "http://", "git://", "ssh://", "file://", "git@"];
    if !plain.iter().any(|p| repo.starts_with(p)) || revision.starts_with('-') {
        return Err(Missing::Failed(format!("git repository {repo:?} is refused")));
    }
    let run = |arguments: &[&str]| -> Result<(), Missing> {
        let mut command = Command::new("git");
        command.args(arguments).env("GIT_TERMINAL_PROMPT", "0");
        if let (Some(user), Some(password)) =
            (secret(spec, &git["usernameSecret"]), secret(spec, &git["passwordSecret"]))
        {
            // By environment, so that they are in no list of processes.
            let helper = "!f() { echo \"username=$KOBZA_GIT_USER\"; echo \"password=$KOBZA_GIT_PASSWORD\"; }; f";
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "credential.helper")
                .env("GIT_CONFIG_VALUE_0", helper)
                .env("KOBZA_GIT_USER", user)
                .env("KOBZA_GIT_PASSWORD", password);
        }
        let status = command.status().map_err(|e| Missing::Failed(format!("git: {e}")))?;
        if status.success() {
            Ok(())
        } else {
            Err(Missing::Failed(format!("git {}: {status}", arguments[0])))
        }
    };
    let folder = target.to_string_lossy();
    let depth = git["depth"].as_u64().map(|d| format!("--depth={d}"));
    let mut clone = vec!["clone", "--quiet"];
    clone.extend(depth.as_deref());
    if let Some(branch) = git["branch"].as_str() {
        clone.extend(["--branch", branch]);
    }
    clone.extend(["--", repo, &folder]);
    run(&clone)?;
    if !revision.is_empty() {
        run(&["-C", &folder, "checkout", "--quiet", revision])?;
    }
    Ok(())
}
