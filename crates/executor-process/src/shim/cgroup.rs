//! Memory limits of whole trees through cgroup v2, where the shim may make groups. Elsewhere the
//! shim itself looks after it (`memory.rs`).

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// Where groups for tasks can be made: found once.
#[derive(Debug)]
pub(super) struct CgroupRoot {
    folder: Option<PathBuf>,
}

impl CgroupRoot {
    /// Looks for a writable group that hands the memory controller down. The shim's own group
    /// holds processes, and such a group can hand down controllers only if it is the root; so its
    /// parents are tried too.
    pub(super) fn find(shim: &str) -> Self {
        Self { folder: Self::search(Path::new("/sys/fs/cgroup"), shim) }
    }

    fn search(mount: &Path, shim: &str) -> Option<PathBuf> {
        if !mount.join("cgroup.controllers").exists() {
            return None;
        }
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        for parent in mount.join(own).ancestors().take_while(|p| p.starts_with(mount)) {
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
            let handed_down = fs::read_to_string(parent.join("cgroup.subtree_control"))
                .is_ok_and(|t| t.split_ascii_whitespace().any(|c| c == "memory"));
            if !handed_down {
                continue;
            }
            let folder = parent.join(format!("kobza-{shim}"));
            if fs::create_dir(&folder).is_ok() {
                if fs::write(folder.join("cgroup.subtree_control"), "+memory").is_ok() {
                    return Some(folder);
                }
                let _ = fs::remove_dir(&folder);
            }
        }
        None
    }

    /// A group with a limit. None if groups cannot be used here.
    pub(super) fn limited(&self, name: &str, memory_bytes: u64) -> Option<Cgroup> {
        let folder = self.folder.as_ref()?.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Cgroup { folder };
        fs::write(group.folder.join("memory.max"), memory_bytes.to_string()).ok()?;
        // Swap would only delay the end.
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        Some(group)
    }
}

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The group of one task; removed when dropped (it must be empty then).
#[derive(Debug)]
pub(super) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// The file to which a process writes `0` to enter.
    pub(super) fn entrance(&self) -> std::io::Result<File> {
        OpenOptions::new().write(true).open(self.folder.join("cgroup.procs"))
    }

    /// Puts a process into it.
    pub(super) fn enter(&self, pid: i32) -> std::io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// Kills everything in it at once.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
    }

    /// Whether the kernel killed something in it for want of memory.
    pub(super) fn out_of_memory(&self) -> bool {
        fs::read_to_string(self.folder.join("memory.events")).is_ok_and(|text| {
            text.lines().any(|l| l.strip_prefix("oom_kill ").is_some_and(|n| n.trim() != "0"))
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
