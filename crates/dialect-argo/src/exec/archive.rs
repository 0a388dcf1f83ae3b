//! Packing and safe unpacking.
//!
//! Every archive is hostile: entries that lead out of the folder, links, devices, and more bytes or
//! entries than allowed end the unpacking with an error.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// What unpacking may make.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub entries: u64,
}

/// Real data is packed to a hundredth at best; a bomb to a thousandth.
const RATIO_MAX: u64 = 200;
/// What any archive may hold, however small it is.
const BYTES_ALWAYS: u64 = 1 << 30;

impl Limits {
    /// For an archive of so many bytes.
    #[must_use]
    pub fn of(self, packed: u64) -> Self {
        let bytes = packed.saturating_mul(RATIO_MAX).max(BYTES_ALWAYS);
        Self { bytes: self.bytes.min(bytes), ..self }
    }
}

/// Larger data belong in an object store that is mounted or read by the task itself.
pub const LIMITS: Limits = Limits { bytes: 64 << 30, entries: 1_000_000 };

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the archive cannot be read: {0}")]
    Zip(String),
    #[error("the archive has an entry that leads out of its folder: {0:?}")]
    Escapes(String),
    #[error("the archive has an entry that is neither file nor folder nor a link inside: {0:?}")]
    Kind(String),
    #[error("the archive has more than {0} entries")]
    TooMany(u64),
    #[error("the archive has more than {0} bytes")]
    TooLarge(u64),
}

/// What a file is by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packed {
    TarGz,
    Tar,
    Zip,
    Plain,
}

pub(super) fn detect(path: &Path) -> io::Result<Packed> {
    let mut head = [0u8; 512];
    let mut file = fs::File::open(path)?;
    let length = read_up_to(&mut file, &mut head)?;
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut inner = [0u8; 512];
        let mut decoder = GzDecoder::new(fs::File::open(path)?);
        let length = read_up_to(&mut decoder, &mut inner).unwrap_or(0);
        return Ok(if is_tar(&inner[..length]) { Packed::TarGz } else { Packed::Plain });
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(Packed::Zip);
    }
    Ok(if is_tar(&head[..length]) { Packed::Tar } else { Packed::Plain })
}

fn read_up_to(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < into.len() {
        match from.read(&mut into[at..])? {
            0 => break,
            read => at += read,
        }
    }
    Ok(at)
}

/// A tar header has the word `ustar`, or a checksum that fits (older forms); an empty archive is
/// zeros.
fn is_tar(head: &[u8]) -> bool {
    head.len() == 512 && (&head[257..262] == b"ustar" || head.iter().all(|b| *b == 0))
}

/// Packs a file or folder as tar and gzip.
pub(super) fn pack_tar(source: &Path, target: &Path, level: Option<u32>) -> io::Result<()> {
    let level = level.map_or(Compression::default(), |l| Compression::new(l.min(9)));
    let file = io::BufWriter::new(fs::File::create(target)?);
    let mut builder = tar::Builder::new(GzEncoder::new(file, level));
    builder.follow_symlinks(false);
    let name = PathBuf::from(source.file_name().unwrap_or_else(|| "data".as_ref()));
    if source.is_dir() {
        builder.append_dir_all(&name, source)?;
    } else {
        builder.append_path_with_name(source, &name)?;
    }
    builder.into_inner()?.finish()?.flush()
}

/// Packs a file or folder as zip.
pub(super) fn pack_zip(source: &Path, target: &Path) -> Result<(), ArchiveError> {
    let zip_error = |e: zip::result::ZipError| ArchiveError::Zip(e.to_string());
    let mut writer = zip::ZipWriter::new(io::BufWriter::new(fs::File::create(target)?));
    let options = zip::write::SimpleFileOptions::default().large_file(true);
    let base = source.parent().unwrap_or(source);
    let mut open = vec![source.to_path_buf()];
    while let Some(path) = open.pop() {
        let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            writer.add_directory(name, options).map_err(zip_error)?;
            let mut below: Vec<PathBuf> =
                fs::read_dir(&path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
            below.sort();
            open.extend(below.into_iter().rev());
        } else if meta.is_file() {
            writer.start_file(name, options).map_err(zip_error)?;
            io::copy(&mut fs::File::open(&path)?, &mut writer)?;
        }
    }
    writer.finish().map_err(zip_error)?.flush()?;
    Ok(())
}

/// Unpacks a file of whatever kind it is into an empty folder. A plain file is left as it is.
#[doc(hidden)]
pub fn unpack_any(archive: &Path, folder: &Path, limits: Limits) -> Result<(), ArchiveError> {
    unpack(detect(archive)?, archive, folder, limits)
}

/// Unpacks into an empty folder.
pub(super) fn unpack(
    packed: Packed,
    archive: &Path,
    folder: &Path,
    limits: Limits,
) -> Result<(), ArchiveError> {
    let file = io::BufReader::new(fs::File::open(archive)?);
    match packed {
        Packed::TarGz => unpack_tar(GzDecoder::new(file), folder, limits),
        Packed::Tar => unpack_tar(file, folder, limits),
        Packed::Zip => unpack_zip(file, folder, limits),
        Packed::Plain => Ok(()),
    }
}

/// The place of an entry below the folder.
fn place(folder: &Path, name: &Path) -> Result<PathBuf, ArchiveError> {
    let mut out = folder.to_path_buf();
    for part in name.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            _ => return Err(ArchiveError::Escapes(name.to_string_lossy().into_owned())),
        }
    }
    // A link that was unpacked before must not carry this entry elsewhere.
    let mut at = folder.to_path_buf();
    for part in out.strip_prefix(folder).unwrap_or(&out).components() {
        if fs::symlink_metadata(&at).is_ok_and(|m| m.file_type().is_symlink()) {
            return Err(ArchiveError::Escapes(name.to_string_lossy().into_owned()));
        }
        at.push(part);
    }
    Ok(out)
}

fn create(path: &Path, mode: u32) -> io::Result<fs::File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_dir() => fs::remove_file(path)?,
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(mode & 0o777 | 0o600).open(path)
}

/// Copies at most what is left of the bytes.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    left: &mut u64,
    limit: u64,
) -> Result<(), ArchiveError> {
    let copied = io::copy(&mut from.take(*left + 1), to)?;
    if copied > *left {
        return Err(ArchiveError::TooLarge(limit));
    }
    *left -= copied;
    Ok(())
}

fn unpack_tar(from: impl Read, folder: &Path, limits: Limits) -> Result<(), ArchiveError> {
    let mut archive = tar::Archive::new(from);
    let (mut left, mut entries) = (limits.bytes, 0);
    let mut links = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries += 1;
        if entries > limits.entries {
            return Err(ArchiveError::TooMany(limits.entries));
        }
        let name = entry.path()?.into_owned();
        let target = place(folder, &name)?;
        let mode = entry.header().mode().unwrap_or(0o644);
        match entry.header().entry_type() {
            tar::EntryType::Directory => fs::create_dir_all(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mut file = create(&target, mode)?;
                copy(&mut entry, &mut file, &mut left, limits.bytes)?;
                let _kept = fs::set_permissions(&target, fs::Permissions::from_mode(mode & 0o777));
            }
            tar::EntryType::Symlink => {
                let to = entry.link_name()?.map(|l| l.into_owned()).unwrap_or_default();
                if !stays_inside(&name, &to) {
                    return Err(ArchiveError::Escapes(name.to_string_lossy().into_owned()));
                }
                links.push((target, to));
            }
            tar::EntryType::XGlobalHeader => {}
            _ => return Err(ArchiveError::Kind(name.to_string_lossy().into_owned())),
        }
    }
    // Links come last, so that no entry is written through one.
    for (target, to) in links {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if fs::symlink_metadata(&target).is_err() {
            std::os::unix::fs::symlink(to, target)?;
        }
    }
    Ok(())
}

/// Unpacks the files of an image: links lead where they want, since only what runs in a view of its
/// own follows them; devices are left out.
pub(super) fn unpack_image(from: impl Read, folder: &Path) -> Result<(), ArchiveError> {
    let inside = |name: &Path| -> Result<PathBuf, ArchiveError> {
        super::view::within(folder, name)
            .map_err(|_| ArchiveError::Escapes(name.to_string_lossy().into_owned()))
    };
    let mut archive = tar::Archive::new(from);
    let (mut left, mut entries) = (LIMITS.bytes, 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries += 1;
        if entries > LIMITS.entries {
            return Err(ArchiveError::TooMany(LIMITS.entries));
        }
        let name = Path::new("/").join(entry.path()?);
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned).unwrap_or_default();
        let parent = inside(name.parent().unwrap_or(Path::new("/")))?;
        let Some(file) = name.file_name() else { continue };
        fs::create_dir_all(&parent)?;
        let target = parent.join(file);
        let mode = entry.header().mode().unwrap_or(0o755) & 0o777;
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                fs::create_dir_all(&target)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o700))?;
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let mut file = create(&target, mode)?;
                copy(&mut entry, &mut file, &mut left, LIMITS.bytes)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
            }
            tar::EntryType::Symlink => {
                let _replaced = fs::remove_file(&target);
                std::os::unix::fs::symlink(link, target)?;
            }
            tar::EntryType::Link => {
                let _replaced = fs::remove_file(&target);
                fs::hard_link(inside(&Path::new("/").join(link))?, target)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a relative link at this place ends inside of the folder.
fn stays_inside(at: &Path, to: &Path) -> bool {
    let mut depth =
        at.components().filter(|c| matches!(c, Component::Normal(_))).count() as i64 - 1;
    for part in to.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => {
                depth -= 1;
                if depth < 0 {
                    return false;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn unpack_zip(
    from: impl Read + io::Seek,
    folder: &Path,
    limits: Limits,
) -> Result<(), ArchiveError> {
    let mut archive = zip::ZipArchive::new(from).map_err(|e| ArchiveError::Zip(e.to_string()))?;
    if archive.len() as u64 > limits.entries {
        return Err(ArchiveError::TooMany(limits.entries));
    }
    let mut left = limits.bytes;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| ArchiveError::Zip(e.to_string()))?;
        let name = entry.name().to_owned();
        if name.contains('\\') || name.contains('\0') {
            return Err(ArchiveError::Escapes(name));
        }
        let target = place(folder, Path::new(&name))?;
        if entry.is_dir() {
            fs::create_dir_all(&target)?;
        } else if entry.is_symlink() {
            return Err(ArchiveError::Kind(name));
        } else {
            let mode = entry.unix_mode().unwrap_or(0o644);
            let mut file = create(&target, mode)?;
            copy(&mut entry, &mut file, &mut left, limits.bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_with(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Written raw: the builder itself would refuse such names.
            let bytes = &mut header.as_old_mut().name;
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            if *kind == tar::EntryType::Symlink || *kind == tar::EntryType::Link {
                header.set_size(0);
                let link = &mut header.as_old_mut().linkname;
                link[..content.len()].copy_from_slice(content.as_bytes());
                header.set_cksum();
                builder.append(&header, io::empty()).expect("an entry");
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).expect("an entry");
            }
        }
        builder.into_inner().expect("an archive")
    }

    fn try_tar(
        entries: &[(&str, tar::EntryType, &str)],
        limits: Limits,
    ) -> Result<PathBuf, ArchiveError> {
        let folder = tempfile::tempdir().expect("a folder").keep();
        unpack_tar(tar_with(entries).as_slice(), &folder, limits).map(|()| folder)
    }

    #[test]
    fn hostile_archives_are_refused() {
        use tar::EntryType::{Char, Link, Regular, Symlink};
        for entries in [
            &[("../evil", Regular, "x")][..],
            &[("a/../../evil", Regular, "x")],
            &[("/etc/evil", Regular, "x")],
            &[("link", Symlink, "/etc")],
            &[("link", Symlink, "../..")],
            &[("hard", Link, "/etc/passwd")],
            &[("device", Char, "")],
        ] {
            assert!(try_tar(entries, LIMITS).is_err(), "{entries:?}");
        }
        let small = Limits { bytes: 10, entries: 2 };
        assert!(matches!(
            try_tar(&[("a", Regular, "0123456789a")], small),
            Err(ArchiveError::TooLarge(10))
        ));
        let many = [("a", Regular, ""), ("b", Regular, ""), ("c", Regular, "")];
        assert!(matches!(try_tar(&many, small), Err(ArchiveError::TooMany(2))));
        let through = [("dir", Symlink, "other"), ("dir/x", Regular, "y")];
        let folder = try_tar(&through, LIMITS).expect("links come last");
        assert!(!folder.join("other/x").exists());
    }

    #[test]
    fn images_keep_their_links_and_stay_inside() {
        use tar::EntryType::{Char, Link, Regular, Symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let tar = tar_with(&[
            ("usr/bin/sh", Regular, "shell"),
            ("bin", Symlink, "/usr/bin"),
            ("bin/bash", Link, "usr/bin/sh"),
            ("../../evil", Regular, "x"),
            ("dev/null", Char, ""),
        ]);
        unpack_image(tar.as_slice(), folder.path()).expect("unpacked");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
        assert_eq!(read("usr/bin/bash"), "shell");
        assert_eq!(read("evil"), "x", "above the root is the root");
        assert!(!folder.path().join("dev/null").exists());
    }

    #[test]
    fn packs_and_unpacks() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = folder.path().join("data");
        fs::create_dir_all(source.join("sub")).expect("a folder");
        fs::write(source.join("sub/a.txt"), "hello").expect("a file");
        let tgz = folder.path().join("data.tgz");
        pack_tar(&source, &tgz, None).expect("packed");
        assert_eq!(detect(&tgz).expect("detected"), Packed::TarGz);
        let zip = folder.path().join("data.zip");
        pack_zip(&source, &zip).expect("packed");
        assert_eq!(detect(&zip).expect("detected"), Packed::Zip);
        for (packed, archive) in [(Packed::TarGz, tgz), (Packed::Zip, zip)] {
            let out = tempfile::tempdir().expect("a folder");
            unpack(packed, &archive, out.path(), LIMITS).expect("unpacked");
            let text = fs::read_to_string(out.path().join("data/sub/a.txt")).expect("a file");
            assert_eq!(text, "hello");
        }
        let plain = folder.path().join("plain");
        fs::write(&plain, "PK is only a word").expect("a file");
        assert_eq!(detect(&plain).expect("detected"), Packed::Plain);
    }
}
