//! Artifacts by content: a local folder of files named by the SHA-256 of what they hold.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::remote::{REMOTE_FILE, RemoteError, RemoteStore};

/// The SHA-256 of an artifact's bytes; 64 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest of 64 lower-case hex digits")]
pub struct ParseDigestError(String);

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let bad = || ParseDigestError(text.chars().take(80).collect());
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// Why an artifact could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("artifact is larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("artifact {0} does not exist")]
    Missing(Digest),
    #[error("artifact {0} is damaged: its content has another digest")]
    Damaged(Digest),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// What a task is still writing is younger than this.
const LEFTOVER_AGE: Duration = Duration::from_secs(7 * 86_400);

/// Files `<root>/<two digits>/<digest>`. Equal content is stored once. A file appears whole and
/// synced to disk, or not at all. With a store elsewhere (see [`RemoteStore`]) what is missing here is
/// fetched from there.
#[derive(Debug)]
pub struct ArtifactStore {
    root: PathBuf,
    serial: AtomicU64,
    /// Whether it is the server's, which cleans up after itself.
    opened: bool,
}

impl ArtifactStore {
    /// Opens a store, creating its folder, and removes what an interrupted writer left.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        let store = Self { opened: true, ..Self::at(root) };
        let incoming = store.incoming();
        fs::create_dir_all(&incoming).map_err(failed("create", &incoming))?;
        store.remove_old(&store.incoming_of_tasks())?;
        for entry in fs::read_dir(&incoming).map_err(failed("read", &incoming))? {
            let path = entry.map_err(failed("read", &incoming))?.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(store)
    }

    /// A store that others have opened too: nothing is removed.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), serial: AtomicU64::new(0), opened: false }
    }

    /// Removes what tasks that were killed have left. Those that still write are younger.
    fn remove_old(&self, folder: &Path) -> Result<(), ArtifactError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let age = entry.metadata().ok().and_then(|about| about.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age > LEFTOVER_AGE) {
                let path = entry.path();
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Stores what `source` gives, at most `limit` bytes. Answers its digest and length.
    pub fn put(&self, source: &mut dyn Read, limit: u64) -> Result<(Digest, u64), ArtifactError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let incoming = if self.opened { self.incoming() } else { self.incoming_of_tasks() };
        if !self.opened {
            fs::create_dir_all(&incoming).map_err(failed("create", &incoming))?;
        }
        let temporary = incoming.join(format!("{}-{serial}", std::process::id()));
        let result = self.put_through(&temporary, source, limit);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn put_through(
        &self,
        temporary: &Path,
        source: &mut dyn Read,
        limit: u64,
    ) -> Result<(Digest, u64), ArtifactError> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(temporary)
            .map_err(failed("create", temporary))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut length = 0u64;
        loop {
            let got = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read what goes to", temporary)(error)),
            };
            length += got as u64;
            if length > limit {
                return Err(ArtifactError::TooLarge { limit });
            }
            hash.update(&buffer[..got]);
            file.write_all(&buffer[..got]).map_err(failed("write", temporary))?;
        }
        let digest = Digest(hash.finalize().into());
        let path = self.path(digest);
        if path.exists() {
            fs::remove_file(temporary).map_err(failed("remove", temporary))?;
            // It is wanted anew: retention goes by its age.
            File::open(&path)
                .and_then(|file| file.set_modified(now()))
                .map_err(failed("touch", &path))?;
            return Ok((digest, length));
        }
        self.settle(&file, temporary, digest)?;
        Ok((digest, length))
    }

    /// Gives a finished file its place.
    fn settle(&self, file: &File, temporary: &Path, digest: Digest) -> Result<(), ArtifactError> {
        file.sync_all().map_err(failed("sync", temporary))?;
        let (folder, path) = (self.folder(digest), self.path(digest));
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
            sync_folder(&self.root)?;
        }
        fs::rename(temporary, &path).map_err(failed("rename to", &path))?;
        sync_folder(&folder)
    }

    /// Brings an artifact of this folder to the store elsewhere, if there is one.
    pub fn upload(&self, digest: Digest) -> Result<(), ArtifactError> {
        if let Some(remote) = RemoteStore::of_folder(&self.root)? {
            remote.put(digest, &self.path(digest))?;
        }
        Ok(())
    }

    /// Fetches what is missing here from the store elsewhere, if there is one.
    pub fn fetch(&self, digest: Digest) -> Result<(), ArtifactError> {
        if self.contains(digest) {
            return Ok(());
        }
        let remote = RemoteStore::of_folder(&self.root)?.ok_or(ArtifactError::Missing(digest))?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let incoming = self.incoming_of_tasks();
        fs::create_dir_all(&incoming).map_err(failed("create", &incoming))?;
        let temporary = incoming.join(format!("{}-{serial}", std::process::id()));
        let result = self.fetch_through(&temporary, &remote, digest);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn fetch_through(
        &self,
        temporary: &Path,
        remote: &RemoteStore,
        digest: Digest,
    ) -> Result<(), ArtifactError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(temporary)
            .map_err(failed("create", temporary))?;
        if !remote.get(digest, &mut file)? {
            return Err(ArtifactError::Missing(digest));
        }
        file.rewind().map_err(failed("read", temporary))?;
        if digest_of(&mut file, temporary)? != digest {
            return Err(ArtifactError::Damaged(digest));
        }
        self.settle(&file, temporary, digest)
    }

    /// Opens an artifact for reading. Answers its length too.
    pub fn get(&self, digest: Digest) -> Result<(File, u64), ArtifactError> {
        match self.get_here(digest) {
            Err(ArtifactError::Missing(_)) if self.root.join(REMOTE_FILE).exists() => {
                self.fetch(digest)?;
                self.get_here(digest)
            }
            found => found,
        }
    }

    fn get_here(&self, digest: Digest) -> Result<(File, u64), ArtifactError> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => {
                let length = file.metadata().map_err(failed("read", &path))?.len();
                Ok((file, length))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ArtifactError::Missing(digest))
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Reads the whole artifact and compares its digest.
    pub fn verify(&self, digest: Digest) -> Result<(), ArtifactError> {
        let (mut file, _) = self.get(digest)?;
        if digest_of(&mut file, &self.path(digest))? == digest {
            Ok(())
        } else {
            Err(ArtifactError::Damaged(digest))
        }
    }

    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }

    /// Removes an artifact; whether there was one.
    pub fn remove(&self, digest: Digest) -> Result<bool, ArtifactError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }

    /// Removes an artifact here and from the store elsewhere, if there is one.
    pub fn discard(&self, digest: Digest) -> Result<(), ArtifactError> {
        // There first: what is still here is found again when that fails.
        if let Some(remote) = RemoteStore::of_folder(&self.root)? {
            remote.remove(digest)?;
        }
        self.remove(digest).map(drop)
    }

    /// Artifacts that were stored before, here and in the store elsewhere: what retention begins
    /// with. One that was stored again since is not among them.
    pub fn older_than(&self, before: SystemTime) -> Result<Vec<Digest>, ArtifactError> {
        let mut newest: BTreeMap<Digest, SystemTime> = BTreeMap::new();
        let here = self.list()?.into_iter().map(|(digest, _, stored)| (digest, stored));
        let elsewhere = match RemoteStore::of_folder(&self.root)? {
            Some(remote) => remote.list()?,
            None => Vec::new(),
        };
        for (digest, stored) in here.chain(elsewhere) {
            let known = newest.entry(digest).or_insert(stored);
            *known = stored.max(*known);
        }
        Ok(newest.into_iter().filter(|(_, at)| *at < before).map(|(digest, _)| digest).collect())
    }

    /// Every artifact with its length and when it was stored, in order of digest: what retention
    /// goes by. Files that are not artifacts are passed over.
    pub fn list(&self) -> Result<Vec<(Digest, u64, SystemTime)>, ArtifactError> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.root).map_err(failed("read", &self.root))? {
            let folder = folder.map_err(failed("read", &self.root))?.path();
            if folder.file_name().is_none_or(|name| name.len() != 2) {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
                let entry = entry.map_err(failed("read", &folder))?;
                let Some(digest) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                    continue;
                };
                let about = entry.metadata().map_err(failed("read", &entry.path()))?;
                let stored = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((digest, about.len(), stored));
            }
        }
        found.sort_unstable_by_key(|(digest, ..)| *digest);
        Ok(found)
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Where tasks write, in processes of their own.
    fn incoming_of_tasks(&self) -> PathBuf {
        self.root.join("incoming-tasks")
    }

    fn folder(&self, digest: Digest) -> PathBuf {
        self.root.join(format!("{:02x}", digest.0[0]))
    }

    /// Only a parsed digest gets here, so no name from outside becomes a path.
    fn path(&self, digest: Digest) -> PathBuf {
        self.folder(digest).join(digest.to_string())
    }
}

/// The age of files is by the clock that the file system goes by.
#[allow(clippy::disallowed_methods, reason = "what is kept is marked as used now")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn digest_of(file: &mut File, path: &Path) -> Result<Digest, ArtifactError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let got = file.read(&mut buffer).map_err(failed("read", path))?;
        if got == 0 {
            return Ok(Digest(hash.finalize().into()));
        }
        hash.update(&buffer[..got]);
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError + use<> {
    let path = path.to_path_buf();
    move |source| ArtifactError::Io { what, path, source }
}

/// Makes a rename in a folder survive a loss of power.
fn sync_folder(folder: &Path) -> Result<(), ArtifactError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_get_dedupe_remove() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path().join("a")).unwrap();
        let (digest, length) = store.put(&mut &b"hello"[..], 5).unwrap();
        assert_eq!(length, 5);
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(store.put(&mut &b"hello"[..], 5).unwrap().0, digest);
        let mut text = String::new();
        store.get(digest).unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(store.list().unwrap().len(), 1);
        store.verify(digest).unwrap();
        fs::write(store.path(digest), "hullo").unwrap();
        assert!(matches!(store.verify(digest), Err(ArtifactError::Damaged(_))));
        assert!(store.remove(digest).unwrap());
        assert!(!store.remove(digest).unwrap());
        assert!(matches!(store.get(digest), Err(ArtifactError::Missing(_))));
    }

    #[test]
    fn too_large_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let result = store.put(&mut &b"hello!"[..], 5);
        assert!(matches!(result, Err(ArtifactError::TooLarge { limit: 5 })));
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(store.incoming()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_are_removed_at_opening() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        fs::write(store.incoming().join("1-1"), "half").unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(store.incoming()).unwrap().count(), 0);
    }

    #[test]
    fn only_digests_are_names() {
        let long = "a".repeat(65);
        for bad in ["", "../../etc/passwd", "ABCD", &long, &"A".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
