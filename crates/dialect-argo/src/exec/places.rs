//! Where artifacts lie: the server's own folder, or a bucket of the S3 protocol.

use std::fs;
use std::path::{Path, PathBuf};

use kobza_blobs::{Bucket, S3Options};
use kobza_model::Json;

use super::archive::LIMITS;
use super::view::within;
use crate::repository::has_place;

/// Keys that a listing may have.
pub(super) const KEYS_MAX: usize = 1_000_000;

/// What locations are looked up in: the folder, the workflow's repository, and its secrets.
pub(crate) struct Places<'a> {
    pub(crate) folder: &'a Path,
    /// Null: the folder.
    pub(crate) repository: &'a Json,
    /// The value that a `{name, key}` refers to.
    pub(crate) secret: &'a dyn Fn(&Json) -> Option<String>,
}

/// One of them.
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

impl Places<'_> {
    /// The place of an S3 location: its own, or for a key alone that of the repository.
    pub(crate) fn of(&self, s3: &Json) -> Result<Place, String> {
        let s3 = if has_place(s3) { s3 } else { self.repository };
        if !s3.is_object() {
            return Ok(Place::Folder(self.folder.to_path_buf()));
        }
        let text = |field: &str| s3[field].as_str().unwrap_or_default().to_owned();
        let secret = |field: &str| -> Result<String, String> {
            let reference = &s3[field];
            if !reference.is_object() {
                return Ok(String::new());
            }
            (self.secret)(reference).ok_or_else(|| {
                format!(
                    "s3.{field}: secret {:?} with key {:?} not found",
                    reference["name"].as_str().unwrap_or_default(),
                    reference["key"].as_str().unwrap_or_default(),
                )
            })
        };
        if s3["caSecret"].is_object() {
            return Err("s3.caSecret is not supported here: add the authority to the host's".into());
        }
        if s3["roleARN"].as_str().is_some_and(|r| !r.is_empty()) {
            return Err("s3.roleARN is not supported here: give keys, or useSDKCreds".into());
        }
        let options = S3Options {
            bucket: text("bucket"),
            endpoint: text("endpoint"),
            region: text("region"),
            insecure: s3["insecure"].as_bool().unwrap_or(false),
            access_key: secret("accessKeySecret")?.trim().to_owned(),
            secret_key: secret("secretKeySecret")?.trim().to_owned(),
            session_token: secret("sessionTokenSecret")?.trim().to_owned(),
            ambient: s3["useSDKCreds"].as_bool().unwrap_or(false),
            encrypt: s3["encryptionOptions"]["enableEncryption"].as_bool().unwrap_or(false),
            kms_key: s3["encryptionOptions"]["kmsKeyId"].as_str().unwrap_or_default().to_owned(),
        };
        Bucket::s3(&options).map(|bucket| Place::Bucket(Box::new(bucket))).map_err(text_of)
    }
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Place {
    /// Copies what a key means into a scratch folder: a file, or a folder of what lies below it.
    /// None: there is nothing.
    pub(crate) fn fetch(&self, key: &str, scratch: &Path) -> Result<Option<PathBuf>, String> {
        let found = self.look(key, scratch)?;
        let target = scratch.join("stored");
        match found {
            Some(found) if found != target => {
                copy_tree(&found, &target).map_err(text_of)?;
                Ok(Some(target))
            }
            found => Ok(found),
        }
    }

    /// Where what a key means can be read: where it lies, or in a scratch folder.
    pub(crate) fn look(&self, key: &str, scratch: &Path) -> Result<Option<PathBuf>, String> {
        let target = scratch.join("stored");
        match self {
            Self::Folder(root) => {
                let stored = within(root, &Path::new("/").join(key))?;
                return Ok(fs::symlink_metadata(&stored).is_ok().then_some(stored));
            }
            Self::Bucket(bucket) => {
                if !key.ends_with('/') && download(bucket, key, &target)? {
                    return Ok(Some(target));
                }
                let keys = bucket.list(key, KEYS_MAX).map_err(text_of)?;
                if keys.is_empty() {
                    return Ok(None);
                }
                if keys.len() > KEYS_MAX {
                    return Err(format!("there are more than {KEYS_MAX} objects below {key}"));
                }
                let base = key.trim_matches('/');
                for key in keys {
                    let below = key.strip_prefix(base).unwrap_or(&key).trim_start_matches('/');
                    let file = within(&target, &Path::new("/").join(below))?;
                    if let Some(parent) = file.parent() {
                        fs::create_dir_all(parent).map_err(text_of)?;
                    }
                    download(bucket, &key, &file)?;
                }
            }
        }
        Ok(Some(target))
    }

    /// Keeps a file, or a folder as it is, under a key.
    pub(crate) fn keep(&self, key: &str, source: &Path) -> Result<(), String> {
        match self {
            Self::Folder(root) => {
                let stored = within(root, &Path::new("/").join(key))?;
                if let Some(parent) = stored.parent() {
                    fs::create_dir_all(parent).map_err(text_of)?;
                }
                // Whole or not at all: readers never see half of it.
                let name = stored.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let part = stored.with_file_name(format!(".{name}.part"));
                remove_any(&part).map_err(text_of)?;
                copy_tree(source, &part).map_err(text_of)?;
                remove_any(&stored).map_err(text_of)?;
                fs::rename(&part, &stored).map_err(text_of)
            }
            Self::Bucket(bucket) => {
                let mut open = vec![(source.to_path_buf(), key.trim_matches('/').to_owned())];
                while let Some((path, key)) = open.pop() {
                    let kind = fs::symlink_metadata(&path).map_err(text_of)?;
                    if kind.is_dir() {
                        for entry in fs::read_dir(&path).map_err(text_of)? {
                            let entry = entry.map_err(text_of)?;
                            let name = entry.file_name().to_string_lossy().into_owned();
                            open.push((entry.path(), format!("{key}/{name}")));
                        }
                    } else if kind.is_file() {
                        let mut file = fs::File::open(&path).map_err(text_of)?;
                        bucket.put(&key, &mut file).map_err(text_of)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The keys below a folder, in order.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let mut keys = match self {
            Self::Bucket(bucket) => bucket.list(folder, KEYS_MAX).map_err(text_of)?,
            Self::Folder(root) => {
                let mut keys = Vec::new();
                let mut open = vec![within(root, &Path::new("/").join(folder))?];
                while let Some(folder) = open.pop() {
                    let Ok(entries) = fs::read_dir(&folder) else { continue };
                    for entry in entries.flatten() {
                        if entry.file_type().map_err(text_of)?.is_dir() {
                            open.push(entry.path());
                        } else if let Ok(key) = entry.path().strip_prefix(root) {
                            keys.push(key.to_string_lossy().into_owned());
                        }
                    }
                    if keys.len() > KEYS_MAX {
                        break;
                    }
                }
                keys
            }
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("there are more than {KEYS_MAX} keys"));
        }
        keys.sort();
        Ok(keys)
    }

    /// Removes what a key means, if it is there.
    pub(crate) fn remove(&self, key: &str) -> Result<(), String> {
        match self {
            Self::Folder(root) => {
                let stored = within(root, &Path::new("/").join(key))?;
                if stored == *root {
                    return Err(format!("{key:?} is no key"));
                }
                remove_any(&stored).map_err(text_of)
            }
            Self::Bucket(bucket) => {
                bucket.remove(key).map_err(text_of)?;
                for below in bucket.list(key, KEYS_MAX).map_err(text_of)? {
                    bucket.remove(&below).map_err(text_of)?;
                }
                Ok(())
            }
        }
    }
}

fn download(bucket: &Bucket, key: &str, target: &Path) -> Result<bool, String> {
    let mut file = fs::File::create(target).map_err(text_of)?;
    let found = bucket.get(key, &mut file, LIMITS.bytes).map_err(text_of)?;
    if !found {
        fs::remove_file(target).map_err(text_of)?;
    }
    Ok(found)
}

fn remove_any(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves, or copies across file systems. What was at the target goes.
pub(super) fn move_to(source: &Path, target: &Path) -> std::io::Result<()> {
    remove_any(target)?;
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
    if !meta.is_file() {
        // A pipe would be read for ever.
        let what = format!("{} is neither a file nor a folder", source.display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
    }
    fs::copy(source, target).map(|_| ())
}

/// Bytes of a file, or of all files of a folder.
pub(super) fn size(path: &Path) -> std::io::Result<u64> {
    let (mut sum, mut open) = (0u64, vec![path.to_path_buf()]);
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            sum = sum.saturating_add(meta.len());
        }
    }
    Ok(sum)
}
