//! Artifacts in and out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_model::Json;
use serde_json::{Map, json};

use super::archive::{self, LIMITS, Packed};
use super::view::{View, within};
use super::{EXIT_RUNNER, Report, stored};
use crate::launch::ExecSpec;

/// Why an artifact could not be had.
enum Missing {
    /// It is not there: an optional one is then left out.
    Absent(String),
    Failed(String),
}

impl From<std::io::Error> for Missing {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::NotFound {
            Self::Absent(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// Puts an input artifact where the task wants it.
pub(super) fn load(spec: &ExecSpec, view: &View, declared: &Json) -> Result<(), String> {
    let name = declared["name"].as_str().unwrap_or_default();
    let optional = declared["optional"].as_bool().unwrap_or(false);
    let artifact = spec.artifacts.get(name).filter(|a| !a.is_null());
    let Some(path) = declared["path"].as_str().filter(|p| !p.is_empty()) else { return Ok(()) };
    let Some(artifact) = artifact else {
        return if optional { Ok(()) } else { Err(format!("artifact {name} was not supplied")) };
    };
    let optional = optional || artifact["optional"].as_bool().unwrap_or(false);
    match place(spec, view, declared, artifact, path) {
        Ok(()) => Ok(()),
        Err(Missing::Absent(why)) if optional => {
            super::complain(&format!("optional artifact {name} is left out: {why}"));
            Ok(())
        }
        Err(Missing::Absent(why) | Missing::Failed(why)) => {
            Err(format!("failed to load artifact {name}: {why}"))
        }
    }
}

fn place(
    spec: &ExecSpec,
    view: &View,
    declared: &Json,
    artifact: &Json,
    path: &str,
) -> Result<(), Missing> {
    let target = view.prepare_parent(path).map_err(Missing::Failed)?;
    let scratch = view
        .scratch(declared["name"].as_str().unwrap_or("artifact").replace('/', "_").as_str())
        .map_err(Missing::Failed)?;
    if artifact["git"].is_object() {
        return git(spec, &artifact["git"], &target);
    }
    let fetched = fetch(spec, artifact, &scratch)?;
    let sub_path = artifact["subPath"].as_str().or(declared["subPath"].as_str()).unwrap_or("");
    let keep = artifact["archive"]["none"].is_object() || declared["archive"]["none"].is_object();
    let packed = if keep || fetched.is_dir() || artifact["raw"].is_object() {
        Packed::Plain
    } else {
        archive::detect(&fetched)?
    };
    let mut source = fetched;
    if packed != Packed::Plain {
        let folder = scratch.join("unpacked");
        fs::create_dir_all(&folder)?;
        archive::unpack(packed, &source, &folder, LIMITS.of(fs::metadata(&source)?.len()))
            .map_err(|e| Missing::Failed(e.to_string()))?;
        // An archive of one thing is that thing.
        let mut entries = fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
        source = match entries.len() {
            1 => entries.remove(0).path(),
            _ => folder,
        };
    }
    if !sub_path.is_empty() {
        let real = within(&source, &Path::new("/").join(sub_path)).map_err(Missing::Failed)?;
        if !real.exists() {
            return Err(Missing::Absent(format!("it has no {sub_path}")));
        }
        source = real;
    }
    move_to(&source, &target)?;
    let mode = declared["mode"].as_u64().or(artifact["mode"].as_u64());
    if let Some(mode) = mode.and_then(|m| u32::try_from(m).ok()) {
        let recurse = declared["recurseMode"].as_bool().unwrap_or(false);
        set_mode(&target, mode, recurse)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32, recurse: bool) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))?;
    if recurse && path.is_dir() {
        for entry in fs::read_dir(path)? {
            set_mode(&entry?.path(), mode, true)?;
        }
    }
    Ok(())
}

/// Moves, or copies across file systems. What was at the target goes.
fn move_to(source: &Path, target: &Path) -> std::io::Result<()> {
    if let Ok(meta) = fs::symlink_metadata(target) {
        if meta.is_dir() {
            fs::remove_dir_all(target)?;
        } else {
            fs::remove_file(target)?;
        }
    }
    if fs::rename(source, target).is_ok() {
        return Ok(());
    }
    copy_tree(source, target)
}

fn copy_tree(source: &Path, target: &Path) -> std::io::Result<()> {
    let meta = fs::symlink_metadata(source)?;
    if meta.file_type().is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(source)?, target);
    }
    if meta.is_dir() {
        fs::create_dir_all(target)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_tree(&entry.path(), &target.join(entry.file_name()))?;
        }
        return fs::set_permissions(target, meta.permissions());
    }
    fs::copy(source, target).map(|_| ())
}

/// The file or folder of an artifact, in the task's scratch folder.
fn fetch(spec: &ExecSpec, artifact: &Json, scratch: &Path) -> Result<PathBuf, Missing> {
    let file = scratch.join("fetched");
    if let Some(text) = artifact["raw"]["data"].as_str() {
        fs::write(&file, text)?;
        return Ok(file);
    }
    if artifact["http"].is_object() {
        download(spec, &artifact["http"], &file)?;
        return Ok(file);
    }
    let s3 = &artifact["s3"];
    if let Some(key) = s3["key"].as_str() {
        if s3["endpoint"].as_str().is_some_and(|e| !e.is_empty()) {
            let what = "S3 servers other than the default repository are not reached from here";
            return Err(Missing::Absent(what.to_owned()));
        }
        let stored = within(&spec.store, &Path::new("/").join(key)).map_err(Missing::Failed)?;
        let kept = scratch.join("stored");
        copy_tree(&stored, &kept)?;
        return Ok(kept);
    }
    let kind = crate::arguments::LOCATIONS.iter().find(|k| artifact.get(**k).is_some());
    Err(Missing::Absent(match kind {
        Some(kind) => format!("artifacts of kind {kind} are not supported here"),
        None => "it has no location".to_owned(),
    }))
}

fn secret(spec: &ExecSpec, reference: &Json) -> Option<String> {
    let key = format!("{}/{}", reference["name"].as_str()?, reference["key"].as_str()?);
    spec.credentials.get(&key)?.as_str().map(str::to_owned)
}

fn download(spec: &ExecSpec, http: &Json, file: &Path) -> Result<(), Missing> {
    let url = http["url"].as_str().unwrap_or_default();
    let mut request = super::http::agent(None, false).get(url);
    for header in http["headers"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (header["name"].as_str(), header["value"].as_str()) {
            request = request.header(name, value);
        }
    }
    let basic = &http["auth"]["basicAuth"];
    if let (Some(user), Some(password)) =
        (secret(spec, &basic["usernameSecret"]), secret(spec, &basic["passwordSecret"]))
    {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        request = request.header("Authorization", format!("Basic {text}"));
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

fn git(spec: &ExecSpec, git: &Json, target: &Path) -> Result<(), Missing> {
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

/// Keeps an output artifact in the store; its name and reference.
pub(super) fn save(
    spec: &ExecSpec,
    view: &View,
    declared: &Json,
) -> Result<Option<(String, Json)>, String> {
    let Some(name) = declared["name"].as_str() else { return Ok(None) };
    if name.contains(['/', '\0']) || name.contains("..") {
        return Err(format!("outputs.artifacts.{name:?} is not a valid name"));
    }
    let optional = declared["optional"].as_bool().unwrap_or(false);
    let Some(path) = declared["path"].as_str() else { return Ok(None) };
    let source = view.resolve(path)?;
    if !source.exists() {
        if optional {
            return Ok(None);
        }
        return Err(format!("outputs.artifacts.{name}: {path} does not exist"));
    }
    let chosen = declared["s3"]["key"].as_str().filter(|k| !k.is_empty());
    let none = declared["archive"]["none"].is_object();
    let zip = declared["archive"]["zip"].is_object();
    let key = match chosen {
        Some(key) => key.to_owned(),
        None => {
            let file = source.file_name().map_or_else(|| name.into(), |f| f.to_string_lossy());
            let suffix = if none {
                file.into_owned()
            } else if zip {
                format!("{name}.zip")
            } else {
                format!("{name}.tgz")
            };
            format!("{}/{suffix}", spec.key)
        }
    };
    let stored_at = within(&spec.store, &Path::new("/").join(&key))?;
    let fail = |e: &dyn std::fmt::Display| format!("outputs.artifacts.{name}: {e}");
    if let Some(parent) = stored_at.parent() {
        fs::create_dir_all(parent).map_err(|e| fail(&e))?;
    }
    if none {
        if let Ok(meta) = fs::symlink_metadata(&stored_at) {
            let removed = if meta.is_dir() {
                fs::remove_dir_all(&stored_at)
            } else {
                fs::remove_file(&stored_at)
            };
            removed.map_err(|e| fail(&e))?;
        }
        copy_tree(&source, &stored_at).map_err(|e| fail(&e))?;
    } else {
        // Whole or not at all: readers never see half an archive.
        let part = stored_at.with_extension("part");
        if zip {
            archive::pack_zip(&source, &part).map_err(|e| fail(&e))?;
        } else {
            let level = declared["archive"]["tar"]["compressionLevel"].as_u64();
            archive::pack_tar(&source, &part, level.and_then(|l| u32::try_from(l).ok()))
                .map_err(|e| fail(&e))?;
        }
        fs::rename(&part, &stored_at).map_err(|e| fail(&e))?;
    }
    let mut value = json!({ "name": name, "path": path, "s3": stored(&key) });
    if let Some(archive) = declared.get("archive") {
        value["archive"] = archive.clone();
    }
    if let Some(global) = declared.get("globalName") {
        value["globalName"] = global.clone();
    }
    Ok(Some((name.to_owned(), value)))
}

/// A data template: the keys below a place of the store, transformed.
pub(super) fn data(spec: &ExecSpec) -> Report {
    match data_result(spec) {
        Ok(text) => {
            let mut outputs = Map::new();
            outputs.insert("result".to_owned(), Json::from(text));
            Report { exit_code: 0, message: None, outputs }
        }
        Err(error) => Report { exit_code: EXIT_RUNNER, message: Some(error), outputs: Map::new() },
    }
}

fn data_result(spec: &ExecSpec) -> Result<String, String> {
    let data = &spec.template["data"];
    let paths = &data["source"]["artifactPaths"];
    let prefix = paths["s3"]["key"].as_str().unwrap_or("");
    if paths["s3"]["endpoint"].as_str().is_some_and(|e| !e.is_empty()) {
        return Err("only the default repository can be listed here".to_owned());
    }
    let root = within(&spec.store, &Path::new("/").join(prefix))?;
    let mut keys = Vec::new();
    let mut open = vec![root];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let kind = entry.file_type().map_err(|e| e.to_string())?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if let Ok(key) = entry.path().strip_prefix(&spec.store) {
                keys.push(key.to_string_lossy().into_owned());
            }
        }
        if keys.len() > 1_000_000 {
            return Err("there are more than a million keys".to_owned());
        }
    }
    keys.sort();
    let mut value = Value::list(keys.into_iter().map(Value::str).collect());
    for step in data["transformation"].as_array().into_iter().flatten() {
        let text = step["expression"].as_str().unwrap_or("data");
        let mut env = Env::default();
        env.variables.insert("data".to_owned(), value);
        value = Program::parse(text)
            .and_then(|program| program.eval(&env))
            .map_err(|e| format!("data.transformation {text:?}: {e}"))?;
    }
    Ok(value.to_json_text(None))
}
