//! Starts the process of a task.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use kobza_model::{Cause, LaunchId};
use kobza_runtime::LaunchSpec;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, User, getgrouplist, pipe2};

use super::cgroup::Cgroup;
use super::host::Host;
use super::output::DEFAULT_OUTPUT_BYTES;
use crate::warm::WarmBody;
use crate::wire::{LAUNCH_VARIABLE, SHIM_VARIABLE};

/// Where programs are looked for when the task's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Name of the output file in the private folder.
const OUTPUT_FILE: &str = "kobza-output";

/// Whether the body is part of this binary, so that its exit code and last words have a meaning:
/// `@sql`, or this binary's own `exec sql`.
pub(super) fn is_builtin(host: &Host, spec: &LaunchSpec) -> bool {
    let by_path = || {
        spec.args.first().is_some_and(|arg| arg == "exec")
            && fs::canonicalize(&spec.program).is_ok_and(|program| program == host.program)
    };
    spec.program.starts_with('@') || by_path()
}

/// A started process.
#[derive(Debug)]
pub(super) struct Spawned {
    pub pid: i32,
    pub stdout: File,
    pub stderr: File,
    /// The private folder.
    pub folder: PathBuf,
    /// What `$KOBZA_OUTPUT` names.
    pub output: PathBuf,
    pub cgroup: Option<Cgroup>,
}

/// Why nothing was started.
#[derive(Debug)]
pub(super) struct Refused {
    pub cause: Cause,
    pub message: String,
}

impl Refused {
    fn code(message: impl Into<String>) -> Self {
        Self { cause: Cause::Code, message: message.into() }
    }

    pub(super) fn infrastructure(message: impl Into<String>) -> Self {
        Self { cause: Cause::Infrastructure, message: message.into() }
    }
}

/// Starts a task. Whatever was made for it is removed again if that fails.
pub(super) fn spawn(
    host: &mut Host,
    launch: LaunchId,
    spec: &LaunchSpec,
) -> Result<Spawned, Refused> {
    let owner = match &spec.user {
        Some(user) => owner(user)?,
        None => None,
    };
    let folder = private_folder(host, launch, owner.is_some())?;
    let result = spawn_in(host, launch, spec, owner.as_ref(), &folder);
    if result.is_err() {
        host.remove_folder(folder);
    }
    result
}

/// What a task needs whose process another one starts: [`Spawned`] without a process, and what goes
/// to the warm host.
pub(super) fn prepare(
    host: &mut Host,
    launch: LaunchId,
    spec: &LaunchSpec,
) -> Result<(Spawned, WarmBody), Refused> {
    let owner = match &spec.user {
        Some(user) => owner(user)?,
        None => None,
    };
    let folder = private_folder(host, launch, owner.is_some())?;
    let result = prepare_in(host, launch, spec, owner.as_ref(), &folder);
    if result.is_err() {
        host.remove_folder(folder);
    }
    result
}

fn prepare_in(
    host: &Host,
    launch: LaunchId,
    spec: &LaunchSpec,
    owner: Option<&Owner>,
    folder: &Path,
) -> Result<(Spawned, WarmBody), Refused> {
    write_files(folder, &spec.files, owner)?;
    if let Some(owner) = owner {
        chown(folder, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
            .map_err(|e| Refused::infrastructure(format!("{}: {e}", folder.display())))?;
    }
    let working = working_folder(spec, folder)?.to_path_buf();
    let output = folder.join(OUTPUT_FILE);
    let mut own = own_variables(host, launch, spec, owner, folder, &output)?;
    let text = |value: OsString| {
        value.into_string().map_err(|value| {
            Refused::code(format!(
                "a Python task cannot be given {}: it is not UTF-8",
                value.display()
            ))
        })
    };
    let environment = own
        .drain(..)
        .map(|(name, value)| Ok((text(name)?, text(value)?)))
        .collect::<Result<_, Refused>>()?;
    let pipe = || -> Result<(File, OwnedFd), Refused> {
        let failed = |e: nix::errno::Errno| Refused::infrastructure(format!("pipe: {e}"));
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        Ok((File::from(reader), writer))
    };
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    let cgroup = spec.memory_bytes.and_then(|m| host.cgroups.limited(&launch.to_string(), m));
    let mut spec = spec.clone();
    if cgroup.is_some() {
        // The group holds the tree; the worker need not limit each process.
        spec.memory_bytes = None;
    }
    spec.output_bytes.get_or_insert(DEFAULT_OUTPUT_BYTES);
    spec.user = owner.map(|owner| owner.name.clone());
    let body = WarmBody {
        spec,
        stdout: out,
        stderr: err,
        environment,
        folder: working,
        output: output.clone(),
    };
    let folder = folder.to_path_buf();
    Ok((Spawned { pid: 0, stdout, stderr, folder, output, cgroup }, body))
}

fn spawn_in(
    host: &Host,
    launch: LaunchId,
    spec: &LaunchSpec,
    owner: Option<&Owner>,
    folder: &Path,
) -> Result<Spawned, Refused> {
    write_files(folder, &spec.files, owner)?;
    let working = working_folder(spec, folder)?;
    let output = folder.join(OUTPUT_FILE);
    let environment = environment(host, launch, spec, owner, folder, &output)?;
    let (program, args) = program(host, spec, &environment, working)?;

    let mut command = Command::new(&program);
    command.args(&args).env_clear().envs(environment).current_dir(working).process_group(0);
    if !spec.program.starts_with('@') {
        command.arg0(&spec.program);
    }
    command.stdin(stdin(spec)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cgroup = spec.memory_bytes.and_then(|m| host.cgroups.limited(&launch.to_string(), m));
    restrict(&mut command, spec, owner, cgroup.as_ref())?;

    // For the moment of the start, the shim takes the mask that the task is to have: the child then
    // inherits it, and needs no code of ours between fork and exec.
    let before = spec.umask.map(|mask| umask(Mode::from_bits_truncate(mask & 0o777)));
    let spawned = command.spawn();
    if let Some(before) = before {
        umask(before);
    }
    let mut child = spawned.map_err(|error| not_started(spec, &program, &error))?;
    let pipe = |pipe: Option<OwnedFd>| -> Result<File, Refused> {
        let pipe = pipe.ok_or_else(|| Refused::infrastructure("no pipe"))?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|e| Refused::infrastructure(format!("pipe: {e}")))?;
        Ok(File::from(pipe))
    };
    Ok(Spawned {
        pid: i32::try_from(child.id()).unwrap_or(0),
        stdout: pipe(child.stdout.take().map(Into::into))?,
        stderr: pipe(child.stderr.take().map(Into::into))?,
        folder: folder.to_path_buf(),
        output,
        cgroup,
    })
}

/// Another user to run as.
struct Owner {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    home: PathBuf,
}

/// None if it is the shim's own user.
fn owner(name: &str) -> Result<Option<Owner>, Refused> {
    let found = match name.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = found
        .map_err(|e| Refused::infrastructure(format!("cannot look up user {name:?}: {e}")))?
        .ok_or_else(|| Refused::code(format!("user {name:?} does not exist on this host")))?;
    if user.uid == nix::unistd::geteuid() {
        return Ok(None);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::code(format!(
            "cannot run as user {name:?}: the server does not run as root"
        )));
    }
    let c_name = CString::new(user.name.clone()).map_err(|e| Refused::code(e.to_string()))?;
    let groups = getgrouplist(&c_name, user.gid)
        .map_err(|e| Refused::infrastructure(format!("groups of user {name:?}: {e}")))?;
    Ok(Some(Owner { name: user.name, uid: user.uid, gid: user.gid, groups, home: user.dir }))
}

/// Makes the folder. Other users cannot pass through the shim's folder, so theirs is elsewhere.
fn private_folder(host: &Host, launch: LaunchId, for_other: bool) -> Result<PathBuf, Refused> {
    let folder = if for_other {
        std::env::temp_dir().join(format!("kobza-{}-{launch}", host.shim))
    } else {
        host.work.join(launch.to_string())
    };
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|e| {
        Refused::infrastructure(format!("private folder {}: {e}", folder.display()))
    })?;
    Ok(folder)
}

fn write_files(
    folder: &Path,
    files: &[(String, String)],
    owner: Option<&Owner>,
) -> Result<(), Refused> {
    let mut made = Vec::new();
    for (name, content) in files {
        let shown: String = name.chars().take(200).collect();
        let path = Path::new(name);
        let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
        if name.is_empty() || name.ends_with('/') || name.contains('\0') || !plain {
            return Err(Refused::code(format!(
                "file {shown:?}: its path must be relative and without `..`"
            )));
        }
        let failed = |e: io::Error| {
            let cause = match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::Infrastructure,
                _ => Cause::Code,
            };
            Refused { cause, message: format!("file {shown:?}: {e}") }
        };
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
            let parent = folder.join(parent);
            if !parent.is_dir() {
                fs::DirBuilder::new().mode(0o700).create(&parent).map_err(failed)?;
                made.push(parent);
            }
        }
        let path = folder.join(path);
        let mode = if content.starts_with("#!") { 0o700 } else { 0o600 };
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(mode).open(&path).map_err(failed)?;
        file.write_all(content.as_bytes()).map_err(failed)?;
        made.push(path);
    }
    if let Some(owner) = owner {
        made.push(folder.to_path_buf());
        for path in made {
            chown(&path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                .map_err(|e| Refused::infrastructure(format!("{}: {e}", path.display())))?;
        }
    }
    Ok(())
}

fn working_folder<'a>(spec: &'a LaunchSpec, private: &'a Path) -> Result<&'a Path, Refused> {
    let Some(folder) = &spec.folder else { return Ok(private) };
    match fs::metadata(folder) {
        Ok(about) if about.is_dir() => Ok(Path::new(folder)),
        Ok(_) => Err(Refused::code(format!("working folder {folder:?} is not a folder"))),
        Err(error) => Err(Refused::code(format!("working folder {folder:?}: {error}"))),
    }
}

fn environment(
    host: &Host,
    launch: LaunchId,
    spec: &LaunchSpec,
    owner: Option<&Owner>,
    folder: &Path,
    output: &Path,
) -> Result<Vec<(OsString, OsString)>, Refused> {
    let mut entries = own_variables(host, launch, spec, owner, folder, output)?;
    if !spec.clear_env {
        // Later entries win.
        let mut all = host.environment.clone();
        all.append(&mut entries);
        return Ok(all);
    }
    Ok(entries)
}

/// What a task has on top of the shim's environment.
fn own_variables(
    host: &Host,
    launch: LaunchId,
    spec: &LaunchSpec,
    owner: Option<&Owner>,
    folder: &Path,
    output: &Path,
) -> Result<Vec<(OsString, OsString)>, Refused> {
    let mut entries: Vec<(OsString, OsString)> = Vec::new();
    let mut add = |name: &str, value: &OsStr| entries.push((name.into(), value.to_owned()));
    if let Some(owner) = owner {
        add("USER", owner.name.as_ref());
        add("LOGNAME", owner.name.as_ref());
        add("HOME", owner.home.as_os_str());
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let shown: String = name.chars().take(80).collect();
            return Err(Refused::code(format!(
                "environment variable {shown:?}: a name must not be empty nor contain `=`, and \
                 neither name nor value may contain a zero byte"
            )));
        }
        add(name, value.as_ref());
    }
    add("KOBZA_OUTPUT", output.as_os_str());
    add("KOBZA_FOLDER", folder.as_os_str());
    add(LAUNCH_VARIABLE, launch.to_string().as_ref());
    add(SHIM_VARIABLE, host.folder.as_os_str());
    Ok(entries)
}

/// The program's path and arguments. It is looked up here, in the task's own `PATH`, which also
/// gives a clear error.
fn program(
    host: &Host,
    spec: &LaunchSpec,
    environment: &[(OsString, OsString)],
    working: &Path,
) -> Result<(PathBuf, Vec<String>), Refused> {
    let name = &spec.program;
    let shown: String = name.chars().take(200).collect();
    if name.contains('\0') || spec.args.iter().any(|a| a.contains('\0')) {
        return Err(Refused::code("program and arguments must not contain a zero byte"));
    }
    if let Some(builtin) = name.strip_prefix('@') {
        let mut args = vec!["exec".to_owned(), builtin.to_owned()];
        args.extend(spec.args.iter().cloned());
        return Ok((host.program.clone(), args));
    }
    if name.is_empty() {
        return Err(Refused::code("no program given"));
    }
    if name.contains('/') {
        return Ok((name.into(), spec.args.clone()));
    }
    let path = environment.iter().rev().find(|(n, _)| n == "PATH").map(|(_, v)| v.as_os_str());
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let found =
        path.as_bytes().split(|&b| b == b':').filter(|entry| !entry.is_empty()).find_map(|entry| {
            let candidate = working.join(OsStr::from_bytes(entry)).join(name);
            let about = fs::metadata(&candidate).ok()?;
            (about.is_file() && about.permissions().mode() & 0o111 != 0).then_some(candidate)
        });
    match found {
        Some(found) => Ok((found, spec.args.clone())),
        None => Err(Refused::code(format!("program {shown:?} was not found in PATH"))),
    }
}

/// The standard input: a file in memory, so that nobody has to feed a pipe.
fn stdin(spec: &LaunchSpec) -> Result<Stdio, Refused> {
    let Some(text) = spec.stdin.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(Stdio::null());
    };
    let failed = |e: io::Error| Refused::infrastructure(format!("standard input: {e}"));
    let fd = memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(Stdio::from(file))
}

/// What must happen between fork and exec. Without any of it the start is the cheap `posix_spawn`.
fn restrict(
    command: &mut Command,
    spec: &LaunchSpec,
    owner: Option<&Owner>,
    cgroup: Option<&Cgroup>,
) -> Result<(), Refused> {
    let entrance = match cgroup {
        Some(group) => Some(
            group.entrance().map_err(|e| Refused::infrastructure(format!("control group: {e}")))?,
        ),
        None => None,
    };
    let data = spec.memory_bytes.filter(|_| entrance.is_none());
    let cpu = spec.cpu_seconds;
    let identity = owner.map(|o| {
        let groups: Vec<nix::libc::gid_t> = o.groups.iter().map(|g| g.as_raw()).collect();
        (o.uid.as_raw(), o.gid.as_raw(), groups)
    });
    if entrance.is_none() && data.is_none() && cpu.is_none() && identity.is_none() {
        return Ok(());
    }
    let before_exec = move || {
        use std::os::fd::AsRawFd;
        let check = |result: i32| {
            if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        let limit = |soft: u64, hard: u64| nix::libc::rlimit { rlim_cur: soft, rlim_max: hard };
        #[expect(unsafe_code, reason = "plain system calls of the child")]
        // SAFETY: every call is an async-signal-safe wrapper of a system call, with pointers to
        // live values of the right type; nothing allocates (an error is only a number).
        unsafe {
            if let Some(entrance) = &entrance
                && nix::libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1
            {
                return Err(io::Error::last_os_error());
            }
            if let Some(bytes) = data {
                let limit = limit(bytes, bytes);
                check(nix::libc::setrlimit(nix::libc::RLIMIT_DATA, &raw const limit))?;
            }
            if let Some(seconds) = cpu {
                // The soft limit's signal can be caught; one second later nothing helps.
                let limit = limit(seconds, seconds.saturating_add(1));
                check(nix::libc::setrlimit(nix::libc::RLIMIT_CPU, &raw const limit))?;
            }
            if let Some((uid, gid, groups)) = &identity {
                check(nix::libc::setgroups(groups.len(), groups.as_ptr()))?;
                check(nix::libc::setgid(*gid))?;
                check(nix::libc::setuid(*uid))?;
            }
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "the only way to set limits and user of a child")]
    // SAFETY: see inside: the closure only makes async-signal-safe system calls.
    unsafe {
        command.pre_exec(before_exec);
    }
    Ok(())
}

fn not_started(spec: &LaunchSpec, program: &Path, error: &io::Error) -> Refused {
    use nix::errno::Errno;
    let shown: String = spec.program.chars().take(200).collect();
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(Errno::ENOENT) if program.exists() => Refused::code(format!(
            "program {shown:?} cannot start: the interpreter that it names does not exist"
        )),
        Some(Errno::ENOENT | Errno::ENOTDIR) => {
            Refused::code(format!("program {shown:?} does not exist"))
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            Refused::code(format!("program {shown:?} may not be run (permission denied)"))
        }
        Some(Errno::ENOEXEC) => Refused::code(format!(
            "program {shown:?} is neither a binary for this host nor a script that begins with #!"
        )),
        Some(Errno::E2BIG) => Refused::code("arguments and environment are too long together"),
        Some(Errno::ENOMEM) if spec.memory_bytes.is_some() => Refused {
            cause: Cause::Limit,
            message: format!("program {shown:?} does not even start within its memory limit"),
        },
        _ => Refused::infrastructure(format!("program {shown:?} could not be started: {error}")),
    }
}
