//! Artifacts in and out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_model::Json;
use serde_json::{Map, json};

use super::archive::{self, LIMITS, Packed};
use super::places::{Place, Places, move_to, size};
use super::view::{View, within};
use super::{EXIT_RUNNER, Report, web};
use crate::launch::ExecSpec;
use crate::repository::has_place;

/// Why an artifact could not be had.
pub(super) enum Missing {
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
        return web::git(spec, &artifact["git"], &target);
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

/// The file or folder of an artifact, in the task's scratch folder.
fn fetch(spec: &ExecSpec, artifact: &Json, scratch: &Path) -> Result<PathBuf, Missing> {
    let file = scratch.join("fetched");
    if let Some(text) = artifact["raw"]["data"].as_str() {
        fs::write(&file, text)?;
        return Ok(file);
    }
    if artifact["http"].is_object() {
        web::download(spec, &artifact["http"], &file)?;
        return Ok(file);
    }
    if let Some(key) = artifact["s3"]["key"].as_str() {
        // A store that nobody has the keys of is as good as one without the file.
        let place = places(spec, &secrets(spec), &artifact["s3"]).map_err(Missing::Absent)?;
        let found = place.fetch(key, scratch).map_err(Missing::Failed)?;
        return found.ok_or_else(|| Missing::Absent(format!("there is no {key}")));
    }
    let kind = crate::arguments::LOCATIONS.iter().find(|k| artifact.get(**k).is_some());
    Err(Missing::Absent(match kind {
        Some(kind) => format!("artifacts of kind {kind} are not supported here"),
        None => "it has no location".to_owned(),
    }))
}

type Secrets<'a> = Box<dyn Fn(&Json) -> Option<String> + 'a>;

fn secrets(spec: &ExecSpec) -> Secrets<'_> {
    Box::new(|reference| secret(spec, reference))
}

pub(super) fn secret(spec: &ExecSpec, reference: &Json) -> Option<String> {
    let key = format!("{}/{}", reference["name"].as_str()?, reference["key"].as_str()?);
    spec.credentials.get(&key)?.as_str().map(str::to_owned)
}

fn places(spec: &ExecSpec, secret: &Secrets<'_>, s3: &Json) -> Result<Place, String> {
    Places { folder: &spec.store, repository: &spec.repository, secret }.of(s3)
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
    let fail = |e: &dyn std::fmt::Display| format!("outputs.artifacts.{name}: {e}");
    if size(&source).map_err(|e| fail(&e))? > LIMITS.bytes {
        return Err(fail(&format!("it is larger than {} GiB", LIMITS.bytes >> 30)));
    }
    let mut value = json!({ "name": name, "path": path });
    let none = declared["archive"]["none"].is_object();
    let zip = declared["archive"]["zip"].is_object();
    let packed = if none {
        source.clone()
    } else {
        let suffix = if zip { "zip" } else { "tgz" };
        let packed = view.scratch("out")?.join(format!("{name}.{suffix}"));
        if zip {
            archive::pack_zip(&source, &packed).map_err(|e| fail(&e))?;
        } else {
            let level = declared["archive"]["tar"]["compressionLevel"].as_u64();
            archive::pack_tar(&source, &packed, level.and_then(|l| u32::try_from(l).ok()))
                .map_err(|e| fail(&e))?;
        }
        packed
    };
    let located = |kind: &&&str| declared[**kind].is_object();
    match crate::arguments::LOCATIONS.iter().find(located) {
        None | Some(&"s3") => {
            let s3 = &declared["s3"];
            let file = packed.file_name().map_or_else(|| name.into(), |f| f.to_string_lossy());
            let key = match s3["key"].as_str().filter(|k| !k.is_empty()) {
                Some(key) => key.to_owned(),
                None => format!("{}/{file}", spec.key),
            };
            let place = places(spec, &secrets(spec), s3).map_err(|e| fail(&e))?;
            place.keep(&key, &packed).map_err(|e| fail(&e))?;
            // A key alone means the repository, wherever it is.
            value["s3"] = if has_place(s3) { s3.clone() } else { json!({}) };
            value["s3"]["key"] = Json::from(key);
        }
        Some(&"http") => {
            web::upload(spec, &declared["http"], &packed).map_err(|e| fail(&e))?;
            value["http"] = declared["http"].clone();
        }
        Some(kind) => return Err(fail(&format!("artifacts of kind {kind} cannot be kept here"))),
    }
    for field in ["archive", "globalName", "artifactGC"] {
        if let Some(there) = declared.get(field) {
            value[field] = there.clone();
        }
    }
    Ok(Some((name.to_owned(), value)))
}

/// Keeps the log of a container as the artifact that Argo calls so.
pub(super) fn save_log(spec: &ExecSpec, container: &str, log: &Path) -> Result<Json, String> {
    let key = format!("{}/{container}.log", spec.key);
    let fail = |e: String| format!("the log of {container} cannot be kept: {e}");
    places(spec, &secrets(spec), &Json::Null)
        .and_then(|place| place.keep(&key, log))
        .map_err(fail)?;
    Ok(json!({ "name": format!("{container}-logs"), "s3": { "key": key } }))
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
    let keys = places(spec, &secrets(spec), &paths["s3"])?.list(prefix)?;
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
