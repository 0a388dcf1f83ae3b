//! The command of a container: which program an image means, its environment, its standard output.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use kobza_model::Json;
use serde_json::{Map, json};

use super::view::View;
use crate::launch::ExecSpec;

/// What is kept of a command's standard output as its result: the end.
const RESULT_BYTES_MAX: usize = 256 * 1024;

/// What shells say of a command that cannot be started.
const EXIT_NOT_FOUND: i32 = 127;

/// How a command ended.
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) message: Option<String>,
    pub(super) result: Option<String>,
}

/// The container whose image decides the view.
pub(super) fn main_container(spec: &ExecSpec) -> &Json {
    match spec.body.as_str() {
        "script" => &spec.template["script"],
        "containerSet" => &spec.template["containerSet"]["containers"][0],
        _ => &spec.template["container"],
    }
}

/// An image's name without registry, tag and digest.
pub(super) fn image_name(container: &Json) -> String {
    let image = container["image"].as_str().unwrap_or_default();
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default().to_owned()
}

/// Volume, path, sub path, read only.
type VolumeMount = (String, String, String, bool);

/// Container name, and its mounts.
pub(super) fn volume_mounts(spec: &ExecSpec) -> Vec<(String, Vec<VolumeMount>)> {
    let mut containers: Vec<&Json> = Vec::new();
    let template = &spec.template;
    if spec.body == "containerSet" {
        // The set's own mounts are those of each member.
        containers.push(&template["containerSet"]);
        containers.extend(template["containerSet"]["containers"].as_array().into_iter().flatten());
    } else {
        containers.push(main_container(spec));
    }
    for list in ["sidecars", "initContainers"] {
        containers.extend(template[list].as_array().into_iter().flatten());
    }
    let mut seen = std::collections::BTreeSet::new();
    containers
        .into_iter()
        .map(|container| {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            let mounts = mounts
                .map(|mount| {
                    let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
                    let read_only = mount["readOnly"].as_bool().unwrap_or(false);
                    (text("name"), text("mountPath"), text("subPath"), read_only)
                })
                .filter(|mount| seen.insert((mount.0.clone(), mount.1.clone())))
                .collect();
            (container["name"].as_str().unwrap_or("main").to_owned(), mounts)
        })
        .collect()
}

/// A program on the host's path.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|p| p.join(program)).find(|p| p.is_file())
}

pub(super) fn strings(json: &Json) -> Vec<String> {
    json.as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Program and arguments. An image's own entry point is known for the built-in ones, and where a
/// container engine has told it.
fn words(container: &Json, script: Option<&str>, view: &View) -> Result<Vec<String>, String> {
    let mut words = strings(&container["command"]);
    let mut args = strings(&container["args"]);
    let image = view.image.as_ref().filter(|_| words.is_empty());
    if let Some(image) = image.filter(|i| !(i.entrypoint.is_empty() && i.command.is_empty())) {
        words.clone_from(&image.entrypoint);
        if args.is_empty() && script.is_none() {
            args.clone_from(&image.command);
        }
    } else if words.is_empty() {
        words = match image_name(container).as_str() {
            "argosay" => vec!["argosay".to_owned()],
            "python" if !args.is_empty() || script.is_some() => vec!["python".to_owned()],
            "alpine" | "busybox" | "debian" | "ubuntu" | "bash"
                if !args.is_empty() || script.is_some() =>
            {
                if script.is_some() {
                    vec!["sh".to_owned()]
                } else {
                    Vec::new()
                }
            }
            "hello-world" => vec!["echo".to_owned(), "Hello from Docker!".to_owned()],
            _ if script.is_some() => vec!["sh".to_owned()],
            image => {
                return Err(format!(
                    "the entry point of image {image:?} is not known here: give the container a \
                     command"
                ));
            }
        };
    }
    words.extend(args);
    words.extend(script.map(str::to_owned));
    if words.is_empty() {
        return Err("the container has no command".to_owned());
    }
    Ok(words)
}

fn prepare(
    spec: &ExecSpec,
    view: &View,
    container: &Json,
    script: Option<&str>,
) -> Result<Command, String> {
    let mut words = words(container, script, view)?;
    let shims = view.shim_folder();
    if !view.private && words[0] == "/argosay" {
        words[0] = format!("{shims}/argosay");
    }
    let of_image = view.image.iter().flat_map(|image| &image.environment);
    let of_image: Vec<(&str, &str)> = of_image.filter_map(|pair| pair.split_once('=')).collect();
    let own = of_image.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| (*path).to_owned());
    let own = own
        .or_else(|| std::env::var("PATH").ok())
        .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let path = format!("{shims}:{own}");
    let program = find_program(view, &words[0], &path);
    let mut command = Command::new(program.unwrap_or_else(|| words[0].clone()));
    command.args(&words[1..]).env("PATH", &path).stdin(Stdio::null());
    command.env_remove("KOBZA_OUTPUT");
    command.envs(of_image.into_iter().filter(|(name, _)| *name != "PATH"));
    for (name, value) in &spec.variables {
        command.env(name, value);
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str())
            && !name.is_empty()
            && !name.contains(['=', '\0'])
        {
            command.env(name, value.replace('\0', ""));
        }
    }
    let of_image = view.image.as_ref().map(|image| image.folder.as_str());
    let of_image = of_image.filter(|folder| !folder.is_empty());
    let folder = container["workingDir"].as_str().or(of_image).unwrap_or("/").to_owned();
    confine(&mut command, view, &folder)?;
    Ok(command)
}

/// The program's absolute path inside the view: `execvp` would search the outer root.
fn find_program(view: &View, program: &str, path: &str) -> Option<String> {
    if program.contains('/') {
        return None;
    }
    path.split(':').filter(|folder| folder.starts_with('/')).find_map(|folder| {
        let seen = format!("{folder}/{program}");
        let real = view.resolve(&seen).ok()?;
        real.is_file().then_some(seen)
    })
}

#[expect(unsafe_code, reason = "the closure only makes system calls on prepared strings")]
fn confine(command: &mut Command, view: &View, folder: &str) -> Result<(), String> {
    let text = |path: &Path| {
        std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| "a path has a zero byte".to_owned())
    };
    let root = view.confinement().map(text).transpose()?;
    let private = root.is_some();
    let folder = if private { folder } else { "" };
    let folder = if folder.is_empty() { None } else { Some(text(Path::new(folder))?) };
    // SAFETY: between fork and exec only async-signal-safe system calls are made (prctl, chroot,
    // chdir); the C strings were allocated before the fork and are only read.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            if let Some(root) = &root {
                nix::unistd::chroot(root.as_c_str())?;
                nix::unistd::chdir(c"/")?;
            }
            if let Some(folder) = &folder {
                nix::unistd::chdir(folder.as_c_str())?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// Starts a sidecar.
pub(super) fn start(
    spec: &ExecSpec,
    view: &View,
    container: &Json,
    script: Option<&str>,
) -> Result<Child, String> {
    let name = container["name"].as_str().unwrap_or("sidecar");
    prepare(spec, view, container, script)?.spawn().map_err(|e| format!("{name}: {e}"))
}

/// Ends sidecars: politely, then by force.
pub(super) fn stop(sidecars: Vec<Child>) {
    use nix::sys::signal::{Signal, kill};
    for child in &sidecars {
        if let Ok(pid) = i32::try_from(child.id()) {
            let _gone = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    for mut child in sidecars {
        while matches!(child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > deadline {
                let _gone = child.kill();
                let _status = child.wait();
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What is kept of a container's output beside the task's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    Nothing,
    /// The end of its standard output.
    Result,
    /// All of it, as a file; and the end of its standard output.
    Log,
}

impl Keep {
    pub(super) fn of(spec: &ExecSpec) -> Self {
        match (spec.archive_logs, spec.result) {
            (true, _) => Self::Log,
            (false, true) => Self::Result,
            (false, false) => Self::Nothing,
        }
    }
}

/// Runs a container to its end.
pub(super) fn run(
    spec: &ExecSpec,
    view: &View,
    container: &Json,
    script: Option<&str>,
    keep: Keep,
) -> Result<Ended, String> {
    let mut command = prepare(spec, view, container, script)?;
    let name = container["name"].as_str().filter(|n| !n.is_empty()).unwrap_or("main");
    let log = match keep {
        Keep::Log => Some(Mutex::new(view.log(name)?)),
        _ => None,
    };
    if keep != Keep::Nothing {
        command.stdout(Stdio::piped());
    }
    if log.is_some() {
        command.stderr(Stdio::piped());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let what = command.get_program().to_string_lossy().into_owned();
            return Ok(Ended {
                code: super::EXIT_RUNNER,
                message: Some(format!("{name}: cannot run {what:?}: {error}")),
                result: None,
            });
        }
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let result = std::thread::scope(|threads| {
        let log = log.as_ref();
        let errors = err.map(|err| threads.spawn(move || tee(err, std::io::stderr(), log)));
        let result = out.map(|out| tee(out, std::io::stdout(), log)).transpose();
        if let Some(errors) = errors {
            // What it could not read is missing in the log, and nowhere else.
            let _read = errors.join();
        }
        result
    });
    let result = result.map_err(|e| format!("{name}: {e}"))?.filter(|_| spec.result);
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(0),
    };
    Ok(Ended {
        code,
        message: (code != 0).then(|| format!("{name}: Error (exit code {code})")),
        result: result.map(super::trim_newline),
    })
}

/// Passes a command's output on to the log, and keeps its end.
fn tee(
    mut from: impl Read,
    mut out: impl Write,
    log: Option<&Mutex<File>>,
) -> std::io::Result<String> {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // A log that cannot be written must not stop the command.
        let _lost = out.write_all(&buffer[..read]);
        if let Some(Ok(mut log)) = log.map(Mutex::lock) {
            let _lost = log.write_all(&buffer[..read]);
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * RESULT_BYTES_MAX {
            kept.drain(..kept.len() - RESULT_BYTES_MAX);
        }
    }
    let _lost = out.flush();
    if kept.len() > RESULT_BYTES_MAX {
        kept.drain(..kept.len() - RESULT_BYTES_MAX);
    }
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// Runs the containers of a set, each when those it depends on have succeeded.
pub(super) fn run_set(
    spec: &ExecSpec,
    view: &View,
    outputs: &mut Map<String, Json>,
) -> Result<Ended, String> {
    let set = &spec.template["containerSet"];
    let containers: Vec<&Json> = set["containers"].as_array().into_iter().flatten().collect();
    let retries: u32 = match set["retryStrategy"]["retries"].as_str() {
        Some(text) => text.parse().map_err(|_| "containerSet.retryStrategy.retries".to_owned())?,
        None => 0,
    };
    let mut codes: BTreeMap<String, i32> = BTreeMap::new();
    let mut results = None;
    let mut message = None;
    while codes.len() < containers.len() {
        let name_of = |c: &Json| c["name"].as_str().unwrap_or("main").to_owned();
        let ready: Vec<&&Json> = containers
            .iter()
            .filter(|c| {
                !codes.contains_key(&name_of(c))
                    && strings(&c["dependencies"]).iter().all(|d| codes.contains_key(d))
            })
            .collect();
        if ready.is_empty() {
            return Err("the containers of the set depend on each other in a circle".to_owned());
        }
        let ended: Vec<(String, Result<Ended, String>)> = std::thread::scope(|threads| {
            let running: Vec<_> = ready
                .iter()
                .map(|container| {
                    let blocked = strings(&container["dependencies"]).iter().any(|d| codes[d] != 0);
                    let name = name_of(container);
                    threads.spawn(move || {
                        if blocked {
                            let message = Some(format!("{name}: a container before it failed"));
                            return (name, Ok(Ended { code: 64, message, result: None }));
                        }
                        let keep = match Keep::of(spec) {
                            Keep::Result if name != "main" => Keep::Nothing,
                            keep => keep,
                        };
                        let mut ended = run(spec, view, container, None, keep);
                        for _ in 0..retries {
                            if !matches!(&ended, Ok(e) if e.code != 0) {
                                break;
                            }
                            ended = run(spec, view, container, None, keep);
                        }
                        (name, ended)
                    })
                })
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        for (name, ended) in ended {
            let mut ended = ended?;
            if ended.code == super::EXIT_RUNNER {
                // A member that cannot start has failed; the runner itself has not.
                ended.code = EXIT_NOT_FOUND;
            }
            if ended.code != 0 && message.is_none() {
                message = ended.message;
            }
            if name == "main" {
                results = ended.result;
            }
            codes.insert(name, ended.code);
        }
    }
    let worst = codes.values().copied().find(|code| *code != 0).unwrap_or(0);
    let each: Map<String, Json> =
        codes.into_iter().map(|(name, code)| (name, json!({ "exitCode": code }))).collect();
    outputs.insert("containers".to_owned(), Json::Object(each));
    Ok(Ended { code: worst, message, result: results })
}
