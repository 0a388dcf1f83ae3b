//! What a task sees of the file system.
//!
//! Where mounting is allowed: an overlay over the host's (or the image's) root, so that absolute
//! paths such as `/tmp/out` are private to the task. Elsewhere the host's own file system, with the
//! paths as they are.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::engine::{self, Unpacked};
use crate::launch::{ExecSpec, Image, image_of};

/// Largest text that becomes an output parameter.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Symbolic links followed before a path is refused.
const LINKS_MAX: u32 = 40;

pub(super) struct View {
    /// The root as seen from outside; `/` where nothing could be mounted.
    root: PathBuf,
    pub(super) private: bool,
    folder: PathBuf,
    /// What a container engine says of the image.
    pub(super) image: Option<Unpacked>,
}

impl View {
    pub(super) fn new(spec: &ExecSpec, folder: &Path) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(io)?;
        let folder = folder.canonicalize().map_err(io)?;
        let private = spec.isolate && namespace().is_ok();
        let mut view = Self { root: PathBuf::from("/"), private: false, folder, image: None };
        let container = super::command::main_container(spec);
        let name = container["image"].as_str().unwrap_or_default();
        let lower = match image_of(&spec.images, name) {
            Image::Host | Image::Nothing => PathBuf::from("/"),
            Image::Root(root) => root,
            Image::Engine(socket) => {
                let pull = container["imagePullPolicy"].as_str();
                let image = engine::unpacked(&socket, &spec.unpacked, name, pull)?;
                view.image.insert(image).root.clone()
            }
        };
        let own_files = lower != Path::new("/");
        if own_files && !private {
            return Err(format!(
                "image {name:?} has files of its own, which needs the right to mount: this server \
                 lacks it"
            ));
        }
        if private {
            match view.overlay(&lower) {
                Ok(root) => {
                    view.root = root;
                    view.private = true;
                }
                Err(error) if own_files => {
                    return Err(format!("no view of the files of image {name:?}: {error}"));
                }
                Err(error) => super::complain(&format!(
                    "no private view of the file system ({error}); paths are the host's"
                )),
            }
        }
        view.shims(spec).map_err(|e| format!("the commands of the image: {e}"))?;
        view.volumes(spec)?;
        Ok(view)
    }

    /// Mounts the overlay; answers its root.
    fn overlay(&self, lower: &Path) -> Result<PathBuf, String> {
        let root = self.folder.join("root");
        let fail = |e: nix::Error| e.desc().to_owned();
        let attempt = |base: &Path| -> Result<(), String> {
            let (upper, work) = (base.join("upper"), base.join("work"));
            for made in [&upper, &work, &root] {
                fs::create_dir_all(made).map_err(|e| e.to_string())?;
            }
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                upper.display(),
                work.display()
            );
            mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
                .map_err(fail)
        };
        if attempt(&self.folder).is_err() {
            // The folder's own file system cannot be an upper layer (it may be an overlay itself).
            let memory = self.folder.join("memory");
            fs::create_dir_all(&memory).map_err(|e| e.to_string())?;
            mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .map_err(fail)?;
            attempt(&memory)?;
        }
        for kernel in ["proc", "dev", "sys"] {
            let (from, to) = (Path::new("/").join(kernel), root.join(kernel));
            if fs::create_dir_all(&to).is_ok() && from.exists() {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(&from), &to, None::<&str>, flags, None::<&str>).map_err(fail)?;
            }
        }
        Ok(root)
    }

    /// The folder that the command is confined to, if it is.
    pub(super) fn confinement(&self) -> Option<&Path> {
        self.private.then_some(self.root.as_path())
    }

    /// A folder of the task's own that is in no view.
    pub(super) fn scratch(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join("scratch").join(name);
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(folder)
    }

    /// A file for the log of a container.
    pub(super) fn log(&self, container: &str) -> Result<fs::File, String> {
        if container.contains(['/', '\0']) || container.starts_with('.') {
            return Err(format!("container name {container:?} is invalid"));
        }
        let path = self.scratch("logs")?.join(container);
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The logs that were written, by container.
    pub(super) fn logs(&self) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir(self.folder.join("scratch/logs"));
        let mut logs: Vec<(String, PathBuf)> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
            .collect();
        logs.sort();
        logs
    }

    /// Where a path of the task is, from outside. Symbolic links are followed as the task would
    /// follow them, so none leads out of the view.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, String> {
        if !path.starts_with('/') {
            return Err(format!("path {path:?} must be absolute"));
        }
        within(&self.root, Path::new(path)).map_err(|e| format!("{path}: {e}"))
    }

    pub(super) fn prepare_parent(&self, path: &str) -> Result<PathBuf, String> {
        let real = self.resolve(path)?;
        if let Some(parent) = real.parent()
            && !parent.exists()
        {
            fs::create_dir_all(parent).map_err(|e| format!("{path}: {e}"))?;
            let _open = fs::set_permissions(parent, fs::Permissions::from_mode(0o777));
        }
        Ok(real)
    }

    pub(super) fn read_text(&self, path: &str) -> Result<String, String> {
        let real = self.resolve(path)?;
        // Opening a pipe would wait for a writer.
        if !fs::metadata(&real).map_err(|e| e.to_string())?.is_file() {
            return Err("it is not a file".to_owned());
        }
        let file = fs::File::open(&real).map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() as u64 > TEXT_BYTES_MAX {
            return Err(format!("it is larger than {} MiB", TEXT_BYTES_MAX >> 20));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a script's source; answers its path as the task sees it.
    pub(super) fn stage_script(&self, source: &str) -> Result<String, String> {
        let (real, seen) = if self.private {
            let seen = "/argo/staging/script".to_owned();
            (self.prepare_parent(&seen)?, seen)
        } else {
            let real = self.folder.join("script");
            let seen = real.to_string_lossy().into_owned();
            (real, seen)
        };
        fs::write(&real, source).map_err(|e| format!("the script: {e}"))?;
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755))
            .map_err(|e| format!("the script: {e}"))?;
        Ok(seen)
    }

    /// The folder with stand-ins for commands that images bring, as the task sees it.
    pub(super) fn shim_folder(&self) -> String {
        if self.private {
            "/argo/bin".to_owned()
        } else {
            self.folder.join("bin").to_string_lossy().into_owned()
        }
    }

    fn shims(&self, spec: &ExecSpec) -> std::io::Result<()> {
        let bin = if self.private { self.root.join("argo/bin") } else { self.folder.join("bin") };
        fs::create_dir_all(&bin)?;
        let put = |path: PathBuf, text: &str| -> std::io::Result<()> {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        let container = super::command::main_container(spec);
        match super::command::image_name(container).as_str() {
            "argosay" => {
                put(bin.join("argosay"), ARGOSAY)?;
                put(bin.join("cowsay"), COWSAY)?;
                if self.private && !self.root.join("argosay").exists() {
                    put(self.root.join("argosay"), ARGOSAY)?;
                }
            }
            "whalesay" => put(bin.join("cowsay"), COWSAY)?,
            _ => {}
        }
        if super::command::on_path("python").is_none()
            && super::command::on_path("python3").is_some()
        {
            put(bin.join("python"), "#!/bin/sh\nexec python3 \"$@\"\n")?;
        }
        Ok(())
    }

    fn volumes(&self, spec: &ExecSpec) -> Result<(), String> {
        for (container, mounts) in super::command::volume_mounts(spec) {
            for (name, path, sub_path, read_only) in mounts {
                let Some(mounted) = spec.mounts.iter().find(|m| m.volume == name) else { continue };
                let source = match &mounted.folder {
                    Some(folder) => folder.clone(),
                    None => self.folder.join("volumes").join(&name),
                };
                fs::create_dir_all(&source).map_err(|e| format!("volume {name}: {e}"))?;
                for (file, content) in &mounted.files {
                    let real = within(&source, &Path::new("/").join(file))
                        .map_err(|e| format!("volume {name}: {e}"))?;
                    if let Some(parent) = real.parent() {
                        fs::create_dir_all(parent).map_err(|e| format!("volume {name}: {e}"))?;
                    }
                    fs::write(&real, content).map_err(|e| format!("volume {name}: {e}"))?;
                }
                let _open = fs::set_permissions(&source, fs::Permissions::from_mode(0o777));
                let source = if sub_path.is_empty() {
                    source
                } else {
                    let real = within(&source, &Path::new("/").join(&sub_path))
                        .map_err(|e| format!("volume {name}: {e}"))?;
                    if !real.exists() {
                        fs::create_dir_all(&real).map_err(|e| format!("volume {name}: {e}"))?;
                    }
                    real
                };
                self.bind(&source, &path, read_only)
                    .map_err(|e| format!("volume {name} of {container} at {path}: {e}"))?;
            }
        }
        Ok(())
    }

    fn bind(&self, source: &Path, path: &str, read_only: bool) -> Result<(), String> {
        let target = self.resolve(path)?;
        if source.is_file() {
            self.prepare_parent(path)?;
            if !target.exists() {
                fs::write(&target, "").map_err(|e| e.to_string())?;
            }
        } else {
            fs::create_dir_all(&target).map_err(|e| e.to_string())?;
        }
        if !self.private {
            return Err("volumes need the right to mount, which this server lacks".to_owned());
        }
        let none = None::<&str>;
        mount(Some(source), &target, none, MsFlags::MS_BIND, none)
            .map_err(|e| e.desc().to_owned())?;
        if read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &target, none, flags, none).map_err(|e| e.desc().to_owned())?;
        }
        Ok(())
    }
}

/// A mount namespace for this thread, whose mounts the host does not see.
fn namespace() -> Result<(), nix::Error> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
}

/// Joins a path to a root as `chroot` would: `..` stops at the root, links are looked up in it.
pub(super) fn within(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let mut pending: Vec<std::ffi::OsString> = parts(path);
    pending.reverse();
    let mut below: Vec<std::ffi::OsString> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            below.pop();
            continue;
        }
        let here: PathBuf = root.join(below.iter().collect::<PathBuf>()).join(&part);
        match fs::symlink_metadata(&here) {
            Ok(meta) if meta.file_type().is_symlink() => {
                links += 1;
                if links > LINKS_MAX {
                    return Err("too many symbolic links".to_owned());
                }
                let target = fs::read_link(&here).map_err(|e| e.to_string())?;
                if target.is_absolute() {
                    below.clear();
                }
                pending.extend(parts(&target).into_iter().rev());
            }
            _ => below.push(part),
        }
    }
    Ok(root.join(below.iter().collect::<PathBuf>()))
}

fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// A stand-in for the small test image of the same name: says, copies, waits, fails.
const ARGOSAY: &str = r#"#!/bin/sh
verb="$1"
[ $# -gt 0 ] && shift
case "$verb" in
  "") echo "hello argo" ;;
  echo)
    text="hello argo"
    [ $# -gt 0 ] && text="$1"
    if [ $# -gt 1 ]; then
      mkdir -p "$(dirname "$2")" && printf '%s\n' "$text" > "$2"
    else
      printf '%s\n' "$text"
    fi ;;
  cat) cat "$@" ;;
  sleep) sleep "${1:-0}" ;;
  exit) exit "${1:-0}" ;;
  assert_contains) grep -qF -- "$2" "$1" || { echo "$1 does not contain $2" >&2; exit 1; } ;;
  sh) sh -c "$1" ;;
  *) echo "unknown verb $verb" >&2; exit 1 ;;
esac
"#;

const COWSAY: &str = "#!/bin/sh\nprintf '< %s >\\n' \"$*\"\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_do_not_lead_out() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("a path");
        std::os::unix::fs::symlink("/etc", root.join("abs")).expect("a link");
        std::os::unix::fs::symlink("../../../..", root.join("up")).expect("a link");
        std::os::unix::fs::symlink("loop", root.join("loop")).expect("a link");
        let at = |path: &str| within(&root, Path::new(path));
        assert_eq!(at("/a/../../b"), Ok(root.join("b")));
        assert_eq!(at("/abs/passwd"), Ok(root.join("etc/passwd")));
        assert_eq!(at("/up/x"), Ok(root.join("x")));
        assert!(at("/loop").is_err());
    }
}
